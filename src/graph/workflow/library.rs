//! The files a workflow is made of: `extends:` and `import:`, read below the input roots and nowhere else.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use indexmap::IndexMap;

use super::{Workflow, read};
use crate::{
    Diagnostic, Diagnostics, Files, Registry,
    comfy::is_json_workflow,
    diag::{Source, Sources, Span},
    files::FileProblem,
    near::near,
    tree::{Entry, MAX_BYTES, Shape, Tree},
    yaml,
};

/// Files that may extend or import each other in a row.
pub(super) const DEPTH: usize = 16;

/// Reads files for one workflow.
pub(super) struct Library<'a> {
    /// Absent: a text without a place among files.
    pub(super) around: Option<(&'a Files, &'a Registry)>,
    /// The files being read, outermost first: where they are, and what they are called.
    chain: Vec<(PathBuf, String)>,
    /// Bytes read so far.
    bytes: usize,
}

impl<'a> Library<'a> {
    pub(super) fn new(around: Option<(&'a Files, &'a Registry)>, source: &Source) -> Self {
        let path = Path::new(&source.name);
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Self { around, chain: vec![(path, source.name.clone())], bytes: 0 }
    }

    /// Reads a text and all it is made of, uses of other workflows expanded.
    pub(super) fn workflow(&mut self, source: Arc<Source>, problems: &mut Diagnostics) -> Workflow {
        let mut workflow = Workflow::empty(source.clone());
        if let Some((tree, sources)) = self.tree(&source, problems) {
            workflow.parts.extend(sources.names().skip(1).map(PathBuf::from));
            read::read(&tree, &sources, &mut workflow, problems);
            self.expand(&mut workflow, problems);
        }
        workflow
    }

    /// A text as a tree, what it extends merged into it.
    fn tree(&mut self, source: &Arc<Source>, problems: &mut Diagnostics) -> Option<(Tree, Sources)> {
        let tree = yaml::parse(source, problems)?;
        let mut sources = Sources::one(source.clone());
        let Some(base) = tree.get("extends") else { return Some((tree, sources)) };
        let span = sources.span(&base.range);
        let Some(name) = base.text() else {
            let message = format!("`extends` is the name of a file, found {}", base.describe());
            problems.push(
                Diagnostic::error("wrong-type", message).at(span).hint("extends: base.yaml".to_owned()),
            );
            return Some((tree, sources));
        };
        let found = self.within(name, &span, "extends", problems, |library, base, problems| {
            library.tree(&base, problems)
        });
        // Without its base a file would seem to be wrong everywhere.
        let (mut base, others) = found??;
        let by = sources.add(others);
        shift(&mut base, by);
        Some((merged(base, tree), sources))
    }

    /// Opens a file that the file of `place` names, and works on it.
    pub(super) fn within<T>(
        &mut self,
        name: &str,
        place: &Span,
        why: &str,
        problems: &mut Diagnostics,
        work: impl FnOnce(&mut Self, Arc<Source>, &mut Diagnostics) -> T,
    ) -> Option<T> {
        match self.read(name, place, why) {
            Ok((path, source)) => {
                self.chain.push((path, source.name.clone()));
                let done = work(self, source, problems);
                self.chain.pop();
                Some(done)
            }
            Err(problem) => {
                problems.push(problem.at(place.clone()));
                None
            }
        }
    }

    fn read(
        &mut self,
        name: &str,
        place: &Span,
        why: &str,
    ) -> Result<(PathBuf, Arc<Source>), Box<Diagnostic>> {
        let Some((files, _)) = self.around else {
            let message = format!("`{why}` needs a file on disk, this text is none");
            return Err(Box::new(Diagnostic::error("missing-file", message)));
        };
        let folder = Path::new(&place.source.name).parent().unwrap_or(Path::new(""));
        let path = files.beside(folder, name).map_err(|problem| match problem {
            FileProblem::Missing { near: names, .. } => {
                let near = near(name, names.iter().map(String::as_str));
                let hint = near.map_or_else(
                    || "the name is relative to the file it stands in".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                Diagnostic::error("missing-file", format!("no file `{name}`")).hint(hint)
            }
            FileProblem::Outside { roots } => {
                let roots: Vec<_> = roots.iter().map(|root| format!("`{}`", root.display())).collect();
                let message = format!("`{name}` leads out of the folders a run may read");
                let hint =
                    format!("files are read from {} only; add a folder with --input", roots.join(", "));
                Diagnostic::error("outside-roots", message).hint(hint)
            }
        })?;
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some(first) = self.chain.iter().position(|(other, _)| *other == real) {
            let chain = self.chain[first..].iter().map(|(_, name)| name.as_str()).chain([name]);
            let message =
                format!("files need each other in a circle: {}", chain.collect::<Vec<_>>().join(" → "));
            return Err(Box::new(
                Diagnostic::error("file-cycle", message).hint(format!("remove one `{why}`")),
            ));
        }
        if self.chain.len() >= DEPTH {
            let chain: Vec<_> = self.chain.iter().map(|(_, name)| name.as_str()).chain([name]).collect();
            let message =
                format!("more than {DEPTH} files extend or import each other: {}", chain.join(" → "));
            return Err(Box::new(Diagnostic::error("too-deep", message)));
        }
        let unreadable = |error: std::io::Error| {
            Diagnostic::error("missing-file", format!("cannot read `{name}`: {error}"))
        };
        let length = fs::metadata(&path).map_err(unreadable)?.len();
        self.bytes = self.bytes.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        if self.bytes > MAX_BYTES {
            let message = format!("with `{name}` this workflow is larger than {} MiB", MAX_BYTES >> 20);
            return Err(Box::new(Diagnostic::error("too-big", message)));
        }
        let text = fs::read_to_string(&path).map_err(unreadable)?;
        if is_json_workflow(&text) {
            let message =
                format!("`{name}` is ComfyUI's JSON; only workflows in YAML can be extended or imported");
            return Err(Box::new(Diagnostic::error("not-a-workflow", message)));
        }
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok((real, Arc::new(Source { name: path.to_string_lossy().into_owned(), text })))
    }
}

/// Moves all places of a tree.
fn shift(tree: &mut Tree, by: usize) {
    tree.range = tree.range.start + by..tree.range.end + by;
    match &mut tree.value {
        Shape::Null | Shape::Scalar(_) => {}
        Shape::List(items) => items.iter_mut().for_each(|item| shift(item, by)),
        Shape::Map(entries) => {
            for entry in entries {
                entry.key_range = entry.key_range.start + by..entry.key_range.end + by;
                shift(&mut entry.value, by);
            }
        }
    }
}

/// `over` laid over `base`: maps key by key, nothing (`null`) takes a key away, all else is replaced.
///
/// A map of another `type` (a node, an input) replaces the old one whole. A value over an input's long form is its new
/// default.
fn merged(base: Tree, over: Tree) -> Tree {
    merged_at(base, over, 0, "")
}

fn merged_at(base: Tree, over: Tree, level: usize, section: &str) -> Tree {
    let other_type =
        |a: &Tree, b: &Tree| match (a.get("type").and_then(Tree::text), b.get("type").and_then(Tree::text)) {
            (Some(a), Some(b)) => a != b,
            _ => false,
        };
    if level == 2
        && section == "inputs"
        && base.map().is_some()
        && matches!(over.value, Shape::Scalar(_) | Shape::List(_))
    {
        return with_default(base, over);
    }
    if other_type(&base, &over) {
        return over;
    }
    match (base.value, over.value) {
        (Shape::Map(entries), Shape::Map(above)) => {
            let mut all: IndexMap<_, _> =
                entries.into_iter().map(|entry| (entry.key.clone(), Some(entry))).collect();
            for Entry { key, key_range, value } in above {
                let value = match all.get_mut(&key).and_then(Option::take) {
                    // Taken away.
                    Some(_) if matches!(value.value, Shape::Null) => continue,
                    Some(below) => {
                        let section = if level == 0 { key.as_str() } else { section };
                        merged_at(below.value, value, level + 1, section)
                    }
                    None => value,
                };
                all.insert(key.clone(), Some(Entry { key, key_range, value }));
            }
            Tree { value: Shape::Map(all.into_values().flatten().collect()), range: over.range }
        }
        (_, value) => Tree { value, range: over.range },
    }
}

fn with_default(mut long: Tree, value: Tree) -> Tree {
    if let Shape::Map(entries) = &mut long.value {
        let key_range = value.range.clone();
        entries.retain(|entry| entry.key != "default");
        entries.push(Entry { key: "default".into(), key_range, value });
    }
    long
}
