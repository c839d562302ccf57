//! Why a node is computed again: what differs from the last time.

use std::path::Path;

use serde_json::Value;

use crate::cache::record::{Made, Part};

/// Longer texts are cut.
const SHOWN: usize = 40;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The difference in words.
    pub text: String,
    /// The node it comes from, where it lies further up.
    pub upstream: Option<String>,
    /// How far it leads away from what was: a file that was edited is nearer than another one.
    pub distance: usize,
}

/// How far another value is, and a file whose content is new.
const OTHER: usize = 2;
const EDITED: usize = 1;

impl Reason {
    /// A difference of the node's own.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), upstream: None, distance: OTHER }
    }
}

/// What differs between a node now and the last time; nothing where all that is known is equal.
pub fn reasons(now: &Made, before: Option<&Made>) -> Vec<Reason> {
    let Some(before) = before else { return vec![Reason::text("never ran")] };
    if now.kind != before.kind {
        return vec![Reason::text(format!("was a {}", before.kind))];
    }
    let mut found = Vec::new();
    if now.version != before.version {
        found.push(Reason::text(format!("node version {} → {}", before.version, now.version)));
    }
    if now.numerics != before.numerics {
        found.push(Reason::text("another version of flow, which computes differently"));
    }
    if now.place != before.place {
        found.push(Reason::text(format!(
            "device or precision changed ({} → {})",
            before.place.to_lowercase(),
            now.place.to_lowercase()
        )));
    }
    // Then everything further up is another thing too, which explains nothing.
    let elsewhere = now.place != before.place || now.numerics != before.numerics;
    let differences =
        now.inputs.iter().filter_map(|(name, part)| difference(name, before.inputs.get(name), part));
    found.extend(differences.filter(|reason| !elsewhere || reason.upstream.is_none()));
    let gone = before.inputs.keys().filter(|name| !now.inputs.contains_key(*name));
    found.extend(gone.map(|name| Reason::text(format!("`{name}` is no longer given"))));
    found
}

fn difference(name: &str, before: Option<&Part>, now: &Part) -> Option<Reason> {
    let Some(before) = before else { return Some(Reason::text(format!("`{name}` is now given"))) };
    let text = match (before, now) {
        (Part::Literal(old), Part::Literal(new)) if old == new => return None,
        (Part::Literal(old), Part::Literal(new)) => format!("`{name}` {} → {}", shown(old), shown(new)),
        (Part::File(_, old), Part::File(_, new)) if old == new => return None,
        (Part::File(old, _), Part::File(new, _)) if old == new => {
            let text = format!("{} in {new}", what_is_new(new));
            return Some(Reason { distance: EDITED, ..Reason::text(text) });
        }
        (Part::File(old, _), Part::File(new, _)) => format!("`{name}` {old} → {new}"),
        (Part::Link(_, Some(old)), Part::Link(from, Some(new))) => {
            if old == new {
                return None;
            }
            let node = from.rsplit_once('.').map_or(&**from, |(node, _)| node);
            let text = format!("`{name}` changed upstream (`{node}`)");
            return Some(Reason { upstream: Some(node.to_owned()), ..Reason::text(text) });
        }
        // What it carries is not known yet.
        (Part::Link(..), Part::Link(..)) => return None,
        (_, Part::Link(from, _)) => format!("`{name}` now comes from `{from}`"),
        (_, Part::Literal(new)) => format!("`{name}` is now {}", shown(new)),
        (_, Part::File(new, _)) => format!("`{name}` is now {new}"),
    };
    Some(Reason::text(text))
}

fn what_is_new(file: &str) -> &'static str {
    let ending = Path::new(file).extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("png" | "jpg" | "jpeg" | "webp") => "new pixels",
        _ => "new content",
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN).collect::<String>() + "…" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(inputs: &[(&str, Part)]) -> Made {
        Made {
            kind: "IPAdapterApply".into(),
            version: 1,
            numerics: 1,
            place: "cpu F32".into(),
            inputs: inputs.iter().map(|(name, part)| ((*name).to_owned(), part.clone())).collect(),
        }
    }

    fn told(now: &Made, before: &Made) -> String {
        let texts: Vec<_> = reasons(now, Some(before)).into_iter().map(|reason| reason.text).collect();
        texts.join("; ")
    }

    #[test]
    fn every_difference_is_told_in_words() {
        let file = |name: &str, content: &str| Part::File(name.into(), content.into());
        let link = |from: &str, id: &str| Part::Link(from.into(), Some(id.into()));
        let before = made(&[
            ("gone", Part::Literal(json!(1))),
            ("image", file("assets/cup.png", "1")),
            ("lora", file("a.safetensors", "1")),
            ("model", link("base.model", "1")),
            ("name", file("a.safetensors", "1")),
            ("weight", Part::Literal(json!(0.6))),
        ]);
        let mut now = made(&[
            ("image", file("assets/cup.png", "2")),
            ("lora", file("a.safetensors", "2")),
            ("model", link("styled.model", "2")),
            ("mask", link("seen.mask", "1")),
            ("name", file("renamed.safetensors", "1")),
            ("weight", Part::Literal(json!(0.8))),
        ]);
        now.version = 2;
        insta::assert_snapshot!(told(&now, &before).replace("; ", "\n"), @r"
        node version 1 → 2
        new pixels in assets/cup.png
        new content in a.safetensors
        `mask` is now given
        `model` changed upstream (`styled`)
        `weight` 0.6 → 0.8
        `gone` is no longer given
        ");
        assert_eq!(told(&before, &before), "");
        (now.numerics, now.place) = (2, "cpu BF16".into());
        insta::assert_snapshot!(told(&now, &before).replace("; ", "\n"), @r"
        node version 1 → 2
        another version of flow, which computes differently
        device or precision changed (cpu f32 → cpu bf16)
        new pixels in assets/cup.png
        new content in a.safetensors
        `mask` is now given
        `weight` 0.6 → 0.8
        `gone` is no longer given
        ");
        assert_eq!(reasons(&now, None), [Reason::text("never ran")]);
    }

    #[test]
    fn a_link_that_is_not_known_yet_says_nothing() {
        let part = |id: Option<&str>| made(&[("a", Part::Link("b.c".into(), id.map(str::to_owned)))]);
        assert_eq!(told(&part(None), &part(Some("1"))), "");
    }
}
