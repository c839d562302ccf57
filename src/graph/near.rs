//! "Did you mean …?"

/// The candidate most like `wanted`, if any is like it at all.
pub fn near<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let own = wanted.to_lowercase();
    let score = |name: &str| {
        let name = name.to_lowercase();
        // Long texts are no typos, and comparing them costs their product.
        if name.len() > 80 || own.len() > 80 { 0.0 } else { strsim::jaro_winkler(&own, &name) }
    };
    candidates
        .into_iter()
        .map(|name| (score(name), name))
        .filter(|(score, _)| *score > 0.78)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, name)| name)
}

/// A hint: the near match, else the list of what there is, else what `otherwise` says.
pub(crate) fn did_you_mean(wanted: &str, candidates: &[&str], what: &str) -> Option<String> {
    if let Some(name) = near(wanted, candidates.iter().copied()) {
        return Some(format!("did you mean `{name}`?"));
    }
    (!candidates.is_empty()).then(|| format!("{what}: {}", list(candidates)))
}

/// `a`, `b`, `c` and at most twenty of them.
pub(crate) fn list(names: &[&str]) -> String {
    let shown: Vec<_> = names.iter().take(20).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > shown.len() {
        format!(" and {} more", names.len() - shown.len())
    } else {
        String::new()
    };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_a_stranger_finds_none() {
        let names = ["KSampler", "VAEDecode", "SaveImage"];
        assert_eq!(near("KSamplr", names), Some("KSampler"));
        assert_eq!(near("vae_decode", names), Some("VAEDecode"));
        assert_eq!(near("Grayscale", names), None);
    }
}
