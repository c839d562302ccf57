//! ComfyUI's API JSON: what is wrong with it is said at its place too.

mod stubs;

use flow_graph::{Files, Overrides, Workflow, check};

fn problems(text: &str) -> Vec<(String, usize, String)> {
    let (workflow, _) = Workflow::parse("api.json", text);
    let found = check(&workflow, &stubs::registry(), &Files::default(), &Overrides::default(), &[]);
    let found = found.map_or_else(|problems| problems, |plan| plan.warnings().clone());
    let line = |span: &flow_graph::diag::Span| span.line_column().0;
    found.0.iter().map(|d| (d.id.to_owned(), d.span.as_ref().map_or(0, line), d.message.clone())).collect()
}

fn assert_problems(text: &str, expected: &[(&str, usize, &str)]) {
    let found = problems(text);
    let found: Vec<_> =
        found.iter().map(|(id, line, message)| (id.as_str(), *line, message.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn mistakes_are_found_where_they_are() {
    let text = r#"{
      "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "nope"}},
      "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "hi", "clip": ["4", 7]}},
      "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "hi", "clip": ["44", 1], "junk": {"a": 3}}},
      "8": {"class_type": "KSamplerr", "inputs": {}},
      "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0]}},
      "10": {"inputs": {}},
      "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": "tall"}},
      "11": {"class_type": "VAEDecode", "inputs": {"samples": "5", "vae": 3}}
    }"#;
    assert_problems(
        text,
        &[
            ("missing-file", 2, "no file `nope` among the checkpoints"),
            ("unknown-output", 3, "`4` (CheckpointLoaderSimple) has no output number 7, it has 3"),
            ("unknown-reference", 4, "there is no node `44`"),
            ("ignored-input", 4, "CLIPTextEncode has no input `junk`; ignored"),
            ("unknown-node", 5, "unknown node type `KSamplerr`"),
            ("wrong-link", 6, "`9.images` wants IMAGE, `4.model` is MODEL"),
            ("missing-type", 7, "node `10` has no `class_type`"),
            ("value-too-small", 8, "`5.width` is 8, less than 16"),
            ("wrong-type", 8, "`5.height` wants a whole number, found `tall`, a string"),
            ("link-expected", 9, "`11.samples` wants LATENT from a node, found `5`, a string"),
            ("link-expected", 9, "`11.vae` wants VAE from a node, found `3`, a whole number"),
        ],
    );
}

#[test]
fn broken_json_says_where() {
    let found = problems("{\n  \"3\": {\"class_type\": \"KSampler\",, \"inputs\": {}}\n}");
    assert_eq!((found.len(), found[0].0.as_str(), found[0].1), (1, "syntax", 2));
    let found = problems("{\"3\": {\"class_type\": \"KSampler\"}, \"3\": {\"class_type\": \"KSampler\"}}");
    assert_eq!(found[0].0, "duplicate-key");
    // Half a file tells by its name alone what it was to be.
    let (_, half) = Workflow::parse("graph.json", "{\n  \"3\": {\n");
    assert!(half.0[0].message.starts_with("this is not JSON: EOF"), "{half:?}");
}

#[test]
fn our_format_may_be_written_as_json() {
    let text = r#"{"flow": 1, "nodes": {"lat": {"type": "EmptyLatentImage"}}, "outputs": {"lat": "lat"}}"#;
    assert_eq!(problems(text), []);
}

#[test]
fn a_deep_or_circular_graph_is_an_error_and_no_crash() {
    let deep = format!(
        "{{\"1\": {{\"class_type\": \"X\", \"inputs\": {{\"a\": {}{} }}}}}}",
        "[".repeat(100),
        "]".repeat(100)
    );
    assert_eq!(problems(&deep)[0].0, "too-deep");
    let circle = r#"{"a": {"class_type": "ImageBlur", "inputs": {"image": ["b", 0]}},
                     "b": {"class_type": "ImageBlur", "inputs": {"image": ["a", 0]}},
                     "c": {"class_type": "SaveImage", "inputs": {"images": ["b", 0]}}}"#;
    assert_problems(circle, &[("cycle", 2, "nodes feed each other in a cycle: a → b → a")]);
}

#[test]
fn a_plan_of_nothing_has_an_empty_prompt() {
    let json = flow_graph::comfy::prompt(&flow_graph::Plan::default());
    assert_eq!(json, serde_json::json!({}));
    assert!(flow_graph::schema(&stubs::registry()).get("definitions").unwrap().get("KSampler").is_some());
}
