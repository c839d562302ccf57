//! Inner names become outer ones: inputs what the use gives, nodes and models their new names.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
};

use crate::{
    Diagnostic, Literal, Registry, Socket, Workflow,
    diag::Span,
    expr::{self, Piece, Template},
    inputs::InputType,
    workflow::{Raw, RawField, RawNode, Spanned},
};

/// The names of one use.
pub(super) struct Binder<'a> {
    pub(super) registry: &'a Registry,
    pub(super) inner: &'a Workflow,
    pub(super) prefix: &'a str,
    /// By inner input: what stands for it, and where that is written.
    pub(super) given: &'a HashMap<String, (Raw, Option<Span>)>,
    pub(super) models: &'a HashMap<String, String>,
}

/// Why a node cannot be bound; `None`: that has been said.
type Refusal = Option<Box<Diagnostic>>;

type Bound = Result<RawField, Refusal>;

impl Binder<'_> {
    /// A node in outer words.
    pub(super) fn node(&self, raw: &RawNode) -> Result<RawNode, Refusal> {
        let def = self.registry.get(&raw.kind.value);
        let field = |field: &RawField| {
            let socket = def.and_then(|def| def.input(&field.name)).map(|input| &input.socket);
            self.field(field, matches!(socket, Some(Socket::Link(_))))
        };
        let condition = |when: &Spanned<Literal>| {
            let value = match &when.value {
                Literal::Text(text) => Literal::Text(self.renamed(text, &when.span)?),
                other => other.clone(),
            };
            Ok(Spanned { value, span: when.span.clone() })
        };
        Ok(RawNode {
            fields: raw.fields.iter().map(field).collect::<Result<_, _>>()?,
            when: raw.when.iter().map(condition).collect::<Result<_, Refusal>>()?,
            passes: match &raw.passes {
                None => None,
                Some(passes) => {
                    let bound = passes.iter().map(|(ty, field)| Ok((*ty, self.field(field, true)?)));
                    Some(std::sync::Arc::new(bound.collect::<Result<_, Refusal>>()?))
                }
            },
            each: match &raw.each {
                None => None,
                Some(each) => match self.given.get(each.value.trim_start_matches('$')) {
                    Some((Raw::Literal(Literal::Text(text)), span)) => Some(Spanned {
                        value: text.clone(),
                        span: span.clone().unwrap_or_else(|| each.span.clone()),
                    }),
                    _ => Some(each.clone()),
                },
            },
            ..raw.clone()
        })
    }

    fn field(&self, field: &RawField, link: bool) -> Bound {
        match &field.value {
            Raw::InPlace(id) => {
                Ok(field.with(Raw::InPlace(format!("{}{id}", self.prefix).as_str().into()), None))
            }
            Raw::Collect(inner) => {
                let inner = self.field(inner, true)?;
                Ok(field.with(Raw::Collect(Box::new(inner)), None))
            }
            Raw::Literal(Literal::Text(text)) if link => Ok(match text.strip_prefix('$') {
                Some(name) => self.name(field, name.trim_matches(['{', '}'])),
                None => field.with(Raw::Literal(format!("{}{text}", self.prefix).into()), None),
            }),
            Raw::Literal(Literal::Text(text)) => self.template(field, text),
            _ => Ok(field.clone()),
        }
    }

    /// `$name` alone.
    fn name(&self, field: &RawField, name: &str) -> RawField {
        if let Some((value, span)) = self.given.get(name) {
            return field.with(value.clone(), span.clone());
        }
        if self.inner.inputs.contains_key(name) {
            // Missing or wrong, which has been said.
            return field.with(Raw::Broken, None);
        }
        let text = match name.split_once('.') {
            Some(("models", alias)) => self.models.get(alias).map(|alias| format!("$models.{alias}")),
            _ if self.is_node(name) => Some(format!("${}{name}", self.prefix)),
            _ => None,
        };
        text.map_or_else(|| field.clone(), |text| field.with(Raw::Literal(text.into()), None))
    }

    fn is_node(&self, name: &str) -> bool {
        let nodes = &self.inner.nodes;
        nodes.contains_key(name) || name.rsplit_once('.').is_some_and(|(node, _)| nodes.contains_key(node))
    }

    fn template(&self, field: &RawField, text: &str) -> Bound {
        // Ids of expanded nodes have a slash, which no template knows.
        if let Some(name) = text.strip_prefix('$').filter(|name| self.is_node(name)) {
            return Ok(self.name(field, name));
        }
        let text = match expr::template(text) {
            Ok(Template::Name(name)) => return Ok(self.name(field, name)),
            Ok(Template::Expr(inside)) => format!("${{{}}}", self.renamed(inside, &field.span)?),
            Ok(Template::Mixed(pieces)) => {
                let mut text = String::new();
                for piece in &pieces {
                    match piece {
                        Piece::Text(plain) => text.push_str(&plain.replace('$', "$$")),
                        Piece::Expr(inside) => text.push_str(&self.piece(inside, &field.span)?),
                    }
                }
                text
            }
            // Plain text, or a mistake that the check will tell.
            Ok(Template::Text(_)) | Err(_) => return Ok(field.clone()),
        };
        Ok(field.with(Raw::Literal(text.into()), None))
    }

    /// A piece of a text: an input's own text goes in as it is.
    fn piece(&self, inside: &str, span: &Span) -> Result<String, Refusal> {
        match self.given.get(inside.trim()) {
            Some((Raw::Literal(Literal::Text(text)), _)) => Ok(match expr::template(text) {
                Ok(Template::Name(name)) => format!("${{{name}}}"),
                _ => text.clone(),
            }),
            Some((Raw::Literal(literal), _)) => Ok(literal.to_string()),
            _ => Ok(format!("${{{}}}", self.renamed(inside, span)?)),
        }
    }

    fn renamed(&self, text: &str, span: &Span) -> Result<String, Refusal> {
        expr::renamed(text, &mut |name| {
            if let Some(alias) = name.strip_prefix("models.") {
                return Ok(self.models.get(alias).map(|alias| format!("models.{alias}")));
            }
            let Some((value, given)) = self.given.get(name) else { return Ok(None) };
            let words = match value {
                Raw::Literal(Literal::Text(text)) => match expr::template(text) {
                    Ok(Template::Name(name)) => Some(name.to_owned()),
                    Ok(Template::Expr(inside)) => Some(format!("({inside})")),
                    Ok(Template::Text(plain)) => expr::written(&plain.into()),
                    Ok(Template::Mixed(_)) | Err(_) => None,
                },
                Raw::Literal(literal) => expr::written(literal),
                Raw::Null => Some("\"\"".to_owned()),
                Raw::Broken => return Err(None),
                _ => None,
            };
            words.map(Some).ok_or_else(|| {
                let message = format!("`{name}` is worked out here, what is given for it cannot be");
                let problem = Diagnostic::error("expression", message).at(span.clone());
                Some(Box::new(problem.label(given.clone(), "given here")))
            })
        })
    }
}

/// Whether a value holds names or expressions.
pub(super) fn is_template(literal: &Literal) -> bool {
    matches!(literal, Literal::Text(text) if text.contains('$'))
}

/// A default whose dollars are dollars.
pub(super) fn escaped(literal: Literal) -> Literal {
    match literal {
        Literal::Text(text) => text.replace('$', "$$").into(),
        other => other,
    }
}

/// A default, drawn where it is a seed that nobody chose.
pub(super) fn drawn(default: &Literal, ty: InputType) -> Literal {
    if ty == InputType::Seed && *default == "random".into() {
        return RandomState::new().build_hasher().finish().into();
    }
    default.clone()
}
