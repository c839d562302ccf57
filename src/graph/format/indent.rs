//! Two spaces a level.

use super::{is_flow, lines};
use crate::tree::{Shape, Tree};

/// Moves lines to where their level is; texts and brackets over several lines move as a whole, comments with what follows.
pub(super) fn two_spaces(text: &str, tree: &Tree) -> String {
    let lines: Vec<(usize, &str)> = lines::starts(text).collect();
    let mut plan = Plan {
        text,
        starts: lines.iter().map(|(start, _)| *start).collect(),
        moves: vec![Move::Free; lines.len()],
    };
    if plan.block(tree, 0).is_none() {
        return text.to_owned();
    }
    let old = |line: usize| lines[line].1.len() - lines[line].1.trim_start_matches(' ').len();
    let mut out = String::with_capacity(text.len());
    for (number, (_, line)) in lines.iter().enumerate() {
        let new = match plan.moves[number] {
            Move::To(column) => Some(column),
            Move::With(first) => match plan.moves[first] {
                Move::To(column) => (old(number) + column).checked_sub(old(first)),
                _ => None,
            },
            Move::Free => plan.comment(&lines, number, &old),
        };
        match new {
            Some(new) if !line.trim().is_empty() => {
                out.extend(std::iter::repeat_n(' ', new));
                let line = line.trim_start_matches(' ');
                match line.strip_prefix("- ").filter(|_| matches!(plan.moves[number], Move::To(_))) {
                    Some(item) => out.extend(["- ", item.trim_start_matches(' ')]),
                    None => out.push_str(line),
                }
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[derive(Clone, Copy)]
enum Move {
    /// A comment, or nothing.
    Free,
    /// A line that begins an entry or an item.
    To(usize),
    /// A line that goes on with what an earlier line began.
    With(usize),
}

struct Plan<'t> {
    text: &'t str,
    starts: Vec<usize>,
    moves: Vec<Move>,
}

impl Plan<'_> {
    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    fn before(&self, at: usize) -> &str {
        &self.text[self.starts[self.line(at)]..at]
    }

    /// Plans a value that is not between brackets; `None` for what is written in a way this does not follow.
    fn block(&mut self, tree: &Tree, column: usize) -> Option<()> {
        match &tree.value {
            Shape::Map(entries) if !is_flow(self.text, tree) => {
                for entry in entries {
                    let before = self.before(entry.key_range.start).trim_start_matches(' ');
                    let line = self.line(entry.key_range.start);
                    match before {
                        "" => self.moves[line] = Move::To(column),
                        // The first entry of an item, whose line the list has planned.
                        dash if dash.trim_end() == "-" => {}
                        _ => return None,
                    }
                    self.below(&entry.value, line, column)?;
                }
            }
            Shape::List(items) if !is_flow(self.text, tree) => {
                for item in items {
                    let before = self.before(item.range.start).trim_start_matches(' ');
                    if before.trim_end() != "-" {
                        return None;
                    }
                    let line = self.line(item.range.start);
                    self.moves[line] = Move::To(column);
                    match &item.value {
                        Shape::List(_) if !is_flow(self.text, item) => return None,
                        Shape::Map(_) if !is_flow(self.text, item) => self.block(item, column + 2)?,
                        _ => self.whole(item, line),
                    }
                }
            }
            _ => {}
        }
        Some(())
    }

    /// The value of an entry that begins on `line`.
    fn below(&mut self, value: &Tree, line: usize, column: usize) -> Option<()> {
        match &value.value {
            Shape::Map(_) | Shape::List(_) if !is_flow(self.text, value) => {
                // An alias stands on the line of its key and has nothing below it.
                if self.line(value.range.start) == line {
                    return Some(());
                }
                self.block(value, column + 2)
            }
            _ => {
                self.whole(value, line);
                Some(())
            }
        }
    }

    /// A value that keeps its inner layout.
    fn whole(&mut self, value: &Tree, line: usize) {
        let last = self.line(value.range.end.max(value.range.start + 1) - 1);
        for number in line + 1..=last {
            self.moves[number] = Move::With(line);
        }
    }

    /// A comment goes with the next line where it stood at that level, else with the one above, else with the nearest
    /// line above that stood no deeper.
    fn comment(&self, lines: &[(usize, &str)], number: usize, old: &dyn Fn(usize) -> usize) -> Option<usize> {
        if !lines[number].1.trim_start_matches(' ').starts_with('#') {
            return None;
        }
        let own = old(number);
        let planned = |line: &usize| match self.moves[*line] {
            Move::To(column) => Some((old(*line), column)),
            _ => None,
        };
        let after = (number + 1..lines.len()).find_map(|line| planned(&line));
        let before = (0..number).rev().filter_map(|line| planned(&line));
        match after {
            Some((old, new)) if old == own => Some(new),
            _ => {
                let (old, new) = before.into_iter().find(|(old, _)| *old <= own)?;
                (new + own).checked_sub(old)
            }
        }
    }
}
