//! Choices whose list lives in `flow-diffusion`, as pairs of name and value.

use flow_graph::NodeError;

/// The names of a list of pairs, for `#[input(choices = …)]`.
pub(crate) const fn names<T: Copy, const N: usize>(pairs: &[(&'static str, T)]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = pairs[i].0;
        i += 1;
    }
    names
}

/// The value of a name.
///
/// # Errors
/// On `input`, when there is none, which a checked plan rules out.
pub(crate) fn value_of<T: Copy>(
    pairs: &[(&'static str, T)],
    name: &str,
    input: &'static str,
) -> Result<T, NodeError> {
    let found = pairs.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| NodeError::on(input, format!("there is no `{name}`")))
}
