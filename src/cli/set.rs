//! `flow set`: values changed in a workflow file.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use flow_graph::{Diagnostic, Diagnostics, Overrides, Severity, Workflow, check, set, sweep::Asked};

use crate::{
    Ending,
    convert::ELSEWHERE,
    load::{self, show},
    output,
    roots::Roots,
    runtime, write,
};

/// Changes values in a workflow file, and nothing else in it
///
/// A value that would be a new error (out of range, of another type) is refused.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// YAML workflow
    file: PathBuf,
    /// An input, `node.input` or `models.alias`, and its new value
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = load::pair)]
    values: Vec<(String, String)>,
    #[command(flatten)]
    roots: Roots,
}

impl Set {
    /// Writes the file with all values changed, or not at all.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn run(&self) -> Result<Ending> {
        let before = load::read(&self.file)?;
        let mut text = before.clone();
        let registry = runtime::registry();
        for (name, value) in &self.values {
            text = match set(&self.file.to_string_lossy(), &text, name, value, &registry) {
                Ok(text) => text,
                Err(problems) => {
                    show(&problems);
                    return Ok(Ending::Refused);
                }
            };
        }
        let problems = self.problems(&text)?;
        if problems.has_errors() {
            let known = self.problems(&before)?;
            let is_new = |problem: &Diagnostic| {
                let same = |known: &Diagnostic| known.id == problem.id && known.message == problem.message;
                problem.severity == Severity::Error
                    && !ELSEWHERE.contains(&problem.id)
                    && !known.0.iter().any(same)
            };
            let new = problems.0.into_iter().filter(is_new).collect::<Vec<_>>();
            if !new.is_empty() {
                show(&Diagnostics(new));
                return Ok(Ending::Refused);
            }
        }
        if text != before {
            write::text(&self.file, &text).with_context(|| output::CannotWrite::file(&self.file))?;
        }
        Ok(Ending::Done)
    }

    /// What is wrong with a text in the file's place.
    fn problems(&self, text: &str) -> Result<Diagnostics> {
        let files = self.roots.files(&self.file, None)?;
        let (registry, overrides) = (runtime::registry(), Overrides::default());
        let (workflow, _) = Workflow::open(&self.file.to_string_lossy(), text, &files, &registry);
        let checked = workflow
            .sweep(&Asked::default(), &overrides, &files)
            .and_then(|sweep| check(&sweep.workflow(0), &registry, &files, &overrides, &[]));
        Ok(checked.err().unwrap_or_default())
    }
}
