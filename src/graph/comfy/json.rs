//! JSON as a tree with places. serde_json says whether it is JSON; what is left is to walk it.

use std::{borrow::Cow, collections::HashMap, ops::Range, sync::Arc};

use serde::de::IgnoredAny;

use crate::{
    Diagnostic, Diagnostics, Literal,
    diag::{Source, Span},
    tree::{Entry, MAX_BYTES, MAX_DEPTH, Shape, Tree},
};

/// Reads a text; `None` when it is no JSON, with the reason in `problems`.
pub(super) fn tree(source: &Arc<Source>, problems: &mut Diagnostics) -> Option<Tree> {
    let text = source.text.as_str();
    let at = |range| Span { source: source.clone(), range };
    if text.len() > MAX_BYTES {
        let message = format!("this file is larger than {} MiB", MAX_BYTES >> 20);
        problems.push(Diagnostic::error("too-big", message).at(at(0..0)));
        return None;
    }
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&plain(text)) {
        let start = offset(text, error.line(), error.column());
        problems.push(Diagnostic::error("syntax", format!("this is not JSON: {error}")).at(at(start..start)));
        return None;
    }
    let mut walker = Walker { text, at: 0, duplicates: Vec::new() };
    let tree = walker.value(1);
    for (key, first, again) in walker.duplicates {
        let problem = Diagnostic::error("duplicate-key", format!("`{key}` is here twice")).at(at(again));
        problems.push(problem.label(at(first), "first here").hint("keep one of them".to_owned()));
    }
    match tree {
        Ok(tree) => Some(tree),
        Err(place) => {
            let message = format!("this nests deeper than {MAX_DEPTH} levels");
            problems.push(Diagnostic::error("too-deep", message).at(at(place..place + 1)));
            None
        }
    }
}

/// The text with what Python writes for numbers that are none (`NaN`, `Infinity`), which is no JSON, replaced by numbers of the same
/// length: ComfyUI's prompts have it where a node always runs again (`"is_changed": [NaN]`).
fn plain(text: &str) -> Cow<'_, str> {
    let mut plain = Cow::Borrowed(text);
    let (mut at, bytes) = (0, text.as_bytes());
    while at < bytes.len() {
        at += match bytes[at] {
            b'"' => string_length(&bytes[at..]),
            b'N' | b'I' => match ["NaN", "Infinity"].iter().find(|word| text[at..].starts_with(**word)) {
                Some(word) if stands_alone(text, at, word) => {
                    plain.to_mut().replace_range(at..at + word.len(), &"1".repeat(word.len()));
                    word.len()
                }
                _ => 1,
            },
            _ => 1,
        };
    }
    plain
}

/// Whether a word is a value as a whole; `Infinity` may have a sign.
fn stands_alone(text: &str, at: usize, word: &str) -> bool {
    let before = if word == "Infinity" { text[..at].strip_suffix('-') } else { None }.unwrap_or(&text[..at]);
    let begins = before.is_empty() || before.ends_with(['[', ':', ',', ' ', '\t', '\r', '\n']);
    let after = &text[at + word.len()..];
    begins && (after.is_empty() || after.starts_with([',', ']', '}', ' ', '\t', '\r', '\n']))
}

/// Bytes of the string that begins here, quotes included, as far as there are any.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Whether ComfyUI's Python would read a text as JSON.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(&plain(text)).is_ok()
}

/// serde_json counts lines from 1 and columns in bytes.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let wanted = (before + column.saturating_sub(1)).min(text.len());
    (0..=wanted).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Walks JSON that is known to be well-formed.
struct Walker<'s> {
    text: &'s str,
    at: usize,
    duplicates: Vec<(String, Range<usize>, Range<usize>)>,
}

impl Walker<'_> {
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(b' ')
    }

    fn skip(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', ',', ':']).len();
    }

    /// The place of a value that nests too deep is the error.
    fn value(&mut self, depth: usize) -> Result<Tree, usize> {
        self.skip();
        let start = self.at;
        if depth > MAX_DEPTH {
            return Err(start);
        }
        let value = match self.byte() {
            b'{' => self.map(depth)?,
            b'[' => self.list(depth)?,
            b'"' => Shape::Scalar(Literal::Text(self.string())),
            _ => self.word(),
        };
        Ok(Tree { value, range: start..self.at })
    }

    fn map(&mut self, depth: usize) -> Result<Shape, usize> {
        self.at += 1;
        let mut entries = Vec::new();
        let mut seen: HashMap<String, Range<usize>> = HashMap::new();
        loop {
            self.skip();
            let start = self.at;
            if self.byte() != b'"' {
                self.at += 1;
                return Ok(Shape::Map(entries));
            }
            let key = self.string();
            let key_range = start..self.at;
            if let Some(first) = seen.insert(key.clone(), key_range.clone()) {
                self.duplicates.push((key.clone(), first, key_range.clone()));
            }
            let value = self.value(depth + 1)?;
            entries.push(Entry { key, key_range, value });
        }
    }

    fn list(&mut self, depth: usize) -> Result<Shape, usize> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip();
            if self.byte() == b']' {
                self.at += 1;
                return Ok(Shape::List(items));
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += string_length(&self.text.as_bytes()[start..]);
        // A lone surrogate is JSON and no text; ComfyUI's Python would keep it, a picture's prompt does not need it.
        serde_json::from_str(&self.text[start..self.at]).unwrap_or_default()
    }

    fn word(&mut self) -> Shape {
        let rest = &self.text[self.at..];
        let len = rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
        self.at += len;
        match &rest[..len] {
            "true" => Shape::Scalar(true.into()),
            "false" => Shape::Scalar(false.into()),
            "null" => Shape::Null,
            // No numbers here: an input that is one of them is told so.
            word @ ("NaN" | "Infinity" | "-Infinity") => Shape::Scalar(word.into()),
            number => {
                let whole = number.parse().map(Literal::Int);
                let value = whole.or_else(|_| number.parse().map(Literal::Float));
                value.map_or(Shape::Null, Shape::Scalar)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Option<Tree>, Diagnostics) {
        let source = Arc::new(Source { name: "a.json".into(), text: text.into() });
        let mut problems = Diagnostics::default();
        (tree(&source, &mut problems), problems)
    }

    fn back(tree: &Tree) -> serde_json::Value {
        match &tree.value {
            Shape::Null => serde_json::Value::Null,
            Shape::Scalar(literal) => literal.to_json(),
            Shape::List(items) => items.iter().map(back).collect(),
            Shape::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), back(&entry.value))).collect()
            }
        }
    }

    #[test]
    fn values_come_with_their_places() {
        let text = r#"{"a\n": [1, -2.5e1, "é\ud83d\ude00", true, null], "b":{}}"#;
        let tree = read(text).0.unwrap();
        assert_eq!(back(&tree), serde_json::from_str::<serde_json::Value>(text).unwrap());
        let list = &tree.map().unwrap()[0];
        assert_eq!(&text[list.key_range.clone()], r#""a\n""#);
        let Shape::List(items) = &list.value.value else { panic!() };
        assert_eq!(&text[items[1].range.clone()], "-2.5e1");
        assert_eq!(&text[items[2].range.clone()], r#""é\ud83d\ude00""#);
    }

    #[test]
    fn what_python_writes_for_no_number_is_none() {
        let text = r#"{"a": [NaN, -Infinity, Infinity, 1], "NaN": "Infinity \" NaN"}"#;
        let (tree, problems) = read(text);
        assert!(!problems.has_errors(), "{problems:?}");
        let want = serde_json::json!({"a": ["NaN", "-Infinity", "Infinity", 1], "NaN": "Infinity \" NaN"});
        assert_eq!(back(&tree.unwrap()), want);
        for broken in [
            "NaNa",
            "[N]",
            "[Infinity",
            "[--Infinity]",
            "[NaN NaN]",
            "64NaN",
            "NaN64",
            "1eNaN",
            "1.NaN",
            "-NaN",
        ] {
            assert_eq!(read(broken).1.0[0].id, "syntax", "{broken}");
        }
    }

    #[test]
    fn what_is_no_json_or_too_deep_or_twice_is_refused() {
        assert_eq!(read("{\"a\": }").1.0[0].id, "syntax");
        assert_eq!(read(&format!("{}{}", "[".repeat(100), "]".repeat(100))).1.0[0].id, "too-deep");
        assert_eq!(read(&"[".repeat(1_000_000)).1.0[0].id, "syntax");
        assert_eq!(read(r#"{"a": 1, "a": 2}"#).1.0[0].id, "duplicate-key");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"[\[\]{}:,"\\a1é\n .e-]{0,40}"#) {
            let (tree, problems) = read(&text);
            prop_assert_eq!(tree.is_some(), serde_json::from_str::<serde_json::Value>(&text).is_ok());
            prop_assert!(tree.is_some() || problems.has_errors());
        }
    }
}
