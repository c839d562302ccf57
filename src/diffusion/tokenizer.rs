//! CLIP's byte-pair tokenizer: the same ids as `CLIPTokenizer` of transformers, for any text.

use std::sync::OnceLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use crate::{Error, Result};

/// The id that starts every chunk, `<|startoftext|>`.
pub const BOS: u32 = 49406;
/// The id that ends every chunk and, for CLIP-L, fills it: `<|endoftext|>`.
pub const EOS: u32 = 49407;

/// Byte-pair merging is quadratic in the length of a word, so longer ones are refused.
const MAX_WORD_BYTES: usize = 4096;

/// Text to ids. The vocabulary is OpenAI's; `instant-clip-tokenizer` ships it and merges the pairs of one word.
/// What becomes a word is decided here, because transformers cleans the text first (see `Tokenizer::clean`).
pub struct Tokenizer {
    merges: instant_clip_tokenizer::Tokenizer,
    words: Regex,
    control: Regex,
}

impl Tokenizer {
    /// The one tokenizer of the process; the first call builds its tables.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Tokenizer> = OnceLock::new();
        SHARED.get_or_init(|| Self {
            merges: instant_clip_tokenizer::Tokenizer::new(),
            words: Regex::new(
                r"<\|startoftext\|>|<\|endoftext\|>|'s|'ſ|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
            )
            .expect("a valid pattern"),
            control: Regex::new(r"\p{C}").expect("a valid pattern"),
        })
    }

    /// The ids of `text`, without [`BOS`] and [`EOS`] around it.
    ///
    /// # Errors
    /// A single word of more than 4096 bytes.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut rest = text;
        // transformers cuts its special tokens out before anything else; the pattern of words comes later.
        while let Some((at, length, id)) = first_special(rest) {
            self.encode_plain(&rest[..at], &mut ids)?;
            ids.push(id);
            rest = &rest[at + length..];
        }
        self.encode_plain(rest, &mut ids)?;
        Ok(ids)
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let mut merged = Vec::new();
        for word in self.words.find_iter(&self.clean(text)).map(|word| word.as_str()) {
            if word.len() > MAX_WORD_BYTES {
                return Err(Error::Mismatch(format!(
                    "a word of {} bytes in the prompt; put spaces in it, the longest is {MAX_WORD_BYTES}",
                    word.len()
                )));
            }
            match first_special(word) {
                Some((_, _, id)) => ids.push(id),
                // To Python's pattern, blind to case, the long s is an s; the vocabulary crate would cut here.
                None if word == "'ſ" => ids.extend([6, 129, 379]),
                None => {
                    merged.clear();
                    self.merges.encode(word, &mut merged);
                    ids.extend(merged.iter().map(|token| u32::from(token.to_u16())));
                }
            }
        }
        Ok(())
    }

    /// What `BasicTokenizer(strip_accents=False, do_split_on_punc=False)` of transformers does to a text: control and
    /// format characters go, Han characters stand alone, the rest is composed (NFC) and lower case.
    fn clean(&self, text: &str) -> String {
        let mut spaced = String::with_capacity(text.len() + 8);
        for c in text.chars() {
            match c {
                ' ' | '\t' | '\n' | '\r' => spaced.push(' '),
                '\u{fffd}' => {}
                _ if self.is_control(c) => {}
                _ if is_han(c) => spaced.extend([' ', c, ' ']),
                _ => spaced.push(c),
            }
        }
        spaced.nfc().collect::<String>().to_lowercase()
    }

    fn is_control(&self, c: char) -> bool {
        if c.is_ascii() { c.is_ascii_control() } else { self.control.is_match(c.encode_utf8(&mut [0; 4])) }
    }
}

/// Where the first special token of `text` is: offset, length, id.
fn first_special(text: &str) -> Option<(usize, usize, u32)> {
    [("<|startoftext|>", BOS), ("<|endoftext|>", EOS)]
        .into_iter()
        .filter_map(|(token, id)| Some((text.find(token)?, token.len(), id)))
        .min()
}

/// The blocks that BERT's tokenizer counts as Chinese: the ideographs, neither kana nor hangul.
fn is_han(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2ceaf}' | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        Tokenizer::shared().encode(text).unwrap()
    }

    #[test]
    fn a_plain_sentence_has_the_ids_of_the_paper() {
        assert_eq!(ids("a photo of a cat"), [320, 1125, 539, 320, 2368]);
    }

    #[test]
    fn special_tokens_are_found_in_any_company() {
        assert_eq!(ids("!!<|endoftext|>!!"), [ids("!!"), vec![EOS], ids("!!")].concat());
        assert_eq!(ids("<|EndOfText|>"), [EOS]);
        assert!(!ids("<end_of_text>").contains(&EOS), "the vocabulary crate's own marker is plain text");
    }

    /// Found by comparing 18,000 random strings of all scripts with transformers 4.57.
    #[test]
    fn odd_characters_are_treated_as_transformers_does() {
        assert_eq!(ids("'ſ"), [6, 129, 379]);
        assert_eq!(ids("K\u{2028}\u{85}k"), [ids("k"), ids("k")].concat(), "the Kelvin sign is a k");
        assert_eq!(ids("cafe\u{301}"), ids("café"));
        assert_eq!(ids("\u{f900}"), [164, 109, 486]);
    }

    #[test]
    fn a_word_without_end_is_refused() {
        let message = Tokenizer::shared().encode(&"x".repeat(5000)).unwrap_err().to_string();
        assert_eq!(message, "a word of 5000 bytes in the prompt; put spaces in it, the longest is 4096");
    }
}
