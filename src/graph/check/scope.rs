//! What `$name` and the names in `${…}` stand for.

use std::collections::HashSet;

use crate::{
    Literal, Workflow,
    check::Settings,
    expr::{self, ExprError, Piece, Template},
    near::near,
};

/// The id of an error that has been reported where its cause is.
pub(super) const REPORTED: &str = "";

/// Everything a name may stand for.
pub(super) struct Scope<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) settings: &'a Settings,
    /// Inputs something asked for.
    pub(super) used: HashSet<&'a str>,
    /// Somebody asked for the item of this run.
    pub(super) each: bool,
    /// The list that the node in question runs over.
    pub(super) list: Option<&'a str>,
}

/// What a name stands for.
pub(super) enum Found<'a> {
    Value(Literal),
    /// An input nobody set.
    Empty,
    /// An input in error.
    Broken,
    /// A model alias.
    Model(&'a str),
    /// A node, or a node and its output.
    Node,
}

impl<'a> Scope<'a> {
    /// Looks a name up: inputs first, then `flow.`, `models.`, then nodes.
    pub(super) fn find(&mut self, name: &str) -> Result<Found<'a>, ExprError> {
        if let Some((key, value)) = self.settings.inputs.get_key_value(name) {
            self.used.insert(key);
            let missing = if self.settings.broken.contains(name) { Found::Broken } else { Found::Empty };
            return Ok(value.clone().map_or(missing, Found::Value));
        }
        if self.workflow.refused.contains(&format!("${name}")) {
            return Ok(Found::Broken);
        }
        let (head, tail) = name.split_once('.').unwrap_or((name, ""));
        match head {
            "flow" if tail == "name" => Ok(Found::Value(self.workflow.name.as_str().into())),
            "flow" if tail == "about" => Ok(Found::Value(self.workflow.about().unwrap_or_default().into())),
            "flow" if tail == "version" => Ok(Found::Value(1.into())),
            "flow" => {
                Err(unknown(name, Some("there are `flow.name`, `flow.about` and `flow.version`".into())))
            }
            "matrix" => self.varied(name, tail),
            "each" => self.item(name, tail),
            "models" => match self.workflow.models.get_key_value(tail) {
                Some((alias, _)) => Ok(Found::Model(alias)),
                None => Err(unknown(name, self.near(name))),
            },
            _ if self.workflow.nodes.contains_key(name) => Ok(Found::Node),
            _ if name.rsplit_once('.').is_some_and(|(node, _)| self.workflow.nodes.contains_key(node)) => {
                Ok(Found::Node)
            }
            _ => Err(unknown(name, self.near(name))),
        }
    }

    /// `$each`, `each.name` and `each.index`: the item of this run.
    fn item(&mut self, name: &str, tail: &str) -> Result<Found<'a>, ExprError> {
        self.each = true;
        let Some(item) = &self.workflow.item else {
            return Err(unknown(name, Some("no node of this workflow has an `each:`".into())));
        };
        // `each.photos.name` says which list; else it is the only one, or that of the node itself.
        let (list, of) = tail.split_once('.').unwrap_or((tail, ""));
        let named = item.of.iter().find(|item| !list.is_empty() && item.list_name() == list);
        let own = || match item.of.as_slice() {
            [one] => Some(one),
            several => several.iter().find(|item| Some(item.list.as_str()) == self.list),
        };
        let (item, of) = match named {
            Some(named) => (named, of),
            None => match own() {
                Some(own) => (own, tail),
                None => return Err(unknown(name, Some(format!("write `$each.{}`", item.of[0].list_name())))),
            },
        };
        match of {
            "" => Ok(Found::Value(item.value.clone())),
            "name" => Ok(Found::Value(item.name.as_str().into())),
            "index" => Ok(Found::Value(item.index.into())),
            _ => Err(unknown(name, Some("there are `$each`, `each.name` and `each.index`".into()))),
        }
    }

    /// `$matrix.key`: what this run has for a varied key.
    fn varied(&self, name: &str, key: &str) -> Result<Found<'a>, ExprError> {
        if let Some(given) = self.workflow.combination.iter().find(|given| given.key.value == key) {
            let input = self.settings.inputs.get(key).and_then(Option::as_ref);
            return Ok(Found::Value(input.cloned().unwrap_or_else(|| given.value.literal().clone())));
        }
        let keys = self.workflow.matrix.as_ref().map(|matrix| matrix.keys()).unwrap_or_default();
        if keys.contains(&key) {
            return Ok(Found::Empty);
        }
        let hint = crate::near::did_you_mean(key, &keys, "the matrix varies");
        Err(unknown(name, hint.or_else(|| Some("this workflow has no `matrix:`".into()))))
    }

    /// The value of a name inside `${…}`.
    pub(super) fn value(&mut self, name: &str) -> Result<Literal, ExprError> {
        match self.find(name)? {
            Found::Value(value) => Ok(value),
            Found::Broken => Err(ExprError { id: REPORTED, ..ExprError::new("") }),
            Found::Empty => Err(ExprError {
                hint: Some("an expression needs every value; give it a `default`".into()),
                ..ExprError::new(format!("`{name}` is empty"))
            }),
            Found::Model(alias) => Ok(self.model_file(alias).into()),
            Found::Node => Err(ExprError {
                hint: Some(format!("link it alone: `${name}`")),
                ..ExprError::new(format!(
                    "`{name}` is known only when it has run, expressions are worked out before"
                ))
            }),
        }
    }

    /// The value of a string of the file, which may be a name, an expression or a text with such in it.
    pub(super) fn filled(&mut self, text: &str) -> Result<Literal, ExprError> {
        match expr::template(text)? {
            Template::Text(plain) => Ok(plain.into()),
            Template::Name(name) => self.value(name),
            Template::Expr(text) => expr::eval(text, &mut |name| self.value(name)),
            Template::Mixed(pieces) => self.mixed(&pieces).map(Literal::Text),
        }
    }

    /// A text with its pieces filled in.
    pub(super) fn mixed(&mut self, pieces: &[Piece]) -> Result<String, ExprError> {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Expr(text) => Ok(expr::eval(text, &mut |name| self.value(name))?.to_string()),
        };
        pieces.iter().map(piece).collect()
    }

    pub(super) fn model_file(&self, alias: &str) -> &'a str {
        let set = self.settings.models.get(alias).map(|file| file.value.as_str());
        set.or_else(|| self.workflow.models.get(alias).map(|model| model.file.value.as_str()))
            .unwrap_or_default()
    }

    fn near(&self, name: &str) -> Option<String> {
        let models: Vec<_> = self.workflow.models.keys().map(|alias| format!("models.{alias}")).collect();
        let inputs = self.workflow.inputs.keys().map(String::as_str);
        let nodes = self.workflow.nodes.keys().map(|id| &**id);
        let near = near(name, inputs.chain(models.iter().map(String::as_str)).chain(nodes));
        Some(match near {
            Some(near) => format!("did you mean `${near}`?"),
            None if self.workflow.inputs.is_empty() => {
                "declare it under `inputs:`, or write `$$` for a dollar".into()
            }
            None => {
                let names: Vec<_> = self.workflow.inputs.keys().map(String::as_str).collect();
                format!("inputs: {}; `$$` is a dollar", crate::near::list(&names))
            }
        })
    }
}

fn unknown(name: &str, hint: Option<String>) -> ExprError {
    ExprError {
        id: "unknown-name",
        hint,
        ..ExprError::new(format!("`${name}` is nothing this workflow knows"))
    }
}
