use flow_diffusion::samplers::{Adaptive, Renoise, SamplerSpec};
use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::Sampler;

/// The sampler `dpm_adaptive` with settings of its own: of the noise levels only the ends count, and steps are as long
/// as their error allows.
#[derive(Inputs)]
#[node(category = "sampling/samplers")]
pub struct SamplerDPMAdaptative {
    /// Order of the solver.
    #[input(default = 3, range = 2usize..=3usize)]
    order: usize,
    /// Error that is accepted, as a share of a value.
    #[input(default = 0.05, range = 0.0..=100.0)]
    rtol: f64,
    /// Error that is accepted at least.
    #[input(default = 0.0078, range = 0.0..=100.0)]
    atol: f64,
    /// Length of the first step tried, in the logarithm of noise; above 0.
    #[input(default = 0.05, range = 0.0..=100.0)]
    h_init: f64,
    /// Proportional part of the step size's control.
    #[input(default = 0.0, range = 0.0..=100.0)]
    pcoeff: f64,
    /// Integral part of it.
    #[input(default = 1.0, range = 0.0..=100.0)]
    icoeff: f64,
    /// Derivative part of it.
    #[input(default = 0.0, range = 0.0..=100.0)]
    dcoeff: f64,
    /// A step is taken if the next one need not be shorter than this share of it.
    #[input(default = 0.81, range = 0.0..=100.0)]
    accept_safety: f64,
    /// Share of the noise that is taken away and added anew: 0 for none.
    #[input(default = 0.0, range = 0.0..=100.0)]
    eta: f64,
    /// What the noise added is multiplied by.
    #[input(default = 1.0, range = 0.0..=100.0)]
    s_noise: f64,
}

impl Node for SamplerDPMAdaptative {
    type Output = Sampler;

    fn run(self, _cx: &Context) -> Result<Sampler, NodeError> {
        if self.h_init == 0.0 {
            return Err(NodeError::on("h_init", "a first step of length 0 leads nowhere: expected more"));
        }
        let settings = Adaptive {
            order: self.order,
            rtol: self.rtol,
            atol: self.atol,
            h_init: self.h_init,
            pcoeff: self.pcoeff,
            icoeff: self.icoeff,
            dcoeff: self.dcoeff,
            accept_safety: self.accept_safety,
            renoise: Renoise { eta: self.eta, s_noise: self.s_noise },
        };
        Ok(Sampler(SamplerSpec::DpmAdaptive(settings)))
    }
}
