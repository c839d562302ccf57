//! A value as a person would write it: plain where YAML reads it back as the same, else quoted, long texts as blocks.

use serde_yaml::Value;

use crate::Literal;

/// A value on one line; in `flow`, between brackets, where commas and colons need quotes.
pub(crate) fn inline(literal: &Literal, flow: bool) -> String {
    match literal {
        Literal::Bool(b) => b.to_string(),
        Literal::Int(i) => i.to_string(),
        Literal::Float(x) => {
            let text = format!("{x:?}");
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        }
        Literal::Text(text) if is_plain(text, flow) => text.clone(),
        Literal::Text(text) => quoted(text),
        Literal::List(items) => {
            let items: Vec<_> = items.iter().map(|item| inline(item, true)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// A text of several lines as a block, its lines indented by `indent`; `None` where a block could not hold it.
pub(crate) fn block(text: &str, indent: usize) -> Option<String> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let first = body.lines().find(|line| !line.is_empty())?;
    let fits = body.contains('\n')
        && !first.starts_with([' ', '\t'])
        && !body.ends_with('\n')
        && !text.contains(|c: char| (c.is_control() && c != '\n' && c != '\t') || is_odd(c));
    if !fits {
        return None;
    }
    let mut block = String::from(if body.len() == text.len() { "|-" } else { "|" });
    for line in body.split('\n') {
        block.push('\n');
        if !line.is_empty() {
            block.extend(std::iter::repeat_n(' ', indent));
            block.push_str(line);
        }
    }
    Some(block)
}

fn is_plain(text: &str, flow: bool) -> bool {
    let starts = text.starts_with(|c: char| c.is_alphabetic() || "_$./(+".contains(c));
    let inner = |c: char| {
        c.is_alphanumeric() || " _-./+%=()'$;!?~\\".contains(c) || (!flow && ",:[]{}\"&*<>|^@".contains(c))
    };
    starts
        && text.chars().all(inner)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && serde_yaml::from_str::<Value>(text).is_ok_and(|value| value.as_str() == Some(text))
}

/// JSON's quotes are YAML's, but for what YAML does not print.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.chars().map(|c| if is_odd(c) { format!("\\u{:04X}", u32::from(c)) } else { c.to_string() }).collect()
}

/// Letters below U+10000 that YAML takes for line breaks, or must escape.
fn is_odd(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml;

    #[test]
    fn texts_are_plain_where_they_can_be() {
        let text = |text: &str, flow| inline(&text.into(), flow);
        assert_eq!(text("a red apple, (glossy:1.2)", false), "a red apple, (glossy:1.2)");
        assert_eq!(text("a red apple, glossy", true), "\"a red apple, glossy\"");
        assert_eq!(text("sd15/base.safetensors", true), "sd15/base.safetensors");
        for odd in
            ["", "true", "12", "1e3", "~", "null", "# x", "a # b", "a: b", " a", "- a", "*a", "0x1F", ".5"]
        {
            assert!(text(odd, false).starts_with('"'), "{odd}");
        }
        assert_eq!(inline(&Literal::Float(8.0), true), "8");
        assert_eq!(inline(&u64::MAX.into(), true), "18446744073709551615");
    }

    proptest! {
        #[test]
        fn every_text_is_read_back(text in r#"[a-c \n\t:#,\[\]{}&*!|>'"%@`~0-9.\-?=<\\$é猫😀\u{85}\u{2028}\u{feff}\u{7f}]{0,14}"#) {
            let literal = Literal::from(text.as_str());
            let flow = format!("{{ a: {}, b: 1 }}", inline(&literal, true));
            let line = format!("a: {}\nb: 1\n", inline(&literal, false));
            let block = block(&text, 2).map(|block| format!("a: {block}\nb: 1\n"));
            for written in [Some(flow), Some(line), block].into_iter().flatten() {
                let back: Value = serde_yaml::from_str(&written).unwrap_or_else(|e| panic!("{written:?}: {e}"));
                prop_assert_eq!(back["a"].as_str(), Some(text.as_str()), "{:?}", written);
                prop_assert_eq!(&back["b"], &Value::from(1));
            }
        }

        #[test]
        fn every_number_is_read_back(x in proptest::num::f64::NORMAL, i in any::<u64>()) {
            prop_assert_eq!(yaml::scalar(&inline(&Literal::Float(x), true)), match x {
                x if x.fract() == 0.0 && x.abs() < 1e16 => Literal::Int(x as i128),
                x => Literal::Float(x),
            });
            prop_assert_eq!(yaml::scalar(&inline(&i.into(), true)), Literal::from(i));
        }
    }
}
