//! The layout of workflow files: even, safe, and done once.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod stubs;

use std::{fs, path::Path};

use flow_graph::{format, set};
use proptest::prelude::*;
use serde_yaml::Value;

/// The text laid out, having asserted that it says the same and that once is enough.
fn laid_out(text: &str) -> String {
    let once = format("w.yaml", text).unwrap_or_else(|problems| panic!("{}\n{text}", problems.render(false)));
    let read = |text: &str| serde_yaml::from_str::<Value>(text).unwrap();
    assert_eq!(read(text), read(&once), "{text}\n->\n{once}");
    assert_eq!(format("w.yaml", &once).unwrap(), once, "{text}\n->\n{once}");
    assert_eq!(comments(text), comments(&once), "{text}\n->\n{once}");
    once
}

/// What stands behind `#`, sorted; also of `#` that are no comments, which stay as well.
fn comments(text: &str) -> Vec<String> {
    let mut comments: Vec<_> =
        text.lines().filter_map(|line| Some(line.split_once('#')?.1.trim_end().to_owned())).collect();
    comments.sort();
    comments
}

#[test]
fn lines_are_indented_spaced_and_ordered() {
    let text = "\
# What the file is about.

nodes:
      # The first.
      a:   {type: X,b: [ 1,2 ],  c: {}}   # kept


      b:
         type:  Y   \n
         # about text
         text: |
            two
              lines  \n
         list:
         - one
         -   two: 2
             three: 3
         long: 'a
           b'
      # the end
inputs: { x: 1 }
# the version
flow: 1
";
    insta::assert_snapshot!(laid_out(text));
}

#[test]
fn what_is_aligned_stays_aligned() {
    let text = "\
flow: 1
inputs:
  size:     { type: int,    default: 1,  about: a }   # here
  strength: { type: float,  default: 22, about: b }   # and here
  name:   { type: string,   default: c }
nodes:
  a:  { type: X }
  bc: { type: Y }
";
    let expected = text.replace("  name:   { type: string,   default", "  name: { type: string, default");
    assert_eq!(laid_out(text), expected);
}

#[test]
fn a_map_beyond_the_line_is_broken_and_one_that_fits_is_not() {
    let node = |n: usize| {
        format!("flow: 1\nnodes:\n  a: {{ type: X, b: {{ c: 1 }}, text: \"{}\" }}\n", "x".repeat(n))
    };
    assert_eq!(laid_out(&node(80)), node(80));
    let broken =
        format!("flow: 1\nnodes:\n  a:\n    type: X\n    b: {{ c: 1 }}\n    text: \"{}\"\n", "x".repeat(90));
    assert_eq!(laid_out(&node(90)), broken);
}

#[test]
fn what_is_not_understood_stays_as_written() {
    for text in [
        "flow: 1\nnodes:\n    - - a\n      - b\n    - {c: 1}\n",
        "nodes:\n    a: &x\n        type:   X\n    b: *x\nflow: 1\n",
        "? flow\n: 1\n",
        "--- # mark\nnodes: {}\nflow: 1\n",
        "a: |+\n  text\n\n\n",
        "a: >2\n    text\n\n\n\n  more\nb: 1\n",
        "\"a\" :   1\n",
        "flow: 1\nnodes: {\n   a: {type: X},  # comment\n\n\n   b: {type: Y} }\n",
        "",
        "# only a comment",
        "a: b\r\nc:   d\r\n",
    ] {
        laid_out(text);
    }
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    let problems = format("w.yaml", "flow: 1\r\nnodes: [\r\n").unwrap_err();
    assert_eq!((problems.0[0].id, problems.0[0].span.is_some()), ("syntax", true));
    let json = r#"{"1": {"class_type": "KSampler", "inputs": {}}}"#;
    assert_eq!(format("w.json", json).unwrap_err().0[0].id, "not-a-workflow");
}

#[test]
fn every_example_and_every_case_of_the_suites_is_laid_out_safely() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = 0;
    for folder in ["workflows", "tests/suite/broken", "src/graph/tests/suite"] {
        for entry in fs::read_dir(project.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            // What does not parse is refused; the parser here takes a little more than the format does, and not its largest numbers.
            if format("w.yaml", &text).is_ok() && serde_yaml::from_str::<Value>(&text).is_ok() {
                let once = laid_out(&text);
                assert!(folder != "workflows" || once == text, "{} is not laid out", path.display());
                files += 1;
            }
        }
    }
    assert!(files >= 90, "{files}");
}

/// A line of a file that may be no YAML at all.
fn line() -> impl Strategy<Value = String> {
    let content = prop_oneof![
        "[a-d]: +[a-d1-3]{1,3} {0,2}",
        "[a-d]: *",
        "[a-d]: \\{ ?[a-d]: +[1-3],? *[a-d]: [a-d]+ *\\} *",
        "[a-d]: \\[ ?[1-3] ?, *[a-d] ?\\]( +# [x-z]+)?",
        "[a-d]: [|>][-+]?",
        "- +[a-d]: [1-3]",
        "- [a-d1-3]{1,3}",
        "# [x-z]{1,5} ?",
        "[a-d]: \"[a-d ]*",
        "[a-d ]*\"",
        "",
    ];
    (0usize..7, content).prop_map(|(indent, content)| " ".repeat(indent) + &content)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_file_is_laid_out_safely_or_refused(lines in prop::collection::vec(line(), 0..9)) {
        let text = lines.join("\n");
        if format("w.yaml", &text).is_ok() {
            laid_out(&text);
        }
    }
}

const SET: &str = "\
flow: 1   # one
inputs:
  seed: 42           # the answer
  prompt: { type: string, default: \"a cup\", about: x }
models:
  base: { kind: checkpoint, file: tiny-sd }
nodes:
  s: { type: KSampler, steps: 20, latent: { type: EmptyLatentImage, width: 64 } }
  t:
    type: CLIPTextEncode
    text: |
      two
      lines
    with: { type: x }
";

#[test]
fn a_value_is_set_and_nothing_beside_it_changes() {
    let change = |name: &str, value: &str| set("w.yaml", SET, name, value, &stubs::registry()).unwrap();
    for (name, value, old, new) in [
        ("seed", "7", "seed: 42 ", "seed: 7 "),
        ("prompt", "7, a: b", "\"a cup\"", "\"7, a: b\""),
        ("models.base", "other.ckpt", "file: tiny-sd", "file: other.ckpt"),
        ("s.steps", "$steps", "steps: 20", "steps: $steps"),
        ("s.latent.width", "128", "width: 64", "width: 128"),
        ("t.type", "y", "{ type: x }", "{ type: y }"),
        ("s.cfg", "7.5", "width: 64 } }", "width: 64 }, cfg: 7.5 }"),
        ("s.latent.height", "128", "width: 64 }", "width: 64, height: 128 }"),
        ("t.clip", "base.clip", "{ type: x }\n", "{ type: x }\n    clip: base.clip\n"),
        ("t.when", "$x", "{ type: x }", "{ type: x, when: $x }"),
    ] {
        assert_eq!(change(name, value), SET.replace(old, new), "{name}");
    }
}

const TYPED: &str = "\
inputs:
  photos: [a, b]
  list: { type: list, default: a }
  name: { type: string }
  seed: { type: seed, default: random }
nodes:
  t: { type: CLIPTextEncode, text: $name, clip: $c }
  s: { type: KSampler, steps: $steps }
  u: { type: other, text: $name }
";

#[test]
fn a_value_is_written_as_what_is_declared() {
    let change = |name: &str, value: &str| set("w.yaml", TYPED, name, value, &stubs::registry()).unwrap();
    for (name, value, old, new) in [
        ("photos", "[c, 'd, e', 1]", "[a, b]", "[c, \"d, e\", 1]"),
        ("photos", "c", "[a, b]", "[c]"),
        ("list", "[c, d]", "default: a", "default: [c, d]"),
        ("list", "c/*.png", "default: a", "default: \"c/*.png\""),
        ("name", "12", "{ type: string }", "{ type: string, default: \"12\" }"),
        ("seed", "7", "default: random", "default: 7"),
        ("t.text", "123", "text: $name, clip", "text: \"123\", clip"),
        ("t.clip", "12", "clip: $c", "clip: \"12\""),
        ("s.steps", "12", "steps: $steps", "steps: 12"),
        ("s.sampler_name", "euler", "steps: $steps", "steps: $steps, sampler_name: euler"),
        ("u.text", "12", "other, text: $name", "other, text: 12"),
    ] {
        assert_eq!(change(name, value), TYPED.replace(old, new), "{name}");
    }
}

#[test]
fn an_input_that_is_not_given_yet_is_written_in_the_manner_of_the_others() {
    let change = |text: &str, name: &str| set("w.yaml", text, name, "a, b", &stubs::registry()).unwrap();
    let windows = "inputs:\r\n  x:\r\n    type: string  # why\r\n    about: y\r\n";
    assert_eq!(change(windows, "x"), windows.to_owned() + "    default: a, b\r\n");
    assert_eq!(change("nodes:\n  a:\n    type: B", "a.c"), "nodes:\n  a:\n    type: B\n    c: a, b");
    let commented = "nodes:\n  a: { type: B,  # one\n    d: 1 }  # two\n";
    assert_eq!(change(commented, "a.c"), commented.replace("d: 1", "d: 1, c: \"a, b\""));
    let nested = "nodes:\n  a:\n    type: B\n    latent:\n      type: C\n";
    assert_eq!(change(nested, "a.c"), nested.replace("type: B\n", "type: B\n    c: a, b\n"));
    let lines = "nodes:\n  a:\n    type:\n      B\n";
    assert!(set("w.yaml", lines, "a.c", "1", &stubs::registry()).is_err());
}

#[test]
fn what_cannot_be_set_is_refused() {
    for (name, message) in [
        ("sed", "`sed` is no input of this workflow"),
        ("models.bas", "there is no model alias `bas`"),
        ("u.steps", "there is no node `u`"),
        ("s.stps.x", "`stps` of `s.stps.x` is not in the file"),
        ("s.steps.x", "`x` of `s.steps.x` is not in the file"),
        ("s.latent", "`s.latent` has no plain value"),
        ("t.text", "`t.text` is not written on one line"),
    ] {
        assert_eq!(set("w.yaml", SET, name, "1", &stubs::registry()).unwrap_err().0[0].message, message);
    }
    assert_eq!(set("w.yaml", "a: [", "a", "1", &stubs::registry()).unwrap_err().0[0].id, "syntax");
}
