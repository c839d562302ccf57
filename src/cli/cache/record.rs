//! What the last runs of a workflow computed its nodes from, to say later why one runs again.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use flow_engine::{NUMERICS, Trace};
use flow_graph::{Constant, Files, Hash, Lane, Plan};
use flow_nodes::picture::encode::{Existing, write_atomic};
use petgraph::{Direction, graph::NodeIndex};
use serde_json::{Map, Value, json};

use super::folder::Folder;

/// Larger workflows leave no record: it would take longer to write than it helps.
const MAX_NODES: usize = 20_000;

/// Runs that are told apart of one node.
const MAX_RUNS: usize = 1000;

/// A longer file is no record of ours.
const MAX_BYTES: u64 = 64 << 20;

/// Part of a record's name, raised with its form.
const FORMAT: &str = "flow run 2";

/// What one input of a node was.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A literal, as JSON.
    Literal(Value),
    /// A file: what the workflow calls it, and its content.
    File(String, String),
    /// A link: `node.output`, and the identity of the value if it is known.
    Link(String, Option<String>),
}

/// What a node was computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Its type.
    pub kind: String,
    /// The version of the type.
    pub version: u64,
    /// [`NUMERICS`].
    pub numerics: u64,
    /// Device and number type; empty for nodes that do not depend on them.
    pub place: String,
    /// Its inputs.
    pub inputs: BTreeMap<String, Part>,
}

impl Made {
    /// What a job is computed from now, as far as `trace` knows it.
    pub fn now(plan: &Plan, trace: &Trace, files: &Files, place: &str, job: NodeIndex) -> Self {
        let node = plan.job(job);
        let constants = node.args.iter().map(|(name, constant)| {
            let part = match constant {
                Constant::Literal(literal) => Part::Literal(literal.to_json()),
                Constant::Items(items) => {
                    Part::Literal(items.iter().map(|item| item.id.to_string()).collect::<Vec<_>>().into())
                }
                Constant::File(file) => {
                    let content = files.hash(&file.path).map(|hash| hash.to_string());
                    Part::File(file.name.clone(), content.unwrap_or_default())
                }
            };
            ((*name).to_owned(), part)
        });
        let links = trace.inputs(plan, job).map(|(input, (source, output), id)| {
            let source = plan.job(source);
            let from = format!("{}.{}", source.id, source.def.outputs[output].name);
            (input.to_owned(), Part::Link(from, id.map(|id| id.to_string())))
        });
        Self {
            kind: node.def.kind.to_owned(),
            version: node.def.version.into(),
            numerics: NUMERICS.into(),
            place: if node.def.lane == Lane::Device { place.to_owned() } else { String::new() },
            inputs: constants.chain(links).collect(),
        }
    }

    fn to_json(&self) -> Value {
        let part = |part: &Part| match part {
            Part::Literal(value) => json!({ "value": value }),
            Part::File(name, content) => json!({ "file": name, "content": content }),
            Part::Link(from, id) => json!({ "from": from, "id": id }),
        };
        let inputs: Map<_, _> = self.inputs.iter().map(|(name, of)| (name.clone(), part(of))).collect();
        json!({
            "type": self.kind,
            "version": self.version,
            "numerics": self.numerics,
            "place": self.place,
            "inputs": inputs,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let part = |value: &Value| {
            Some(if let Some(literal) = value.get("value") {
                Part::Literal(literal.clone())
            } else if let Some(file) = value.get("file") {
                Part::File(text(file)?, text(value.get("content")?)?)
            } else {
                Part::Link(text(value.get("from")?)?, text(value.get("id")?))
            })
        };
        let inputs = value.get("inputs")?.as_object()?.iter();
        Some(Self {
            kind: text(value.get("type")?)?,
            version: value.get("version")?.as_u64()?,
            numerics: value.get("numerics")?.as_u64()?,
            place: text(value.get("place")?)?,
            inputs: inputs.map(|(name, value)| Some((name.clone(), part(value)?))).collect::<Option<_>>()?,
        })
    }
}

/// The nodes of one workflow file, each as the runs of the last command computed it.
#[derive(Debug)]
pub struct Record {
    workflow: String,
    path: PathBuf,
    nodes: BTreeMap<String, Vec<Made>>,
    /// Nodes of which this process has said something.
    fresh: HashSet<String>,
    /// Whether the file does not have all of it yet.
    unwritten: bool,
    /// It could not be written, which has been told.
    lost: bool,
}

impl Record {
    /// The record of a workflow; empty where there is none that can be read.
    pub fn read(folder: &Folder, workflow: &str) -> Self {
        let path = path(folder, workflow);
        let short = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_BYTES);
        let text = short.then(|| fs::read(&path).ok()).flatten();
        let nodes: Map<_, _> = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let all = |made: Value| made.as_array().map(|all| all.iter().filter_map(Made::from_json).collect());
        let nodes = nodes.into_iter().filter_map(|(node, made)| Some((node, all(made)?))).collect();
        Self {
            workflow: workflow.to_owned(),
            path,
            nodes,
            fresh: HashSet::new(),
            unwritten: false,
            lost: false,
        }
    }

    /// The workflow it is of.
    pub fn workflow(&self) -> &str {
        &self.workflow
    }

    /// Of what a node was computed from, in the runs there were, that which is the least `far` from what it is computed from
    /// now; of several the last.
    pub fn nearest(&self, node: &str, far: impl Fn(&Made) -> usize) -> Option<&Made> {
        self.nodes.get(node)?.iter().rev().min_by_key(|made| far(made))
    }

    /// Remembers what a run computed its nodes from; `failed` jobs and what needs them gave nothing.
    pub fn add(&mut self, plan: &Plan, trace: &Trace, files: &Files, place: &str, failed: &[NodeIndex]) {
        if plan.order().len() > MAX_NODES {
            return;
        }
        let mut without: HashSet<NodeIndex> = failed.iter().copied().collect();
        for &job in plan.order() {
            let mut sources = plan.graph().neighbors_directed(job, Direction::Incoming);
            if without.contains(&job) || sources.any(|source| without.contains(&source)) {
                without.insert(job);
            } else if trace.key(job).is_some() {
                self.add_one(&plan.job(job).id, Made::now(plan, trace, files, place, job), plan.is_first());
            }
        }
    }

    fn add_one(&mut self, node: &str, made: Made, first: bool) {
        let all = self.nodes.entry(node.to_owned()).or_default();
        // What an earlier command has computed is no longer the last.
        if first | self.fresh.insert(node.to_owned()) {
            self.unwritten |= *all != [made.clone()];
            *all = vec![made];
        } else if all.len() < MAX_RUNS && !all.contains(&made) {
            self.unwritten = true;
            all.push(made);
        }
    }

    /// Writes it, if there is something new in it.
    ///
    /// # Errors
    /// When the folder cannot be written; once.
    pub fn write(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.unwritten) || self.lost {
            return Ok(());
        }
        let written = self.write_all();
        self.lost = written.is_err();
        written
    }

    fn write_all(&self) -> io::Result<()> {
        let all = |all: &Vec<Made>| -> Value { all.iter().map(Made::to_json).collect() };
        let nodes: Map<_, _> = self.nodes.iter().map(|(node, made)| (node.clone(), all(made))).collect();
        self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
        write_atomic(&self.path, Value::Object(nodes).to_string().as_bytes(), Existing::Replace)
    }
}

/// Removes all records.
///
/// # Errors
/// When one cannot be removed.
pub fn clear(folder: &Folder) -> io::Result<()> {
    let runs = folder.path.join("runs");
    for entry in fs::read_dir(&runs).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.len() >= 64 && name.bytes().take(64).all(|byte| byte.is_ascii_hexdigit());
        if (ours && name.ends_with(".json")) || name.starts_with(".flow-") {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    // What is not ours keeps its folder.
    let _ = fs::remove_dir(runs);
    let _ = fs::remove_dir(&folder.path);
    Ok(())
}

fn path(folder: &Folder, workflow: &str) -> PathBuf {
    let full = std::path::absolute(workflow).unwrap_or_else(|_| Path::new(workflow).to_owned());
    let name = Hash::builder().part(FORMAT).part(full.as_os_str().as_encoded_bytes()).finish();
    folder.path.join("runs").join(format!("{name}.json"))
}
