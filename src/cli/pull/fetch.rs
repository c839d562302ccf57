//! One file, from a server to its place: whole and right, or not at all.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use flow_diffusion::Size;
use ring::digest::{Context, SHA256};

use super::http::{Answer, Http, Kept, Problem};

/// Bytes moved at a time.
const BLOCK: usize = 256 << 10;
/// Left free on the disk besides the file.
const SPARE: u64 = 64 << 20;

/// What is to be fetched.
pub struct Wanted<'a> {
    /// Where a server has it.
    pub url: &'a str,
    /// Where it goes; beside it are the unfinished file, `.part`, and what the server calls its content, `.part.etag`.
    pub to: &'a Path,
    /// Its length, where it is known.
    pub bytes: Option<u64>,
    /// Its content, where it is known.
    pub sha256: Option<&'a str>,
}

/// What has come.
pub struct Fetched {
    /// Its SHA-256.
    pub sha256: String,
    /// Whether anybody had said what that should be.
    pub verified: bool,
    /// Bytes that an earlier transfer had left.
    pub kept: u64,
}

/// Told of a transfer: how far it is, of how much.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Fetches a file, going on where an earlier transfer of the same content was broken off.
///
/// # Errors
/// [`Problem`]: no server; another file than the one wanted, which is then removed; no room; or a transfer that broke off,
/// which leaves what has come.
pub fn fetch(http: &Http, wanted: &Wanted<'_>, progress: Progress<'_>) -> Result<Fetched, Problem> {
    let mut part = Part::open(wanted.to)?;
    let fetched = part.fetch(http, wanted, progress);
    part.tidy();
    fetched
}

/// The content that the file must have, as far as anybody says; a server with another file is refused before it sends any.
fn expected(wanted: &Wanted<'_>, answer: &Answer) -> Result<Option<String>> {
    if let Some(bytes) = wanted.bytes {
        let has = answer.bytes;
        ensure!(bytes == has, "the server has another file: {has} bytes, expected {bytes}");
    }
    if let (Some(wanted), Some(has)) = (wanted.sha256, answer.sha256.as_deref()) {
        ensure!(wanted == has, "the server has another file: its SHA-256 is {has}, expected {wanted}");
    }
    Ok(wanted.sha256.map(str::to_owned).or_else(|| answer.sha256.clone()))
}

/// The SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut hash = Context::new(&SHA256);
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block).with_context(|| format!("cannot read `{}`", path.display()))? {
            0 => return Ok(hex(hash)),
            got => hash.update(&block[..got]),
        }
    }
}

fn hex(hash: Context) -> String {
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The unfinished file, which one process at a time may write.
struct Part {
    path: PathBuf,
    etag: PathBuf,
    file: File,
}

impl Part {
    fn open(to: &Path) -> Result<Self> {
        let beside = |ending: &str| {
            let mut name = to.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let (path, etag) = (beside(".part"), beside(".part.etag"));
        let folder = to.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        let shown = || format!("cannot write `{}`", path.display());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(shown)?;
        // A file system without locks has no word on it.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            bail!("another `flow pull` is fetching `{}`", to.display());
        }
        Ok(Self { path, etag, file })
    }

    fn fetch(
        &mut self,
        http: &Http,
        wanted: &Wanted<'_>,
        progress: Progress<'_>,
    ) -> Result<Fetched, Problem> {
        let kept = self.kept()?;
        let answer = http.get(wanted.url, kept.as_ref())?;
        let expected = expected(wanted, &answer)?;
        let kept = answer.from;
        room(wanted.to, answer.bytes.saturating_sub(kept))?;
        self.begin(&answer)?;
        let sha256 = self.receive(answer, progress)?;
        if let Some(expected) = &expected
            && *expected != sha256
        {
            self.remove();
            let what = "what came is not the file: its SHA-256";
            return Err(anyhow!("{what} is {sha256}, expected {expected}; it was removed").into());
        }
        self.finish(wanted.to)?;
        Ok(Fetched { sha256, verified: expected.is_some(), kept })
    }

    /// What an earlier transfer has left, if it is known of what.
    fn kept(&self) -> Result<Option<Kept>> {
        let bytes = self.file.metadata().with_context(|| self.unreadable())?.len();
        let etag = fs::read_to_string(&self.etag).ok().map(|etag| etag.trim().to_owned());
        Ok(etag.filter(|etag| bytes > 0 && !etag.is_empty()).map(|etag| Kept { bytes, etag }))
    }

    /// Makes the file the beginning that is kept, and notes of what.
    fn begin(&mut self, answer: &Answer) -> Result<()> {
        let unwritable = || format!("cannot write `{}`", self.path.display());
        self.file.set_len(answer.from).with_context(unwritable)?;
        match &answer.etag {
            Some(etag) => fs::write(&self.etag, etag).with_context(unwritable)?,
            // Nothing to go on by; a note of another content must not stay.
            None => drop(fs::remove_file(&self.etag)),
        }
        Ok(())
    }

    /// Writes what comes, and gives the SHA-256 of the whole.
    fn receive(&mut self, mut answer: Answer, progress: Progress<'_>) -> Result<String> {
        let mut hash = Context::new(&SHA256);
        let mut block = vec![0; BLOCK];
        let mut done = 0;
        self.file.seek(SeekFrom::Start(0)).with_context(|| self.unreadable())?;
        while done < answer.from {
            let most = (answer.from - done).min(BLOCK as u64) as usize;
            self.file.read_exact(&mut block[..most]).with_context(|| self.unreadable())?;
            hash.update(&block[..most]);
            done += most as u64;
        }
        loop {
            progress(done, answer.bytes);
            let got = match answer.body.read(&mut block) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken_off(done, answer.bytes, &format!(": {error}"))),
            };
            if got as u64 > answer.bytes - done {
                self.remove();
                bail!(
                    "the server sends more than the {} bytes it promised; what came was removed",
                    answer.bytes
                );
            }
            self.file
                .write_all(&block[..got])
                .with_context(|| format!("cannot write `{}`", self.path.display()))?;
            hash.update(&block[..got]);
            done += got as u64;
        }
        if done < answer.bytes {
            return Err(self.broken_off(done, answer.bytes, ""));
        }
        Ok(hex(hash))
    }

    fn broken_off(&self, done: u64, of: u64, why: &str) -> anyhow::Error {
        let again = if self.etag.exists() { "run it again to go on from there" } else { "run it again" };
        anyhow!("the transfer broke off after {done} of {of} bytes{why}; {again}")
    }

    fn unreadable(&self) -> String {
        format!("cannot read `{}`", self.path.display())
    }

    fn finish(&self, to: &Path) -> Result<()> {
        let unwritable = || format!("cannot write `{}`", to.display());
        self.file.sync_all().with_context(unwritable)?;
        fs::rename(&self.path, to).with_context(unwritable)?;
        let _ = fs::remove_file(&self.etag);
        Ok(())
    }

    fn remove(&self) {
        // Where it cannot be removed it is of no use all the same: the note goes first.
        let _ = fs::remove_file(&self.etag);
        let _ = fs::remove_file(&self.path);
    }

    /// An empty file is nothing to go on with.
    fn tidy(&self) {
        if self.path.metadata().is_ok_and(|meta| meta.len() == 0) {
            self.remove();
        }
    }
}

/// Refuses a file that the disk has no room for.
fn room(to: &Path, bytes: u64) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    match free(folder) {
        Some(free) if free < bytes.saturating_add(SPARE) => {
            bail!("`{}` has {} free, the file needs {}", folder.display(), Size(free), Size(bytes))
        }
        _ => Ok(()),
    }
}

/// Bytes that may still be written to a folder's disk, where the system says so.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(folder).ok()?;
    (disk.blocks_available() as u64).checked_mul(disk.fragment_size() as u64)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
