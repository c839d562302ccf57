//! `flow fmt`: workflow files evenly laid out.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use flow_graph::format;

use crate::{
    Ending,
    load::{self, show},
    output, write,
};

/// Lays workflow files out evenly; comments, values and what a person aligned stay
#[derive(Debug, clap::Args)]
pub struct Fmt {
    /// YAML workflows, changed in place
    #[arg(required_unless_present = "stdin")]
    files: Vec<PathBuf>,
    /// Change nothing; name the files that would be, and end with 1 if there are any
    #[arg(long)]
    check: bool,
    /// Read from standard input and write to standard output
    #[arg(long, conflicts_with = "files")]
    stdin: bool,
}

impl Fmt {
    /// Lays out every file that can be read.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn run(&self) -> Result<Ending> {
        if self.stdin {
            return self.standard();
        }
        let mut ending = Ending::Done;
        for path in &self.files {
            let shown = path.display();
            let text = load::read(path)?;
            let laid_out = match format(&path.to_string_lossy(), &text) {
                Ok(laid_out) => laid_out,
                Err(problems) => {
                    show(&problems);
                    ending = Ending::Refused;
                    continue;
                }
            };
            if laid_out == text {
                continue;
            }
            output::print(&format!("{shown}\n"))?;
            if !self.check {
                write::text(path, &laid_out).with_context(|| output::CannotWrite::file(path))?;
            } else if ending == Ending::Done {
                ending = Ending::Failed;
            }
        }
        Ok(ending)
    }

    fn standard(&self) -> Result<Ending> {
        let mut text = String::new();
        let most = load::MAX_BYTES;
        io::stdin().take(most + 1).read_to_string(&mut text).context("cannot read standard input")?;
        if text.len() as u64 > most {
            bail!("standard input has more than {} MB, more than a workflow may have", most >> 20);
        }
        match format("<stdin>", &text) {
            Ok(laid_out) if self.check => Ok(if laid_out == text { Ending::Done } else { Ending::Failed }),
            Ok(laid_out) => {
                output::print(&laid_out)?;
                Ok(Ending::Done)
            }
            Err(problems) => {
                show(&problems);
                Ok(Ending::Refused)
            }
        }
    }
}
