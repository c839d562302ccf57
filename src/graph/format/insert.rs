//! One more entry in a map of a file, and not a letter of the others changed.

use super::is_flow;
use crate::{Literal, tree::Tree, yaml};

/// The text with `key: value` after the entries of a map; `None` where none of them ends with its line.
pub(super) fn insert(text: &str, around: &Tree, key: &str, value: &Literal) -> Option<String> {
    let entries = around.map()?;
    let flow = is_flow(text, around);
    let entry = format!("{}: {}", yaml::inline(&key.into(), flow), yaml::inline(value, flow));
    let mut changed = text.to_owned();
    if flow {
        // Behind an empty value there is no telling where it ends.
        let last = entries.last().filter(|last| last.value.range != last.key_range)?;
        changed.insert_str(last.value.range.end, &format!(", {entry}"));
        return Some(changed);
    }
    let on_one_line = |key: usize, value: usize| !text[key..value.max(key)].contains('\n');
    let last = entries.iter().rev().find(|last| on_one_line(last.key_range.start, last.value.range.end))?;
    let start = text[..last.key_range.start].rfind('\n').map_or(0, |end| end + 1);
    let indent = text[start..last.key_range.start].chars().count();
    let break_at = text[last.key_range.end..].find('\n').map(|end| last.key_range.end + end);
    let line_break = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let line = format!("{:indent$}{entry}", "");
    match break_at {
        Some(at) => changed.insert_str(at + 1, &format!("{line}{line_break}")),
        None => changed.push_str(&format!("{line_break}{line}")),
    }
    Some(changed)
}
