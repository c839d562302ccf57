//! `flow watch` on a terminal: a pseudo-terminal, read as a person would see it.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use nix::pty::{Winsize, openpty};

const WORKFLOW: &str = "\
flow: 1
inputs: { high: 200 }
nodes:
  photo: { type: LoadImage, image: photo.png }
  edges: { type: CannyDetect, image: photo, low: 100, high: $high }
  save: { type: SaveImage, images: edges, path: out/edges.png }
";

const PICTURE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/reference/inputs/product_teapot.png");

struct Terminal {
    dir: tempfile::TempDir,
    child: Child,
    output: Receiver<Vec<u8>>,
    /// What has come since the last match.
    shown: String,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    fn new(workflow: &str, env: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::with_output(None, workflow, env, arguments)
    }

    /// With standard output going elsewhere.
    fn with_output(stdout: Option<File>, workflow: &str, env: &[(&str, &str)], arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("flow.yaml"), workflow).unwrap();
        fs::copy(PICTURE, dir.path().join("photo.png")).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(dir.path()).args(["watch", "flow.yaml"]).args(arguments);
        for name in [
            "FLOW_MODELS",
            "FLOW_PREVIEW",
            "NO_COLOR",
            "COLORTERM",
            "TMUX",
            "TERM_PROGRAM",
            "KITTY_WINDOW_ID",
            "LC_TERMINAL",
        ] {
            command.env_remove(name);
        }
        command
            .env("FLOW_CACHE", dir.path().join("cache"))
            .env("TERM", "xterm-256color")
            .envs(env.iter().copied());
        let end = || pty.slave.try_clone().unwrap();
        let stdout = stdout.map_or_else(|| end().into(), Stdio::from);
        let child = command.stdin(end()).stdout(stdout).stderr(end()).spawn().unwrap();
        // Only the child holds the other end now, so reading ends when it does.
        drop((command, pty.slave));
        let mut master = File::from(pty.master);
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n @ 1..) = master.read(&mut buffer) {
                let _ = sender.send(buffer[..n].to_vec());
            }
        });
        Self { dir, child, output, shown: String::new() }
    }

    /// Waits until the terminal has shown `text`, and gives what it showed until then.
    fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let Ok(bytes) = self.output.recv_timeout(Duration::from_secs(120)) else {
                panic!("no {text:?} in {:?}", self.shown)
            };
            // A character cut in two matters to none of the tests.
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn save(&self, workflow: &str) {
        let path = self.dir.path().join("flow.yaml");
        fs::write(path.with_extension("new"), workflow).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn interrupt(mut self) -> Option<i32> {
        let asked = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        self.child.wait().unwrap().code()
    }
}

#[test]
fn nodes_and_the_picture_are_on_the_screen_and_change_with_the_file() {
    let mut terminal = Terminal::new(WORKFLOW, &[("COLORTERM", "truecolor")], &[]);
    let first = terminal.until("waiting for a change of 2 files");
    for part in [
        "flow watch flow.yaml",
        "photo",
        "CannyDetect",
        "done in",
        "3 ran, 0 known",
        "picture: out/edges.png",
    ] {
        assert!(first.contains(part), "no {part:?} in {first:?}");
    }
    assert!(first.contains("\x1b[38;2;0;0;0;48;2;0;0;0m▀"), "{first:?}");

    terminal.save(&WORKFLOW.replace("high: 200", "high: 240"));
    terminal.until("changed: flow.yaml");
    let second = terminal.until("waiting for a change");
    assert!(second.contains("2 ran, 1 known"), "{second:?}");

    terminal.save(&WORKFLOW.replace("CannyDetect", "CannyDetct"));
    let broken = terminal.until("waiting for a change");
    assert!(broken.contains("unknown-node") && broken.contains('▀'), "the last picture stays: {broken:?}");
    assert_eq!(terminal.interrupt(), Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn an_output_that_cannot_be_written_is_on_the_screen() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut terminal = Terminal::with_output(Some(full), WORKFLOW, &[], &["--no-preview"]);
    terminal.until("error: cannot write to standard output");
    terminal.until("waiting for a change");
    assert_eq!(terminal.interrupt(), Some(0));
}

#[test]
fn the_picture_is_drawn_as_the_terminal_can_or_as_wished() {
    for (env, begins) in [
        (("TERM", "xterm-kitty"), "\x1b_Ga=T,f=100"),
        (("TERM_PROGRAM", "iTerm.app"), "\x1b]1337;File=inline=1"),
        (("FLOW_PREVIEW", "sixel"), "\x1bP0;1q"),
        (("TERM", "xterm-256color"), "\x1b[38;5;16;48;5;16m▀"),
    ] {
        let mut terminal = Terminal::new(WORKFLOW, &[env], &[]);
        terminal.until(begins);
        terminal.until("waiting for a change");
    }
    let mut terminal = Terminal::new(WORKFLOW, &[("COLORTERM", "truecolor")], &["--no-preview"]);
    assert!(!terminal.until("waiting for a change").contains('▀'));
}

#[test]
fn a_sampling_shows_its_steps_and_the_picture_as_it_forms() {
    let workflow =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/quickstart.yaml")).unwrap();
    let mut terminal = Terminal::new(
        &workflow,
        &[("COLORTERM", "truecolor")],
        &["--set", "sample.steps=10000", "--device", "cpu"],
    );
    terminal.until("steps/s");
    terminal.until("▀");
    assert_eq!(terminal.interrupt(), Some(130));
}

#[test]
fn an_unknown_way_of_drawing_is_refused() {
    let mut terminal = Terminal::new(WORKFLOW, &[("FLOW_PREVIEW", "ascii")], &[]);
    terminal.until("FLOW_PREVIEW is `ascii`");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(2));
}
