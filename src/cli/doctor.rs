//! `flow doctor`: what this machine offers, which models were found, what the examples still need.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::Result;
use candle_core::DType;
use flow_diffusion::{Size, runtime::card_memory};
use serde_json::{Value, json};

use crate::{
    Ending, load, machine,
    memory::Memory,
    models::{self, Folder},
    output,
    pull::hint,
    roots::Roots,
    runtime::{self, Numbers, Place, Precision},
};

/// Says what there is: device, memory and budgets, models and what each is, and what the examples miss
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Workflows whose files are looked for [default: those in `workflows`]
    #[arg(value_name = "FILE")]
    workflows: Vec<PathBuf>,
    #[command(flatten)]
    roots: Roots,
    #[command(flatten)]
    memory: Memory,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// What a workflow needs and does not find.
struct Missing {
    workflow: PathBuf,
    /// In the words of the check.
    messages: Vec<String>,
}

impl Doctor {
    /// Looks and tells.
    ///
    /// # Errors
    /// When a folder named on the command line is none, or a budget is no amount.
    pub fn run(&self) -> Result<Ending> {
        let folders = models::folders(&self.roots, self.workflows.first().map(PathBuf::as_path))?;
        let missing = self.missing()?;
        let report = self.report(&folders, &missing)?;
        if self.json {
            output::print(&format!("{report:#}\n"))?;
        } else {
            output::print(&text(&report, &folders))?;
        }
        Ok(Ending::Done)
    }

    fn report(&self, folders: &[Folder], missing: &[Missing]) -> Result<Value> {
        let Numbers { device, dtype, .. } = runtime::numbers(Place::Auto, Precision::Auto)?;
        let cuda = candle_core::utils::cuda_is_available();
        let gpus = machine::gpus();
        let why = match (device.is_cpu(), cuda, gpus.is_empty()) {
            (false, ..) => "the first GPU",
            (true, true, _) => "no GPU could be opened",
            (true, false, false) => "this flow was built without CUDA",
            (true, false, true) => "no GPU was found",
        };
        let budgets = self.memory.budgets(&device)?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let unlimited = |bytes: u64| if bytes == u64::MAX { Value::Null } else { bytes.into() };
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "device": {
                "auto": if device.is_cpu() { "cpu" } else { "cuda:0" },
                "why": why,
                "cuda": cuda,
                "gpus": gpus.iter().map(|gpu| json!({ "name": gpu.name, "bytes": gpu.memory })).collect::<Vec<_>>(),
            },
            "precision": {
                "auto": format!("{dtype:?}").to_lowercase(),
                "why": match (device.is_cpu(), dtype) {
                    (true, DType::BF16) => "this CPU multiplies bf16 faster than f32",
                    (true, _) if machine::cpu_features().contains(&"avx512bf16") => "this CPU multiplies f32 faster than bf16",
                    (true, _) => "this CPU has no products of bf16",
                    (false, _) => "half the memory of f32, on a GPU",
                },
            },
            "cpu": { "threads": threads, "features": machine::cpu_features() },
            "memory": {
                "main": machine::main_memory(),
                "card": card_memory(&device).map(|(free, total)| json!({ "free": free, "total": total })),
                "budget": unlimited(budgets.weights),
                "results": budgets.results.host + budgets.results.device,
            },
            "cache": env::var_os("FLOW_CACHE").map(PathBuf::from),
            "roots": folders.iter().map(|folder| &folder.path).collect::<Vec<_>>(),
            "models": models::to_json(folders),
            "missing": missing.iter().map(|missing| json!({
                "workflow": missing.workflow,
                "messages": missing.messages,
            })).collect::<Vec<_>>(),
        }))
    }

    fn missing(&self) -> Result<Vec<Missing>> {
        let mut missing = Vec::new();
        for workflow in self.workflows() {
            // What is no workflow at all is for `flow check` to say; one that was named must be there.
            if self.workflows.contains(&workflow) {
                fs::metadata(&workflow).map_err(|error| load::unreadable(&workflow, &error))?;
            }
            let Some(problems) = load::problems(&workflow, &self.roots)? else { continue };
            let absent = problems.0.into_iter().filter(|problem| problem.id == "missing-file");
            let messages: Vec<String> = absent
                .map(|problem| match hint::fetching(&problem) {
                    Some(fetching) => format!("{}; {fetching}", problem.message),
                    None => problem.message,
                })
                .collect();
            if !messages.is_empty() {
                missing.push(Missing { workflow, messages });
            }
        }
        Ok(missing)
    }

    fn workflows(&self) -> Vec<PathBuf> {
        if !self.workflows.is_empty() {
            return self.workflows.clone();
        }
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows");
        let folder = [PathBuf::from("workflows"), built].into_iter().find(|folder| folder.is_dir());
        let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "json"))
            .collect();
        found.sort();
        found
    }
}

fn text(report: &Value, folders: &[Folder]) -> String {
    let word = |pointer: &str| report.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let bytes =
        |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).map(|bytes| Size(bytes).to_string());
    let list = |pointer: &str| report.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut text = format!("flow {}\n", word("/version"));
    let _ = writeln!(text, "device     {} ({})", word("/device/auto"), word("/device/why"));
    for gpu in list("/device/gpus") {
        let memory = Size(gpu["bytes"].as_u64().unwrap_or_default());
        let _ = writeln!(text, "GPU        {}, {memory}", gpu["name"].as_str().unwrap_or_default());
    }
    let _ = writeln!(text, "precision  {} ({})", word("/precision/auto"), word("/precision/why"));
    let features =
        list("/cpu/features").iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let _ = writeln!(text, "CPU        {} threads, {}", report["cpu"]["threads"], features.join(" "));
    let unknown = || "unknown".to_owned();
    let budget = bytes("/memory/budget").unwrap_or_else(|| "no limit".to_owned());
    let _ = writeln!(
        text,
        "memory     {}; {budget} for models and results, of it at most {} for results",
        bytes("/memory/main").unwrap_or_else(unknown),
        bytes("/memory/results").unwrap_or_else(unknown)
    );
    if let (Some(free), Some(total)) = (bytes("/memory/card/free"), bytes("/memory/card/total")) {
        let _ = writeln!(text, "VRAM       {free} of {total} free");
    }
    if let Some(cache) = report["cache"].as_str() {
        let _ = writeln!(text, "cache      {cache}");
    }
    text.push_str("\nmodels, in the order in which folders are searched\n");
    text.push_str(&models::to_text(folders));
    let missing = list("/missing");
    text.push_str(if missing.is_empty() { "\nnothing is missing\n" } else { "\nmissing\n" });
    for workflow in missing {
        let _ = writeln!(text, "{}", workflow["workflow"].as_str().unwrap_or_default());
        for message in workflow["messages"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let _ = writeln!(text, "  {message}");
        }
    }
    text
}
