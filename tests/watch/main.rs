//! `flow watch`, driven by its own events: nothing here waits for a time, only for what must happen.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod edits;
mod sweeps;
mod watcher;
