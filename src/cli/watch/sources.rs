//! The files a plan depends on, and how a change of them is noticed.
//!
//! Folders are watched, not files: an editor that writes a new file and renames it leaves a watch on the old one behind,
//! and a file that is not there yet cannot be watched. A notification only says *when* to look; *what* changed is told by
//! length, time and inode of the files themselves, and the names in folders that are listed, so neither foreign files nor a
//! change of rights set anything off.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use flow_graph::Stamp;
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};

use super::batch::Touch;

/// How something was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    File(Stamp),
    /// The names in it: its own time also changes with what comes and goes at once, as what is written does.
    Folder(BTreeSet<OsString>),
}

/// Files that are watched, and how they were when they were last looked at.
pub struct Sources {
    /// `None`: the files are looked at from time to time.
    watcher: Option<RecommendedWatcher>,
    files: BTreeMap<PathBuf, Option<State>>,
    /// Names a notification may be about: of the files and of all folders above them.
    names: HashSet<OsString>,
    /// Folders watched, with the inode they had: one that was removed and made anew is another.
    folders: HashMap<PathBuf, u64>,
}

impl Sources {
    /// Watches nothing yet; `touched` is told paths that something happened to. With `poll` it is never called.
    ///
    /// # Errors
    /// When the system offers no notifications.
    pub fn new(poll: bool, touched: impl Fn(Vec<PathBuf>, Touch) + Send + 'static) -> notify::Result<Self> {
        let watcher = (!poll).then(|| {
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
                Ok(event) => {
                    if let Some(touch) = touch(&event.kind) {
                        touched(event.paths, touch);
                    }
                }
                // Notifications were lost: everything may have changed.
                Err(_) => touched(Vec::new(), Touch::Part),
            })
        });
        Ok(Self {
            watcher: watcher.transpose()?,
            files: BTreeMap::new(),
            names: HashSet::new(),
            folders: HashMap::new(),
        })
    }

    /// Whether the files must be looked at from time to time.
    pub fn polls(&self) -> bool {
        self.watcher.is_none()
    }

    /// How many files are watched.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Watches these files from now on. One watched before is known as it was then, so that a change in between is found.
    pub fn follow(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let old = std::mem::take(&mut self.files);
        for path in files {
            let path = std::path::absolute(&path).unwrap_or(path);
            let known = old.get(&path).cloned().unwrap_or_else(|| state(&path));
            self.files.insert(path, known);
        }
        self.names.clear();
        for path in self.files.keys() {
            // A link is changed where it leads to.
            for path in [Some(path.clone()), path.canonicalize().ok()].into_iter().flatten() {
                self.names.extend(path.components().filter_map(|part| match part {
                    Component::Normal(name) => Some(name.to_owned()),
                    _ => None,
                }));
            }
        }
        self.watch_folders();
    }

    /// Whether a notification about `paths` can be about a file of ours; none means it can.
    pub fn concerns(&self, paths: &[PathBuf]) -> bool {
        let known = |path: &PathBuf| path.file_name().is_none_or(|name| self.names.contains(name));
        // Something in a folder that is watched for whatever appears in it.
        let inside = |path: &PathBuf| path.parent().is_some_and(|parent| self.files.contains_key(parent));
        paths.is_empty() || paths.iter().any(|path| known(path) || inside(path))
    }

    /// The files that are not as they were, known as they are now from here on.
    pub fn changed(&mut self) -> Vec<PathBuf> {
        // First the folders: what changes in one from now on is notified.
        self.watch_folders();
        let mut changed = Vec::new();
        for (path, known) in &mut self.files {
            let now = state(path);
            if now != *known {
                *known = now;
                changed.push(path.clone());
            }
        }
        changed
    }

    /// Whether some file is not as it was.
    pub fn stale(&self) -> bool {
        self.files.iter().any(|(path, known)| state(path) != *known)
    }

    /// A run wrote this file: that it is in its folder is no change. It is never one that is read.
    pub fn wrote(&mut self, path: &Path) {
        let Ok(written) = path.canonicalize() else { return };
        let (Some(folder), Some(name)) = (written.parent(), written.file_name()) else { return };
        for (path, known) in &mut self.files {
            if let Some(State::Folder(names)) = known
                && path.canonicalize().is_ok_and(|path| path == folder)
            {
                names.insert(name.to_owned());
            }
        }
    }

    /// Watches the folders the files are in, or would be in; where the system refuses, files are looked at from now on.
    fn watch_folders(&mut self) {
        // A folder may be made between the look for it and the watch on the one above it: look until all is as wanted.
        while let Some(watcher) = &mut self.watcher {
            let wanted = folders_of(self.files.keys());
            let known = &mut self.folders;
            let gone: Vec<_> = known
                .iter()
                .filter(|(folder, inode)| !wanted.contains(*folder) || inode_of(folder) != **inode)
                .map(|(folder, _)| folder.clone())
                .collect();
            let new: Vec<_> = wanted
                .into_iter()
                .filter(|folder| !known.contains_key(folder) || gone.contains(folder))
                .collect();
            if gone.is_empty() && new.is_empty() {
                return;
            }
            for folder in gone {
                // The system has already let go of a folder that was removed.
                let _ = watcher.unwatch(&folder);
                known.remove(&folder);
            }
            for folder in new {
                let inode = inode_of(&folder);
                if watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok() {
                    known.insert(folder, inode);
                } else if folder.is_dir() {
                    self.watcher = None;
                    return known.clear();
                }
            }
        }
    }
}

/// The folders in which something happens when one of `files` changes.
fn folders_of<'a>(files: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for path in files {
        folders.extend(nearest_folder(path.parent()));
        if path.is_dir() {
            folders.insert(path.clone());
        }
        if let Ok(target) = path.canonicalize() {
            folders.extend(nearest_folder(target.parent()));
        }
    }
    folders
}

/// What a notification says; `None` for what changes nothing, such as our own reading.
fn touch(kind: &EventKind) -> Option<Touch> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => Some(Touch::Whole),
        EventKind::Access(_) => None,
        _ => Some(Touch::Part),
    }
}

fn nearest_folder(path: Option<&Path>) -> Option<PathBuf> {
    path?.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned)
}

fn state(path: &Path) -> Option<State> {
    // Hidden files and backups are the editor's own.
    let own = |name: &OsString| {
        let name = name.to_string_lossy();
        !name.starts_with('.') && !name.ends_with('~')
    };
    match path.read_dir() {
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.file_name());
            Some(State::Folder(names.filter(own).collect()))
        }
        Err(_) => Stamp::of(path).ok().map(State::File),
    }
}

fn inode_of(path: &Path) -> u64 {
    Stamp::of(path).map_or(0, |stamp| stamp.inode)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, time::Duration};

    use super::*;

    /// Sources over `files` of a fresh folder, and what they are told.
    fn watching(files: &[&str]) -> (tempfile::TempDir, Sources, mpsc::Receiver<Vec<PathBuf>>) {
        let dir = tempfile::tempdir().unwrap();
        let (sender, told) = mpsc::channel();
        let mut sources = Sources::new(false, move |paths, _| {
            let _ = sender.send(paths);
        })
        .unwrap();
        sources.follow(files.iter().map(|file| dir.path().join(file)));
        (dir, sources, told)
    }

    /// Waits until a notification comes after which `name` alone has changed.
    fn wait_for(sources: &mut Sources, told: &mpsc::Receiver<Vec<PathBuf>>, name: &Path) {
        loop {
            let paths = told.recv_timeout(Duration::from_secs(30)).expect("a notification comes");
            let changed = if sources.concerns(&paths) { sources.changed() } else { Vec::new() };
            if !changed.is_empty() {
                return assert_eq!(changed, [name]);
            }
        }
    }

    #[test]
    fn files_are_noticed_that_appear_are_replaced_go_and_come_back() {
        let (dir, mut sources, told) = watching(&["a.txt"]);
        let file = dir.path().join("a.txt");
        fs::write(&file, "1").unwrap();
        wait_for(&mut sources, &told, &file);
        fs::write(dir.path().join("other"), "23").unwrap();
        fs::rename(dir.path().join("other"), &file).unwrap();
        wait_for(&mut sources, &told, &file);
        fs::remove_file(&file).unwrap();
        wait_for(&mut sources, &told, &file);
        fs::write(&file, "4").unwrap();
        wait_for(&mut sources, &told, &file);
    }

    #[test]
    fn a_file_is_noticed_in_a_folder_made_later_removed_and_made_again() {
        let (dir, mut sources, told) = watching(&["deep/er/a.txt"]);
        let file = dir.path().join("deep/er/a.txt");
        for _ in 0..2 {
            fs::create_dir_all(dir.path().join("deep/er")).unwrap();
            fs::write(&file, "1").unwrap();
            wait_for(&mut sources, &told, &file);
            fs::remove_dir_all(dir.path().join("deep")).unwrap();
            wait_for(&mut sources, &told, &file);
        }
    }

    #[test]
    fn whatever_appears_in_a_watched_folder_is_noticed() {
        let (dir, mut sources, told) = watching(&[]);
        sources.follow([dir.path().to_owned()]);
        fs::write(dir.path().join("new.safetensors"), "1").unwrap();
        wait_for(&mut sources, &told, dir.path());
    }

    #[test]
    fn what_a_run_writes_into_a_watched_folder_is_no_change_of_it_and_what_comes_besides_is() {
        let (dir, mut sources, _told) = watching(&[]);
        sources.follow([dir.path().to_owned()]);
        for name in ["own.png", ".own.tmp", "notes.txt~"] {
            fs::write(dir.path().join(name), "1").unwrap();
        }
        assert!(sources.stale());
        sources.wrote(&dir.path().join("own.png"));
        assert!(!sources.stale());
        fs::write(dir.path().join("other.png"), "1").unwrap();
        sources.wrote(&dir.path().join("own.png"));
        assert_eq!(sources.changed(), [dir.path()]);
    }

    #[test]
    fn foreign_files_are_no_change() {
        let (dir, mut sources, _told) = watching(&["own.txt", "other.txt"]);
        fs::write(dir.path().join("foreign.txt"), "1").unwrap();
        assert!(!sources.stale() && sources.changed().is_empty());
        assert!(!sources.concerns(&[dir.path().join("foreign.txt")]));
        assert!(sources.concerns(&[dir.path().join("foreign.txt"), dir.path().join("own.txt")]));
        fs::write(dir.path().join("own.txt"), "12").unwrap();
        assert_eq!(sources.changed(), [dir.path().join("own.txt")]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_watched_where_it_leads_to() {
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("target.txt");
        fs::write(&target, "1").unwrap();
        let (dir, mut sources, told) = watching(&[]);
        let link = dir.path().join("link.txt");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        sources.follow([link.clone()]);
        fs::write(&target, "12").unwrap();
        wait_for(&mut sources, &told, &link);
    }

    #[test]
    fn a_change_between_two_plans_is_found() {
        let (dir, mut sources, _told) = watching(&["a.txt"]);
        fs::write(dir.path().join("a.txt"), "1").unwrap();
        sources.follow([dir.path().join("a.txt"), dir.path().join("b.txt")]);
        assert!(sources.stale());
    }
}
