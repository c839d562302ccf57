//! `flow nodes`: what node types there are, and the manual of each.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use flow_graph::{InputSpec, Lane, NodeDef, Registry, Socket, comfy::classes::unsupported, spec::ValueKind};
use serde_json::{Value, json};

use crate::{Ending, output, runtime};

/// Lists the node types, or prints the manual of one
#[derive(Debug, clap::Args)]
pub struct Nodes {
    /// Node type, by its name or ComfyUI's
    name: Option<String>,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Nodes {
    /// Prints the list or the manual.
    ///
    /// # Errors
    /// When no node type has that name.
    pub fn run(&self) -> Result<Ending> {
        let registry = &runtime::registry();
        let text = match &self.name {
            None if self.json => pretty(&registry.iter().map(|def| describe(def)).collect()),
            None => list(registry),
            Some(name) => {
                let Some(def) = named(registry, name) else { bail!(unknown(registry, name)) };
                if self.json { pretty(&describe(def)) } else { manual(def) }
            }
        };
        output::print(&text)?;
        Ok(Ending::Done)
    }
}

/// The node type of that name; one that differs in case alone is meant too.
fn named<'r>(registry: &'r Registry, name: &str) -> Option<&'r NodeDef> {
    let same = |known: &&str| known.eq_ignore_ascii_case(name);
    let other = || registry.get(registry.names().find(same)?);
    registry.get(name).or_else(other).map(|def| &**def)
}

fn unknown(registry: &Registry, name: &str) -> String {
    let like = registry.names().filter(|known| known.to_lowercase().contains(&name.to_lowercase()));
    let like = like.take(5).map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    let hint = if like.is_empty() || unsupported(name).is_some() {
        registry.instead_of(name)
    } else {
        format!("there is {like}")
    };
    format!("unknown node type `{name}`; {hint}")
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn list(registry: &Registry) -> String {
    let mut defs: Vec<&NodeDef> = registry.iter().map(|def| &**def).collect();
    defs.sort_by_key(|def| def.category);
    let width = defs.iter().map(|def| def.kind.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut category = None;
    for def in defs {
        if category.replace(def.category) != Some(def.category) {
            let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, def.category);
        }
        let _ = writeln!(text, "  {:width$}  {}", def.kind, summary(def.doc));
    }
    text
}

/// The first paragraph of a documentation, on one line.
fn summary(doc: &str) -> String {
    doc.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn manual(def: &NodeDef) -> String {
    let mut text = format!("{} ({})\n", def.kind, def.category);
    if !def.aliases.is_empty() {
        let _ = writeln!(text, "also called {}", def.aliases.join(", "));
    }
    let _ = writeln!(text, "\n{}", def.doc);
    if !def.inputs.is_empty() {
        text.push_str("\ninputs\n");
    }
    for input in &def.inputs {
        let _ = writeln!(text, "  {}: {}", names(input), type_of(input));
        for line in input.doc.lines() {
            let _ = writeln!(text, "      {line}");
        }
    }
    if def.outputs.is_empty() {
        text.push_str("\nno outputs: run for its effect\n");
    } else {
        text.push_str("\noutputs\n");
    }
    for output in &def.outputs {
        let _ = writeln!(text, "  {}: {}", output.name, output.ty);
    }
    text
}

fn names(input: &InputSpec) -> String {
    let also = input.aliases.iter().map(|alias| format!(" or {alias}"));
    std::iter::once(input.name.to_owned()).chain(also).collect()
}

/// What an input takes, in words: `float 0..=1140, default 100`.
fn type_of(input: &InputSpec) -> String {
    let takes = match &input.socket {
        Socket::Link(ty) => (*ty).to_owned(),
        Socket::Value(kind) => match kind {
            ValueKind::Bool => "bool".to_owned(),
            ValueKind::Int { min, max } => format!("int {min}..{max}"),
            ValueKind::Float { min, max } if min.is_infinite() && max.is_infinite() => "float".to_owned(),
            ValueKind::Float { min, max } => format!("float {min}..{max}"),
            ValueKind::Text => "string".to_owned(),
            ValueKind::Choice(words) => words.join(" | "),
            ValueKind::File { folder: "input" } => "file".to_owned(),
            ValueKind::File { folder } => format!("file in {folder}"),
        },
    };
    match &input.default {
        Some(default) => format!("{takes}, default {default}"),
        None if input.optional => format!("{takes}, optional"),
        None => takes,
    }
}

fn describe(def: &NodeDef) -> Value {
    json!({
        "type": def.kind,
        "aliases": def.aliases,
        "category": def.category,
        "doc": def.doc,
        "version": def.version,
        "lane": match def.lane { Lane::Host => "host", Lane::Device => "device" },
        "sink": def.is_sink(),
        "inputs": def.inputs.iter().map(describe_input).collect::<Vec<_>>(),
        "outputs": def.outputs.iter().map(|output| json!({ "name": output.name, "type": output.ty })).collect::<Vec<_>>(),
    })
}

fn describe_input(input: &InputSpec) -> Value {
    let mut about = json!({
        "name": input.name,
        "aliases": input.aliases,
        "doc": input.doc,
        "required": input.required(),
    });
    match &input.socket {
        Socket::Link(ty) => {
            about["type"] = json!(ty);
            about["link"] = json!(true);
        }
        Socket::Value(kind) => match kind {
            ValueKind::Bool => about["type"] = json!("bool"),
            ValueKind::Int { min, max } => {
                about["type"] = json!("int");
                about["min"] = flow_graph::Literal::Int(*min).to_json();
                about["max"] = flow_graph::Literal::Int(*max).to_json();
            }
            ValueKind::Float { min, max } => {
                about["type"] = json!("float");
                // JSON has no infinity: a missing end is open.
                if min.is_finite() {
                    about["min"] = json!(min);
                }
                if max.is_finite() {
                    about["max"] = json!(max);
                }
            }
            ValueKind::Text => about["type"] = json!("string"),
            ValueKind::Choice(words) => {
                about["type"] = json!("choice");
                about["choices"] = json!(words);
            }
            ValueKind::File { folder } => {
                about["type"] = json!("file");
                about["folder"] = json!(folder);
            }
        },
    }
    if let Some(default) = &input.default {
        about["default"] = default.to_json();
    }
    about
}
