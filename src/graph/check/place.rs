//! Smaller places within a place.

use crate::diag::Span;

/// Where `word` stands in the text of `span`, if it does once.
pub(super) fn inside(span: &Span, word: &str) -> Option<Span> {
    let text = span.source.text.get(span.range.clone())?;
    let mut found = text.match_indices(word);
    let (at, _) = found.next().filter(|_| !word.is_empty())?;
    if found.next().is_some() {
        return None;
    }
    let start = span.range.start + at;
    Some(Span { source: span.source.clone(), range: start..start + word.len() })
}
