//! Literals, names and expressions in the inputs that take values.

use std::path::Path;

use crate::{
    Constant, Diagnostic, File, Files, Literal, Workflow,
    check::{
        draft::{At, Draft, Resolved},
        place::inside,
        scope::{Found, REPORTED},
    },
    comfy,
    expr::{self, ExprError, Template},
    files::{FileProblem, is_picture},
    fit::fit,
    spec::ValueKind,
    workflow::{Dialect, Raw},
    yaml,
};

impl Draft<'_> {
    /// What an input of this kind is.
    pub(super) fn value(&mut self, at: At, kind: &ValueKind) -> Resolved {
        match &at.field.value {
            Raw::Null => Resolved::Empty,
            Raw::Literal(Literal::Text(text)) if self.workflow.dialect == Dialect::Flow => {
                self.template(at, kind, text)
            }
            Raw::Literal(literal) => self.constant(at, kind, literal.clone()),
            Raw::Given(text) if text.contains('$') && self.workflow.dialect == Dialect::Flow => {
                self.template(at, kind, text)
            }
            Raw::Given(text) => self.constant(at, kind, read(kind, text)),
            Raw::Link { node, output } => {
                self.value_link(at, kind, |draft| draft.numbered(at, node, *output))
            }
            Raw::InPlace(id) => self.value_link(at, kind, |draft| draft.in_place(at, id, kind.linkable())),
            Raw::Collect(_) => self.refuse_collect(at),
            Raw::Map => self.refuse_map(at),
            Raw::Broken => Resolved::Broken,
        }
    }

    pub(super) fn refuse_map(&mut self, at: At) -> Resolved {
        let problem = Diagnostic::error("wrong-type", format!("{} takes no map", self.name(at)));
        self.report(at, problem.hint("a node written in place needs its `type`".to_owned()));
        Resolved::Broken
    }

    fn template(&mut self, at: At, kind: &ValueKind, text: &str) -> Resolved {
        // Nodes of imported workflows have a slash in their names, which the rules of `$` do not know.
        if let Some(name) =
            text.strip_prefix('$').filter(|name| name.contains('/') && self.is_reference(name))
        {
            return self.value_link(at, kind, |draft| draft.reference(at, name, kind.linkable()));
        }
        let value = match expr::template(text) {
            Err(error) => Err(error),
            Ok(Template::Text(plain)) => {
                self.warn_of_dollar(at, &plain);
                return self.constant(at, kind, as_given(at, kind, plain));
            }
            Ok(Template::Name(name)) => match self.scope.find(name) {
                Ok(Found::Value(value)) => Ok(value),
                Ok(Found::Empty) => return Resolved::Empty,
                Ok(Found::Broken) => Err(ExprError { id: REPORTED, ..ExprError::new("") }),
                Ok(Found::Model(alias)) => return self.model_file(at, kind, alias),
                Ok(Found::Node) => {
                    return self.value_link(at, kind, |draft| draft.reference(at, name, kind.linkable()));
                }
                Err(error) => Err(error),
            },
            Ok(Template::Expr(text)) => expr::eval(text, &mut |name| self.scope.value(name)),
            Ok(Template::Mixed(pieces)) => self.scope.mixed(&pieces).map(Literal::Text),
        };
        match value {
            Ok(value) => self.constant(at, kind, for_socket(kind, value)),
            Err(error) => self.unknown_value(at, error),
        }
    }

    fn unknown_value(&mut self, at: At, error: ExprError) -> Resolved {
        if error.id == REPORTED {
            return Resolved::Broken;
        }
        // Point at the name itself where the text has it once.
        let span = error
            .message
            .split('`')
            .nth(1)
            .and_then(|name| inside(&at.field.span, name.trim_start_matches('$')));
        let problem = Diagnostic::error(error.id, error.message).at(span).hint(error.hint);
        self.report(at, problem);
        Resolved::Broken
    }

    /// Says of defaults that name another input that they stand as they are.
    pub(super) fn plain_defaults(&mut self) {
        for (input, decl) in &self.workflow.inputs {
            let Some(Literal::Text(text)) = &decl.default else { continue };
            let mut names = text.split('$').skip(1).map(|after| word(after.trim_start_matches('{')));
            let Some(name) = names.find(|name| self.workflow.inputs.contains_key(*name)) else { continue };
            let message = format!("`${name}` in the default of `{input}` is just letters");
            let hint = format!("write `${{{name}}}` in the input of a node, where it has a value");
            let place = decl.default_span.clone().or_else(|| Some(decl.span.clone()));
            self.problems.push(Diagnostic::warning("dollar", message).at(place).hint(hint));
        }
    }

    fn warn_of_dollar(&mut self, at: At, text: &str) {
        let mut names = text.split('$').skip(1).map(word);
        let Some(name) = names.find(|name| self.workflow.inputs.contains_key(*name)) else { return };
        let message = format!("`${name}` inside a text is just letters");
        let hint = format!("write `${{{name}}}` for the value of the input, `$$` for a dollar");
        self.report(at, Diagnostic::warning("dollar", message).hint(hint));
    }

    /// A literal, if it fits.
    fn constant(&mut self, at: At, kind: &ValueKind, value: Literal) -> Resolved {
        let value = if self.workflow.dialect == Dialect::Comfy { comfy::lenient(kind, value) } else { value };
        // `sample.steps: other.count`, a reference in the wrong spelling.
        let reference = match &value {
            Literal::Text(text) if !matches!(kind, ValueKind::Text) && self.is_reference(text) => {
                Some(text.clone())
            }
            _ => None,
        };
        let value = match fit(kind, value) {
            Ok(value) => value,
            Err(misfit) => {
                let mut problem = misfit.diagnostic(&self.name(at));
                if let Some(text) = reference.filter(|_| !kind.linkable().is_empty()) {
                    problem = problem.hint(format!("to link a node's output write `${text}`"));
                }
                self.report(at, problem);
                return Resolved::Broken;
            }
        };
        match (kind, &value) {
            (ValueKind::File { folder }, Literal::Text(name)) => self.file(at, folder, name, None),
            _ => Resolved::Constant(Constant::Literal(value)),
        }
    }

    fn is_reference(&self, text: &str) -> bool {
        self.ids.contains_key(text)
            || text.rsplit_once('.').is_some_and(|(node, _)| self.ids.contains_key(node))
    }

    fn model_file(&mut self, at: At, kind: &ValueKind, alias: &str) -> Resolved {
        let name = self.scope.model_file(alias);
        let Some(model) = self.workflow.models.get(alias) else { return Resolved::Broken };
        let ValueKind::File { folder } = kind else { return self.constant(at, kind, name.into()) };
        if *folder != model.folder.value {
            let message = format!(
                "{} wants a file of `{folder}`, `$models.{alias}` is one of `{}`",
                self.name(at),
                model.folder.value
            );
            let fitting = self.workflow.models.iter().filter(|(_, other)| other.folder.value == *folder);
            let hint = fitting.map(|(alias, _)| format!("`$models.{alias}`")).collect::<Vec<_>>();
            let hint = (!hint.is_empty()).then(|| format!("there is {}", hint.join(", ")));
            let problem =
                Diagnostic::error("wrong-model-kind", message).label(model.folder.span.clone(), "its kind");
            self.report(at, problem.hint(hint));
            return Resolved::Broken;
        }
        self.file(at, folder, name, Some(alias))
    }

    /// A file that is there; a missing one is reported where its name is written.
    pub(super) fn file(&mut self, at: At, folder: &'static str, name: &str, alias: Option<&str>) -> Resolved {
        let problem = match self.find(folder, name) {
            Ok(file) => return Resolved::Constant(Constant::File(file)),
            Err(problem) => file_problem(self.files, self.workflow, folder, name, &problem),
        };
        let set = alias.and_then(|alias| self.scope.settings.models.get(alias)).map(|file| &file.span);
        let place = set.or_else(|| Some(&self.workflow.models.get(alias?)?.file.span)).cloned();
        self.report(at, problem.at(place));
        Resolved::Broken
    }

    pub(super) fn find(&mut self, folder: &'static str, name: &str) -> Result<File, FileProblem> {
        let files = self.files;
        self.found.entry((folder, name.to_owned())).or_insert_with(|| files.find(folder, name)).clone()
    }

    /// A link into an input that also takes literals.
    fn value_link(
        &mut self,
        at: At,
        kind: &ValueKind,
        resolve: impl FnOnce(&mut Self) -> Option<(usize, usize)>,
    ) -> Resolved {
        if kind.linkable().is_empty() {
            let what =
                if matches!(kind, ValueKind::File { .. }) { "a file name" } else { "one of its words" };
            let message = format!("{} takes {what}, not a node's output", self.name(at));
            let hint = match kind {
                ValueKind::Choice(words) => format!("choices: {}", crate::near::list(words)),
                _ => "the check must see which file it is; use an input: `$name`".to_owned(),
            };
            self.report(at, Diagnostic::error("literal-expected", message).hint(hint));
            return Resolved::Broken;
        }
        let Some((producer, output)) = resolve(self) else { return Resolved::Broken };
        self.typed(at, producer, output, kind.linkable())
    }
}

/// The letters of a name that a text begins with.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Text typed on a command line, as the input wants it.
pub(crate) fn read(kind: &ValueKind, text: &str) -> Literal {
    match kind {
        ValueKind::Text | ValueKind::Choice(_) | ValueKind::File { .. } => text.into(),
        _ => yaml::scalar(text),
    }
}

fn as_given(at: At, kind: &ValueKind, plain: String) -> Literal {
    match &at.field.value {
        Raw::Given(_) => read(kind, &plain),
        _ => plain.into(),
    }
}

/// A value of an input where it is used: a number in a text socket is its digits.
fn for_socket(kind: &ValueKind, value: Literal) -> Literal {
    match (kind, value) {
        (
            ValueKind::Text | ValueKind::File { .. },
            value @ (Literal::Int(_) | Literal::Float(_) | Literal::Bool(_)),
        ) => value.to_string().into(),
        (_, value) => value,
    }
}

fn file_problem(
    files: &Files,
    workflow: &Workflow,
    folder: &str,
    name: &str,
    problem: &FileProblem,
) -> Diagnostic {
    // Tiny autoencoders have a folder of their own.
    let tiny =
        folder == "vae" && name.rsplit(['/', '\\']).next().is_some_and(|file| file.starts_with("taesd"));
    let home = if tiny { "vae_approx" } else { folder };
    match problem {
        FileProblem::Missing { searched, near } => {
            let message = if folder == "input" && searched.iter().any(|root| root.join(name).is_dir()) {
                format!("`{name}` is a folder, and a file is wanted")
            } else if folder == "input" {
                format!("no file `{name}`")
            } else {
                format!("no file `{name}` among the {folder}")
            };
            let folders: Vec<_> = searched.iter().map(|path| format!("`{}`", path.display())).collect();
            // A picture says what its inputs were called, and not where they lie.
            let carried = folder == "input" && is_picture(&workflow.source.name);
            let hint = match near.first() {
                Some(near) if carried => {
                    format!("name its folder with `--input DIR`; or did you mean `{near}`?")
                }
                Some(near) => format!("did you mean `{near}`?"),
                None if folder != "input" && files.new_models != Path::new("") => {
                    let home = files.new_models.join(home);
                    let searched = if folders.is_empty() { String::new() } else { "; searched ".to_owned() };
                    format!("put it into `{}`{searched}{}", home.display(), folders.join(", "))
                }
                None if folders.is_empty() => "no folder was given to search; use --models or --input".into(),
                None if folder == "input" => {
                    let which = if carried { "its folder" } else { "another folder" };
                    format!("searched {}; name {which} with `--input DIR`", folders.join(", "))
                }
                None => format!("searched {}", folders.join(", ")),
            };
            Diagnostic::error("missing-file", message).hint(hint).missing(home, name)
        }
        FileProblem::Outside { roots } => {
            let roots: Vec<_> = roots.iter().map(|path| format!("`{}`", path.display())).collect();
            let hint = format!(
                "files are read from {} only; add a folder with --input or --models",
                roots.join(", ")
            );
            Diagnostic::error("outside-roots", format!("`{name}` leads out of the folders a run may read"))
                .hint(hint)
        }
    }
}
