#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt as _;

use super::*;

fn touch(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

fn models(names: &[&str]) -> (tempfile::TempDir, Files) {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), names);
    let files = Files::new(Vec::new(), vec![root.path().to_owned()], PathBuf::new());
    (root, files)
}

#[test]
fn a_model_is_found_without_its_ending_in_a_sub_folder_and_with_either_separator() {
    let (root, files) = models(&["checkpoints/sd15/base.safetensors", "checkpoints/other.ckpt"]);
    let wanted = root.path().join("checkpoints/sd15/base.safetensors");
    for name in
        ["sd15/base.safetensors", "sd15\\base.safetensors", "sd15/base", "base", "elsewhere/base.safetensors"]
    {
        assert_eq!(files.find("checkpoints", name).unwrap().path, wanted, "{name}");
    }
}

#[test]
fn patterns_and_folders_mean_files_below_the_roots_sorted() {
    let root = tempfile::tempdir().unwrap();
    touch(
        root.path(),
        &["in/b.png", "in/a.png", "in/a.txt", "in/.hidden.png", "in/deep/c.png", "secret/x.png"],
    );
    #[cfg(target_os = "linux")]
    fs::write(root.path().join("in").join(std::ffi::OsStr::from_bytes(b"\xff.png")), "no text").unwrap();
    let files = Files::new(vec![root.path().to_owned(), root.path().join("in")], Vec::new(), PathBuf::new());
    let named = |text: &str| files.matching(text).unwrap().unwrap();
    assert_eq!(named("in/*.png"), ["in/a.png", "in/b.png"]);
    assert_eq!(named("in/*/?.png"), ["in/deep/c.png"]);
    assert_eq!(named("in"), ["in/a.png", "in/b.png"]);
    assert_eq!(named("a.*"), ["a.png", "a.txt"]);
    assert_eq!(files.matching("in/a.png").unwrap(), None);
    assert!(matches!(files.matching("nowhere/*.png"), Err(FileProblem::Missing { .. })));
    let files = Files::new(vec![root.path().join("in")], Vec::new(), PathBuf::new());
    assert!(matches!(files.matching("../secret/*.png"), Err(FileProblem::Outside { .. })));
    assert!(matches!(files.matching("../secret"), Err(FileProblem::Outside { .. })));
}

#[test]
fn an_exact_name_wins_over_the_same_file_name_in_another_folder() {
    let (root, files) = models(&["loras/a/x.safetensors", "loras/x.safetensors"]);
    assert_eq!(files.find("loras", "x").unwrap().path, root.path().join("loras/x.safetensors"));
}

#[test]
fn a_folder_of_loose_files_is_a_model_root() {
    let (root, files) = models(&["tiny.safetensors", "notes.txt"]);
    assert_eq!(files.find("vae", "tiny").unwrap().path, root.path().join("tiny.safetensors"));
    assert!(files.find("vae", "notes").is_err());
}

#[test]
fn a_sub_folder_without_models_does_not_hide_loose_files() {
    let (root, files) = models(&["tiny.safetensors", "vae/config.json"]);
    assert_eq!(files.find("vae", "tiny").unwrap().path, root.path().join("tiny.safetensors"));
}

#[test]
fn a_missing_model_names_what_looks_alike_and_where_it_looked() {
    let (root, files) = models(&["checkpoints/tiny-sd.safetensors", "checkpoints/zebra.safetensors"]);
    let problem = files.find("checkpoints", "tiny-sdd").unwrap_err();
    let near = vec!["tiny-sd.safetensors".to_owned()];
    assert_eq!(problem, FileProblem::Missing { searched: vec![root.path().join("checkpoints")], near });
}

#[test]
fn names_that_lead_out_of_the_roots_are_refused() {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), &["inside/a.png", "secret.png", "secret.safetensors"]);
    let inside = root.path().join("inside");
    let files = Files::new(vec![inside.clone()], vec![inside.clone()], inside.join("out"));
    let absolute = root.path().join("secret.png");
    for name in ["../secret.png", "x/../../secret.png", &*absolute.to_string_lossy()] {
        assert!(matches!(files.find("input", name), Err(FileProblem::Outside { .. })), "{name}");
    }
    assert!(matches!(files.find("checkpoints", "../secret"), Err(FileProblem::Outside { .. })));
    assert!(files.find("input", &inside.join("a.png").to_string_lossy()).is_ok());
    for name in ["../x.png", "/x.png", "a/../../x.png"] {
        assert!(files.output(name).is_err(), "{name}");
    }
    assert_eq!(files.output("deep/x.png").unwrap(), inside.join("out/deep/x.png"));
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_roots_is_refused() {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), &["inside/a.png", "outside/b.png"]);
    std::os::unix::fs::symlink(root.path().join("outside"), root.path().join("inside/link")).unwrap();
    let inside = root.path().join("inside");
    let files = Files::new(vec![inside.clone()], Vec::new(), inside);
    assert!(matches!(files.find("input", "link/b.png"), Err(FileProblem::Outside { .. })));
    assert!(files.output("link/c.png").is_err());
    assert!(files.output("link/deep/c.png").is_err());
    assert!(!root.path().join("outside/deep").exists(), "nothing is made outside");
}

#[test]
fn a_search_tells_what_it_depends_on() {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), &["in/a.png", "models/loras/deep/x.safetensors"]);
    let at = |name: &str| root.path().join(name);
    let files = Files::new(vec![at("in"), at("other")], vec![at("models")], PathBuf::new());
    assert!(files.find("input", "a.png").is_ok());
    assert!(files.find("input", "b.png").is_err());
    assert!(files.find("loras", "y").is_err());
    assert!(files.find("loras", "../y").is_err());
    let expected = ["in/a.png", "in/b.png", "models/loras", "models/loras/deep", "other/b.png"];
    assert_eq!(files.looked_at(), expected.map(at));
    assert_eq!(files.matching("*.png").unwrap().unwrap(), ["a.png"]);
    assert!(files.matching("new/*.png").is_err());
    let listed = [at("in"), at("in/new"), at("other/new")];
    assert!(listed.iter().all(|folder| files.looked_at().contains(folder)));
}

#[test]
fn a_files_identity_is_its_content() {
    let root = tempfile::tempdir().unwrap();
    touch(root.path(), &["a", "b"]);
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    let files = Files::default();
    let before = files.hash(&a).unwrap();
    assert_ne!(before, files.hash(&b).unwrap());
    fs::write(&b, "a").unwrap();
    fs::write(&a, "longer").unwrap();
    assert_eq!(before, files.hash(&b).unwrap());
    assert_ne!(before, files.hash(&a).unwrap());
}

#[test]
fn a_tiny_autoencoder_is_found_by_comfyuis_name_and_counts_with_its_other_half() {
    let (root, files) = models(&["vae_approx/taesd_decoder.pth", "vae/other.pt"]);
    let decoder = root.path().join("vae_approx/taesd_decoder.pth");
    for name in ["taesd", "taesd_decoder", "taesd_decoder.pth"] {
        assert_eq!(files.find("vae", name).unwrap().path, decoder, "{name}");
    }
    assert!(files.find("checkpoints", "taesd").is_err());
    let alone = files.hash(&decoder).unwrap();
    touch(root.path(), &["vae_approx/taesd_encoder.pth"]);
    let both = files.hash(&decoder).unwrap();
    assert_ne!(alone, both);
    fs::write(root.path().join("vae_approx/taesd_encoder.pth"), "another").unwrap();
    assert_ne!(files.hash(&decoder).unwrap(), both);
}
