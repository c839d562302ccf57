//! Blanks at the ends of lines, and empty lines.

use std::ops::Range;

use crate::tree::{Shape, Tree};

/// Ends lines where their last letter is.
pub(super) fn trim(text: &str, tree: &Tree) -> String {
    let kept = kept(text, tree);
    let mut out = String::with_capacity(text.len());
    for (start, line) in starts(text) {
        let end = start + line.len();
        out.push_str(if inside(&kept, end) { line } else { line.trim_end_matches([' ', '\t']) });
        out.push('\n');
    }
    out
}

/// At most one empty line, none at the beginning and the end.
pub(super) fn blank(text: &str, tree: &Tree) -> String {
    let kept = kept(text, tree);
    let mut out = String::with_capacity(text.len());
    let mut waiting = false;
    for (start, line) in starts(text) {
        if line.is_empty() && !inside(&kept, start) {
            waiting = true;
            continue;
        }
        if std::mem::take(&mut waiting) && !out.is_empty() {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// The lines with the places where they start.
pub(super) fn starts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split_inclusive('\n').map(move |line| {
        let start = at;
        at += line.len();
        (start, line.strip_suffix('\n').unwrap_or(line))
    })
}

fn inside(ranges: &[Range<usize>], at: usize) -> bool {
    let next = ranges.partition_point(|range| range.start <= at);
    next > 0 && ranges[next - 1].contains(&at)
}

/// Texts over several lines, whose blanks are theirs; in order.
pub(super) fn kept(text: &str, tree: &Tree) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    collect(text, tree, &mut ranges);
    ranges.sort_by_key(|range| range.start);
    ranges
}

fn collect(text: &str, tree: &Tree, ranges: &mut Vec<Range<usize>>) {
    match &tree.value {
        Shape::Scalar(_) => ranges.extend(scalar(text, &tree.range)),
        Shape::Null => {}
        Shape::List(items) => items.iter().for_each(|item| collect(text, item, ranges)),
        Shape::Map(entries) => entries.iter().for_each(|entry| collect(text, &entry.value, ranges)),
    }
}

/// The extent of a text of several lines; of a block from its sign on, with its last line's blanks and the empty lines it
/// keeps.
fn scalar(text: &str, range: &Range<usize>) -> Option<Range<usize>> {
    let Some((start, sign)) = sign(text, range.start) else {
        return text.get(range.clone())?.contains('\n').then(|| range.clone());
    };
    let line_end = text[range.end..].find('\n').map_or(text.len(), |end| range.end + end + 1);
    let blank = starts(&text[line_end..]).take_while(|(_, line)| line.trim().is_empty()).last();
    let end = match blank.filter(|_| sign.contains('+')) {
        Some((start, line)) => (line_end + start + line.len() + 1).min(text.len()),
        None => line_end,
    };
    Some(start..end)
}

/// The sign (`|`, `>-`, …) of a block whose content begins at `at`, and where it ends.
fn sign(text: &str, at: usize) -> Option<(usize, &str)> {
    let before = text[..at].trim_end_matches([' ', '\n']);
    if !text[before.len()..at].contains('\n') {
        return None;
    }
    let line = before.rsplit('\n').next()?;
    let line = line.split(" #").next()?.trim_end();
    let sign = line.rsplit(' ').next()?;
    let rest = sign.strip_prefix(['|', '>'])?;
    rest.chars().all(|c| "+-123456789".contains(c)).then_some((before.len(), sign))
}
