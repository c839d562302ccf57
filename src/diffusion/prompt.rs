//! Prompts: ComfyUI's weight grammar, and how tokens are laid into chunks of 77.

use std::collections::HashMap;

use crate::embedding::Vector;
use crate::tokenizer::{BOS, EOS, Tokenizer};
use crate::{Error, Result};

/// Tokens in a chunk, [`BOS`] and [`EOS`] included: the number of positions CLIP knows.
pub const CHUNK: usize = 77;

/// A segment of fewer tokens than this moves whole to the next chunk rather than being cut.
const LARGE: usize = 8;

/// Longest prompt taken, in bytes: about 200 chunks.
const MAX_BYTES: usize = 64 * 1024;

/// What fills a chunk after its first [`EOS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// More [`EOS`], as CLIP-L was trained.
    EndOfText,
    /// Token 0, as OpenCLIP's towers (SDXL's CLIP-G) were.
    Zero,
}

/// 77 tokens with the weight each one's output gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Token ids; the first is [`BOS`], and 0 is where a vector is.
    pub ids: [u32; CHUNK],
    /// 1 for markers, padding and plain text.
    pub weights: [f32; CHUNK],
    /// Vectors of embeddings, by their places, which are in order.
    pub vectors: Vec<(usize, Vector)>,
}

impl Chunk {
    /// The chunk of an empty prompt, from which weights are measured.
    pub fn empty(padding: Padding) -> Self {
        Open::new().close(padding)
    }

    /// Whether any token weighs anything but 1.
    pub fn is_weighted(&self) -> bool {
        self.weights.iter().any(|&w| w != 1.0)
    }
}

/// The chunks of a prompt, at least one, with the vectors that `embedding:name` stands for; a name without any is a word.
///
/// # Errors
/// A prompt of more than 64 KiB, a word the tokenizer refuses, or a weight that is not finite.
pub fn chunks(text: &str, padding: Padding, vectors: &Vectors) -> Result<Vec<Chunk>> {
    if text.len() > MAX_BYTES {
        return Err(Error::Mismatch(format!("a prompt of {} bytes; the longest is {MAX_BYTES}", text.len())));
    }
    let mut done = Vec::new();
    let mut open = Open::new();
    for (segment, weight) in segments(text) {
        if !weight.is_finite() {
            return Err(Error::Mismatch(format!(
                "the weight {weight} of `{segment}` in the prompt is not finite"
            )));
        }
        for words in split_embeddings(&segment) {
            let mut words = words;
            if let Some((found, rest)) = embedding(&words, vectors) {
                let tokens: Vec<_> = found.iter().cloned().map(Token::Vector).collect();
                open.lay(&tokens, weight, padding, &mut done);
                if rest.is_empty() {
                    continue;
                }
                words = rest;
            }
            let ids: Vec<_> = Tokenizer::shared().encode(&words)?.into_iter().map(Token::Id).collect();
            open.lay(&ids, weight, padding, &mut done);
        }
    }
    done.push(open.close(padding));
    Ok(done)
}

/// The names after `embedding:` in a prompt, in order; a comma behind one is none of its letters.
pub fn embeddings(text: &str) -> Vec<String> {
    let words = segments(text).into_iter().flat_map(|(segment, _)| split_embeddings(&segment));
    let name = |words: String| {
        let name = words.strip_prefix(NAME)?.split_whitespace().next()?.trim_matches(',').to_owned();
        (!name.is_empty()).then_some(name)
    };
    words.filter_map(name).collect()
}

/// The vectors of embeddings by name, for one tower.
pub type Vectors = HashMap<String, Vec<Vector>>;

/// The embedding that a stretch of text starts with, and the rest of it, as ComfyUI cuts them.
fn embedding<'a>(words: &str, vectors: &'a Vectors) -> Option<(&'a [Vector], String)> {
    let mut rest = words.strip_prefix(NAME)?.split_whitespace();
    let name = rest.next()?;
    let left = rest.collect::<Vec<_>>().join(" ");
    if let Some(found) = vectors.get(name) {
        return Some((found, left));
    }
    let bare = name.trim_matches(',');
    // Python counts letters, not bytes; a comma before the name costs its last letter.
    let after: String = name.chars().skip(bare.chars().count()).collect();
    Some((vectors.get(bare)?, format!("{after} {left}")))
}

/// What is laid into a chunk.
#[derive(Clone)]
enum Token {
    Id(u32),
    Vector(Vector),
}

/// A chunk being filled.
struct Open(Vec<(Token, f32)>);

impl Open {
    fn new() -> Self {
        Self(vec![(Token::Id(BOS), 1.0)])
    }

    fn room(&self) -> usize {
        CHUNK - 1 - self.0.len()
    }

    /// Lays a segment into this chunk, and those after it.
    fn lay(&mut self, tokens: &[Token], weight: f64, padding: Padding, done: &mut Vec<Chunk>) {
        let mut rest = tokens;
        while rest.len() > self.room() {
            let fits = if tokens.len() >= LARGE { self.room() } else { 0 };
            self.push(&rest[..fits], weight);
            rest = &rest[fits..];
            done.push(std::mem::replace(self, Self::new()).close(padding));
        }
        self.push(rest, weight);
    }

    fn push(&mut self, tokens: &[Token], weight: f64) {
        self.0.extend(tokens.iter().map(|token| (token.clone(), weight as f32)));
    }

    fn close(self, padding: Padding) -> Chunk {
        let fill = match padding {
            Padding::EndOfText => EOS,
            Padding::Zero => 0,
        };
        let mut chunk = Chunk { ids: [fill; CHUNK], weights: [1.0; CHUNK], vectors: Vec::new() };
        chunk.ids[self.0.len()] = EOS;
        for (i, (token, weight)) in self.0.into_iter().enumerate() {
            chunk.weights[i] = weight;
            chunk.ids[i] = match token {
                Token::Id(id) => id,
                Token::Vector(vector) => {
                    chunk.vectors.push((i, vector));
                    0
                }
            };
        }
        chunk
    }
}

/// What an embedding's name follows.
const NAME: &str = "embedding:";

/// ComfyUI tokenizes what follows a blank and `embedding:` on its own, which matters to what moves between chunks.
fn split_embeddings(segment: &str) -> Vec<String> {
    let segment = segment.replace("\nembedding:", " embedding:");
    let mut parts = segment.split(" embedding:");
    let first = parts.next().unwrap_or_default().to_owned();
    std::iter::once(first)
        .chain(parts.map(|part| format!("{NAME}{part}")))
        .filter(|part| !part.is_empty())
        .collect()
}

/// Stand-ins for escaped parentheses while the others are matched; the tokenizer drops control characters, so neither
/// can be typed to any effect.
const ESCAPED: [(&str, &str, &str); 2] = [("\\)", "\0\u{1}", ")"), ("\\(", "\0\u{2}", "(")];

/// A prompt as stretches of one weight each: `(x)` weighs 1.1 times its surroundings, `(x:1.3)` weighs 1.3 whatever is
/// around it, `[x]` is plain text, `\(` and `\)` are parentheses of the text.
fn segments(text: &str) -> Vec<(String, f64)> {
    let escaped =
        ESCAPED.iter().fold(text.to_owned(), |text, (typed, stand_in, _)| text.replace(typed, stand_in));
    let mut segments = Vec::new();
    // A stack instead of recursion: nesting comes from the user. `None` is a stretch that needs no more splitting.
    let mut todo: Vec<(&str, f64, bool)> = vec![(&escaped, 1.0, true)];
    while let Some((stretch, weight, group)) = todo.pop() {
        if group {
            todo.extend(pieces(stretch).into_iter().rev().map(|piece| weigh(piece, weight)));
        } else {
            let plain = ESCAPED
                .iter()
                .fold(stretch.to_owned(), |text, (_, stand_in, real)| text.replace(stand_in, real));
            segments.push((plain, weight));
        }
    }
    segments
}

/// The inside of a parenthesised piece with its weight, or the piece as it is; whether it was parenthesised.
fn weigh(piece: &str, around: f64) -> (&str, f64, bool) {
    let Some(inside) = piece.strip_prefix('(').and_then(|piece| piece.strip_suffix(')')) else {
        return (piece, around, false);
    };
    match inside.rsplit_once(':') {
        Some((text, number)) if !text.is_empty() => match parse_weight(number) {
            Some(weight) => (text, weight, true),
            None => (inside, around * 1.1, true),
        },
        _ => (inside, around * 1.1, true),
    }
}

/// Cuts at the outermost parentheses. Unbalanced ones stay in the text: a `)` too many also swallows the next `(`.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut depth) = (0, 0i64);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => {
                if depth == 0 && start < at {
                    pieces.push(&text[start..at]);
                    start = at;
                }
                depth += 1;
            }
            b')' => {
                depth -= 1;
                if depth == 0 {
                    pieces.push(&text[start..=at]);
                    start = at + 1;
                }
            }
            _ => {}
        }
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

/// A number as Python's `float` reads it: blanks around it and `_` between digits are taken.
fn parse_weight(text: &str) -> Option<f64> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let digit = |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
    let between_digits = |(i, _): (usize, &str)| digit(i.checked_sub(1)) && digit(Some(i + 1));
    if !text.match_indices('_').all(between_digits) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fixture() -> Vec<Value> {
        crate::fixture::json("clip_text/prompts.json")["prompts"].as_array().unwrap().clone()
    }

    fn number(value: &Value) -> f64 {
        value.as_f64().unwrap_or(f64::INFINITY)
    }

    #[test]
    fn segments_are_comfyuis() {
        let mut seen = 0;
        for prompt in fixture() {
            let Some(expected) = prompt["segments"].as_array() else { continue };
            let expected: Vec<(String, f64)> =
                expected.iter().map(|s| (s[0].as_str().unwrap().to_owned(), number(&s[1]))).collect();
            assert_eq!(segments(prompt["text"].as_str().unwrap()), expected, "{}", prompt["text"]);
            seen += 1;
        }
        assert!(seen > 100);
    }

    #[test]
    fn chunks_are_comfyuis() {
        for prompt in fixture() {
            let text = prompt["text"].as_str().unwrap();
            let expected = prompt["chunks"].as_array().unwrap();
            if expected.iter().any(|c| c["weights"].as_array().unwrap().iter().any(|run| !run[0].is_number()))
            {
                assert!(
                    chunks(text, Padding::EndOfText, &Vectors::new())
                        .unwrap_err()
                        .to_string()
                        .contains("not finite")
                );
                continue;
            }
            let expected: Vec<Chunk> = expected.iter().map(chunk).collect();
            assert_eq!(chunks(text, Padding::EndOfText, &Vectors::new()).unwrap(), expected, "{text:?}");
        }
    }

    fn chunk(json: &Value) -> Chunk {
        let mut chunk = Chunk { ids: [EOS; CHUNK], weights: [1.0; CHUNK], vectors: Vec::new() };
        for (i, id) in json["tokens"].as_array().unwrap().iter().enumerate() {
            chunk.ids[i] = id.as_u64().unwrap() as u32;
        }
        let mut at = 0;
        for run in json["weights"].as_array().unwrap() {
            let length = run[1].as_u64().unwrap() as usize;
            chunk.weights[at..at + length].fill(number(&run[0]) as f32);
            at += length;
        }
        chunk
    }

    #[test]
    fn zero_padding_follows_one_end_of_text() {
        let chunk = &chunks("a cat", Padding::Zero, &Vectors::new()).unwrap()[0];
        assert_eq!(chunk.ids[..5], [BOS, 320, 2368, EOS, 0]);
        assert_eq!(chunk.ids[76], 0);
    }

    #[test]
    fn deep_nesting_is_no_recursion() {
        let depth = 10_000;
        let text = format!("{}x{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(segments(&text).len(), 1);
        assert!(chunks(&text, Padding::EndOfText, &Vectors::new()).is_err(), "1.1^10000 is not finite");
    }

    #[test]
    fn a_prompt_without_end_is_refused() {
        assert!(chunks(&"a ".repeat(40_000), Padding::EndOfText, &Vectors::new()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_becomes_whole_chunks(text in "[a-z ():.0-9\\\\\\[\\]\\PC]{0,200}") {
            let Ok(chunks) = chunks(&text, Padding::EndOfText, &Vectors::new()) else { return Ok(()) };
            proptest::prop_assert!(!chunks.is_empty());
            for chunk in chunks {
                proptest::prop_assert_eq!(chunk.ids[0], BOS);
                let end = chunk.ids.iter().position(|&id| id == EOS).unwrap();
                proptest::prop_assert!(chunk.ids[end..].iter().all(|&id| id == EOS));
                proptest::prop_assert!(chunk.weights[end..].iter().all(|&weight| weight == 1.0));
            }
        }
    }
}
