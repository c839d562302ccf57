//! The nodes: one file each.
