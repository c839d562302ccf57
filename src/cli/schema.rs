//! `flow schema`: the workflow format for editors.

use anyhow::Result;

use crate::{Ending, output, runtime};

/// Prints a JSON Schema of the workflow format, for completion and red underlines in editors
#[derive(Debug, clap::Args)]
pub struct Schema {}

impl Schema {
    /// Prints it.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn run(&self) -> Result<Ending> {
        output::print(&format!("{:#}\n", flow_graph::schema(&runtime::registry())))?;
        Ok(Ending::Done)
    }
}
