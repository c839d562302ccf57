//! Every whole workflow in the pages is one that checks, and every link between pages leads somewhere.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{fs, path::Path, process::Command};

/// The whole workflows of a page.
fn workflows(page: &str) -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.filter(|block| block.starts_with("flow: 1")).map(str::to_owned).collect()
}

// That of docs/families.md checks in tests/families.rs, which has models of these families.
#[test]
fn the_workflows_of_the_pages_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (format, sampling) = (workflows("workflow-format.md"), workflows("sampling.md"));
    assert!(format.len() >= 6 && sampling.len() == 1, "{} and {} workflows", format.len(), sampling.len());
    let mut wrong = Vec::new();
    for block in format.iter().chain(&sampling) {
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

#[test]
fn every_link_of_a_page_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut lost = Vec::new();
    for page in pages.chain(["README.md", "tests/fixtures/README.md"].map(|page| root.join(page))) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
            if !link.contains("://") && !page.parent().unwrap().join(link).exists() {
                lost.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}
