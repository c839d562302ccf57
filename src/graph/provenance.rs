//! What made a result: the workflow with every input resolved, as YAML that can be run again, and as ComfyUI's prompt.

use std::collections::{HashMap, HashSet};

use petgraph::graph::NodeIndex;
use serde_json::{Map, Value, json};

use crate::{
    Constant, InputSpec, Literal, NodeId, Plan, Socket, Workflow,
    check::{SEEDS, Settings, seed_of},
    comfy,
    context::Provenance,
    inputs::GivenValue,
    workflow::{Dialect, Part, RESERVED, Raw, RawField, RawNode, SeedMode, Spanned},
    yaml,
};

/// What a plan was made from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) workflow: Workflow,
    pub(crate) settings: Settings,
}

impl Plan {
    /// The metadata of this plan's results. Written out when asked for: a large graph makes a large text.
    pub fn provenance(&self) -> Provenance {
        let workflow = match &self.origin {
            Some(origin) if origin.workflow.dialect == Dialect::Flow => {
                let joined = matches!(origin.workflow.part, Part::Joined(_));
                as_written(self, origin, if joined { Of::Items } else { Of::Run })
            }
            _ => as_planned(self),
        };
        self.metadata(&workflow, comfy::prompt(self).to_string())
    }

    /// That of what all runs of a file give together, this plan being that of one of them.
    pub(crate) fn provenance_of_all(&self, matrix: Value) -> Provenance {
        let mut workflow = match &self.origin {
            Some(origin) if origin.workflow.dialect == Dialect::Flow => as_written(self, origin, Of::All),
            _ => as_planned(self),
        };
        workflow["matrix"] = matrix;
        self.metadata(&workflow, String::new())
    }

    fn metadata(&self, workflow: &Value, prompt: String) -> Provenance {
        let name = self.origin.as_ref().map(|origin| origin.workflow.name.clone()).unwrap_or_default();
        Provenance { name, workflow: yaml::write(workflow), prompt, made: String::new() }
    }
}

/// Which runs a text is to make again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// One.
    Run,
    /// That after all items, whose nodes are no part of the plan.
    Items,
    /// All of them.
    All,
}

/// The file with the resolved values as defaults of its inputs and with everything else that was set.
fn as_written(plan: &Plan, origin: &Origin, of: Of) -> Value {
    let Origin { workflow, settings } = origin;
    let mut top = Map::from_iter([("flow".to_owned(), json!(1)), ("name".to_owned(), json!(workflow.name))]);
    if let Some(about) = &workflow.about {
        top.insert("about".into(), json!(about));
    }
    let listed = |name: &String| {
        let mut lists = workflow.nodes.values().filter_map(|node| node.each.as_ref());
        lists.any(|each| each.value.strip_prefix('$') == Some(name))
    };
    // What all items gave together is made again from all of them.
    let several = of != Of::Run;
    let inputs = workflow.inputs.iter().filter(|(name, _)| several || !listed(name)).map(|(name, decl)| {
        let mut entry = Map::from_iter([("type".to_owned(), json!(decl.ty.name()))]);
        let value = settings.inputs.get(name).and_then(Option::as_ref);
        entry.extend(value.map(|value| ("default".to_owned(), value.to_json())));
        entry.extend(decl.min.map(|min| ("min".to_owned(), json!(min))));
        entry.extend(decl.max.map(|max| ("max".to_owned(), json!(max))));
        entry.extend(decl.step.map(|step| ("step".to_owned(), json!(step))));
        entry.extend((!decl.choices.is_empty()).then(|| ("choices".to_owned(), json!(decl.choices))));
        entry.extend(decl.about.as_ref().map(|about| ("about".to_owned(), json!(about))));
        entry.extend((!decl.required).then(|| ("required".to_owned(), json!(false))));
        (name.clone(), Value::Object(entry))
    });
    insert(&mut top, "inputs", inputs.collect());
    let models = workflow.models.iter().map(|(alias, model)| {
        let file = settings.models.get(alias).unwrap_or(&model.file);
        let mut entry = json!({ "kind": model.folder.value, "file": file.value });
        if let (Some(hash), Value::Object(entry)) = (&model.hash, &mut entry) {
            entry.insert("hash".into(), json!(hash));
        }
        (alias.clone(), entry)
    });
    insert(&mut top, "models", models.collect());
    let conditional = !several && workflow.nodes.values().any(|node| !node.when.is_empty());
    let jobs = plan.graph.node_indices().map(|index| (&*plan.graph[index].id, index)).collect();
    let written = Written { plan, origin, jobs, conditional, of };
    let in_place =
        |id: &NodeId| id.rsplit_once('.').is_some_and(|(parent, _)| workflow.nodes.contains_key(parent));
    // What a `when` took out is no part of this result, nor what another run of a sweep has served, nor what is written where
    // somebody wanted a picture alone.
    let alone = plan.sinks().next().is_none();
    let partial =
        !several && (conditional || alone || !workflow.combination.is_empty() || workflow.item.is_some());
    let kept = |id: &NodeId| !partial || written.jobs.contains_key(&**id);
    let nodes = workflow.nodes.keys().filter(|id| !in_place(id) && kept(id));
    insert(&mut top, "nodes", nodes.map(|id| (id.to_string(), written.node(id))).collect());
    let planned = |name: &String| {
        let output = plan.outputs.get(name)?;
        let job = plan.job(output.job);
        Some(json!(format!("{}.{}", job.id, job.def.outputs[output.index].name)))
    };
    let output = |(name, reference): (&String, &Spanned<String>)| {
        let value = if partial { planned(name)? } else { json!(reference.value) };
        Some((name.clone(), value))
    };
    let outputs = workflow.outputs.iter().filter_map(output);
    // Somebody wanted the node itself, whose picture this is.
    let is_named = |job: NodeIndex| plan.outputs.values().any(|output| output.job == job);
    let wanted = plan.targets.iter().filter(|job| !is_named(**job) && of == Of::Run).filter_map(|job| {
        let job = plan.job(*job);
        let output = job.def.outputs.first().filter(|_| workflow.nodes.contains_key(&*job.id))?;
        Some((job.id.to_string(), json!(format!("{}.{}", job.id, output.name))))
    });
    insert(&mut top, "outputs", wanted.chain(outputs).collect());
    Value::Object(top)
}

fn insert(top: &mut Map<String, Value>, key: &str, entries: Map<String, Value>) {
    if !entries.is_empty() {
        top.insert(key.to_owned(), Value::Object(entries));
    }
}

struct Written<'a> {
    plan: &'a Plan,
    origin: &'a Origin,
    jobs: HashMap<&'a str, NodeIndex>,
    /// Some node has a `when:`: links may lead past nodes, and are written as they were planned.
    conditional: bool,
    of: Of,
}

impl Written<'_> {
    fn node(&self, id: &NodeId) -> Value {
        let Some(raw) = self.origin.workflow.nodes.get(id) else { return Value::Null };
        let set = self.origin.settings.fields.get(id).map_or(&[][..], Vec::as_slice);
        let index = self.jobs.get(&**id).copied();
        let job = index.map(|index| self.plan.job(index));
        let same = |a: &str, b: &str| {
            let input = |name: &str| job.and_then(|job| job.def.input(name)).map(|input| input.name);
            a == b || (input(a).is_some() && input(a) == input(b))
        };
        let kept = raw.fields.iter().filter(|field| !set.iter().any(|other| same(&field.name, &other.name)));
        let mut entry = Map::from_iter([("type".to_owned(), json!(raw.kind.value))]);
        let mut with = Map::new();
        if self.of == Of::All || (self.of == Of::Items && job.is_none()) {
            self.conditions(raw, &mut entry);
        }
        let seed = job.filter(|_| raw.seed_mode.is_some()).and_then(|job| Some(seed_of(&job.def)?.0));
        for field in kept.chain(set) {
            let place = if RESERVED.contains(&field.name.as_str()) { &mut with } else { &mut entry };
            let input = job.and_then(|job| job.def.input(&field.name));
            let given = input.and_then(|input| job?.args.get(input.name));
            let value = match (index, input) {
                (Some(index), Some(input)) if self.conditional && given.is_none() => {
                    let Some(value) = self.planned(index, input, field) else { continue };
                    value
                }
                (Some(_), Some(input)) if Some(input.name) == seed => given.map_or(Value::Null, escaped),
                (None, _) if SEEDS.contains(&field.name.as_str()) => self.drawn(id, field),
                _ => self.value(field, given),
            };
            place.insert(field.name.clone(), value);
        }
        insert(&mut entry, "with", with);
        let drawn =
            seed.filter(|seed| !entry.contains_key(*seed)).and_then(|seed| job?.args.get_key_value(seed));
        entry.extend(drawn.map(|(seed, value)| ((*seed).to_owned(), escaped(value))));
        Value::Object(entry)
    }

    /// The seed of a node that is no part of the plan: the one drawn for it, else as written.
    fn drawn(&self, id: &NodeId, field: &RawField) -> Value {
        let drawn = self.plan.drawn.iter().find(|(node, _)| node == id);
        drawn.map_or_else(|| self.value(field, None), |(_, seed)| json!(seed))
    }

    /// What says when and how often a node runs, and with which seeds.
    fn conditions(&self, raw: &RawNode, entry: &mut Map<String, Value>) {
        entry.extend(raw.each.as_ref().map(|each| ("each".to_owned(), json!(each.value))));
        let mode = raw.seed_mode.as_ref().map(|mode| mode.value).filter(|mode| *mode != SeedMode::Random);
        entry.extend(mode.map(|mode| ("seed_mode".to_owned(), json!(mode.name()))));
        let conditions = raw.when.iter().map(|when| format!("({})", when.value)).collect::<Vec<_>>();
        if !conditions.is_empty() {
            entry.insert("when".into(), json!(conditions.join(" and ")));
        }
    }

    /// Whether a value may hold what only a run of a sweep knows; the text of one picture has to say it itself.
    fn names_the_run(&self, value: &Raw) -> bool {
        let workflow = &self.origin.workflow;
        let (Raw::Literal(Literal::Text(text)) | Raw::Given(text)) = value else { return false };
        let named = |word: &str| text.contains('$') && text.contains(word);
        (self.of != Of::All && !workflow.combination.is_empty() && named("matrix."))
            || (self.of == Of::Run && workflow.item.is_some() && named("each"))
    }

    /// A link as planned; `None` where nothing is linked any more.
    fn planned(&self, index: NodeIndex, input: &InputSpec, field: &RawField) -> Option<Value> {
        let (from, link) = self.plan.inputs(index).find(|(_, link)| link.input == input.name)?;
        let producer = self.plan.job(from);
        match &field.value {
            Raw::InPlace(id) if *id == producer.id => return Some(self.node(id)),
            Raw::Collect(inner) => return Some(json!({ "collect": self.value(inner, None) })),
            Raw::Literal(Literal::Text(text)) if text.starts_with("$models.") => return Some(json!(text)),
            _ => {}
        }
        let output = &producer.def.outputs[link.from_output].name;
        let sigil = if matches!(input.socket, Socket::Value(_)) || producer.id.starts_with("models.") {
            "$"
        } else {
            ""
        };
        if producer.id.starts_with("models.") && !self.origin.workflow.nodes.contains_key(&*producer.id) {
            return Some(json!(format!("${}", &*producer.id)));
        }
        Some(json!(format!("{sigil}{}.{output}", producer.id)))
    }

    fn value(&self, field: &RawField, given: Option<&Constant>) -> Value {
        match (&field.value, given) {
            (Raw::Null | Raw::Map | Raw::Broken, _) => Value::Null,
            (value, Some(constant)) if self.names_the_run(value) => escaped(constant),
            (Raw::Literal(literal), _) => literal.to_json(),
            (Raw::InPlace(id), _) => self.node(id),
            (Raw::Collect(inner), _) => json!({ "collect": self.value(inner, None) }),
            // What each run puts its own value into.
            (Raw::Given(text), Some(_)) if self.of == Of::All && text.contains('$') => json!(text),
            (Raw::Given(_), Some(constant)) => escaped(constant),
            // A node that is no part of the plan: what its input takes is not known, and a text of digits is rarer than a number.
            (Raw::Given(text), None) => GivenValue::text(text).literal().to_json(),
            (Raw::Link { node, output }, _) => json!([node, output]),
        }
    }
}

/// The jobs themselves, every value resolved: for graphs whose file follows other defaults than ours.
fn as_planned(plan: &Plan) -> Value {
    let names = names(plan);
    let nodes = plan.graph.node_indices().map(|index| {
        let job = plan.job(index);
        let mut entry = Map::from_iter([("type".to_owned(), json!(job.def.kind))]);
        let mut with = Map::new();
        let mut put = |name: &str, value: Value| {
            let place = if RESERVED.contains(&name) { &mut with } else { &mut entry };
            place.insert(name.to_owned(), value);
        };
        for (name, constant) in &job.args {
            put(name, escaped(constant));
        }
        for (from, link) in plan.inputs(index) {
            let producer = plan.job(from);
            let output = &producer.def.outputs[link.from_output].name;
            let is_value =
                job.def.input(link.input).is_some_and(|input| matches!(input.socket, Socket::Value(_)));
            let sigil = if is_value { "$" } else { "" };
            put(link.input, json!(format!("{sigil}{}.{output}", names[from.index()])));
        }
        insert(&mut entry, "with", with);
        (names[index.index()].clone(), Value::Object(entry))
    });
    let name = plan.origin.as_ref().map(|origin| origin.workflow.name.as_str());
    let mut top =
        json!({ "flow": 1, "name": name.unwrap_or_default(), "nodes": nodes.collect::<Map<_, _>>() });
    // Somebody wanted the node itself, whose picture this is.
    let wanted = plan.targets.iter().filter_map(|job| {
        let output = plan.job(*job).def.outputs.first()?;
        let name = &names[job.index()];
        Some((name.clone(), json!(format!("{name}.{}", output.name))))
    });
    let wanted: Map<_, _> = wanted.collect();
    if !wanted.is_empty() {
        top["outputs"] = wanted.into();
    }
    top
}

/// Names for the jobs that our format takes: ids of other formats and of inserted nodes may have dots.
fn names(plan: &Plan) -> Vec<String> {
    let mut taken = HashSet::new();
    let mut name = |id: &str| {
        let plain = id.replace(|c: char| c == '.' || c == '$' || c.is_whitespace() || c.is_control(), "_");
        let mut unique = plain.clone();
        let mut number = 2;
        while !taken.insert(unique.clone()) {
            unique = format!("{plain}_{number}");
            number += 1;
        }
        unique
    };
    plan.graph.node_weights().map(|job| name(&job.id)).collect()
}

/// A constant whose dollars are dollars.
fn escaped(constant: &Constant) -> Value {
    match constant {
        Constant::Literal(Literal::Text(text)) => json!(text.replace('$', "$$")),
        Constant::Literal(literal) => literal.to_json(),
        Constant::File(file) => json!(file.name.replace('$', "$$")),
        Constant::Items(_) => Value::Null,
    }
}
