//! Results on disk: what makes the first run of a process short.
//!
//! One file for each key, `ab/ab12…`; written under another name and renamed, so that several processes can share a
//! folder. Nothing here fails a run: what cannot be read is not there, and what cannot be written turns writing off.

use std::{
    ffi::OsStr,
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use flow_graph::{Context, Hash, NodeDef, Value};

use crate::entry::{Head, encode};

/// A larger result is not kept.
const MAX_ENTRY: u64 = 1 << 30;

/// What takes less is computed again sooner than a file is read.
const WORTH_KEEPING: Duration = Duration::from_millis(1);

/// About how long it takes to read and check one byte, in nanoseconds.
const READ_NANOS: u64 = 2;

/// A file under a temporary name that is older than this was left by a process that died.
const STALE: Duration = Duration::from_secs(3600);

/// After so large a part of the limit has been written the folder is looked through again: other processes write too.
const SHARE: u64 = 8;

/// The ending of a file that is being written.
const UNFINISHED: &str = "tmp";

/// A folder of results, kept below a size.
#[derive(Debug)]
pub struct DiskCache {
    folder: PathBuf,
    limit: u64,
    /// Bytes that entries have together, as far as this process knows; absent until the folder was looked through.
    used: Mutex<Option<u64>>,
    /// Bytes this process has written since then, which others do too.
    grown: AtomicU64,
    /// What went wrong, until it is told.
    trouble: Mutex<Option<String>>,
    /// Something went wrong: nothing more is written.
    broken: AtomicBool,
}

/// What is known of a job from an earlier run.
#[derive(Debug)]
pub(crate) struct Found {
    /// The identities of its outputs.
    pub ids: Vec<Hash>,
    /// Whether the values themselves are kept.
    pub whole: bool,
}

/// The entries of a folder, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many there are.
    pub entries: usize,
    /// How long their files are together, in bytes.
    pub bytes: u64,
}

impl DiskCache {
    /// The results in `folder`, which is made when something is kept; at most `limit` bytes of them stay.
    pub fn new(folder: impl Into<PathBuf>, limit: u64) -> Self {
        Self {
            folder: folder.into(),
            limit,
            used: Mutex::default(),
            grown: AtomicU64::default(),
            trouble: Mutex::default(),
            broken: AtomicBool::default(),
        }
    }

    /// Why nothing more is written, if something went wrong; given once.
    pub fn take_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether something went wrong, so that nothing more is written.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// What is known of a job with `outputs` outputs; counts as a use.
    pub(crate) fn find(&self, key: &Hash, outputs: usize) -> Option<Found> {
        let (head, file) = self.open(key)?;
        if head.outputs.len() != outputs {
            return None;
        }
        // The sweep goes by this time. A folder that cannot be written is not swept either.
        let _ = file.set_modified(SystemTime::now());
        Some(Found { whole: head.is_whole(), ids: head.outputs.into_iter().map(|(id, _)| id).collect() })
    }

    /// The values of a job that was found.
    pub(crate) fn load(&self, key: &Hash, def: &NodeDef, cx: &Context) -> Option<Vec<Value>> {
        let (head, mut file) = self.open(key)?;
        if head.outputs.len() != def.outputs.len() {
            return None;
        }
        let body = head.body(&mut file)?;
        let value = |(spec, (id, range)): (&flow_graph::OutputSpec, &(Hash, Option<_>))| {
            let range: std::ops::Range<usize> = range.clone()?;
            (spec.load)(&body[range], cx, *id)
        };
        def.outputs.iter().zip(&head.outputs).map(value).collect()
    }

    /// Whether a job of this type leaves anything here.
    pub(crate) fn concerns(def: &NodeDef) -> bool {
        def.outputs.iter().any(|output| output.stored || output.content)
    }

    /// Keeps what a job gave: its outputs' identities, and the values where they took longer to make than to read.
    pub(crate) fn keep(&self, key: &Hash, values: &[Value], elapsed: Duration, cx: &Context) {
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        let bytes: u64 = values.iter().map(|value| value.bytes().host + value.bytes().device).sum();
        let worth = elapsed >= WORTH_KEEPING.max(Duration::from_nanos(bytes.saturating_mul(READ_NANOS)));
        let kept = |value: &Value| (worth && bytes <= MAX_ENTRY).then(|| value.store(cx)).flatten();
        let outputs: Vec<_> = values.iter().map(|value| (value.id(), kept(value))).collect();
        let entry = encode(key, &outputs);
        match self.write(key, &entry) {
            Ok(()) => _ = self.grown.fetch_add(entry.len() as u64, Ordering::Relaxed),
            Err(error) => {
                self.broken.store(true, Ordering::Relaxed);
                let told = format!("results cannot be kept in `{}`: {error}", self.folder.display());
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
            }
        }
    }

    /// Removes what was used longest ago while there is more than the limit; call it when a run ends.
    pub fn sweep(&self) {
        let grown = self.grown.load(Ordering::Relaxed);
        let mut known = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // A folder of many entries takes long to look through, and a process may have thousands of runs.
        let may_be_too_much =
            known.is_none_or(|used| used + grown > self.limit || grown > self.limit / SHARE);
        if grown == 0 || !may_be_too_much {
            return;
        }
        self.grown.fetch_sub(grown, Ordering::Relaxed);
        self.remove_stale();
        let mut entries = Vec::new();
        self.each(|path, key| {
            // Another process may have removed it meanwhile.
            if key.is_some()
                && let Ok(meta) = fs::metadata(path)
            {
                entries.push((
                    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    meta.len(),
                    path.to_owned(),
                ));
            }
        });
        let mut used: u64 = entries.iter().map(|(_, len, _)| len).sum();
        entries.sort();
        for (_, len, path) in entries {
            if used <= self.limit {
                break;
            }
            let _ = fs::remove_file(path);
            used -= len;
        }
        *known = Some(used);
    }

    /// Counts the entries.
    pub fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        self.each(|path, key| {
            if key.is_some() {
                survey.entries += 1;
                survey.bytes += fs::metadata(path).map_or(0, |meta| meta.len());
            }
        });
        survey
    }

    /// Reads every entry to its end and removes the damaged ones, which are given.
    pub fn verify(&self) -> Vec<PathBuf> {
        let mut damaged = Vec::new();
        self.each(|path, key| {
            let sound = key.is_none_or(|key| {
                let read = open(path, &key).and_then(|(head, mut file)| head.body(&mut file));
                // Gone is not damaged.
                read.is_some() || !path.exists()
            });
            if !sound {
                let _ = fs::remove_file(path);
                damaged.push(path.to_owned());
            }
        });
        damaged
    }

    /// Removes all entries and what dead processes left, and nothing else.
    ///
    /// # Errors
    /// When an entry cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        let mut paths = Vec::new();
        self.each(|path, _| paths.push(path.to_owned()));
        for path in paths {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // The last one takes the folder along; a folder with anything else in it stays.
            let _ = path.parent().map(fs::remove_dir);
        }
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    fn path(&self, key: &Hash) -> PathBuf {
        let name = key.to_string();
        self.folder.join(&name[..2]).join(name)
    }

    fn open(&self, key: &Hash) -> Option<(Head, File)> {
        open(&self.path(key), key)
    }

    fn write(&self, key: &Hash, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        // Not the process's number: programs in containers that share a folder may have the same one.
        let number = RandomState::new().build_hasher().finish();
        let unfinished = path.with_extension(format!("{number:016x}.{UNFINISHED}"));
        let written = create(&unfinished)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&unfinished, &path));
        match written {
            // Somebody clears the folder meanwhile: this entry is gone too, and that is all.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => {
                let _ = fs::remove_file(&unfinished);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn remove_stale(&self) {
        self.each(|path, key| {
            let age = || fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
            if key.is_none() && age().is_some_and(|age| age > STALE) {
                let _ = fs::remove_file(path);
            }
        });
    }

    /// Calls `of` for each entry with its key, and without one for files that are being written; for no other file.
    fn each(&self, mut of: impl FnMut(&Path, Option<Hash>)) {
        let listed = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        for shard in listed(&self.folder) {
            let shard = shard.path();
            let Some(start) = shard.file_name().and_then(OsStr::to_str).filter(|name| name.len() == 2) else {
                continue;
            };
            for entry in listed(&shard) {
                let path = entry.path();
                let ending = path.extension();
                let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
                let key = key_of(name.split('.').next().unwrap_or_default());
                match (key, ending) {
                    (Some(_), _) if !name.starts_with(start) => {}
                    (Some(key), None) => of(&path, Some(key)),
                    (Some(_), Some(ending)) if ending == UNFINISHED => of(&path, None),
                    _ => {}
                }
            }
        }
    }
}

/// Makes a new file, and its folder where that is missing.
fn create(path: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            File::create_new(path)
        }
        done => done,
    }
}

fn open(path: &Path, key: &Hash) -> Option<(Head, File)> {
    let mut file = File::open(path).ok()?;
    let len = file.metadata().ok().filter(|meta| meta.is_file())?.len();
    // What is kept is below the limit for values, and a head is short.
    if len > MAX_ENTRY + (1 << 20) {
        return None;
    }
    Some((Head::read(&mut file, len, key)?, file))
}

/// The key that a file is named after.
fn key_of(name: &str) -> Option<Hash> {
    let mut bytes = [0; 32];
    if name.len() != 64 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(name.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(Hash::from_bytes(bytes))
}
