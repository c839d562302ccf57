//! All runs of a sweep checked before the first begins, and one plan at a time for whoever runs them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use super::Sweep;
use crate::{
    Collected, Constant, Diagnostic, Diagnostics, Files, Hash, Literal, NodeId, Overrides, Plan, Registry,
    check::{Found, check_among},
    diag::{Severity, Span},
    key,
    outputs::written,
};

/// A sweep of which every run can be planned, with what it was checked against.
pub struct Checked {
    pub(super) sweep: Sweep,
    pub(super) registry: Registry,
    files: Arc<Files>,
    overrides: Overrides,
    wanted: Vec<String>,
    /// By combination: the run of its first item that can be planned, which stands for all in the run that joins them.
    sound: HashMap<usize, usize>,
    /// Sinks of each run that an equal run before it has served.
    served: Vec<Vec<String>>,
    /// The sheet each run's picture goes on.
    sheets: Vec<Option<String>>,
    warnings: Diagnostics,
    /// What is wrong with items that are left out.
    skipped: Diagnostics,
    jobs: Jobs,
}

/// How many nodes run at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// In one run.
    pub run: usize,
    /// In one that joins items.
    pub join: usize,
}

impl Sweep {
    /// Checks every run: equal problems are told once, with how many runs have them.
    ///
    /// # Errors
    /// Everything that is wrong with any run, and runs that would write one file.
    pub fn check(
        &self,
        registry: &Registry,
        files: &Arc<Files>,
        overrides: &Overrides,
        wanted: &[String],
    ) -> Result<Checked, Diagnostics> {
        self.check_seeing(registry, files, overrides, wanted, &mut |_, _| ())
    }

    /// The same, telling `seen` of every plan, with the mark of its results.
    ///
    /// # Errors
    /// Those of [`Sweep::check`].
    pub fn check_seeing(
        &self,
        registry: &Registry,
        files: &Arc<Files>,
        overrides: &Overrides,
        wanted: &[String],
        seen: &mut dyn FnMut(&str, &Plan),
    ) -> Result<Checked, Diagnostics> {
        let mut tally = Tally::default();
        let mut paths = Paths::default();
        let mut sizes = Sizes::default();
        let mut broken = 0;
        let mut found = Found::default();
        let mut checked = Checked {
            sweep: self.clone(),
            registry: registry.clone(),
            files: files.clone(),
            overrides: overrides.clone(),
            wanted: wanted.to_vec(),
            sound: HashMap::new(),
            served: Vec::new(),
            sheets: Vec::new(),
            warnings: self.notes.clone(),
            skipped: Diagnostics::default(),
            jobs: Jobs::default(),
        };
        if let Some(grid) = self.matrix.grid.as_ref().filter(|grid| grid.asked && !wanted.is_empty()) {
            let message = "--grid shows what the whole workflow gives, and only a part of it is wanted";
            let problem = Diagnostic::error("wrong-sweep", message).at(grid.save.span.clone());
            let hint =
                "leave the node out; which picture is shown `matrix: { grid: { image: OUTPUT } }` says";
            return Err(problem.hint(hint.to_owned()).into());
        }
        for run in 0..self.len() {
            let plan = match checked.planned(run, &Collected::default(), &mut found) {
                Ok(plan) => plan,
                Err(problems) => {
                    broken += usize::from(!self.is_joined(run));
                    tally.add(run, problems);
                    checked.served.push(Vec::new());
                    checked.sheets.push(None);
                    continue;
                }
            };
            checked.sound.entry(run / self.per_combination()).or_insert(run);
            seen(&self.mark(run), &plan);
            tally.add(run, plan.warnings().clone());
            let jobs = if self.is_joined(run) { &mut checked.jobs.join } else { &mut checked.jobs.run };
            *jobs = (*jobs).max(plan.order().len());
            checked.served.push(paths.sinks(self, run, &plan));
            paths.clashes.extend(sizes.unlike(self, run, &plan));
            if self.matrix.grid.is_some() && wanted.is_empty() {
                match paths.sheet(self, run, &plan) {
                    Ok(path) => checked.sheets.push(path),
                    Err(wrong) => paths.clashes.extend(wrong.0),
                }
            } else {
                checked.sheets.push(None);
            }
        }
        // An item that is broken is skipped, as long as there is one that is not.
        let joined = if self.joins { self.combinations.len() } else { 0 };
        let skipped = self.items.is_some() && broken < self.len() - joined;
        let mut problems = tally.told(self);
        if skipped {
            let (wrong, others) =
                problems.0.into_iter().partition(|problem| problem.severity == Severity::Error);
            (checked.skipped, problems) = (Diagnostics(wrong), Diagnostics(others));
        }
        problems.0.extend(paths.clashes);
        if problems.has_errors() {
            problems.0.extend(self.notes.0.iter().cloned());
            problems.sort();
            return Err(problems);
        }
        checked.warnings.0.extend(problems.0);
        checked.warnings.sort();
        Ok(checked)
    }
}

impl Checked {
    /// What was checked.
    pub fn sweep(&self) -> &Sweep {
        &self.sweep
    }

    /// Where its files are.
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// What was found worth saying.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// What is wrong with items of an `each`, which are skipped when the others run.
    pub fn skipped(&self) -> &Diagnostics {
        &self.skipped
    }

    /// How many nodes the largest run and the largest join have.
    pub fn jobs(&self) -> Jobs {
        self.jobs
    }

    /// The plan of one run, made anew: thousands of plans need not be held at once.
    ///
    /// A sink that the same values have served in an earlier run is left out of it. A run that joins items takes what they
    /// have given from `collected`.
    ///
    /// # Errors
    /// When the files have changed since the check.
    ///
    /// # Panics
    /// When there is no such run.
    pub fn plan(&self, run: usize, collected: &Collected) -> Result<Plan, Diagnostics> {
        let mut plan = self.planned(run, collected, &mut Found::default())?;
        plan.without(&self.served[run]);
        Ok(plan)
    }

    /// All nodes of the first run, also those that come after `collect`: what the runs need, without running them.
    ///
    /// # Errors
    /// When the files have changed since the check.
    pub fn whole(&self) -> Result<Plan, Diagnostics> {
        let run = self.sound.values().copied().min().unwrap_or(0);
        let workflow = self.sweep.workflow(run);
        let found = &mut Found::default();
        check_among(&workflow, &self.registry, &self.files, &self.overrides, &self.wanted, found)
    }

    /// The file of the sheet that a run's picture belongs to.
    pub fn sheet_path(&self, run: usize) -> Option<&str> {
        self.sheets.get(run)?.as_deref()
    }

    fn planned(&self, run: usize, collected: &Collected, found: &mut Found) -> Result<Plan, Diagnostics> {
        let combination = run / self.sweep.per_combination();
        let item =
            self.sound.get(&combination).copied().unwrap_or(combination * self.sweep.per_combination());
        let workflow = self.sweep.part(run, item, collected);
        check_among(&workflow, &self.registry, &self.files, &self.overrides, &self.wanted, found)
    }
}

/// What equal problems have in common: id, message and place.
type Likeness = (&'static str, String, Option<Range<usize>>);

/// Problems of many runs, each told once.
#[derive(Default)]
struct Tally {
    seen: Vec<(Diagnostic, usize, usize)>,
    alike: HashMap<Likeness, Vec<usize>>,
}

impl Tally {
    fn add(&mut self, run: usize, problems: Diagnostics) {
        for problem in problems.0 {
            let range = problem.span.as_ref().map(|span| span.range.clone());
            let alike = self.alike.entry((problem.id, problem.message.clone(), range)).or_default();
            let known = alike.iter().copied().find(|at| self.seen[*at].0 == problem);
            match known {
                Some(at) => self.seen[at].2 += 1,
                None => {
                    alike.push(self.seen.len());
                    self.seen.push((problem, run, 1));
                }
            }
        }
    }

    /// The problems, those of some runs only with the first that has them.
    fn told(self, sweep: &Sweep) -> Diagnostics {
        let all = sweep.len();
        let told = self.seen.into_iter().map(|(mut problem, first, count)| {
            if count < all && problem.severity == Severity::Error {
                let label = sweep.label(first);
                let others = if count == 1 { String::new() } else { format!(" and {} more", count - 1) };
                let which = format!("in the run {label}{others}");
                problem.hint = Some(problem.hint.map_or(which.clone(), |hint| format!("{hint}; {which}")));
            }
            problem
        });
        let mut problems = Diagnostics(told.collect());
        problems.sort();
        problems
    }
}

/// How large the pictures are that items give to be joined, to find two that do not go together.
#[derive(Default)]
struct Sizes {
    /// In this combination, by the node that joins: the first run whose size is known.
    first: HashMap<NodeId, (usize, (usize, usize))>,
    told: HashSet<NodeId>,
}

impl Sizes {
    fn unlike(&mut self, sweep: &Sweep, run: usize, plan: &Plan) -> Vec<Diagnostic> {
        if run.is_multiple_of(sweep.per_combination()) {
            self.first.clear();
        }
        let mut problems = Vec::new();
        for ((node, _), (facts, span)) in plan.collected.iter().zip(&plan.gives) {
            let Some(size) = facts.size() else { continue };
            let (first, other) = *self.first.entry(node.clone()).or_insert((run, size));
            if size == other || !self.told.insert(node.clone()) {
                continue;
            }
            let [one, two] = [(first, other), (run, size)]
                .map(|(run, (width, height))| format!("`{}` gives {width}×{height}", sweep.item_label(run)));
            let message = format!("pictures that are joined have one size: {one}, {two}");
            let hint = "bring all items to one size before, with ImageScale or ImageResize".to_owned();
            problems
                .push(Diagnostic::error("wrong-collect", message).at(span.clone()).hint(hint).node(&**node));
        }
        problems
    }
}

/// Files that runs write, to find two that write one.
#[derive(Default)]
struct Paths {
    /// By path: the run and what it writes there.
    written: HashMap<String, (usize, Hash)>,
    /// Contact sheets, by path.
    sheets: HashSet<String>,
    served: HashSet<(String, Hash)>,
    /// What the items of this combination give to the run that joins them.
    gave: Vec<Hash>,
    cells: HashMap<(String, super::Cell), usize>,
    clashes: Vec<Diagnostic>,
    told: HashSet<String>,
}

impl Paths {
    /// The sinks of a run that an earlier run has served with the same values.
    fn sinks(&mut self, sweep: &Sweep, run: usize, plan: &Plan) -> Vec<String> {
        if run.is_multiple_of(sweep.per_combination()) {
            self.gave.clear();
        }
        let gave = self.gave.iter().fold(Hash::builder(), |hash, gave| hash.part(gave.as_bytes())).finish();
        let signatures = signatures(plan, gave);
        self.gave.extend(plan.collected().iter().map(|(_, output)| signatures[output.job.index()]));
        let mut served = Vec::new();
        for sink in plan.sinks() {
            let job = plan.job(sink);
            let signature = signatures[sink.index()];
            if !self.served.insert((job.id.to_string(), signature)) {
                served.push(job.id.to_string());
                continue;
            }
            let Some(Constant::Literal(Literal::Text(path))) = job.args.get("path") else { continue };
            let plain = written(path);
            if self.sheets.contains(&plain) {
                self.on_sheet(&plain, path, job.input_span("path").or(job.span.as_ref()).cloned());
            }
            let (first, other) = *self.written.entry(plain.clone()).or_insert((run, signature));
            if first == run || other == signature || !self.told.insert(plain) {
                continue;
            }
            let message = format!("{} would both write `{path}`", sweep.both(first, run));
            let place = job.input_span("path").or(job.span.as_ref()).cloned();
            let problem = Diagnostic::error("same-file", message).at(place).node(&*job.id);
            self.clashes.push(problem.hint(sweep.tell_apart(first, run, "the path")));
        }
        served
    }

    /// Says of a picture of a run and a contact sheet that they are one file.
    fn on_sheet(&mut self, plain: &str, path: &str, place: Option<Span>) {
        if self.told.insert(plain.to_owned()) {
            let message = format!("a run and its contact sheet would both write `{path}`");
            let problem = Diagnostic::error("same-file", message).at(place);
            self.clashes.push(problem.hint("give the sheet another name".to_owned()));
        }
    }

    fn sheet(&mut self, sweep: &Sweep, run: usize, plan: &Plan) -> Result<Option<String>, Diagnostics> {
        let Some(grid) = &sweep.matrix.grid else { return Ok(None) };
        if sweep.shown(plan).is_none() {
            // The picture is that of the items, or what they are joined to.
            if sweep.joins {
                return Ok(None);
            }
            let place = grid.image.as_ref().unwrap_or(&grid.save).span.clone();
            let message = match &grid.image {
                Some(name) => format!("no output `{}` is a picture", name.value),
                None => "the grid does not know which picture to show".to_owned(),
            };
            let hint = "name one under `outputs:`, as in `outputs: { image: decoded.image }`".to_owned();
            return Err(Diagnostic::error("unknown-output", message).at(place).hint(hint).into());
        }
        let path = plan.text(&grid.save)?;
        let plain = written(&path);
        if self.written.contains_key(&plain) {
            self.on_sheet(&plain, &path, Some(grid.save.span.clone()));
        }
        self.sheets.insert(plain);
        if let Some(cell) = sweep.cell(run) {
            let first = *self.cells.entry((path.clone(), cell)).or_insert(run);
            if first != run && self.told.insert(format!("grid {path}")) {
                let message = format!("{} belong into one cell of `{path}`", sweep.both(first, run));
                let problem = Diagnostic::error("same-file", message).at(grid.save.span.clone());
                self.clashes.push(problem.hint(sweep.tell_apart(first, run, "`save`")));
            }
        }
        Ok(Some(path))
    }
}

impl Sweep {
    /// What to write into a name so that two runs get names of their own.
    fn tell_apart(&self, first: usize, second: usize, place: &str) -> String {
        let (a, b) = (self.combination(first), self.combination(second));
        let differs = b.iter().filter(|given| !super::combine::agrees(a, std::slice::from_ref(given)));
        let keys = differs.map(|given| {
            let key = &given.key.value;
            if self.workflow.inputs.contains_key(key) {
                format!("${{{key}}}")
            } else {
                format!("${{matrix.{key}}}")
            }
        });
        let items = |run| self.item(run).map_or(&[][..], |items| &items.of);
        let others =
            items(first).iter().zip(items(second)).filter(|(first, second)| first.index != second.index);
        let several = items(first).len() > 1;
        let keys = keys.chain(others.map(|(item, _)| match several {
            true => format!("${{each.{}.name}}", item.list_name()),
            false => "${each.name}".to_owned(),
        }));
        let keys: Vec<_> = keys.map(|key| format!("`{key}`")).collect();
        format!("put {} into {place}", keys.join(" and "))
    }
}

/// For each job what it computes, as far as a plan tells without reading a file; `gave` stands for what items gave.
fn signatures(plan: &Plan, gave: Hash) -> Vec<Hash> {
    let mut all = vec![Hash::of(b""); plan.graph().node_count()];
    for job in plan.order() {
        let mut parts = BTreeMap::new();
        for (name, constant) in &plan.job(*job).args {
            let part = match constant {
                Constant::Literal(literal) => key::Part::Literal(literal),
                Constant::File(file) => key::Part::File(Hash::of(file.path.as_os_str().as_encoded_bytes())),
                Constant::Items(_) => key::Part::Value(gave),
            };
            parts.insert(*name, part);
        }
        for (from, link) in plan.inputs(*job) {
            let value =
                Hash::builder().part(all[from.index()].as_bytes()).part(link.from_output.to_le_bytes());
            parts.insert(link.input, key::Part::Value(value.finish()));
        }
        all[job.index()] = key::key(&plan.job(*job).def, &parts, &Hash::of(b"sweep"));
    }
    all
}
