//! Diagnostics as text, in rustc's look, and as JSON.

use std::{borrow::Cow, fmt::Write, ops::Range};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};

use super::{Diagnostic, Diagnostics, Severity, Source, Span};

/// Shown of one check; whoever has more starts with these.
const SHOWN: usize = 100;

impl Span {
    /// Line and column of the beginning, both from 1, the column in characters.
    pub fn line_column(&self) -> (usize, usize) {
        line_column(&self.source, self.range.start)
    }
}

fn line_column(source: &Source, at: usize) -> (usize, usize) {
    let before = &source.text[..boundary(&source.text, at)];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.bytes().filter(|byte| *byte == b'\n').count() + 1, before[start..].chars().count() + 1)
}

fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Some whole lines of a text.
struct Lines<'a> {
    text: &'a str,
    first: usize,
    start: usize,
}

impl<'a> Lines<'a> {
    /// The lines from the first to the last of the places.
    fn of(source: &'a Source, places: &[Range<usize>]) -> Self {
        let text = source.text.as_str();
        let low = boundary(text, places.iter().map(|place| place.start).min().unwrap_or(0));
        let high = boundary(text, places.iter().map(|place| place.end).max().unwrap_or(0)).max(low);
        let start = text[..low].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[high..].find('\n').map_or(text.len(), |newline| high + newline);
        let first = text[..start].bytes().filter(|byte| *byte == b'\n').count() + 1;
        Self { text: &text[start..end], first, start }
    }

    fn local(&self, range: &Range<usize>) -> Range<usize> {
        let start = boundary(self.text, range.start.saturating_sub(self.start));
        let end = boundary(self.text, range.end.saturating_sub(self.start)).max(start);
        start..end
    }
}

/// A message fit for a terminal: a name in it may hold characters that would steer one.
fn shown(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    if !text.contains(steers) {
        return text.into();
    }
    let escaped = |c: char| if steers(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect::<String>().into()
}

impl Diagnostic {
    /// The message with its place and hint, over several lines.
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut sources: Vec<&Source> = Vec::new();
        for span in self.span.iter().chain(self.labels.iter().map(|(span, _)| span)) {
            if !sources.contains(&&*span.source) {
                sources.push(&span.source);
            }
        }
        let snippets = sources.into_iter().map(|source| self.snippet(source));
        let mut group = level.primary_title(shown(&self.message)).id(self.id).elements(snippets);
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(shown(hint)));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    fn snippet<'a>(&'a self, source: &'a Source) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let own = self.span.iter().filter(|span| *span.source == *source);
        let others = self.labels.iter().filter(|(span, _)| *span.source == *source);
        let places: Vec<_> =
            own.clone().chain(others.clone().map(|(span, _)| span)).map(|span| span.range.clone()).collect();
        let lines = Lines::of(source, &places);
        let primary = own.map(|span| AnnotationKind::Primary.span(lines.local(&span.range)));
        let context = others
            .map(|(span, text)| AnnotationKind::Context.span(lines.local(&span.range)).label(text.as_str()));
        let annotations: Vec<_> = primary.chain(context).collect();
        Snippet::source(lines.text)
            .line_start(lines.first)
            .path(source.name.as_str())
            .annotations(annotations)
    }

    /// One object: `id`, `severity`, `message`, `hint`, `node`, `file`, `line`, `column`, `end_line`, `end_column`, and
    /// `labels` with their places.
    pub fn to_json(&self) -> Value {
        let mut object = json!({ "id": self.id, "severity": self.severity.name(), "message": self.message });
        let mut set = |key: &str, value: Value| object[key] = value;
        if let Some(hint) = &self.hint {
            set("hint", json!(hint));
        }
        if let Some(node) = &self.node {
            set("node", json!(node));
        }
        if let Some(span) = &self.span {
            let (line, column) = span.line_column();
            let (end_line, end_column) = line_column(&span.source, span.range.end);
            set("file", json!(span.source.name));
            set("line", json!(line));
            set("column", json!(column));
            set("end_line", json!(end_line));
            set("end_column", json!(end_column));
        }
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(span, text)| {
                let (line, column) = span.line_column();
                json!({ "file": span.source.name, "line": line, "column": column, "text": text })
            });
            set("labels", labels.collect());
        }
        object
    }
}

impl Severity {
    /// `warning` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Diagnostics {
    /// All of them as text, an empty line after each, and how many there are; empty when there is none.
    pub fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        for diagnostic in self.0.iter().take(SHOWN) {
            text.push_str(&diagnostic.render(colour));
            text.push_str("\n\n");
        }
        if self.0.is_empty() {
            return text;
        }
        if self.0.len() > SHOWN {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "… and {} more\n", self.0.len() - SHOWN);
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    /// `2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let count = |severity| self.0.iter().filter(|d| d.severity == severity).count();
        let counted = [(count(Severity::Error), "error"), (count(Severity::Warning), "warning")];
        let parts = counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| {
            let plural = if *n == 1 { "" } else { "s" };
            format!("{n} {what}{plural}")
        });
        parts.collect::<Vec<_>>().join(", ")
    }

    /// All of them as a JSON list.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(Diagnostic::to_json).collect()
    }
}
