//! A folder with a workflow and a watch of it, followed by its events.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::Value;

/// Where the example pictures are.
pub const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs");

/// How long something that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a workflow, and a watch of it.
pub struct Watch {
    pub dir: tempfile::TempDir,
    pub child: Child,
    events: Receiver<Value>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with `flow.yaml` and `photo.png`.
pub fn folder(workflow: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("flow.yaml"), workflow).unwrap();
    copy_picture("product_teapot.png", &dir.path().join("photo.png"));
    dir
}

pub fn copy_picture(name: &str, to: &Path) {
    replace(to, &fs::read(Path::new(PICTURES).join(name)).unwrap());
}

/// Puts a file there whole, as most editors do.
pub fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new~");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

pub fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    command.current_dir(dir).args(["watch", "flow.yaml"]).args(arguments);
    command.env_remove("FLOW_MODELS").env("FLOW_CACHE", dir.join("cache"));
    command
}

impl Watch {
    pub fn new(workflow: &str, arguments: &[&str]) -> Self {
        Self::of(folder(workflow), arguments)
    }

    pub fn of(dir: tempfile::TempDir, arguments: &[&str]) -> Self {
        let mut command = command(dir.path(), arguments);
        let mut child = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { dir, child, events }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Saves another version of the workflow.
    pub fn save(&self, workflow: &str) {
        replace(&self.path("flow.yaml"), workflow.as_bytes());
    }

    /// The events up to the first that is `wanted`.
    pub fn until(&self, wanted: impl Fn(&Value) -> bool) -> Events {
        let mut events = Vec::new();
        loop {
            let Ok(event) = self.events.recv_timeout(PATIENCE) else {
                panic!("this is all there was: {events:#?}")
            };
            events.push(event);
            if events.last().is_some_and(&wanted) {
                return Events(events);
            }
        }
    }

    /// The events until there is nothing more to do.
    pub fn round(&self) -> Events {
        self.until(|event| event["event"] == "waiting")
    }

    pub fn interrupt(&self) {
        let asked = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
    }
}

#[derive(Debug)]
pub struct Events(pub Vec<Value>);

impl Events {
    pub fn all(&self, event: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["event"] == event).collect()
    }

    /// The nodes with an event, sorted.
    pub fn nodes(&self, event: &str) -> Vec<&str> {
        let mut nodes: Vec<_> =
            self.all(event).iter().map(|object| object["node"].as_str().unwrap_or("")).collect();
        nodes.sort_unstable();
        nodes
    }

    /// The names of the files that changed.
    pub fn changed(&self) -> Vec<&str> {
        let files = self.all("changed").into_iter().flat_map(|object| object["files"].as_array().unwrap());
        files.map(|file| file.as_str().unwrap().rsplit('/').next().unwrap()).collect()
    }

    /// How the runs ended.
    pub fn ends(&self) -> Vec<&str> {
        self.all("done").iter().map(|object| object["status"].as_str().unwrap()).collect()
    }
}
