//! `flow convert`: a workflow in the other format, or PyTorch's weights as safetensors.

mod weights;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use flow_graph::{
    Diagnostics, Overrides, Plan, Workflow, check, comfy, convert::to_yaml, diag::Source, format,
    sweep::Asked, workflow::Dialect,
};

use crate::{
    Ending,
    load::{self, show},
    output, recipe,
    roots::Roots,
    runtime, write,
};

/// Writes a workflow in the other format, or PyTorch's weights as safetensors
///
/// ComfyUI's JSON or a picture becomes YAML, YAML becomes ComfyUI's API JSON. Every problem is reported, and a graph with
/// problems is not written; missing models and pictures are none. What is there already is kept without --force. Weights (.ckpt, .pt, .pth, .bin) become safetensors;
/// nothing in the file is run.
#[derive(Debug, clap::Args)]
pub struct Convert {
    /// What ComfyUI saves or exports, a PNG that carries a workflow, YAML, or a file of weights
    file: PathBuf,
    /// File to write, or `-` for standard output [default: standard output; for weights the same name ending in .safetensors]
    #[arg(value_name = "OUT")]
    to_file: Option<PathBuf>,
    /// File to write, as OUT
    #[arg(short, long, value_name = "FILE", conflicts_with = "to_file")]
    out: Option<PathBuf>,
    /// Format to write [default: API JSON for a YAML file, else YAML]
    #[arg(long, value_enum)]
    to: Option<Format>,
    /// Replace the file to write if it is there
    #[arg(long)]
    force: bool,
    /// Write what can be converted, and leave out the rest
    #[arg(long)]
    partial: bool,
    #[command(flatten)]
    roots: Roots,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A workflow of flow
    Yaml,
    /// What ComfyUI's server takes
    Api,
}

/// Problems of this machine and not of the graph.
pub const ELSEWHERE: [&str; 3] = ["missing-file", "outside-roots", "mismatch"];

impl Convert {
    /// Converts, or says why not.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn run(&self) -> Result<Ending> {
        if weights::is_meant(&self.file) {
            ensure!(
                self.to_file.is_none() && self.out.is_none() || self.out().is_some(),
                "weights are written to a file: name one instead of `-`"
            );
            return weights::convert(&self.file, self.out(), self.force);
        }
        if let Some(there) = self.out().filter(|path| write::is_plain(path) && !self.force) {
            bail!("`{}` is there already; --force replaces it", there.display());
        }
        let files = self.roots.files(&self.file, None)?;
        let registry = runtime::registry();
        let (workflow, problems) = load::workflow(&self.file, &files, &registry)?;
        if problems.has_errors() && !self.partial {
            show(&problems);
            return Ok(Ending::Refused);
        }
        let overrides = Overrides::default();
        let checked = workflow.sweep(&Asked::default(), &overrides, &files).and_then(|runs| {
            if runs.len() > 1 {
                output::note(format_args!("of its {} this is the first: {}", runs.counts(), runs.label(0)));
            }
            check(&runs.workflow(0), &registry, &files, &overrides, &[])
        });
        let text = match self.format(&workflow)? {
            Format::Yaml => self.yaml(&workflow, checked),
            Format::Api => api(checked),
        };
        let Some(text) = text else { return Ok(Ending::Refused) };
        match self.out() {
            Some(path) => {
                write::text(path, &text).with_context(|| output::CannotWrite::file(path))?;
                output::note(format_args!("wrote {}", path.display()));
            }
            None => output::print(&text)?,
        }
        Ok(Ending::Done)
    }

    fn out(&self) -> Option<&PathBuf> {
        self.to_file.as_ref().or(self.out.as_ref()).filter(|path| *path != Path::new("-"))
    }

    fn format(&self, workflow: &Workflow) -> Result<Format> {
        let of_name = |path: &Path| match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Format::Yaml),
            "json" => Some(Format::Api),
            _ => None,
        };
        if let Some(format) = self.to.or(self.out().and_then(|path| of_name(path))) {
            return Ok(format);
        }
        let yaml = workflow.dialect() == Dialect::Comfy || recipe::carried(&self.file)?.is_some();
        Ok(if yaml { Format::Yaml } else { Format::Api })
    }

    fn yaml(&self, workflow: &Workflow, checked: Result<Plan, Diagnostics>) -> Option<String> {
        if workflow.dialect() == Dialect::Flow {
            // Ours already, in a picture.
            let Source { name, text } = &**workflow.source();
            return Some(format(name, text).unwrap_or_else(|_| text.clone()));
        }
        let mut problems = checked.map_or_else(|problems| problems, |plan| plan.warnings().clone());
        problems.0.retain(|problem| !ELSEWHERE.contains(&problem.id));
        show(&problems);
        if problems.has_errors() && !self.partial {
            output::note("nothing was written; --partial writes what is in order");
            return None;
        }
        let from = "Converted from ComfyUI by `flow convert`.";
        Some(to_yaml(workflow, &runtime::registry(), from))
    }
}

/// The graph for ComfyUI. It is made of the plan, so everything must be right and here.
fn api(checked: Result<Plan, Diagnostics>) -> Option<String> {
    match checked {
        Ok(plan) => {
            let mut problems = plan.warnings().clone();
            problems.0.extend(comfy::foreign(&plan).0);
            show(&problems);
            Some(format!("{:#}\n", comfy::prompt(&plan)))
        }
        Err(problems) => {
            show(&problems);
            None
        }
    }
}
