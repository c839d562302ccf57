//! JSON Schema of the workflow format, for editors: completion, hover texts and red underlines while typing.
//!
//! Draft-07, the newest the common YAML language servers read. What type a link has cannot be said in it; `check` does.

use serde_json::{Map, Value, json};

use crate::{
    InputSpec, Literal, NodeDef, Registry, Socket,
    inputs::InputType,
    spec::ValueKind,
    workflow::{CacheMode, RESERVED, SeedMode},
};

/// The schema of a workflow over these node types.
pub fn schema(registry: &Registry) -> Value {
    let kinds = registry.iter().map(|def| json!({ "const": def.kind, "description": def.doc }));
    let aliases = registry.iter().flat_map(|def| {
        def.aliases
            .iter()
            .map(|alias| json!({ "const": alias, "description": format!("{}: {}", def.kind, def.doc) }))
    });
    let cases = registry.iter().map(|def| {
        let names: Vec<_> = [def.kind].iter().chain(def.aliases).copied().collect();
        json!({
            "if": { "required": ["type"], "properties": { "type": { "enum": names } } },
            "then": { "$ref": format!("#/definitions/{}", def.kind) },
        })
    });
    // What a file imports cannot be known here; its names are told from node types by their case.
    let imported = json!({ "type": "string", "pattern": "^[^A-Z]", "description": "A name under `import:` or `subgraphs:`." });
    let mut definitions = Map::from_iter([
        (
            "node".to_owned(),
            json!({
                "type": "object",
                "properties": { "type": { "anyOf": kinds.chain(aliases).chain([imported]).collect::<Vec<_>>(), "description": "Which node this is." } },
                "allOf": cases.collect::<Vec<_>>(),
            }),
        ),
        (
            "template".to_owned(),
            json!({
                "type": "string",
                "pattern": "\\$",
                "description": "`$input`, `$node.output`, or text with `${…}` in it.",
            }),
        ),
        (
            "link".to_owned(),
            json!({
                "anyOf": [
                    { "type": "string", "description": "`node.output`, or `node` when one output fits." },
                    { "allOf": [{ "$ref": "#/definitions/node" }, { "required": ["type"] }] },
                    {
                        "type": "object",
                        "required": ["collect"],
                        "additionalProperties": false,
                        "properties": { "collect": { "type": "string", "description": "`node.output`: what all items of an `each` gave, joined." } },
                    },
                ],
            }),
        ),
        (
            "subgraph".to_owned(),
            json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "about": { "type": "string" },
                    "inputs": { "type": ["object", "null"], "additionalProperties": { "$ref": "#/definitions/input" } },
                    "models": { "type": ["object", "null"], "additionalProperties": model_alias() },
                    "nodes": { "type": ["object", "null"], "additionalProperties": { "$ref": "#/definitions/node" } },
                    "outputs": { "type": ["object", "null"], "additionalProperties": { "type": "string" } },
                },
            }),
        ),
        ("matrix".to_owned(), matrix()),
        ("input".to_owned(), input_declaration()),
    ]);
    definitions.extend(registry.iter().map(|def| (def.kind.to_owned(), node(def))));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A flow workflow",
        "type": "object",
        "required": ["flow"],
        "additionalProperties": false,
        "properties": {
            "flow": { "const": 1, "description": "The version of the format." },
            "name": { "type": "string", "description": "What the workflow calls itself; `${flow.name}`." },
            "about": { "type": "string", "description": "What it does." },
            "extends": { "type": "string", "description": "The file this one is laid over; `~` takes an entry of it away." },
            "import": { "type": ["object", "null"], "additionalProperties": { "type": "string" },
                "description": "Workflows used as nodes: a name, and the file." },
            "subgraphs": { "type": ["object", "null"], "additionalProperties": { "$ref": "#/definitions/subgraph" },
                "description": "Small workflows used as nodes of this one." },
            "matrix": { "$ref": "#/definitions/matrix" },
            "inputs": { "type": ["object", "null"], "additionalProperties": nullable("input"),
                "description": "What a user may set with --set." },
            "models": { "type": ["object", "null"], "additionalProperties": model_alias(),
                "description": "Model files by alias; `$models.alias` in a node." },
            "nodes": { "type": ["object", "null"], "additionalProperties": nullable("node"),
                "description": "The graph: each node with its type and inputs." },
            "outputs": { "type": ["object", "null"], "additionalProperties": { "type": ["string", "null"] },
                "description": "Results by name, as references." },
        },
        // Laid over another file a node may say only what changes.
        "if": { "required": ["extends"] },
        "else": { "properties": { "nodes": { "additionalProperties": { "required": ["type"], "type": "object" } } } },
        "definitions": definitions,
    })
}

fn nullable(definition: &str) -> Value {
    json!({ "anyOf": [{ "$ref": format!("#/definitions/{definition}") }, { "type": "null" }] })
}

fn matrix() -> Value {
    let lists = json!({ "type": "object", "additionalProperties": { "type": "array", "minItems": 1 } });
    json!({
        "type": ["object", "null"],
        "description": "Runs the file once for each combination: inputs or `node.input`, and the values of each.",
        "additionalProperties": { "type": "array", "minItems": 1 },
        "properties": {
            "zip": { "anyOf": [lists, { "type": "array", "items": lists }], "description": "Lists that are walked together." },
            "include": { "type": "array", "items": { "type": "object" }, "description": "Combinations more, or values added to some." },
            "exclude": { "type": "array", "items": { "type": "object" }, "description": "Combinations left out." },
            "grid": {
                "type": "object",
                "additionalProperties": false,
                "required": ["x", "save"],
                "properties": {
                    "x": { "type": "string", "description": "The key along the columns." },
                    "y": { "type": "string", "description": "The key down the rows." },
                    "save": { "type": "string", "description": "Where the contact sheet is written." },
                    "image": { "type": "string", "description": "The output shown." },
                },
            },
        },
    })
}

fn node(def: &NodeDef) -> Value {
    let reserved = |name: &&str| RESERVED.contains(name);
    let mut properties =
        Map::from_iter([("type".to_owned(), json!(true)), ("note".to_owned(), json!({ "type": "string" }))]);
    let own = [
        (
            "when",
            json!({ "type": ["boolean", "string"], "description": "A condition; the node runs only where it holds." }),
        ),
        (
            "each",
            json!({ "type": "string", "description": "The list this node, and all it feeds, runs over." }),
        ),
        (
            "cache",
            json!({ "enum": CacheMode::ALL.map(|(word, _)| word), "description": "What is kept of its results; `off`: it always runs." }),
        ),
        (
            "seed_mode",
            json!({ "enum": SeedMode::ALL.map(|(word, _)| word), "description": "What its seed is in the next of many runs." }),
        ),
    ];
    let mut with = Map::new();
    let mut required = Vec::new();
    for input in &def.inputs {
        for name in [input.name].iter().chain(input.aliases) {
            let place = if reserved(name) { &mut with } else { &mut properties };
            place.insert((*name).to_owned(), socket(input));
        }
        if input.required() && !reserved(&input.name) {
            let spellings: Vec<_> =
                [input.name].iter().chain(input.aliases).map(|name| json!({ "required": [name] })).collect();
            required.push(json!({ "anyOf": spellings }));
        }
    }
    let inner: Vec<_> =
        properties.iter().chain(&with).filter(|(name, _)| *name != "type" && *name != "note").collect();
    let inner: Map<_, _> = inner.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    properties.extend(own.map(|(name, value)| (name.to_owned(), value)));
    properties.insert(
        "with".into(),
        json!({ "type": "object", "properties": inner, "additionalProperties": false }),
    );
    let mut schema = json!({
        "description": def.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        // An input may also stand under `with:`.
        schema["anyOf"] = json!([{ "required": ["with"] }, { "allOf": required }]);
    }
    schema
}

fn socket(input: &InputSpec) -> Value {
    let mut schema = match &input.socket {
        Socket::Link(_) => json!({ "$ref": "#/definitions/link" }),
        Socket::Value(kind) => value(kind),
    };
    // Beside a `$ref` draft-07 reads nothing else, so the reference goes one level down.
    if schema.get("$ref").is_some() {
        schema = json!({ "allOf": [schema] });
    }
    let ty = match &input.socket {
        Socket::Link(ty) => format!("{}\n\nA link to {ty}.", input.doc),
        Socket::Value(_) => input.doc.to_owned(),
    };
    schema["description"] = json!(ty);
    if let Some(default) = &input.default {
        schema["default"] = default.to_json();
    }
    if input.optional {
        schema = json!({ "anyOf": [schema, { "type": "null" }], "description": input.doc });
    }
    schema
}

fn value(kind: &ValueKind) -> Value {
    let template = json!({ "$ref": "#/definitions/template" });
    let literal = match kind {
        ValueKind::Bool => json!({ "type": "boolean" }),
        ValueKind::Int { min, max } => {
            json!({ "type": "integer", "minimum": Literal::Int(*min).to_json(), "maximum": Literal::Int(*max).to_json() })
        }
        ValueKind::Float { min, max } => {
            let mut number = json!({ "type": "number" });
            for (key, limit) in [("minimum", min), ("maximum", max)] {
                if limit.is_finite() {
                    number[key] = json!(limit);
                }
            }
            number
        }
        ValueKind::Text => return json!({ "type": "string" }),
        ValueKind::Choice(words) => json!({ "enum": words }),
        ValueKind::File { folder } => {
            return json!({ "type": "string", "$comment": format!("a file in `{folder}`") });
        }
    };
    let in_place = (!kind.linkable().is_empty()).then(|| json!({ "$ref": "#/definitions/node" }));
    let all: Vec<_> = [literal, template].into_iter().chain(in_place).collect();
    json!({ "anyOf": all })
}

fn input_declaration() -> Value {
    let types = InputType::ALL.map(|(name, _)| name);
    let long = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "type": { "enum": types, "description": "What values it takes." },
            "default": { "description": "Used when nobody sets it." },
            "min": { "type": "number" },
            "max": { "type": "number" },
            "step": { "type": "number", "description": "For sliders." },
            "choices": { "type": "array", "description": "The words of a choice." },
            "about": { "type": "string", "description": "What it is for." },
            "required": { "type": "boolean", "description": "False: it may stay empty." },
        },
    });
    json!({ "anyOf": [{ "type": ["string", "number", "boolean", "array"] }, long] })
}

fn model_alias() -> Value {
    json!({
        "type": "object",
        "required": ["kind", "file"],
        "additionalProperties": false,
        "properties": {
            "kind": { "type": "string", "description": "checkpoint, clip_vision, ipadapter, controlnet, vae, lora, …" },
            "file": { "type": "string", "description": "Its name below the model folders." },
            "hash": { "type": "string", "pattern": "^([a-z0-9]+:)?[0-9a-fA-F]{64}$" },
            "about": { "type": "string" },
        },
    })
}
