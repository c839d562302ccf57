//! The `flow` command.

mod allocator;
mod cache;
mod check;
mod completions;
mod convert;
mod display;
mod doctor;
mod drawing;
mod fmt;
mod graph;
mod inspect;
mod interrupt;
mod layout;
mod load;
mod lock;
mod machine;
mod man;
mod memory;
mod models;
mod nodes;
mod output;
mod picture;
mod plan;
mod pull;
mod recipe;
mod results;
mod roots;
mod run;
mod runtime;
mod schema;
mod session;
mod set;
mod sheet;
mod svg;
mod sweep;
mod verify;
mod watch;
mod why;
mod write;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Image diffusion workflows as files: write a graph in YAML, run it, see the picture
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Watch(watch::Watch),
    Check(check::Check),
    Plan(plan::Plan),
    Why(why::Why),
    Nodes(nodes::Nodes),
    Schema(schema::Schema),
    Graph(graph::Graph),
    Inspect(inspect::Inspect),
    Cache(cache::Cache),
    Models(models::Models),
    Pull(pull::Pull),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Man(man::Man),
    Convert(convert::Convert),
    Fmt(fmt::Fmt),
    Set(set::Set),
    Lock(lock::Lock),
    Verify(verify::Verify),
}

/// How a command ends when it ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// All was well: exit code 0.
    Done,
    /// A node failed, or a result could not be written: 1.
    Failed,
    /// The input is wrong, and has been told why: 2, as clap's for a wrong command line.
    Refused,
    /// Stopped by Ctrl-C: 130.
    Stopped,
}

/// The command line, for whoever describes it.
fn command() -> clap::Command {
    Cli::command()
}

fn main() -> ExitCode {
    allocator::keep();
    let ending = match Cli::parse().command {
        Command::Run(command) => command.run(),
        Command::Watch(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Why(command) => command.run(),
        Command::Nodes(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Graph(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Cache(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Pull(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Convert(command) => command.run(),
        Command::Fmt(command) => command.run(),
        Command::Set(command) => command.run(),
        Command::Lock(command) => command.run(),
        Command::Verify(command) => command.run(),
    };
    let ending = ending.unwrap_or_else(|error| {
        output::note(format_args!("error: {error:#}"));
        if error.is::<output::CannotWrite>() { Ending::Failed } else { Ending::Refused }
    });
    match ending {
        Ending::Done => ExitCode::SUCCESS,
        Ending::Failed => ExitCode::from(1),
        Ending::Refused => ExitCode::from(2),
        Ending::Stopped => ExitCode::from(interrupt::STOPPED),
    }
}
