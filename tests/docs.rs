//! Every whole workflow in the page on the format is one that checks.

use std::{fs, path::Path, process::Command};

#[test]
fn the_workflows_of_the_format_page_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/workflow-format.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let blocks: Vec<_> = blocks.filter(|block| block.starts_with("flow: 1")).collect();
    assert!(blocks.len() >= 6, "{} workflows", blocks.len());
    let mut wrong = Vec::new();
    for block in blocks {
        // Its own folder, with the examples where the page says they are.
        let place = tempfile::tempdir().unwrap();
        for folder in ["workflows", "workflows/lib", "workflows/assets"] {
            fs::create_dir_all(place.path().join(folder)).unwrap();
            for file in
                fs::read_dir(root.join(folder)).unwrap().flatten().filter(|file| file.path().is_file())
            {
                fs::copy(file.path(), place.path().join(folder).join(file.file_name())).unwrap();
            }
        }
        fs::write(place.path().join("page.yaml"), block).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(place.path()).args(["check", "page.yaml", "--input", "workflows", "--models"]);
        let output = command.arg(root.join("models/tiny-sd")).output().unwrap();
        if !output.status.success() || !output.stderr.is_empty() {
            wrong.push(format!("{block}\n{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
