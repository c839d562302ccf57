//! Ctrl-C: once asks the run to stop, twice ends the program.

use anyhow::{Context as _, Result};
use flow_graph::CancelToken;

/// The exit code of a run that was stopped, as shells say it of a program ended by Ctrl-C.
pub const STOPPED: u8 = 130;

/// A token that Ctrl-C (or a termination signal) sets.
///
/// # Errors
/// When the system refuses the handler.
pub fn token() -> Result<CancelToken> {
    let cancel = CancelToken::default();
    let asked = cancel.clone();
    on_first(move || {
        asked.cancel();
        crate::output::note("stopping after the current step; again to stop at once");
    })?;
    Ok(cancel)
}

/// Calls `first` on the first Ctrl-C (or termination signal), on a thread of its own; the second ends the program.
///
/// # Errors
/// When the system refuses the handler.
pub fn on_first(first: impl FnOnce() + Send + 'static) -> Result<()> {
    let mut first = Some(first);
    ctrlc::set_handler(move || match first.take() {
        Some(first) => first(),
        None => std::process::exit(STOPPED.into()),
    })
    .context("cannot listen for Ctrl-C")
}
