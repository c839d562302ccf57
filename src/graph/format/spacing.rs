//! Spaces between keys, values, commas and brackets; long brackets over several lines.

use std::ops::Range;

use super::{WIDTH, is_flow, replace};
use crate::tree::{Entry, Shape, Tree};

/// `key: value`, `{ a: b, c: d }` and `[a, b]`; wider gaps stay where the line above or below has a word at the same place.
pub(super) fn between_values(text: &str, tree: &Tree) -> String {
    let mut gaps = Gaps { text, edits: Vec::new() };
    gaps.value(tree);
    replace(text, gaps.edits)
}

/// Maps between brackets that do not fit a line are written one entry a line.
pub(super) fn break_long(text: &str, tree: &Tree) -> String {
    let mut edits = Vec::new();
    long(text, tree, &mut edits);
    replace(text, edits)
}

struct Gaps<'t> {
    text: &'t str,
    edits: Vec<(Range<usize>, String)>,
}

impl Gaps<'_> {
    fn value(&mut self, tree: &Tree) {
        let flow = is_flow(self.text, tree);
        // Brackets over several lines have a layout of their own.
        if flow && self.text[tree.range.clone()].contains('\n') {
            return;
        }
        match &tree.value {
            Shape::Map(entries) => {
                for entry in entries {
                    self.entry(entry);
                }
                if flow {
                    let places = entries.iter().map(|entry| entry.key_range.start..entry.value.range.end);
                    self.brackets(&tree.range, places.collect(), " ");
                }
            }
            Shape::List(items) => {
                items.iter().for_each(|item| self.value(item));
                if flow {
                    self.brackets(&tree.range, items.iter().map(|item| item.range.clone()).collect(), "");
                }
            }
            Shape::Null | Shape::Scalar(_) => {}
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let (key, value) = (&entry.key_range, &entry.value.range);
        if value == key {
            return;
        }
        self.gap(key.end..value.start, ": ");
        self.value(&entry.value);
    }

    fn brackets(&mut self, all: &Range<usize>, places: Vec<Range<usize>>, inner: &str) {
        let (open, close) = (all.start + 1, all.end.saturating_sub(1));
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return self.gap(open..close, "");
        };
        self.gap(open..first.start, inner);
        self.gap(last.end..close, inner);
        for pair in places.windows(2) {
            self.gap(pair[0].end..pair[1].start, ", ");
        }
    }

    /// Writes a gap as `wanted`, if nothing but the same signs stands in it and it is not there to align.
    fn gap(&mut self, range: Range<usize>, wanted: &str) {
        let Some(gap) = self.text.get(range.clone()).filter(|gap| *gap != wanted) else { return };
        let signs = |text: &str| text.replace(' ', "");
        let tail = gap.trim_start_matches([':', ',']);
        if signs(gap) != signs(wanted) || (tail.len() > 1 && self.is_aligned(range.end)) {
            return;
        }
        self.edits.push((range, wanted.to_owned()));
    }

    /// Whether the line above or below begins a word in the column of `at`.
    fn is_aligned(&self, at: usize) -> bool {
        let text = self.text;
        let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let column = text[start..at].chars().count();
        let word_at = |line: &str| {
            let mut letters = line.chars().skip(column.saturating_sub(1));
            !line.trim_start().starts_with('#')
                && letters.next() == Some(' ')
                && letters.next().is_some_and(|letter| letter != ' ')
        };
        let above =
            text[..start].strip_suffix('\n').map(|before| before.rsplit('\n').next().unwrap_or(before));
        let below = text[at..].split_once('\n').map(|(_, after)| after.split('\n').next().unwrap_or(after));
        above.is_some_and(word_at) || below.is_some_and(word_at)
    }
}

fn long(text: &str, tree: &Tree, edits: &mut Vec<(Range<usize>, String)>) {
    let Some(entries) = tree.map().filter(|_| !is_flow(text, tree)) else {
        if let Shape::List(items) = &tree.value {
            items.iter().filter(|_| !is_flow(text, tree)).for_each(|item| long(text, item, edits));
        }
        return;
    };
    for entry in entries {
        match entry.value.map() {
            Some(inner) if is_flow(text, &entry.value) => edits.extend(broken(text, entry, inner)),
            _ => long(text, &entry.value, edits),
        }
    }
}

fn broken(text: &str, entry: &Entry, inner: &[Entry]) -> Option<(Range<usize>, String)> {
    let value = &entry.value.range;
    let start = text[..entry.key_range.start].rfind('\n').map_or(0, |end| end + 1);
    let end = text[value.end..].find('\n').map_or(text.len(), |end| value.end + end);
    let line = &text[start..end];
    let alone = text[start..entry.key_range.start].trim().is_empty()
        && text[value.end..end].trim().is_empty()
        && text.get(entry.key_range.end..value.start) == Some(": ");
    let whole = inner.iter().all(|entry| entry.value.range != entry.key_range);
    if line.chars().count() <= WIDTH || !alone || !whole || inner.is_empty() || line.contains(['&', '*']) {
        return None;
    }
    let indent = entry.key_range.start - start + 2;
    let mut out = String::new();
    for entry in inner {
        let (key, value) = (&text[entry.key_range.clone()], &text[entry.value.range.clone()]);
        out.push_str(&format!("\n{:indent$}{key}: {value}", ""));
    }
    // The blank behind the colon goes.
    Some((value.start - 1..value.end, out))
}
