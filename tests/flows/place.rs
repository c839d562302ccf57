//! A folder with workflows that the binary is run in, and what it said.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Where the example pictures are.
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs");

/// A temporary folder with a cache of its own.
pub struct Place(tempfile::TempDir);

/// What one run of the binary said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| place.write(name, text));
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A picture of one colour.
    pub fn picture(&self, name: &str, (width, height): (u32, u32), colour: [u8; 3]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(width, height, image::Rgb(colour)).save(path).unwrap();
    }

    /// The command with this folder as the current one, before it is run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(self.0.path()).args(arguments);
        command.env("FLOW_CACHE", self.path("cache")).env_remove("FLOW_MODELS");
        command
    }

    pub fn flow(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).args(["--input", PICTURES]))
    }

    /// The files below a folder, as `out/a.png`.
    pub fn written(&self, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        walk(&self.path(folder), &mut names);
        let root = format!("{}/", self.0.path().display());
        let mut names: Vec<_> = names.iter().map(|path| path.replace(&root, "")).collect();
        names.sort();
        names
    }
}

fn walk(folder: &Path, names: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            walk(&entry.path(), names);
        } else {
            names.push(entry.path().to_string_lossy().into_owned());
        }
    }
}

impl Said {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks that all went well.
    pub fn fine(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    pub fn events(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How often this happened to a node.
    pub fn count(&self, event: &str, node: &str) -> usize {
        self.events().iter().filter(|told| told["event"] == event && told["node"] == node).count()
    }

    /// How often a node was started.
    pub fn started(&self, node: &str) -> usize {
        self.count("started", node)
    }

    pub fn done(&self) -> Value {
        self.events().pop().unwrap()
    }
}
