//! `flow completions`: what a shell needs to complete the command line.

use anyhow::Result;
use clap_complete::Shell;

use crate::{Ending, output};

/// Prints completions for a shell, e.g. `flow completions bash > ~/.local/share/bash-completion/completions/flow`
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn run(&self) -> Result<Ending> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::command(), "flow", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(Ending::Done)
    }
}
