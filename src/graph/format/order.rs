//! The sections of a file in their usual order, each with the comment above it.

use super::lines;
use crate::tree::Tree;

const ORDER: [&str; 11] = [
    "flow",
    "name",
    "about",
    "extends",
    "import",
    "inputs",
    "models",
    "matrix",
    "nodes",
    "outputs",
    "subgraphs",
];

/// Moves sections, where nothing about them depends on where they are.
pub(super) fn top_level(text: &str, tree: &Tree) -> String {
    let Some(entries) = tree.map() else { return text.to_owned() };
    let place = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
    let sorted = entries.is_sorted_by_key(|entry| place(&entry.key));
    // An alias must follow its anchor, and documents have marks of their own.
    let fixed = text.contains(['&', '*']) || lines::starts(text).any(|(_, line)| is_mark(line));
    if sorted || fixed || super::is_flow(text, tree) {
        return text.to_owned();
    }
    let mut begins = Vec::with_capacity(entries.len());
    for entry in entries {
        let line = text[..entry.key_range.start].rfind('\n').map_or(0, |end| end + 1);
        if line != entry.key_range.start {
            return text.to_owned();
        }
        begins.push(above(text, line));
    }
    // A comment right above the first section may be about the whole file.
    if begins[0] != entries[0].key_range.start && place(&entries[0].key) != 0 {
        return text.to_owned();
    }
    // What is above the first section stays at the top.
    let head_end = if place(&entries[0].key) == 0 { 0 } else { entries[0].key_range.start };
    begins[0] = head_end;
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    let mut blocks: Vec<_> = entries
        .iter()
        .zip(begins.iter().copied().zip(ends))
        .map(|(entry, (start, end))| (place(&entry.key), &text[start..end]))
        .collect();
    blocks.sort_by_key(|(place, _)| *place);
    let mut out = text[..head_end].to_owned();
    for (_, block) in blocks {
        out.push_str(block);
        if !block.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}

fn is_mark(line: &str) -> bool {
    line.starts_with("---") || line.starts_with("...") || line.starts_with('%')
}

/// Where the comment lines right above a line begin.
fn above(text: &str, line: usize) -> usize {
    let mut start = line;
    while start > 0 {
        let before = text[..start - 1].rfind('\n').map_or(0, |end| end + 1);
        if !text[before..start].starts_with('#') {
            break;
        }
        start = before;
    }
    start
}
