//! `flow man`: the manual as man pages.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap_mangen::Man as Page;

use crate::{Ending, output};

/// Prints the man page, or writes one for each command
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Folder to write `flow.1`, `flow-run.1`, … to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    /// Prints or writes.
    ///
    /// # Errors
    /// When the folder or a page cannot be written.
    pub fn run(&self) -> Result<Ending> {
        let mut command = crate::command();
        // Gives the commands their full names, `flow run`.
        command.build();
        let Some(folder) = &self.out else {
            output::print(&String::from_utf8_lossy(&render(command)?))?;
            return Ok(Ending::Done);
        };
        fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        let commands = command.get_subcommands().filter(|command| command.get_name() != "help").cloned();
        for page in commands.collect::<Vec<_>>().into_iter().chain([command]) {
            let name = page.get_display_name().unwrap_or(page.get_name()).replace(' ', "-");
            let path = folder.join(format!("{name}.1"));
            fs::write(&path, render(page)?).with_context(|| output::CannotWrite::file(&path))?;
        }
        Ok(Ending::Done)
    }
}

fn render(command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Page::new(command).render(&mut page)?;
    Ok(page)
}
