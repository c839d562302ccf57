//! Expressions in the words of another file.

use crate::Literal;

/// Words of conditions that are no names.
const WORDS: [&str; 5] = ["and", "or", "not", "true", "false"];

/// The same expression with other words for some of its names.
///
/// # Errors
/// What `rename` refuses.
pub(crate) fn renamed<E>(
    text: &str,
    rename: &mut dyn FnMut(&str) -> Result<Option<String>, E>,
) -> Result<String, E> {
    let part_of = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '\'' | '"' => rest[1..].find(c).map_or(rest.len(), |end| end + 2),
            c if c.is_ascii_digit() => rest.find(|c| !part_of(c)).unwrap_or(rest.len()),
            c if c.is_alphabetic() || c == '_' => {
                let len = rest.find(|c| !part_of(c)).unwrap_or(rest.len());
                let (name, after) = rest.split_at(len);
                let function = after.trim_start().starts_with('(') && ["min", "max"].contains(&name);
                if !function
                    && !WORDS.contains(&name)
                    && let Some(other) = rename(name)?
                {
                    // `$name` and `name` are one.
                    if out.ends_with('$') {
                        out.pop();
                    }
                    out.push_str(&other);
                    rest = after;
                    continue;
                }
                len
            }
            c => c.len_utf8(),
        };
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    Ok(out)
}

/// A value as it is written in an expression; a list cannot be.
pub(crate) fn written(value: &Literal) -> Option<String> {
    Some(match value {
        Literal::Text(text) if !text.contains('"') => format!("\"{text}\""),
        Literal::Text(text) if !text.contains('\'') => format!("'{text}'"),
        Literal::Text(_) | Literal::List(_) => return None,
        Literal::Int(i) if *i < 0 => format!("({i})"),
        Literal::Float(x) if *x < 0.0 => format!("({x})"),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_expressions_are_renamed_and_nothing_else() {
        let mut rename = |name: &str| -> Result<_, ()> {
            Ok(match name {
                "a" => Some("(big + 1)".to_owned()),
                "mode" => Some("\"soft\"".to_owned()),
                _ => None,
            })
        };
        let mut shown = |text: &str| renamed(text, &mut rename).unwrap();
        assert_eq!(shown("max(a, b) * 2e1 - a.b"), "max((big + 1), b) * 2e1 - a.b");
        assert_eq!(shown("$mode == 'a' and $a > 1"), "\"soft\" == 'a' and (big + 1) > 1");
    }
}
