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

/// Runs of one node, and of all nodes together, of which all inputs are kept, to say in what another differs.
const MAX_FULL: usize = 64;
const MAX_FULL_IN_ALL: usize = 10_000;

/// Runs of all nodes together that are known again.
const MAX_KNOWN: usize = 400_000;

/// A longer file is no record of ours, and none is written.
const MAX_BYTES: u64 = 64 << 20;

/// Part of a record's name, raised with its form.
const FORMAT: &str = "flow run 3";

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

    /// What it has in common with equal ones, with what its links carry or, as long as that is not known, without;
    /// nothing where it is known of some.
    fn identity(&self) -> Option<u64> {
        let ids = || {
            self.inputs.values().filter_map(|part| if let Part::Link(_, id) = part { Some(id) } else { None })
        };
        if ids().all(Option::is_some) {
            Some(self.hash(true))
        } else {
            ids().all(Option::is_none).then(|| self.hash(false))
        }
    }

    fn hash(&self, with_links: bool) -> u64 {
        let mut hash =
            Hash::builder().part([u8::from(with_links)]).part(&self.kind).part(self.version.to_le_bytes());
        hash = hash.part(self.numerics.to_le_bytes()).part(&self.place);
        for (name, part) in &self.inputs {
            hash = match part {
                Part::Literal(value) => hash.part(name).part("value").part(value.to_string()),
                Part::File(_, content) => hash.part(name).part("file").part(content),
                Part::Link(_, id) => {
                    let id = id.as_deref().filter(|_| with_links).unwrap_or_default();
                    hash.part(name).part("link").part(id)
                }
            };
        }
        let hash = hash.finish();
        let (first, _) = hash.as_bytes().split_at(8);
        first.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
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
    nodes: BTreeMap<String, Runs>,
    /// Runs of all nodes that are kept in full, and that are known.
    full: usize,
    known: usize,
    /// Nodes of which this process has said something.
    fresh: HashSet<String>,
    /// Whether the file does not have all of it yet.
    unwritten: bool,
}

/// The runs of one node.
#[derive(Debug, Default, PartialEq)]
struct Runs {
    /// Some of them.
    full: Vec<Made>,
    /// The [`Made::identity`] of all, both of each.
    known: HashSet<u64>,
    /// There were more than are known.
    cut: bool,
}

/// What is remembered of a node.
pub enum Before {
    /// It never ran.
    Never,
    /// It was computed from the same.
    Same,
    /// It was computed from something else, of which this is the nearest.
    Nearest(Made),
    /// There were too many runs to know them all.
    Unknown,
}

impl Runs {
    fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            full: value.get("made")?.as_array()?.iter().filter_map(Made::from_json).collect(),
            known: value.get("known")?.as_array()?.iter().filter_map(Value::as_u64).collect(),
            cut: value.get("cut")?.as_bool()?,
        })
    }

    fn to_json(&self) -> Value {
        let made: Value = self.full.iter().map(Made::to_json).collect();
        json!({ "made": made, "known": self.known, "cut": self.cut })
    }
}

impl Record {
    /// The record of a workflow; empty where there is none that can be read.
    pub fn read(folder: &Folder, workflow: &str) -> Self {
        let path = path(folder, workflow);
        let short = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_BYTES);
        let text = short.then(|| fs::read(&path).ok()).flatten();
        let nodes: Map<_, _> = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let nodes = nodes.iter().filter_map(|(node, runs)| Some((node.clone(), Runs::from_json(runs)?)));
        let nodes: BTreeMap<_, _> = nodes.collect();
        Self {
            workflow: workflow.to_owned(),
            path,
            full: nodes.values().map(|runs| runs.full.len()).sum(),
            known: nodes.values().map(|runs| runs.known.len()).sum(),
            nodes,
            fresh: HashSet::new(),
            unwritten: false,
        }
    }

    /// The workflow it is of.
    pub fn workflow(&self) -> &str {
        &self.workflow
    }

    /// What is remembered of a node beside what it is computed from `now`; `far` counts the differences.
    pub fn before(&self, node: &str, now: &Made, far: impl Fn(&Made) -> usize) -> Before {
        let Some(runs) = self.nodes.get(node) else { return Before::Never };
        if now.identity().is_some_and(|identity| runs.known.contains(&identity)) {
            return Before::Same;
        }
        if runs.cut {
            return Before::Unknown;
        }
        // Of several the last.
        match runs.full.iter().rev().min_by_key(|made| far(made)) {
            Some(made) => Before::Nearest(made.clone()),
            None => Before::Never,
        }
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
        let both = [made.hash(true), made.hash(false)];
        let runs = self.nodes.entry(node.to_owned()).or_default();
        // What an earlier command has computed is no longer the last.
        if first | self.fresh.insert(node.to_owned()) {
            let new = Runs { full: vec![made], known: both.into(), cut: false };
            self.unwritten |= *runs != new;
            self.full = self.full + 1 - runs.full.len();
            self.known = self.known + new.known.len() - runs.known.len();
            *runs = new;
        } else if !runs.known.contains(&both[0]) {
            self.unwritten = true;
            if self.known + both.len() > MAX_KNOWN {
                runs.cut = true;
                return;
            }
            self.known += both.into_iter().filter(|identity| runs.known.insert(*identity)).count();
            if runs.full.len() < MAX_FULL && self.full < MAX_FULL_IN_ALL {
                self.full += 1;
                runs.full.push(made);
            }
        }
    }

    /// Writes it, if there is something new in it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&mut self) -> io::Result<()> {
        if !self.unwritten {
            return Ok(());
        }
        self.write_all()?;
        self.unwritten = false;
        Ok(())
    }

    fn write_all(&self) -> io::Result<()> {
        let nodes: Map<_, _> = self.nodes.iter().map(|(node, runs)| (node.clone(), runs.to_json())).collect();
        let text = Value::Object(nodes).to_string();
        if text.len() as u64 > MAX_BYTES {
            // Better none than one that is not of the last command.
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
        write_atomic(&self.path, text.as_bytes(), Existing::Replace)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn made(value: i64, link: Option<&str>) -> Made {
        let link = Part::Link("a.b".into(), link.map(str::to_owned));
        Made {
            kind: "ImageBlur".into(),
            version: 1,
            numerics: 1,
            place: String::new(),
            inputs: [("radius".to_owned(), Part::Literal(json!(value))), ("image".to_owned(), link)].into(),
        }
    }

    #[test]
    fn runs_beyond_those_in_full_are_known_again_also_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder { path: folder.path().to_owned(), limit: 0 };
        let mut record = Record::read(&folder, "a.yaml");
        for run in 0..500 {
            record.add_one("soft", made(run, Some("1")), run == 0);
        }
        record.write().unwrap();
        let record = Record::read(&folder, "a.yaml");
        assert_eq!((record.full, record.nodes["soft"].full.len(), record.known), (MAX_FULL, MAX_FULL, 1000));
        let before = |now: &Made| record.before("soft", now, |made| usize::from(made != now));
        for run in [0, 63, 64, 499] {
            assert!(matches!(before(&made(run, Some("1"))), Before::Same), "{run}");
            assert!(matches!(before(&made(run, None)), Before::Same), "{run}");
        }
        assert!(matches!(before(&made(500, Some("1"))), Before::Nearest(_)));
        assert!(matches!(before(&made(0, Some("2"))), Before::Nearest(_)));
        assert!(matches!(record.before("other", &made(0, None), |_| 0), Before::Never));
    }

    #[test]
    fn of_more_runs_than_can_be_known_none_is_said_to_differ() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record::read(&Folder { path: folder.path().to_owned(), limit: 0 }, "a.yaml");
        record.known = MAX_KNOWN - 4;
        for run in 0..4 {
            record.add_one("soft", made(run, Some("1")), run == 0);
        }
        let before = |run| record.before("soft", &made(run, Some("1")), |_| 1);
        assert!(matches!((before(1), before(3)), (Before::Same, Before::Unknown)));
    }
}
