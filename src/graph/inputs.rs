//! `inputs:`: what a user may set, its type and range, and who set it last.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    Diagnostic, Literal,
    diag::{Source, Sources, Span},
    fit::{Misfit, fit},
    near::did_you_mean,
    spec::ValueKind,
    tree::{Entry, Tree},
    workflow::{Reader, Spanned},
    yaml,
};

/// The types an input may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputType {
    /// Text.
    String,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// `true` or `false`.
    Bool,
    /// 0 to 2^64-1, or `random`: drawn once a check.
    Seed,
    /// A picture file.
    Image,
    /// A picture file read as a mask.
    Mask,
    /// Any file.
    File,
    /// One of `choices`.
    Choice,
    /// Several values.
    List,
    /// A link of this port type: only a node fills it, where the workflow is used as one.
    Link(&'static str),
}

impl InputType {
    pub(crate) const ALL: [(&'static str, Self); 20] = [
        ("string", Self::String),
        ("int", Self::Int),
        ("float", Self::Float),
        ("bool", Self::Bool),
        ("seed", Self::Seed),
        ("image", Self::Image),
        ("mask", Self::Mask),
        ("file", Self::File),
        ("choice", Self::Choice),
        ("list", Self::List),
        ("model", Self::Link("MODEL")),
        ("clip", Self::Link("CLIP")),
        ("vae", Self::Link("VAE")),
        ("conditioning", Self::Link("CONDITIONING")),
        ("latent", Self::Link("LATENT")),
        ("control_net", Self::Link("CONTROL_NET")),
        ("ipadapter", Self::Link("IPADAPTER")),
        ("clip_vision", Self::Link("CLIP_VISION")),
        ("clip_vision_output", Self::Link("CLIP_VISION_OUTPUT")),
        ("upscale_model", Self::Link("UPSCALE_MODEL")),
    ];

    /// The word in the file.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, ty)| *ty == self).map_or("", |(name, _)| name)
    }

    fn of(value: &Literal) -> Self {
        match value {
            Literal::Bool(_) => Self::Bool,
            Literal::Int(_) => Self::Int,
            Literal::Float(_) => Self::Float,
            Literal::Text(_) => Self::String,
            Literal::List(_) => Self::List,
        }
    }
}

/// One declared input.
#[derive(Clone, Debug)]
pub struct InputDecl {
    /// Its type.
    pub ty: InputType,
    /// Used when nobody sets it; without one it must be set, unless `required` is false.
    pub default: Option<Literal>,
    /// Least number allowed.
    pub min: Option<f64>,
    /// Greatest number allowed.
    pub max: Option<f64>,
    /// For sliders; numbers between steps are fine.
    pub step: Option<f64>,
    /// The words of a choice.
    pub choices: Vec<String>,
    /// What it is for.
    pub about: Option<String>,
    /// False: it may stay empty, and so do the inputs it fills.
    pub required: bool,
    pub(crate) span: Span,
    pub(crate) default_span: Option<Span>,
}

const KEYS: [&str; 8] = ["type", "default", "min", "max", "step", "choices", "about", "required"];

/// Reads one entry of `inputs:`, short (`seed: 1`) or long (`{ type: seed, default: 1 }`).
pub(crate) fn declare(reader: &mut Reader, entry: &Entry) -> Option<InputDecl> {
    let span = reader.span(&entry.key_range);
    let Some(fields) = entry.value.map() else {
        let Some(default) = entry.value.literal() else {
            let hint = Some(format!("{}: {{ type: string }}", entry.key));
            reader.error(
                "missing-type",
                format!("input `{}` has neither value nor type", entry.key),
                &entry.key_range,
                hint,
            );
            return None;
        };
        let mut decl = blank(InputType::of(&default), span);
        decl.default_by(reader, entry, default, reader.span(&entry.value.range));
        return Some(decl);
    };
    let ty = input_type(reader, entry)?;
    let mut decl = blank(ty, span);
    for Entry { key, key_range, value } in fields {
        match key.as_str() {
            "type" => {}
            "default" => {
                decl.default = value.literal();
                decl.default_span = decl.default.as_ref().map(|_| reader.span(&value.range));
                if value.map().is_some() {
                    reader.error(
                        "wrong-type",
                        "a default is a value, found a map".into(),
                        &value.range,
                        None,
                    );
                }
            }
            "min" => decl.min = number(reader, key, value),
            "max" => decl.max = number(reader, key, value),
            "step" => decl.step = number(reader, key, value),
            "choices" => decl.choices = choices(reader, value),
            "about" => decl.about = reader.string(key, value),
            "required" => match value.literal() {
                Some(Literal::Bool(required)) => decl.required = required,
                _ => reader.error(
                    "wrong-type",
                    format!("`required` is true or false, found {}", value.describe()),
                    &value.range,
                    None,
                ),
            },
            unknown => reader.unknown_key(unknown, key_range, &KEYS, "an input has"),
        }
    }
    if ty == InputType::Choice && decl.choices.is_empty() {
        reader.error(
            "missing-key",
            format!("choice `{}` has no `choices`", entry.key),
            &entry.key_range,
            Some("choices: [a, b]".into()),
        );
    }
    if let (Some(default), Some(place)) = (decl.default.take(), decl.default_span.clone()) {
        decl.default_by(reader, entry, default, place);
    }
    Some(decl)
}

fn blank(ty: InputType, span: Span) -> InputDecl {
    InputDecl {
        ty,
        default: None,
        min: None,
        max: None,
        step: None,
        choices: Vec::new(),
        about: None,
        required: true,
        span,
        default_span: None,
    }
}

fn input_type(reader: &mut Reader, entry: &Entry) -> Option<InputType> {
    let names = InputType::ALL.map(|(name, _)| name);
    let Some(value) = entry.value.get("type") else {
        let default = entry.value.get("default").and_then(Tree::literal);
        if default.is_none() {
            let hint = did_you_mean("", &names, "types");
            reader.error(
                "missing-type",
                format!("input `{}` has neither `type` nor `default`", entry.key),
                &entry.key_range,
                hint,
            );
        }
        return default.as_ref().map(InputType::of);
    };
    let word = reader.string("type", value)?;
    let known = InputType::ALL.iter().find(|(name, _)| *name == word).map(|(_, ty)| *ty);
    if known.is_none() {
        let message = format!("`{word}` is no type of input");
        reader.error("value-not-in-list", message, &value.range, did_you_mean(&word, &names, "types"));
    }
    known
}

fn number(reader: &mut Reader, key: &str, value: &Tree) -> Option<f64> {
    let number = match value.literal() {
        Some(Literal::Int(i)) => Some(i as f64),
        Some(Literal::Float(x)) if x.is_finite() => Some(x),
        _ => None,
    };
    if number.is_none() {
        reader.error(
            "wrong-type",
            format!("`{key}` is a number, found {}", value.describe()),
            &value.range,
            None,
        );
    }
    number
}

fn choices(reader: &mut Reader, value: &Tree) -> Vec<String> {
    match value.literal() {
        Some(Literal::List(items)) => items.iter().map(Literal::to_string).collect(),
        _ => {
            reader.error(
                "wrong-type",
                format!("`choices` is a list of words, found {}", value.describe()),
                &value.range,
                None,
            );
            Vec::new()
        }
    }
}

impl InputDecl {
    /// Takes a default as written, if it fits.
    fn default_by(&mut self, reader: &mut Reader, entry: &Entry, default: Literal, place: Span) {
        self.default_span = Some(place.clone());
        let problem = |misfit: Misfit| misfit.diagnostic(&format!("input `{}`", entry.key)).at(place);
        self.default = self.fit(default).map_err(|misfit| reader.problems.push(problem(misfit))).ok();
    }

    /// A value as this input takes it.
    pub(crate) fn fit(&self, value: Literal) -> Result<Literal, Misfit> {
        let (min, max) = (self.min, self.max);
        match self.ty {
            InputType::Seed if value == Literal::from("random") => Ok(value),
            InputType::Seed => fit(&ValueKind::Int { min: 0, max: u64::MAX.into() }, value),
            InputType::Int => {
                let min = min.map_or(i64::MIN.into(), |min| min.ceil() as i128);
                let max = max.map_or(u64::MAX.into(), |max| max.floor() as i128);
                fit(&ValueKind::Int { min, max }, value)
            }
            InputType::Float => {
                let kind = ValueKind::Float {
                    min: min.unwrap_or(f64::NEG_INFINITY),
                    max: max.unwrap_or(f64::INFINITY),
                };
                // A whole number stays one, so that `${look}` in a path is `1`.
                fit(&kind, value.clone()).map(|_| value)
            }
            InputType::Bool => fit(&ValueKind::Bool, value),
            InputType::String | InputType::Image | InputType::Mask | InputType::File => {
                fit(&ValueKind::Text, value)
            }
            InputType::Choice => {
                let word = value.to_string();
                if self.choices.is_empty() || self.choices.contains(&word) {
                    return Ok(word.into());
                }
                let choices: Vec<_> = self.choices.iter().map(String::as_str).collect();
                Err(Misfit::not_in_list(&word, &choices))
            }
            InputType::Link(ty) => Err(Misfit::only_a_node(ty)),
            InputType::List => match value {
                Literal::List(_) => Ok(value),
                other => Ok(Literal::List(vec![other])),
            },
        }
    }

    /// A value typed on a command line as this input takes it.
    pub(crate) fn read(&self, text: &str) -> Result<Literal, Misfit> {
        match self.ty {
            InputType::String | InputType::Image | InputType::Mask | InputType::File | InputType::Choice => {
                self.fit(text.into())
            }
            InputType::List => {
                let items = crate::yaml::list(text).map(Literal::List);
                self.fit(items.unwrap_or_else(|| crate::yaml::scalar(text)))
            }
            _ => self.fit(crate::yaml::scalar(text)),
        }
    }
}

/// Values from outside the file; where two set the same thing, the later field wins.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Parameter files (`-i`): name and YAML text of each, a map of inputs and `node.field`s.
    pub params: Vec<(String, String)>,
    /// Environment variables; those called `FLOW_INPUT_<NAME>` set inputs.
    pub env: BTreeMap<String, String>,
    /// `--set`: an input or `node.field`, and its value.
    pub set: Vec<(String, String)>,
}

/// One override: the key and value as given, and where.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) key: Spanned<String>,
    pub(crate) value: GivenValue,
    pub(crate) span: Span,
}

/// A value from outside.
#[derive(Clone, Debug)]
pub(crate) enum GivenValue {
    /// Typed by YAML.
    Typed(Literal),
    /// Text, read as whatever it sets wants; and what it is where nothing does.
    Text(String, Literal),
}

impl GivenValue {
    /// A text of a command line.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        let literal = yaml::list(&text).map_or_else(|| yaml::scalar(&text), Literal::List);
        Self::Text(text, literal)
    }

    /// The value as data: text of a command line as YAML reads it.
    pub(crate) fn literal(&self) -> &Literal {
        match self {
            Self::Typed(literal) | Self::Text(_, literal) => literal,
        }
    }

    /// What equal values have in common: `0`, `0.0` and `--set x=0` are one.
    pub(crate) fn likeness(&self) -> String {
        likeness(self.literal())
    }
}

fn likeness(literal: &Literal) -> String {
    match literal {
        Literal::Float(x) if x.fract() == 0.0 && x.abs() < 1e15 => format!("{:?}", Literal::Int(*x as i128)),
        Literal::List(items) => format!("{:?}", items.iter().map(likeness).collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}

impl fmt::Display for GivenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Typed(literal) => literal.fmt(f),
            Self::Text(text, _) => text.fmt(f),
        }
    }
}

impl Overrides {
    /// Everything given, weakest first, with a text to point into; `env` keeps only what names a declared input.
    pub(crate) fn given(&self, declared: &[&str], problems: &mut crate::Diagnostics) -> Vec<Given> {
        let mut all = Vec::new();
        for (name, text) in &self.params {
            let source = Arc::new(Source { name: name.clone(), text: text.clone() });
            let Some(tree) = crate::yaml::parse(&source, problems) else { continue };
            let sources = Sources::one(source);
            let mut reader = Reader { sources: &sources, problems };
            let Some(entries) = tree.map() else {
                if !text.trim().is_empty() {
                    let message = format!("parameters are a map of inputs, found {}", tree.describe());
                    reader.error("wrong-type", message, &tree.range, Some("look: 0.8".into()));
                }
                continue;
            };
            for Entry { key, key_range, value } in entries {
                let Some(literal) = value.literal() else {
                    let hint = Some(format!("to set a field of a node write `{key}.field: value`"));
                    reader.error(
                        "wrong-type",
                        format!("`{key}` is set to {}", value.describe()),
                        &value.range,
                        hint,
                    );
                    continue;
                };
                all.push(Given {
                    key: Spanned { value: key.clone(), span: reader.span(key_range) },
                    value: GivenValue::Typed(literal),
                    span: reader.span(&value.range),
                });
            }
        }
        for (variable, value) in &self.env {
            let Some(name) = variable.strip_prefix("FLOW_INPUT_") else { continue };
            let input = declared.iter().find(|input| input.to_uppercase() == name.to_uppercase());
            let given = one("environment", variable, input.unwrap_or(&name), value);
            match input {
                Some(_) => all.push(given),
                None => {
                    let lower = name.to_lowercase();
                    let hint = did_you_mean(&lower, declared, "this workflow has");
                    let message = format!("`{variable}` sets no input of this workflow");
                    // Another workflow may have it: the environment is shared.
                    problems
                        .push(Diagnostic::warning("unknown-override", message).at(given.key.span).hint(hint));
                }
            }
        }
        all.extend(self.set.iter().map(|(key, value)| one("--set", key, key, value)));
        all
    }
}

fn one(source: &str, written: &str, key: &str, value: &str) -> Given {
    let text = format!("{written}={value}");
    let source = Arc::new(Source { name: source.to_owned(), text });
    let at = |range| Span { source: source.clone(), range };
    Given {
        key: Spanned { value: key.to_owned(), span: at(0..written.len()) },
        value: GivenValue::text(value),
        span: at(written.len() + 1..written.len() + 1 + value.len()),
    }
}
