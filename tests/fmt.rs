//! `flow fmt` as scripts and editors see it.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

const UNEVEN: &str = "nodes:\n    a:   {type: LoadImage}   # a picture\nflow: 1\n";
const EVEN: &str = "flow: 1\nnodes:\n  a: { type: LoadImage }   # a picture\n";

/// Runs `flow fmt`; exit code, standard output, standard error.
fn fmt(folder: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.current_dir(folder).arg("fmt").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
}

#[test]
fn files_are_laid_out_in_place_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
    fs::write(&a, UNEVEN).expect("a file");
    fs::write(&b, EVEN).expect("a file");
    let (code, out, _) = fmt(folder.path(), &["--check", "a.yaml", "b.yaml"], "");
    assert_eq!((code, out.as_str()), (1, "a.yaml\n"));
    assert_eq!(fs::read_to_string(&a).expect("a text"), UNEVEN);
    let untouched = fs::metadata(&b).expect("a file").modified().expect("a time");
    let (code, out, _) = fmt(folder.path(), &["a.yaml", "b.yaml"], "");
    assert_eq!((code, out.as_str()), (0, "a.yaml\n"));
    assert_eq!(fs::read_to_string(&a).expect("a text"), EVEN);
    assert_eq!(fs::metadata(&b).expect("a file").modified().expect("a time"), untouched);
    assert_eq!(fmt(folder.path(), &["--check", "a.yaml", "b.yaml"], ""), (0, String::new(), String::new()));
}

#[test]
fn an_editor_pipes_a_text_through() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(fmt(folder.path(), &["--stdin"], UNEVEN), (0, EVEN.to_owned(), String::new()));
    assert_eq!(fmt(folder.path(), &["--stdin", "--check"], UNEVEN).0, 1);
    let (code, out, err) = fmt(folder.path(), &["--stdin"], "flow: [\n");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("error[syntax]") && err.contains("<stdin>:"), "{err}");
}

#[test]
fn a_file_that_is_no_workflow_is_refused_and_the_others_are_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = "flow: 1\nflow: 1\n";
    fs::write(folder.path().join("broken.yaml"), broken).expect("a file");
    fs::write(folder.path().join("graph.json"), r#"{"1": {"class_type": "LoadImage"}}"#).expect("a file");
    fs::write(folder.path().join("a.yaml"), UNEVEN).expect("a file");
    let (code, out, err) = fmt(folder.path(), &["broken.yaml", "graph.json", "a.yaml"], "");
    assert_eq!((code, out.as_str()), (2, "a.yaml\n"));
    assert!(err.contains("error[duplicate-key]") && err.contains("broken.yaml:2"), "{err}");
    assert!(err.contains("error[not-a-workflow]") && err.contains("flow convert"), "{err}");
    assert_eq!(fs::read_to_string(folder.path().join("broken.yaml")).expect("a text"), broken);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3, "nothing else is left behind");
}

#[test]
fn values_are_set_in_a_file_all_or_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.yaml");
    let text = "flow: 1\ninputs: { seed: 1, size: 2 }   # both\nnodes: {}\n";
    fs::write(&file, text).expect("a file");
    let set = |values: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        let output = command.current_dir(folder.path()).args(["set", "a.yaml"]).args(values).output();
        output.expect("the binary runs").status.code()
    };
    assert_eq!(set(&["seed=7", "sized=3"]), Some(2));
    assert_eq!(fs::read_to_string(&file).expect("a text"), text);
    assert_eq!(set(&["seed=7", "size=3"]), Some(0));
    // What is wrong already is no reason to refuse a change, a value that makes it worse is.
    assert_eq!(fs::read_to_string(&file).expect("a text"), text.replace("1, size: 2", "7, size: 3"));
    let wrong = "flow: 1\nnodes: { a: { type: EmptyLatentImage, width: 512, hight: 64 } }\n";
    fs::write(&file, wrong).expect("a file");
    assert_eq!(set(&["a.width=8"]), Some(2), "less than a latent may have");
    assert_eq!(fs::read_to_string(&file).expect("a text"), wrong);
    assert_eq!(set(&["a.width=256"]), Some(0));
    // A number takes the place of a reference, and what another file says is said to be there.
    let linked = "flow: 1\ninputs: { side: 64 }\nnodes: { a: { type: EmptyLatentImage, width: $side } }\n";
    fs::write(&file, linked).expect("a file");
    assert_eq!(set(&["a.width=128"]), Some(0));
    assert_eq!(fs::read_to_string(&file).expect("a text"), linked.replace("$side", "128"));
    // A text with a `$` in it stays one.
    let texts = "flow: 1\nnodes: { a: { type: CLIPTextEncode, text: $$5 } }\n";
    fs::write(&file, texts).expect("a file");
    set(&["a.text=7"]);
    assert_eq!(fs::read_to_string(&file).expect("a text"), texts.replace("$$5", "\"7\""));
    fs::write(folder.path().join("base.yaml"), linked).expect("a file");
    fs::write(&file, "flow: 1\nextends: base.yaml\n").expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    let output = command.current_dir(folder.path()).args(["set", "a.yaml", "side=8"]).output();
    let output = output.expect("the binary runs");
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("this file extends `base.yaml`: set it there"), "{told}");
}

#[test]
fn lines_end_as_they_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let windows = |text: &str| text.replace('\n', "\r\n");
    assert_eq!(fmt(folder.path(), &["--stdin"], &windows(UNEVEN)).1, windows(EVEN));
    assert_eq!(fmt(folder.path(), &["--stdin", "--check"], &windows(EVEN)).0, 0);
}
