//! Workflows run by the binary, followed by their events: lists and what joins them, the modes of nodes, group nodes,
//! disks that cannot be written, and what ComfyUI's own tests check.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod collect;
mod execution;
mod groups;
mod hints;
mod modes;
#[path = "../nameless/mod.rs"]
mod nameless;
mod place;
mod plan;
#[cfg(unix)]
mod unwritable;
