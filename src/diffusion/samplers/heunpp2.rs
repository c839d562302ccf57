use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, mix, slope};
use crate::Result;

/// Heun++ of up to three evaluations a step (Carzit's sd-webui-samplers-scheduler): the slopes of the next two
/// levels are weighted by their share of the first level.
struct HeunPp2 {
    sigmas: Vec<f64>,
    index: usize,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    Box::new(HeunPp2 { sigmas: setup.sigmas.to_vec(), index: 0 })
}

impl Sampler for HeunPp2 {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, next: f64) -> Result<Tensor> {
        let (top, after) = (self.sigmas[0], self.sigmas.get(self.index + 2).copied());
        let before_last = after.is_some() && self.index + 3 == self.sigmas.len();
        self.index += 1;

        let first = slope(x, sigma, &denoise(x, sigma)?.guided)?;
        let euler = mix(1.0, x, next - sigma, &first)?;
        let Some(after) = after else { return Ok(euler) };
        let second = slope(&euler, next, &denoise(&euler, next)?.guided)?;
        if before_last {
            let w = next / (2.0 * top);
            return mix(1.0, x, next - sigma, &mix(1.0 - w, &first, w, &second)?);
        }
        let ahead = mix(1.0, &euler, after - next, &second)?;
        let third = slope(&ahead, after, &denoise(&ahead, after)?.guided)?;
        let (w2, w3) = (next / (3.0 * top), after / (3.0 * top));
        let mean = (mix(1.0 - w2 - w3, &first, w2, &second)? + (third * w3)?)?;
        mix(1.0, x, next - sigma, &mean)
    }
}
