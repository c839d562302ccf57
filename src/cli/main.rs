//! The `flow` command.

fn main() {}
