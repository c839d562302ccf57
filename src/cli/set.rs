//! `flow set`: values changed in a workflow file.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use flow_graph::set;

use crate::{
    Ending,
    load::{self, show},
    write,
};

/// Changes values in a workflow file, and nothing else in it
#[derive(Debug, clap::Args)]
pub struct Set {
    /// YAML workflow
    file: PathBuf,
    /// An input, `node.input` or `models.alias`, and its new value
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = load::pair)]
    values: Vec<(String, String)>,
}

impl Set {
    /// Writes the file with all values changed, or not at all.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn run(&self) -> Result<Ending> {
        let shown = self.file.display();
        let before = load::read(&self.file)?;
        let mut text = before.clone();
        for (name, value) in &self.values {
            text = match set(&self.file.to_string_lossy(), &text, name, value) {
                Ok(text) => text,
                Err(problems) => {
                    show(&problems);
                    return Ok(Ending::Refused);
                }
            };
        }
        if text != before {
            write::text(&self.file, &text).with_context(|| format!("cannot write `{shown}`"))?;
        }
        Ok(Ending::Done)
    }
}
