//! The models that are known by name: where each comes from, where it goes, and what its content is.

use std::{env, path::Path, sync::LazyLock};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::load;

/// Names a file of further entries, in the same form; its entries go before those of the same name.
pub const OWN: &str = "FLOW_CATALOGUE";

/// Endings of files that may be fetched: weights, and nothing that a system would run.
const ENDINGS: [&str; 5] = [".safetensors", ".ckpt", ".pt", ".pth", ".bin"];

/// All entries, in the order in which they are listed.
#[derive(Debug, Default)]
pub struct Catalogue(Vec<Entry>);

/// A file that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What `flow pull` calls it.
    pub name: String,
    /// Other names of the file in workflows.
    #[serde(default)]
    pub also: Vec<String>,
    /// ComfyUI's folder below a model root.
    pub folder: String,
    /// The name it is written under.
    pub file: String,
    /// Hugging Face repository, `owner/name`.
    repo: String,
    /// The file in the repository, if it is not `file`.
    path: Option<String>,
    /// Branch, tag or commit.
    #[serde(default = "main")]
    revision: String,
    /// Its length, where it is known.
    pub bytes: Option<u64>,
    /// Its content, where it is known: 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// What it may be used for.
    pub licence: String,
    /// What it is for.
    pub about: String,
}

fn main() -> String {
    "main".to_owned()
}

impl Catalogue {
    /// The entries of this program, and those of the file that [`OWN`] names.
    ///
    /// # Errors
    /// When that file cannot be read or is no catalogue.
    pub fn load() -> Result<Self> {
        let mut all = Self::parse(include_str!("catalogue.yaml"))?;
        if let Some(path) = env::var_os(OWN).filter(|path| !path.is_empty()) {
            let path = Path::new(&path);
            let shown = path.display();
            let mut own = Self::parse(&load::read(path)?).with_context(|| format!("in `{shown}`"))?;
            all.0.retain(|entry| own.0.iter().all(|other| other.name != entry.name));
            own.0.append(&mut all.0);
            all = own;
        }
        Ok(all)
    }

    /// The same for those who only give advice: what cannot be read is left out. Read once.
    pub fn known() -> &'static Self {
        static KNOWN: LazyLock<Catalogue> = LazyLock::new(|| {
            Catalogue::load()
                .or_else(|_| Catalogue::parse(include_str!("catalogue.yaml")))
                .unwrap_or_default()
        });
        &KNOWN
    }

    fn parse(text: &str) -> Result<Self> {
        let mut entries: Vec<Entry> = serde_yaml::from_str(text)?;
        for entry in &mut entries {
            entry.check().with_context(|| format!("the model `{}`", entry.name))?;
        }
        Ok(Self(entries))
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// What a person asks for, and the name it is written under: by the name of an entry, or by a file name of one.
    pub fn named(&self, asked: &str) -> Option<(&Entry, &str)> {
        let by_name =
            self.0.iter().find(|entry| entry.name == asked).map(|entry| (entry, entry.file.as_str()));
        by_name.or_else(|| {
            let entry = self.0.iter().find(|entry| entry.is(asked))?;
            Some((entry, entry.file_for(asked)))
        })
    }

    /// What a workflow asks for: a file of a folder, by its name with or without sub-folders and ending.
    pub fn file(&self, folder: &str, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.folder == folder && entry.is(tail(name)))
    }

    /// The entry that a file seems to be, by its name and length.
    pub fn of(&self, name: &str, bytes: u64) -> Option<&Entry> {
        let fits = |entry: &&Entry| {
            let alike = ending(name) == ending(&entry.file);
            alike && entry.is(tail(name)) && entry.bytes.is_none_or(|length| length == bytes)
        };
        self.0.iter().find(fits)
    }
}

impl Entry {
    /// Refuses whatever could lead elsewhere than to a model file in its folder.
    fn check(&mut self) -> Result<()> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() <= 200
                && !text.starts_with('.')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
        };
        let path = |text: &str| text.split('/').all(plain);
        ensure!(plain(&self.name), "`name` is letters, digits and `._-+`");
        ensure!(plain(&self.folder), "`folder: {}` is no plain folder name", self.folder);
        for file in [&self.file].into_iter().chain(&self.also) {
            ensure!(plain(file), "`{file}` is no plain file name");
            ensure!(ending(file).is_some(), "`{file}` does not end as a model does: {}", ENDINGS.join(", "));
        }
        ensure!(path(&self.repo) && self.repo.matches('/').count() == 1, "`repo` is `owner/name`");
        ensure!(path(&self.revision), "`revision: {}` is no branch, tag or commit", self.revision);
        ensure!(self.path.as_deref().is_none_or(path), "`path` is a path in the repository");
        if let Some(hash) = &mut self.sha256 {
            match sha256(hash) {
                Some(plain) => *hash = plain,
                None => bail!("`sha256` is 64 hexadecimal digits"),
            }
        }
        Ok(())
    }

    /// Whether a file name is one of this file's, with or without an ending: models are known by the same name in files of
    /// PyTorch.
    fn is(&self, name: &str) -> bool {
        let mut own = [&self.file].into_iter().chain(&self.also);
        own.any(|own| own == name || without_ending(own) == without_ending(name))
    }

    /// The name it is written under for someone who asks by `asked`: that very name where it is one of this file's and ends
    /// alike, so that the workflow that has it finds the file.
    pub fn file_for(&self, asked: &str) -> &str {
        let asked = tail(asked);
        let alike = self.also.iter().filter(|own| ending(own) == ending(&self.file));
        let own = alike.map(String::as_str).find(|own| *own == asked || without_ending(own) == asked);
        own.unwrap_or(&self.file)
    }

    /// What to tell `flow pull` for a file name that a workflow has.
    pub fn command(&self, asked: &str) -> String {
        let file = self.file_for(asked);
        if file == self.file { self.name.clone() } else { file.to_owned() }
    }

    /// Where a server has it: `huggingface.co`'s own form of addresses, which mirrors share.
    pub fn url(&self, endpoint: &str) -> String {
        let path = self.path.as_deref().unwrap_or(&self.file);
        format!("{endpoint}/{}/resolve/{}/{path}", self.repo, self.revision)
    }
}

/// A SHA-256 as 64 small hexadecimal digits, if that is what a text is.
pub fn sha256(text: &str) -> Option<String> {
    (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

fn tail(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

fn ending(name: &str) -> Option<&'static str> {
    ENDINGS.into_iter().find(|ending| name.ends_with(ending))
}

fn without_ending(name: &str) -> &str {
    ending(name).and_then(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ENTRY: &str =
        "{ name: a, folder: vae, file: a.safetensors, repo: me/it, licence: MIT, about: none }";

    fn refused(from: &str, to: &str) -> String {
        assert!(ENTRY.contains(from));
        format!("{:#}", Catalogue::parse(&format!("- {}", ENTRY.replace(from, to))).unwrap_err())
    }

    #[test]
    fn the_catalogue_holds_what_it_promises() {
        let catalogue = Catalogue::parse(include_str!("catalogue.yaml")).unwrap();
        let mut names = BTreeSet::new();
        for entry in catalogue.entries() {
            for name in [&entry.name, &entry.file].into_iter().chain(&entry.also) {
                assert!(names.insert(name), "`{name}` names two files");
                assert_eq!(catalogue.named(name).unwrap().0, entry);
            }
            assert!(entry.sha256.is_none() || entry.bytes.is_some(), "{}: a hash and no length", entry.name);
            assert!(entry.about.chars().count() <= 70, "{}: one line is enough", entry.name);
        }
        assert!(catalogue.entries().len() >= 20);
    }

    #[test]
    fn nothing_leads_out_of_its_folder() {
        for file in ["../a.safetensors", "/a.safetensors", "b/a.safetensors", "..\\\\a.pt", "C:a.pt", ".a.pt"]
        {
            let said = refused("a.safetensors", &format!("\"{file}\""));
            assert!(said.contains("is no plain file name"), "{said}");
        }
        for folder in ["..", "a/b", "/tmp", "\"\"", "~"] {
            assert!(refused("vae", folder).contains("folder"));
        }
        assert!(refused("a.safetensors", "a.exe").contains("does not end as a model does"));
        assert!(refused("me/it", "me/../it").contains("`repo`"));
        assert!(refused("me/it", "\"me/it?x=\"").contains("`repo`"));
        assert!(refused("repo:", "path: a/../../b, repo:").contains("`path`"));
        assert!(refused("repo:", "revision: ../main, repo:").contains("`revision"));
        assert!(refused("repo:", "sha256: 12ab, repo:").contains("`sha256`"));
        assert!(refused("repo:", "also: [\"../b.pt\"], repo:").contains("is no plain file name"));
        assert!(refused("repo:", "run: rm, repo:").contains("unknown field"));
    }

    #[test]
    fn a_file_is_written_under_the_name_it_is_asked_by_if_that_ends_alike() {
        let catalogue = Catalogue::known();
        let canny = catalogue.file("controlnet", "SD1.5\\control_v11p_sd15_canny.safetensors").unwrap();
        assert_eq!(canny.file_for("SD1.5\\control_v11p_sd15_canny"), "control_v11p_sd15_canny.safetensors");
        assert_eq!(
            canny.command("control_v11p_sd15_canny.safetensors"),
            "control_v11p_sd15_canny.safetensors"
        );
        assert_eq!(canny.file_for("control_v11p_sd15_canny.pth"), canny.file);
        assert_eq!(canny.command("control_v11p_sd15_canny_fp16.safetensors"), "sd15-canny");
        assert_eq!(catalogue.file("loras", "control_v11p_sd15_canny.safetensors"), None);
        let sd15 = catalogue.file("checkpoints", "v1-5-pruned-emaonly.ckpt").unwrap();
        assert_eq!(
            (sd15.command("v1-5-pruned-emaonly.ckpt"), &*sd15.file),
            ("sd15".into(), "v1-5-pruned-emaonly.safetensors")
        );
        assert_eq!(catalogue.of("v1-5-pruned-emaonly.ckpt", sd15.bytes.unwrap()), None);
    }
}
