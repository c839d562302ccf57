//! Where results are kept between runs, and how many.

use std::{env, ffi::OsString, path::PathBuf};

use anyhow::{Result, bail};
use flow_engine::DiskCache;

use crate::memory::Amount;

/// Bytes of results kept unless FLOW_CACHE_SIZE says otherwise.
const LIMIT: u64 = 8 << 30;

/// The folder of everything that is kept between runs.
#[derive(Debug)]
pub struct Folder {
    /// Where it is; made when something is kept.
    pub path: PathBuf,
    /// How many bytes of results stay.
    pub limit: u64,
}

impl Folder {
    /// What FLOW_CACHE says (a folder, or `off`: none), else the user's cache folder; none where there is no such folder.
    ///
    /// # Errors
    /// When FLOW_CACHE_SIZE is no size.
    pub fn from_env() -> Result<Option<Self>> {
        let given = env::var_os("FLOW_CACHE").filter(|path| !path.is_empty());
        let path = match given {
            Some(path) if path == "off" => return Ok(None),
            Some(path) => Some(PathBuf::from(path)),
            None => user_cache(&|name| env::var_os(name)).map(|path| path.join("flow")),
        };
        let limit = match env::var("FLOW_CACHE_SIZE") {
            Ok(text) if !text.is_empty() => match text.parse() {
                Ok(Amount::Bytes(bytes)) => bytes,
                _ => bail!("FLOW_CACHE_SIZE is `{text}`, expected a size such as 500MiB or 2GiB"),
            },
            _ => LIMIT,
        };
        Ok(path.map(|path| Self { path, limit }))
    }

    /// The results in it.
    pub fn results(&self) -> DiskCache {
        DiskCache::new(self.path.join("results"), self.limit)
    }
}

/// The platform's folder for what can be made again.
fn user_cache(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative path here is a mistake that the XDG specification tells to ignore.
    let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Caches"))
    } else {
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(unix, not(target_os = "macos")))]
    #[test]
    fn the_folder_is_the_users_cache() {
        let with = |given: &[(&str, &str)]| {
            let find = |name: &str| given.iter().find(|(known, _)| *known == name);
            user_cache(&|name| find(name).map(|(_, value)| OsString::from(value)))
        };
        let home = ("HOME", "/home/me");
        assert_eq!(with(&[home]), Some("/home/me/.cache".into()));
        assert_eq!(with(&[home, ("XDG_CACHE_HOME", "/fast")]), Some("/fast".into()));
        assert_eq!(with(&[home, ("XDG_CACHE_HOME", "relative")]), Some("/home/me/.cache".into()));
        assert_eq!(with(&[]), None);
    }
}
