//! Our YAML format: `flow`, `name`, `about`, `inputs`, `models`, `nodes`, `outputs`.

use std::{ops::Range, sync::Arc};

use indexmap::IndexMap;

use super::{CacheMode, ModelAlias, Raw, RawField, RawNode, SeedMode, Spanned, Workflow, expand::Import};
use crate::{
    Diagnostic, Diagnostics, Literal, NodeId,
    diag::{Sources, Span},
    inputs,
    near::did_you_mean,
    tree::{Entry, Shape, Tree},
};

const TOP: [&str; 11] = [
    "flow",
    "name",
    "about",
    "extends",
    "import",
    "subgraphs",
    "inputs",
    "models",
    "nodes",
    "outputs",
    "matrix",
];

/// What a workflow under `subgraphs:` has.
const INLINE: [&str; 5] = ["about", "inputs", "models", "nodes", "outputs"];

/// What a map is read as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A whole file.
    File,
    /// A workflow written under `subgraphs:`.
    Inline,
}

/// `kind:` of a model alias and the folder ComfyUI keeps such files in.
const KINDS: [(&str, &str); 9] = [
    ("checkpoint", "checkpoints"),
    ("clip_vision", "clip_vision"),
    ("ipadapter", "ipadapter"),
    ("controlnet", "controlnet"),
    ("vae", "vae"),
    ("lora", "loras"),
    ("clip", "text_encoders"),
    ("unet", "diffusion_models"),
    ("upscale_model", "upscale_models"),
];

/// Fills `workflow` from a document.
pub(super) fn read(tree: &Tree, sources: &Sources, workflow: &mut Workflow, problems: &mut Diagnostics) {
    Reader { sources, problems }.document(tree, workflow, Part::File);
}

/// Reads one document; shared with what reads the parts of it.
pub(crate) struct Reader<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) problems: &'a mut Diagnostics,
}

impl Reader<'_> {
    pub(crate) fn span(&self, range: &Range<usize>) -> Span {
        self.sources.span(range)
    }

    pub(crate) fn error(
        &mut self,
        id: &'static str,
        message: String,
        range: &Range<usize>,
        hint: Option<String>,
    ) {
        let span = self.span(range);
        self.problems.push(Diagnostic::error(id, message).at(span).hint(hint));
    }

    fn document(&mut self, tree: &Tree, workflow: &mut Workflow, part: Part) {
        let Some(entries) = tree.map().filter(|entries| !entries.is_empty()) else {
            let hint = Some("begin with `flow: 1` and `nodes:`".to_owned());
            return self.error(
                "not-a-workflow",
                match tree.map() {
                    Some(_) => "this workflow has nothing in it".to_owned(),
                    None => format!("a workflow is a map, this is {}", tree.describe()),
                },
                &tree.range,
                hint,
            );
        };
        if part == Part::File {
            self.version(tree, entries);
        }
        for Entry { key, key_range, value } in entries {
            match key.as_str() {
                unknown if part == Part::Inline && !INLINE.contains(&unknown) => {
                    self.unknown_key(unknown, key_range, &INLINE, "a workflow used as a node has");
                }
                // `extends` has been followed.
                "flow" | "extends" => {}
                "name" => workflow.name = self.string(key, value).unwrap_or_default(),
                "about" => workflow.about = self.string(key, value),
                "inputs" => {
                    for entry in self.entries(key, value) {
                        if self.name_is_fit("input", entry, &['.', '-']) {
                            let declared = inputs::declare(self, entry);
                            if declared.is_none() {
                                workflow.refused.insert(format!("${}", entry.key));
                            }
                            workflow.inputs.extend(declared.map(|declared| (entry.key.clone(), declared)));
                        }
                    }
                }
                "models" => {
                    for entry in self.entries(key, value) {
                        let alias = self.model(entry);
                        if alias.is_none() {
                            workflow.refused.insert(format!("$models.{}", entry.key));
                        }
                        workflow.models.extend(alias.map(|alias| (entry.key.clone(), alias)));
                    }
                }
                "nodes" => {
                    let mut nodes = IndexMap::new();
                    for entry in self.entries(key, value) {
                        let fit = self.name_is_fit("node", entry, &['.']);
                        if !fit || !self.node(entry.key.as_str().into(), entry, &mut nodes) {
                            workflow.refused.insert(entry.key.clone());
                        }
                    }
                    workflow.nodes = Arc::new(nodes);
                }
                "outputs" => {
                    for entry in self.entries(key, value) {
                        let reference = self.string(&entry.key, &entry.value);
                        let span = self.span(&entry.value.range);
                        workflow
                            .outputs
                            .extend(reference.map(|value| (entry.key.clone(), Spanned { value, span })));
                    }
                }
                "matrix" => workflow.matrix = Some(Arc::new(self.matrix(value))),
                "import" => self.imports(value, workflow),
                "subgraphs" => self.subgraphs(value, workflow),
                unknown => self.unknown_key(unknown, key_range, &TOP, "a workflow has"),
            }
        }
    }

    fn imports(&mut self, value: &Tree, workflow: &mut Workflow) {
        for entry in self.entries("import", value) {
            let Some(file) = self.string(&entry.key, &entry.value) else { continue };
            let file = Spanned { value: file, span: self.span(&entry.value.range) };
            self.import(entry, Import::File(file), workflow);
        }
    }

    fn subgraphs(&mut self, value: &Tree, workflow: &mut Workflow) {
        for entry in self.entries("subgraphs", value) {
            let mut inner = Workflow::empty(workflow.source.clone());
            self.document(&entry.value, &mut inner, Part::Inline);
            self.import(entry, Import::Inline(Box::new(inner)), workflow);
        }
    }

    fn import(&mut self, entry: &Entry, import: Import, workflow: &mut Workflow) {
        if !self.name_is_fit("import", entry, &['.', '/']) {
            return;
        }
        let span = self.span(&entry.key_range);
        if let Some((first, _)) = workflow.imports.insert(entry.key.clone(), (span.clone(), import)) {
            let message = format!("`{}` is both imported and a subgraph", entry.key);
            self.problems
                .push(Diagnostic::error("duplicate-key", message).at(span).label(first, "first here"));
        }
    }

    fn version(&mut self, tree: &Tree, entries: &[Entry]) {
        let hint = Some("write `flow: 1`".to_owned());
        match tree.get("flow").map(|value| (&value.value, &value.range)) {
            Some((Shape::Scalar(Literal::Int(1)), _)) => {}
            Some((_, range)) => {
                let span = self.span(range);
                let text = span.source.text.get(span.range).unwrap_or_default().to_owned();
                self.error(
                    "version",
                    format!("this program reads version 1 of the format, not `{text}`"),
                    range,
                    hint,
                );
            }
            None => {
                let first = entries[0].key_range.clone();
                self.error(
                    "version",
                    "the version of the format is missing".into(),
                    &first,
                    hint.map(|hint| hint + " first"),
                );
            }
        }
    }

    pub(crate) fn unknown_key(&mut self, key: &str, range: &Range<usize>, known: &[&str], what: &str) {
        self.error("unknown-key", format!("unknown key `{key}`"), range, did_you_mean(key, known, what));
    }

    pub(crate) fn string(&mut self, key: &str, value: &Tree) -> Option<String> {
        let text = value.text().map(str::to_owned);
        if text.is_none() {
            let hint = value.literal().map(|literal| format!("quote it: \"{literal}\""));
            self.error(
                "wrong-type",
                format!("`{key}` is a string, found {}", value.describe()),
                &value.range,
                hint,
            );
        }
        text
    }

    pub(super) fn entries<'t>(&mut self, key: &str, value: &'t Tree) -> &'t [Entry] {
        match &value.value {
            Shape::Map(entries) => entries,
            Shape::Null => &[],
            _ => {
                self.error(
                    "wrong-type",
                    format!("`{key}` is a map of names, found {}", value.describe()),
                    &value.range,
                    None,
                );
                &[]
            }
        }
    }

    fn name_is_fit(&mut self, what: &str, entry: &Entry, besides: &[char]) -> bool {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '$' || besides.contains(&c);
        let reserved = what == "input" && ["flow", "models", "matrix", "each"].contains(&entry.key.as_str());
        if !entry.key.is_empty() && !entry.key.contains(bad) && !reserved {
            return true;
        }
        let hint = Some("letters, digits and `_` are fine".to_owned());
        self.error(
            "invalid-name",
            format!("`{}` cannot be the name of an {what}", entry.key).replace("an node", "a node"),
            &entry.key_range,
            hint,
        );
        false
    }

    fn model(&mut self, entry: &Entry) -> Option<ModelAlias> {
        let Some(fields) = entry.value.map() else {
            let hint = Some(format!("{}: {{ kind: checkpoint, file: name.safetensors }}", entry.key));
            self.error(
                "wrong-type",
                format!("a model is a map with `kind` and `file`, found {}", entry.value.describe()),
                &entry.value.range,
                hint,
            );
            return None;
        };
        let (mut folder, mut file, mut hash) = (None, None, None);
        for Entry { key, key_range, value } in fields {
            match key.as_str() {
                "kind" => folder = Some(self.kind(value)),
                "file" => {
                    let span = self.span(&value.range);
                    file = Some(self.string(key, value).map(|value| Spanned { value, span }));
                }
                "hash" => hash = self.hash(value),
                "about" => {
                    self.string(key, value);
                }
                unknown => {
                    self.unknown_key(unknown, key_range, &["kind", "file", "hash", "about"], "a model has")
                }
            }
        }
        for (missing, key) in [(folder.is_none(), "kind"), (file.is_none(), "file")] {
            if missing {
                self.error(
                    "missing-key",
                    format!("model `{}` has no `{key}`", entry.key),
                    &entry.key_range,
                    None,
                );
            }
        }
        Some(ModelAlias { folder: folder??, file: file??, hash })
    }

    fn kind(&mut self, value: &Tree) -> Option<Spanned<String>> {
        let word = self.string("kind", value)?;
        let known = KINDS.iter().find(|(kind, folder)| word == *kind || word == *folder);
        if known.is_none() {
            let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
            self.error(
                "value-not-in-list",
                format!("`{word}` is no kind of model"),
                &value.range,
                did_you_mean(&word, &kinds, "kinds"),
            );
        }
        known.map(|(_, folder)| Spanned { value: (*folder).to_owned(), span: self.span(&value.range) })
    }

    fn hash(&mut self, value: &Tree) -> Option<String> {
        let text = self.string("hash", value)?;
        let digits = text.strip_prefix("blake3:").unwrap_or(&text);
        if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Some(digits.to_ascii_lowercase());
        }
        self.error(
            "wrong-type",
            format!("`{text}` is no hash"),
            &value.range,
            Some("64 hexadecimal digits of BLAKE3, as `flow lock` writes them".into()),
        );
        None
    }

    /// Reads a node; false when it could not be, which is reported.
    fn node(&mut self, id: NodeId, entry: &Entry, nodes: &mut IndexMap<NodeId, RawNode>) -> bool {
        let Some(fields) = entry.value.map() else {
            let hint = Some(format!("{}: {{ type: KSampler, … }}", entry.key));
            let message =
                format!("a node is a map with `type` and its inputs, found {}", entry.value.describe());
            self.error("wrong-type", message, &entry.value.range, hint);
            return false;
        };
        let Some(kind) = entry.value.get("type") else {
            let hint = Some("add `type:` with the name of a node type".to_owned());
            self.error("missing-type", format!("node `{id}` has no `type`"), &entry.key_range, hint);
            return false;
        };
        let span = self.span(&entry.key_range);
        let kind_span = self.span(&kind.range);
        let Some(kind) = self.string("type", kind) else { return false };
        // Entered before its in-place children, so that listings follow the file.
        let kind = Spanned { value: kind, span: kind_span };
        nodes.insert(id.clone(), RawNode::new(span, kind, Vec::new()));
        let mut raw = Vec::with_capacity(fields.len());
        let (mut when, mut each) = (Vec::new(), None);
        let (mut cache, mut seed_mode) = (CacheMode::default(), None);
        for field in fields {
            match field.key.as_str() {
                "type" => {}
                "note" => {
                    self.string("note", &field.value);
                }
                "with" => {
                    for inner in self.entries("with", &field.value) {
                        raw.push(self.field(&id, inner, nodes));
                    }
                }
                "when" => when.extend(self.when(&field.value)),
                "each" => {
                    let span = self.span(&field.value.range);
                    let is_list = matches!(field.value.value, Shape::List(_));
                    each = match is_list {
                        false => self.string("each", &field.value).map(|value| Spanned { value, span }),
                        true => {
                            let hint = "make it an input, `items: { type: list, default: […] }`, and write `each: $items`";
                            self.error(
                                "wrong-type",
                                "`each` names a list, and is none itself".to_owned(),
                                &field.value.range,
                                Some(hint.to_owned()),
                            );
                            None
                        }
                    };
                }
                "cache" => cache = self.word("cache", &field.value, &CacheMode::ALL).unwrap_or_default(),
                "seed_mode" => {
                    let span = self.span(&field.value.range);
                    let mode = self.word("seed_mode", &field.value, &SeedMode::ALL);
                    seed_mode = mode.map(|value| Spanned { value, span });
                }
                "collect" => {
                    let message = "`collect` stands in an input, not in a node".to_owned();
                    let reference = field.value.text().unwrap_or("edges");
                    let hint = format!("as in `images: {{ collect: {reference} }}`");
                    self.error("unknown-key", message, &field.key_range, Some(hint));
                }
                _ => raw.push(self.field(&id, field, nodes)),
            }
        }
        if let Some(node) = nodes.get_mut(&*id) {
            (node.fields, node.when, node.each) = (raw, when, each);
            (node.cache, node.seed_mode) = (cache, seed_mode);
        }
        true
    }

    /// One of a few words.
    fn word<T: Copy>(&mut self, key: &str, value: &Tree, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(key, value)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("`{text}` is no value of `{key}`");
            self.error(
                "value-not-in-list",
                message,
                &value.range,
                did_you_mean(&text, &known, "it is one of"),
            );
        }
        found
    }

    fn when(&mut self, value: &Tree) -> Option<Spanned<Literal>> {
        let condition = value.literal().filter(|value| matches!(value, Literal::Bool(_) | Literal::Text(_)));
        if condition.is_none() {
            let message = format!("`when` is a condition, found {}", value.describe());
            let hint = Some("when: $look > 0".to_owned());
            self.error("wrong-type", message, &value.range, hint);
        }
        Some(Spanned { value: condition?, span: self.span(&value.range) })
    }

    fn field(&mut self, parent: &NodeId, entry: &Entry, nodes: &mut IndexMap<NodeId, RawNode>) -> RawField {
        let value = match &entry.value.value {
            Shape::Null => Raw::Null,
            Shape::Map(_) if entry.value.get("type").is_some() => {
                let id = NodeId::from(format!("{parent}.{}", entry.key));
                self.node(id.clone(), entry, nodes);
                Raw::InPlace(id)
            }
            Shape::Map(inner) if inner.len() == 1 && inner[0].key == "collect" => {
                self.collect(entry, &inner[0])
            }
            _ => entry.value.literal().map_or(Raw::Map, Raw::Literal),
        };
        RawField {
            name: entry.key.clone(),
            name_span: self.span(&entry.key_range),
            value,
            span: self.span(&entry.value.range),
        }
    }

    /// `{ collect: node.output }` in an input.
    fn collect(&mut self, input: &Entry, inner: &Entry) -> Raw {
        let Some(reference) = self.string("collect", &inner.value) else { return Raw::Broken };
        Raw::Collect(Box::new(RawField {
            name: input.key.clone(),
            name_span: self.span(&inner.key_range),
            value: Raw::Literal(reference.into()),
            span: self.span(&inner.value.range),
        }))
    }
}
