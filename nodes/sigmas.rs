//! What the schedulers have in common.

use flow_graph::NodeError;

use crate::ports::Sigmas;

/// Noise levels a sampler can be given.
///
/// # Errors
/// On `input`, when the settings give something else than numbers.
pub(crate) fn checked(sigmas: Vec<f64>, input: &'static str) -> Result<Sigmas, NodeError> {
    if sigmas.iter().all(|sigma| sigma.is_finite()) {
        return Ok(sigmas.into());
    }
    let message = "these settings give no noise levels: one of them is not a number";
    Err(NodeError::on(input, message).hint("levels, and what divides by them, must be above 0"))
}
