use candle_core::Tensor;

use super::{Denoise, Draws, Renoise, Sampler, Setup, ancestral, dpm_solver as dpm, mix};
use crate::{Error, Result};

/// Settings of [`super::SamplerSpec::DpmAdaptive`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// Order of the solver, 2 or 3.
    pub order: usize,
    /// Error that is accepted, as a share of a value and at least.
    pub rtol: f64,
    /// See `rtol`.
    pub atol: f64,
    /// Length of the first step tried, in the logarithm of noise.
    pub h_init: f64,
    /// Proportional, integral and derivative part of the step size's control.
    pub pcoeff: f64,
    /// See `pcoeff`.
    pub icoeff: f64,
    /// See `pcoeff`.
    pub dcoeff: f64,
    /// A step is taken if the next one need not be shorter than this share of it.
    pub accept_safety: f64,
    /// Noise added on the way.
    pub renoise: Renoise,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            order: 3,
            rtol: 0.05,
            atol: 0.0078,
            h_init: 0.05,
            pcoeff: 0.0,
            icoeff: 1.0,
            dcoeff: 0.0,
            accept_safety: 0.81,
            renoise: Renoise { eta: 0.0, s_noise: 1.0 },
        }
    }
}

/// Times closer than this are the same.
const CLOSE: f64 = 1e-5;
/// More steps than any picture takes.
const MOST_STEPS: usize = 10_000;

/// DPM-Solver-12 and -23 (Lu et al. 2022; k-diffusion): steps as long as their error allows. Of a schedule only the ends
/// count; its steps are when the walk is looked at.
struct DpmAdaptive {
    settings: Adaptive,
    noise: Draws,
    end: f64,
    /// Time reached, length of the step to try next, and the inverse errors of the last steps.
    at: Option<f64>,
    h: f64,
    errors: Option<[f64; 3]>,
    /// The last lower-order result, which tells the size of values.
    low: Option<Tensor>,
    steps: usize,
}

pub(super) fn new(setup: &Setup, settings: Adaptive) -> Box<dyn Sampler> {
    let end = -dpm::lowest(setup.sigmas).ln();
    let (noise, h) = (setup.draws(), settings.h_init);
    Box::new(DpmAdaptive { settings, noise, end, at: None, h, errors: None, low: None, steps: 0 })
}

impl Sampler for DpmAdaptive {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let mut at = self.at.unwrap_or(-sigma.ln());
        if self.at.is_none() && next == 0.0 {
            return Ok(denoise(x, sigma)?.guided);
        }
        let mut x = x.clone();
        let until = if next == 0.0 { self.end } else { (-next.ln()).min(self.end) };
        while at < until - CLOSE {
            (x, at) = self.try_step(denoise, &x, at)?;
        }
        self.at = Some(at);
        Ok(x)
    }
}

impl DpmAdaptive {
    /// The latent and the time after a step, or as they were if its error is too large.
    fn try_step(&mut self, denoise: &mut Denoise, x: &Tensor, at: f64) -> Result<(Tensor, f64)> {
        let Renoise { eta, s_noise } = self.settings.renoise;
        let t = self.end.min(at + self.h);
        let (down, up) = match ancestral(dpm::sigma(at), dpm::sigma(t), eta) {
            _ if eta == 0.0 => (t, 0.0),
            (down, _) => {
                let down = self.end.min(-down.ln());
                (down, (dpm::sigma(t).powi(2) - dpm::sigma(down).powi(2)).max(0.0).sqrt())
            }
        };
        let eps = dpm::eps(denoise, x, at)?;
        let (low, high) = if self.settings.order == 2 {
            (dpm::first(x, &eps, at, down)?, dpm::second(denoise, x, &eps, (at, down), 0.5)?.0)
        } else {
            let (low, inner) = dpm::second(denoise, x, &eps, (at, down), 1.0 / 3.0)?;
            let high = dpm::third(denoise, x, [&eps, &inner], (at, down))?;
            (low, high)
        };
        let size = low.abs()?.maximum(&self.low.as_ref().unwrap_or(x).abs()?)?;
        let delta = (size * self.settings.rtol)?.maximum(self.settings.atol)?;
        let error = ((&low - &high)? / delta)?.sqr()?.mean_all()?.to_scalar::<f32>()?.sqrt();
        self.steps += 1;
        if !self.accepts(f64::from(error))? {
            return Ok((x.clone(), at));
        }
        self.low = Some(low);
        let x = if up > 0.0 { mix(1.0, &high, s_noise * up, &self.noise.next()?)? } else { high };
        Ok((x, t))
    }

    /// Whether a step of this error is taken; sets the length of the next.
    fn accepts(&mut self, error: f64) -> Result<bool> {
        let Adaptive { order, pcoeff, icoeff, dcoeff, accept_safety, renoise, .. } = self.settings;
        let order = if renoise.eta > 0.0 { 1.5 } else { order as f64 };
        let inverse = 1.0 / (error + 1e-8);
        let errors = self.errors.get_or_insert([inverse; 3]);
        errors[0] = inverse;
        let factor = errors[0].powf((pcoeff + icoeff + dcoeff) / order)
            * errors[1].powf(-(pcoeff + 2.0 * dcoeff) / order)
            * errors[2].powf(dcoeff / order);
        let factor = 1.0 + (factor - 1.0).atan();
        let accept = factor >= accept_safety;
        if accept {
            (errors[2], errors[1]) = (errors[1], errors[0]);
        }
        self.h *= factor;
        if self.h > 0.0 && self.h.is_finite() && self.steps < MOST_STEPS {
            return Ok(accept);
        }
        let message = "`dpm_adaptive` finds no step with a small enough error: try a larger rtol or atol";
        Err(Error::Mismatch(message.into()))
    }
}
