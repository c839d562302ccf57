//! `flow pull` against a server on this machine: what comes whole, what is gone on with, and what is refused.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "pull/server.rs"]
mod server;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use server::{Answer, File, Server};

/// Bytes that no two places have alike, 300 000 of them: more than are moved at a time.
fn content() -> Vec<u8> {
    (0..300_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The SHA-256 of [`content`].
const SHA256: &str = "10e5ea249ba15cf9da0925b29f6caca069e088f63eec3521e5560c1a0394058a";
/// Where the entry `thing` is on a server.
const PATH: &str = "/me/it/resolve/main/deep/thing.safetensors";
const PLACE: &str = "models/vae/thing.safetensors";

/// A folder to fetch into, with a catalogue of one entry more.
struct Place {
    folder: tempfile::TempDir,
    mirror: String,
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    /// `more` are further keys of the entry.
    fn new(server: &Server, more: &str) -> Self {
        Self::with(&server.address, more)
    }

    fn with(mirror: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let entry = "- { name: thing, also: [other.safetensors], folder: vae, file: thing.safetensors, repo: me/it, \
                     path: deep/thing.safetensors, licence: MIT, about: a test";
        fs::write(folder.path().join("own.yaml"), format!("{entry}{more} }}\n")).unwrap();
        fs::create_dir(folder.path().join("models")).unwrap();
        Self { folder, mirror: mirror.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.current_dir(self.folder.path()).args(arguments).env("FLOW_CATALOGUE", "own.yaml");
        for name in ["FLOW_MODELS", "HF_TOKEN", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.env("HF_ENDPOINT", &self.mirror).stdin(Stdio::null());
        command
    }

    fn flow(&self, arguments: &[&str]) -> Said {
        said(&mut self.command(arguments))
    }

    fn pull(&self) -> Said {
        self.flow(&["pull", "thing"])
    }

    /// Nothing but what was asked for is left behind.
    fn is_tidy(&self) -> bool {
        self.read(&format!("{PLACE}.part")).is_none() && self.read(&format!("{PLACE}.part.etag")).is_none()
    }
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The file as huggingface.co has it: its page leads to another server and says what comes.
fn redirected(page: &Server, store: &Server, etag: &str, file: File) {
    let linked =
        vec![("X-Linked-ETag", format!("\"{etag}\"")), ("X-Linked-Size", content().len().to_string())];
    page.answer(PATH, Answer::To { location: format!("{}/blob", store.address), headers: linked });
    store.answer("/blob", Answer::File(file));
}

fn file() -> File {
    File { bytes: content(), etag: "one".to_owned(), ..File::default() }
}

#[test]
fn a_file_comes_whole_and_is_not_fetched_again() {
    let (page, store) = (Server::start(), Server::start());
    redirected(&page, &store, SHA256, file());
    let place = Place::new(&page, "");
    let first = said(place.command(&["pull", "thing"]).env("HF_TOKEN", "hf_secret"));
    assert_eq!((first.code, first.out.trim()), (Some(0), PLACE), "{}", first.err);
    assert!(first.err.contains(SHA256) && !first.err.contains("nobody says"), "{}", first.err);
    assert!(place.read(PLACE) == Some(content()) && place.is_tidy());
    // The token is for the server that was named, and for no other.
    let asked = page.requests();
    assert_eq!((asked.len(), asked[0].path.as_str()), (1, PATH));
    assert_eq!(asked[0].header("authorization"), Some("Bearer hf_secret"));
    assert_eq!(store.requests()[0].header("authorization"), None);

    let again = place.pull();
    assert_eq!((again.code, again.out), (Some(0), first.out), "{}", again.err);
    assert!(again.err.contains("thing: is there"), "{}", again.err);
    assert!(page.requests().is_empty(), "nothing is asked of what is there");
}

#[test]
fn a_transfer_goes_on_where_it_broke_off() {
    let (page, store) = (Server::start(), Server::start());
    redirected(&page, &store, SHA256, File { stops_after: Some(123_456), ..file() });
    let place = Place::new(&page, "");
    let broken = place.pull();
    assert_eq!(broken.code, Some(1), "{}", broken.err);
    assert!(broken.err.contains("broke off after 123456 of 300000 bytes"), "{}", broken.err);
    assert!(broken.err.contains("run it again to go on from there"), "{}", broken.err);
    assert_eq!(place.read(PLACE), None);
    assert_eq!(place.read(&format!("{PLACE}.part")).unwrap().len(), 123_456);

    store.requests();
    redirected(&page, &store, SHA256, file());
    let whole = place.pull();
    assert_eq!(whole.code, Some(0), "{}", whole.err);
    assert_eq!(store.requests()[0].header("range"), Some("bytes=123456-"));
    assert!(place.read(PLACE) == Some(content()) && place.is_tidy());
}

#[test]
fn what_had_all_come_is_only_put_in_its_place() {
    let server = Server::start();
    server.answer(PATH, Answer::File(file()));
    let place = Place::new(&server, &format!(", bytes: 300000, sha256: {SHA256}"));
    fs::create_dir_all(place.path("models/vae")).unwrap();
    fs::write(place.path(&format!("{PLACE}.part")), content()).unwrap();
    fs::write(place.path(&format!("{PLACE}.part.etag")), "one").unwrap();
    let whole = place.pull();
    assert_eq!((whole.code, server.requests().len()), (Some(0), 1), "{}", whole.err);
    assert!(place.read(PLACE) == Some(content()) && place.is_tidy());
}

#[test]
fn a_file_that_has_changed_is_fetched_from_the_start() {
    let (page, store) = (Server::start(), Server::start());
    // First by what the page says, then by what the file's own server says.
    for through_page in [true, false] {
        let place = Place::new(&page, "");
        let other = vec![7; 200_000];
        let broken = File {
            bytes: vec![7; 300_000],
            stops_after: Some(200_000),
            etag: "old".to_owned(),
            ..File::default()
        };
        if through_page {
            redirected(&page, &store, "old", broken);
        } else {
            page.answer(PATH, Answer::File(broken));
        }
        assert_eq!(place.pull().code, Some(1));
        assert_eq!(place.read(&format!("{PLACE}.part")), Some(other));
        if through_page {
            redirected(&page, &store, SHA256, file());
        } else {
            page.answer(PATH, Answer::File(file()));
        }
        let whole = place.pull();
        assert_eq!(whole.code, Some(0), "{}", whole.err);
        assert!(place.read(PLACE) == Some(content()) && place.is_tidy());
        store.requests();
        page.requests();
    }
}

#[test]
fn another_content_is_removed() {
    let (page, store) = (Server::start(), Server::start());
    let mut bytes = content();
    bytes[299_999] ^= 1;
    redirected(&page, &store, SHA256, File { bytes, ..file() });
    let place = Place::new(&page, "");
    let wrong = place.pull();
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(1), ""), "{}", wrong.err);
    assert!(wrong.err.contains("what came is not the file") && wrong.err.contains(SHA256), "{}", wrong.err);
    assert!(place.read(PLACE).is_none() && place.is_tidy());
}

#[test]
fn a_server_with_another_file_is_refused_before_it_sends_one() {
    let (page, store) = (Server::start(), Server::start());
    redirected(&page, &store, &SHA256.replace(&SHA256[..8], "00000000"), file());
    let wrong = Place::new(&page, &format!(", sha256: {SHA256}")).pull();
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("the server has another file: its SHA-256 is 00000000"), "{}", wrong.err);
    let place = Place::new(&page, ", bytes: 299999");
    let wrong = place.pull();
    assert!(wrong.err.contains("another file: 300000 bytes, expected 299999"), "{}", wrong.err);
    assert!(place.read(PLACE).is_none());
}

#[test]
fn a_server_cannot_send_more_than_it_promised() {
    let (page, store) = (Server::start(), Server::start());
    // Says nothing of the length itself and goes on and on.
    let endless = File { bytes: vec![0; 3_000_000], length: Some(String::new()), ..file() };
    redirected(&page, &store, SHA256, endless);
    let place = Place::new(&page, "");
    let more = place.pull();
    assert_eq!(more.code, Some(1));
    assert!(more.err.contains("sends more than the 300000 bytes it promised"), "{}", more.err);
    assert!(place.read(PLACE).is_none() && place.is_tidy());

    let two = File { length: Some("300001".to_owned()), ..file() };
    redirected(&page, &store, SHA256, two);
    assert!(place.pull().err.contains("both 300000 and 300001 bytes"));
    let silent = File { length: Some(String::new()), ..file() };
    page.answer(PATH, Answer::File(silent));
    assert!(place.pull().err.contains("does not say how long the file is"));
}

#[test]
fn a_file_that_the_disk_cannot_hold_is_not_begun() {
    let server = Server::start();
    server.answer(PATH, Answer::File(File { length: Some((1u64 << 60).to_string()), ..file() }));
    let place = Place::new(&server, "");
    let said = place.pull();
    assert_eq!(said.code, Some(1));
    #[cfg(unix)]
    assert!(said.err.contains("the file needs 1073741824.0 GiB"), "{}", said.err);
    assert!(place.read(PLACE).is_none() && place.is_tidy());
}

#[test]
fn what_a_server_refuses_is_told_and_the_rest_is_fetched() {
    let server = Server::start();
    let place = Place::new(&server, "");
    server.answer("/h94/IP-Adapter/resolve/main/models/ip-adapter_sd15.safetensors", Answer::Status(403));
    server.answer(PATH, Answer::File(file()));
    let said = place.flow(&["pull", "sd15", "sd15-ip-adapter", "thing"]);
    assert_eq!((said.code, said.out.lines().count()), (Some(1), 1), "{}", said.err);
    assert!(said.err.contains("error: sd15: ") && said.err.contains("404"), "{}", said.err);
    assert!(said.err.contains("accept its terms there and set HF_TOKEN"), "{}", said.err);
    assert!(said.err.contains("nobody says what it should be"), "{}", said.err);
    assert_eq!(place.read(PLACE), Some(content()));

    server.answer(PATH, Answer::To { location: PATH.to_owned(), headers: Vec::new() });
    let round = place.flow(&["pull", "thing", "--force"]);
    assert!(round.err.contains("more than 5 redirects"), "{}", round.err);
    assert_eq!(place.read(PLACE), Some(content()), "what is there stays until the new one is");
}

#[test]
fn without_a_server_it_is_said_which_file_goes_where() {
    let place = Place::with("http://127.0.0.1:1", "");
    let said = place.flow(&["pull", "thing", "sd15", "--models", "."]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("http://127.0.0.1:1 cannot be reached"), "{}", said.err);
    let here = "127.0.0.1:1/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/main";
    let line = format!(
        "put v1-5-pruned-emaonly.safetensors from {here}/v1-5-pruned-emaonly.safetensors into ./checkpoints/\n"
    );
    assert!(said.err.contains(&line), "{}", said.err);
    assert!(said.err.contains("put thing.safetensors from "), "{}", said.err);

    for mirror in ["file:///models", "models", "http://127.0.0.1:1/?x"] {
        let said = place.flow(&["pull", "thing", "--mirror", mirror]);
        assert_eq!(said.code, Some(2), "{mirror}: {}", said.err);
    }
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let server = Server::start();
    server.answer(PATH, Answer::File(file()));
    let place = Place::new(&server, &format!(", bytes: 300000, sha256: {SHA256}"));
    fs::create_dir_all(place.path("models/vae")).unwrap();
    let mut other = content();
    other[0] ^= 1;
    fs::write(place.path(PLACE), &other).unwrap();
    let kept = place.pull();
    assert_eq!(kept.code, Some(1));
    assert!(kept.err.contains("is another file; --force fetches the right one"), "{}", kept.err);
    assert_eq!(place.read(PLACE), Some(other));
    assert!(server.requests().is_empty());
    let forced = place.flow(&["pull", "thing", "--force"]);
    assert_eq!(forced.code, Some(0), "{}", forced.err);
    assert_eq!(place.read(PLACE), Some(content()));
    assert!(place.pull().err.contains("is there and right"));
}

#[test]
fn a_workflow_says_what_it_lacks_and_gets_it() {
    let server = Server::start();
    server.answer(PATH, Answer::File(file()));
    let place = Place::new(&server, "");
    let workflow = "flow: 1\nmodels: { base: { kind: checkpoint, file: absent } }\nnodes:\n\
                    \x20 vae: { type: VAELoader, vae_name: SD1.5/other.safetensors }\n\
                    \x20 model: { type: LoadCheckpoint, file: $models.base }\n\
                    \x20 lora: { type: LoraLoader, model: model, clip: model, lora_name: lcm-lora-sdv1-5 }\n\
                    \x20 latent: { type: EmptyLatentImage, width: 64, height: 64 }\n\
                    \x20 image: { type: VAEDecode, samples: latent, vae: vae }\n\
                    \x20 save: { type: SaveImage, images: image, path: a.png }\n";
    fs::write(place.path("w.yaml"), workflow).unwrap();
    let check = place.flow(&["check", "w.yaml"]);
    assert!(check.err.contains("`flow pull other.safetensors` fetches it"), "{}", check.err);
    assert!(check.err.contains("`flow pull sd15-lcm` fetches it"), "{}", check.err);
    assert_eq!(check.err.matches("fetches it").count(), 2, "{}", check.err);
    assert!(check.err.contains("`flow pull --list` shows what can be fetched"), "{}", check.err);
    let json = place.flow(&["check", "w.yaml", "--json"]).out;
    assert!(json.contains("`flow pull other.safetensors` fetches it"), "{json}");
    let doctor = place.flow(&["doctor", "w.yaml"]).out;
    assert!(doctor.contains("`flow pull sd15-lcm` fetches it"), "{doctor}");

    let pulled = place.flow(&["pull", "--for", "w.yaml"]);
    assert_eq!(
        pulled.code,
        Some(1),
        "a server without one file, and a model that nobody knows: {}",
        pulled.err
    );
    assert!(
        pulled.err.contains("`absent` is not in the catalogue; put it into models/checkpoints\n"),
        "{}",
        pulled.err
    );
    assert_eq!(pulled.out, "models/vae/other.safetensors\n", "{}", pulled.err);
    let check = place.flow(&["check", "w.yaml"]);
    assert!(!check.err.contains("other.safetensors` among"), "{}", check.err);
}

#[test]
fn the_catalogue_and_what_is_there_of_it_are_listed() {
    let server = Server::start();
    let place = Place::new(&server, "");
    fs::create_dir_all(place.path("models/vae")).unwrap();
    fs::write(place.path(PLACE), content()).unwrap();
    let list = place.flow(&["pull", "--list"]).out;
    let sd15 = list.lines().find(|line| line.starts_with("sd15 ")).unwrap();
    assert!(
        sd15.contains("4.0 GiB") && sd15.contains("checkpoints") && sd15.contains("OpenRAIL-M"),
        "{sd15}"
    );
    assert!(list.starts_with("thing "), "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&place.flow(&["pull", "--list", "--json"]).out).unwrap();
    assert_eq!(json["catalogue"][0]["url"], format!("https://huggingface.co{PATH}"));
    let models: serde_json::Value = serde_json::from_str(&place.flow(&["models", "--json"]).out).unwrap();
    let known = models["models"].as_array().unwrap().iter().find(|model| model["catalogue"] == "thing");
    assert_eq!(known.unwrap()["name"], "vae/thing.safetensors");
    let unknown = place.flow(&["pull", "thin"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("no model `thin` is known; there is `thing`"), "{}", unknown.err);
    // All that are not known are told before anything is fetched.
    let several = place.flow(&["pull", "nothing-like-it", "thing", "thin"]);
    assert_eq!((several.code, &*several.out), (Some(2), ""), "{}", several.err);
    for name in ["nothing-like-it", "thin"] {
        assert!(several.err.contains(&format!("no model `{name}` is known")), "{}", several.err);
    }

    fs::write(place.path("own.yaml"), "- { name: ../x }").unwrap();
    let broken = place.flow(&["pull", "--list"]);
    assert_eq!(broken.code, Some(2));
    assert!(broken.err.contains("in `own.yaml`"), "{}", broken.err);
}

/// Ctrl-C ends the program at once and leaves what has come.
#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_has_come() {
    use std::{thread, time::Duration};

    // A file of which the last byte never comes: the server's end of the line stays open.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let head = "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: 100001\r\n\r\n";
        stream.write_all(&[head.as_bytes(), &[5; 100_000]].concat()).unwrap();
        thread::sleep(Duration::from_secs(60));
    });
    let place = Place::with(&address, "");
    let child =
        place.command(&["pull", "thing"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let part = format!("{PLACE}.part");
    let come = || place.read(&part).is_some_and(|bytes| bytes.len() == 100_000);
    for _ in 0..500 {
        if come() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(come(), "it did not come");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("goes on from here"));
    assert!(come() && place.read(&format!("{part}.etag")) == Some(b"one".to_vec()));
}
