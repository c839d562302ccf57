//! Group nodes of ComfyUI's editor: opened, wired and filled in as the editor would.

use std::fs;

use crate::place::Place;
use serde_json::{Value, json};

/// A checkpoint on the canvas, and everything else in one group node: two texts with equal input names, a latent, a
/// sampler whose seed comes from a primitive, a decoder, a picture that nothing needs outside.
fn canvas(separator: &str) -> Value {
    let text = |text: &str| {
        json!({ "type": "CLIPTextEncode", "index": 0, "mode": 0, "title": "CLIP Text Encode",
            "inputs": [{ "name": "clip", "type": "CLIP", "link": null }],
            "outputs": [{ "name": "CONDITIONING", "type": "CONDITIONING", "links": [] }],
            "widgets_values": [text] })
    };
    let nodes = json!([
        text("old"),
        text("old too"),
        { "type": "EmptyLatentImage", "inputs": [],
          "outputs": [{ "name": "LATENT", "type": "LATENT" }], "widgets_values": [512, 512, 1] },
        { "type": "PrimitiveNode", "title": "seeds", "inputs": [],
          "outputs": [{ "name": "INT", "type": "INT", "widget": { "name": "seed" } }],
          "widgets_values": [1, "fixed"] },
        { "type": "KSampler",
          "inputs": [
            { "name": "model", "type": "MODEL", "link": 99 },
            { "name": "positive", "type": "CONDITIONING", "link": 98 },
            { "name": "negative", "type": "CONDITIONING", "link": null },
            { "name": "latent_image", "type": "LATENT", "link": null },
            { "name": "seed", "type": "INT", "link": null, "widget": { "name": "seed" } },
            { "name": "steps", "type": "INT", "link": null, "widget": { "name": "steps" } }
          ],
          "outputs": [{ "name": "LATENT", "type": "LATENT" }],
          "widgets_values": [7, "randomize", 20, 8.0, "euler", "normal", 1.0] },
        { "type": "VAEDecode",
          "inputs": [
            { "name": "samples", "type": "LATENT", "link": null },
            { "name": "vae", "type": "VAE", "link": null }
          ],
          "outputs": [{ "name": "IMAGE", "type": "IMAGE" }] }
    ]);
    let group = json!({
        "nodes": nodes,
        "links": [
            [0, 0, 4, 1, 10, "CONDITIONING"], [1, 0, 4, 2, 11, "CONDITIONING"], [2, 0, 4, 3, 12, "LATENT"],
            [3, 0, 4, 4, 13, "INT"], [4, 0, 5, 0, 14, "LATENT"], [null, 0, 4, 0, 15, "MODEL"]
        ],
        "external": [[5, 0, "IMAGE"]],
        "config": { "0": { "input": { "text": { "name": "what to draw" } } } }
    });
    json!({
        "nodes": [
            { "id": 1, "type": "CheckpointLoaderSimple", "mode": 0, "inputs": [],
              "outputs": [{ "name": "MODEL", "type": "MODEL", "links": [1] },
                          { "name": "CLIP", "type": "CLIP", "links": [2, 3] },
                          { "name": "VAE", "type": "VAE", "links": [4] }],
              "widgets_values": ["tiny-sd"] },
            { "id": 2, "type": format!("workflow{separator}drawing"), "mode": 0,
              "inputs": [
                { "name": "clip", "type": "CLIP", "link": 2 },
                { "name": "CLIP Text Encode clip", "type": "CLIP", "link": 3 },
                { "name": "model", "type": "MODEL", "link": 1 },
                { "name": "vae", "type": "VAE", "link": 4 },
                { "name": "steps", "type": "INT", "link": 6, "widget": { "name": "steps" } }
              ],
              "outputs": [{ "name": "IMAGE", "type": "IMAGE", "links": [5] }],
              "widgets_values": ["a red apple", "blurry", 64, 64, 1, 42, "increment", 4.0, "euler", "karras", 1.0] },
            { "id": 3, "type": "SaveImage", "mode": 0,
              "inputs": [{ "name": "images", "type": "IMAGE", "link": 5 }], "outputs": [],
              "widgets_values": ["group"] },
            { "id": 4, "type": "PrimitiveNode", "mode": 0, "inputs": [],
              "outputs": [{ "name": "INT", "type": "INT", "links": [6] }], "widgets_values": [2, "fixed"] }
        ],
        "links": [
            [1, 1, 0, 2, 2, "MODEL"], [2, 1, 1, 2, 0, "CLIP"], [3, 1, 1, 2, 1, "CLIP"], [4, 1, 2, 2, 3, "VAE"],
            [5, 2, 0, 3, 0, "IMAGE"], [6, 4, 0, 2, 4, "INT"]
        ],
        "extra": { "groupNodes": { "drawing": group } }
    })
}

/// What the editor would send for it.
fn api() -> Value {
    let class = |class: &str, inputs: Value| json!({ "class_type": class, "inputs": inputs });
    json!({
        "1": class("CheckpointLoaderSimple", json!({ "ckpt_name": "tiny-sd" })),
        "2:0": class("CLIPTextEncode", json!({ "text": "a red apple", "clip": ["1", 1] })),
        "2:1": class("CLIPTextEncode", json!({ "text": "blurry", "clip": ["1", 1] })),
        "2:2": class("EmptyLatentImage", json!({ "width": 64, "height": 64, "batch_size": 1 })),
        "2:4": class("KSampler", json!({
            "model": ["1", 0], "positive": ["2:0", 0], "negative": ["2:1", 0], "latent_image": ["2:2", 0],
            "seed": 42, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0 })),
        "2:5": class("VAEDecode", json!({ "samples": ["2:4", 0], "vae": ["1", 2] })),
        "3": class("SaveImage", json!({ "images": ["2:5", 0], "filename_prefix": "group" }))
    })
}

/// The graph of a file after a way through our format.
fn graph(place: &Place, name: &str) -> std::collections::BTreeSet<String> {
    place.flow(&["convert", name, "-o", "through.yaml"]).fine();
    place.flow(&["convert", "through.yaml", "-o", "through.json"]).fine();
    let text = fs::read_to_string(place.path("through.json")).unwrap();
    fs::remove_file(place.path("through.yaml")).unwrap();
    fs::remove_file(place.path("through.json")).unwrap();
    crate::nameless::graph(&text)
}

#[test]
fn a_group_node_is_the_graph_that_the_editor_sends() {
    let place = Place::new(&[("api.json", &api().to_string())]);
    let wanted = graph(&place, "api.json");
    for separator in ["/", ">"] {
        place.write("canvas.json", &canvas(separator).to_string());
        assert_eq!(graph(&place, "canvas.json"), wanted);
    }
    let said = place.flow(&["run", "canvas.json", "--json"]).fine();
    assert_eq!(said.started("2:4"), 1, "its nodes go by the group's number and their place: {}", said.out);
}

#[test]
fn a_group_in_a_group_is_opened_too_and_one_in_itself_is_refused() {
    let mut canvas = canvas(">");
    let inner = canvas["extra"]["groupNodes"]["drawing"].clone();
    let outer = json!({
        "nodes": [canvas["nodes"][1].clone()], "links": [], "external": [[0, 0, "IMAGE"]]
    });
    canvas["extra"]["groupNodes"] = json!({ "drawing": inner, "outer": outer });
    canvas["nodes"][1]["type"] = "workflow>outer".into();
    let place = Place::new(&[("canvas.json", &canvas.to_string()), ("api.json", &api().to_string())]);
    assert_eq!(graph(&place, "canvas.json"), graph(&place, "api.json"));
    canvas["extra"]["groupNodes"]["drawing"]["nodes"][0]["type"] = "workflow>drawing".into();
    place.write("circle.json", &canvas.to_string());
    let said = place.flow(&["check", "circle.json"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("nest deeper than 16 levels"), "{}", said.err);
}

#[test]
fn values_that_do_not_fit_are_refused_and_a_muted_group_is_left_out() {
    let place = Place::new(&[]);
    let mut few = canvas(">");
    few["nodes"][1]["widgets_values"].as_array_mut().unwrap().pop();
    place.write("few.json", &few.to_string());
    let said = place.flow(&["check", "few.json"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("the values of the group node `2` do not fit"), "{}", said.err);
    let mut lost = canvas(">");
    lost["extra"] = json!({});
    place.write("lost.json", &lost.to_string());
    let said = place.flow(&["check", "lost.json"]);
    assert!(said.err.contains("the group node `drawing` is not in the file"), "{}", said.err);
    let mut muted = canvas(">");
    muted["nodes"][1]["mode"] = 2.into();
    place.write("muted.json", &muted.to_string());
    let said = place.flow(&["check", "muted.json"]);
    assert!(said.err.contains("left out, needing a muted one: `3` (SaveImage)"), "{}", said.err);
}
