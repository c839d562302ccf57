//! Lists of files: patterns and folders.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{FileProblem, Files, is_inside, is_picture, leads_out};

/// A pattern, or a folder of pictures, that files were taken from.
#[derive(Debug)]
pub(super) struct Listed {
    /// The folder it starts at, where links lead to.
    root: PathBuf,
    /// The pattern or the folder, below that.
    wanted: String,
    pattern: bool,
}

impl Listed {
    /// Whether a file of this name below `root` would be one of it.
    fn has(&self, name: &str) -> bool {
        if self.pattern {
            return fits(name, &self.wanted);
        }
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        is_picture(name) && folder == self.wanted
    }
}

impl Files {
    /// The input files that a pattern (`photos/*.png`) or a folder of pictures means, sorted; `None` when the text is neither.
    ///
    /// # Errors
    /// When a pattern or folder leads out of the roots, or nothing matches.
    pub fn matching(&self, text: &str) -> Result<Option<Vec<String>>, FileProblem> {
        let wanted = text.replace('\\', "/");
        let is_folder = self.input_roots.iter().any(|root| root.join(&wanted).is_dir());
        let pattern = wanted.contains(['*', '?']);
        if !pattern && !is_folder {
            return Ok(None);
        }
        if leads_out(Path::new(&wanted)) {
            return Err(FileProblem::Outside { roots: self.input_roots.clone() });
        }
        // The folders before the first wildcard need not be listed.
        let fixed = match wanted.find(['*', '?']) {
            Some(first) => wanted[..first].rfind('/').map_or("", |slash| &wanted[..slash]),
            None => wanted.trim_end_matches('/'),
        };
        let depth = wanted[fixed.len()..].trim_start_matches('/').matches('/').count();
        for root in &self.input_roots {
            let folder = root.join(fixed);
            if !folder.is_dir() {
                self.depends_on(vec![folder]);
                continue;
            }
            if !is_inside(&folder, root) {
                return Err(FileProblem::Outside { roots: self.input_roots.clone() });
            }
            self.depends_on(folders(&folder, depth));
            let names = listing(&folder, depth).into_iter();
            let names = names.map(|name| if fixed.is_empty() { name } else { format!("{fixed}/{name}") });
            let names: Vec<_> =
                names.filter(|name| if pattern { fits(name, &wanted) } else { is_picture(name) }).collect();
            if !names.is_empty() {
                if let (Ok(root), Ok(mut all)) = (canonical(root), self.listed.lock()) {
                    let parts = wanted.split('/').filter(|part| !part.is_empty() && *part != ".");
                    all.push(Listed { root, wanted: parts.collect::<Vec<_>>().join("/"), pattern });
                }
                return Ok(Some(names));
            }
        }
        Err(FileProblem::Missing { searched: self.input_roots.clone(), near: Vec::new() })
    }

    /// Whether a file written as `name` would be among those that a pattern or a folder meant so far.
    pub(crate) fn is_listed(&self, name: &str) -> bool {
        let path = self.output_root.join(name);
        let (Some(Ok(folder)), Some(file)) = (path.parent().map(canonical), path.file_name()) else {
            return false;
        };
        let path = folder.join(file);
        self.listed.lock().is_ok_and(|all| {
            all.iter().any(|listed| {
                let name = path.strip_prefix(&listed.root).ok().and_then(Path::to_str);
                name.is_some_and(|name| listed.has(&name.replace('\\', "/")))
            })
        })
    }
}

/// A folder where links lead to; none is the current one.
fn canonical(folder: &Path) -> io::Result<PathBuf> {
    if folder.as_os_str().is_empty() { Path::new(".").canonicalize() } else { folder.canonicalize() }
}

/// Whether a name fits a pattern: `*` is any letters but `/`, `?` is one.
pub(super) fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<_>, Vec<_>) = (name.chars().collect(), pattern.chars().collect());
    // Which beginnings of the pattern fit the name so far.
    let mut fitting = vec![false; pattern.len() + 1];
    fitting[0] = true;
    let star = |fitting: &mut Vec<bool>| {
        for (i, c) in pattern.iter().enumerate() {
            fitting[i + 1] |= *c == '*' && fitting[i];
        }
    };
    star(&mut fitting);
    for letter in name {
        let mut next = vec![false; fitting.len()];
        for (i, c) in pattern.iter().enumerate().filter(|(i, _)| fitting[*i] || fitting[*i + 1]) {
            next[i + 1] |= match c {
                '*' => fitting[i + 1] && letter != '/',
                '?' => fitting[i] && letter != '/',
                c => fitting[i] && *c == letter,
            };
        }
        fitting = next;
        star(&mut fitting);
    }
    fitting[pattern.len()]
}

/// Files below `root` as names with `/`, sorted, at most `depth` folders down.
pub(super) fn listing(root: &Path, depth: usize) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(entries) = fs::read_dir(root) else { return names };
    for entry in entries.flatten() {
        // A name that is no text cannot be written in a workflow; hidden files are other programs' own.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        if name.starts_with('.') {
            continue;
        }
        if path.is_file() {
            names.push(name);
        } else if depth > 0 && path.is_dir() && name != "target" {
            names.extend(listing(&path, depth - 1).into_iter().map(|below| format!("{name}/{below}")));
        }
    }
    names.sort();
    names
}

/// `root` and the folders below it that [`listing`] enters.
pub(super) fn folders(root: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let Ok(entries) = fs::read_dir(root) else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let path = entry.path();
        if depth > 0 && path.is_dir() && !name.to_string_lossy().starts_with('.') && name != "target" {
            found.extend(folders(&path, depth - 1));
        }
    }
    found
}
