use candle_core::Tensor;

use super::{Denoise, Sampler, Setup, dpm_solver as dpm};
use crate::Result;

/// DPM-Solver-fast (Lu et al. 2022): of a schedule only the ends and the number of steps count, which is the number of
/// evaluations; they are spent on steps of order 3, even in the logarithm of noise.
struct DpmFast {
    /// The schedule has one step, and so no length.
    single: bool,
    /// Times of the steps' ends, and the orders of those still to do, the last first.
    times: Vec<f64>,
    orders: Vec<usize>,
    /// Steps of the schedule asked for, and evaluations made.
    asked: usize,
    made: usize,
    done: usize,
}

pub(super) fn new(setup: &Setup) -> Box<dyn Sampler> {
    let evaluations = setup.sigmas.len().saturating_sub(1);
    let steps = evaluations / 3 + 1;
    let mut orders = match evaluations % 3 {
        0 => [vec![3; steps.saturating_sub(2)], vec![2, 1]].concat(),
        rest => [vec![3; steps - 1], vec![rest]].concat(),
    };
    orders.reverse();
    let (start, end) = (-setup.sigmas.first().unwrap_or(&1.0).ln(), -dpm::lowest(setup.sigmas).ln());
    let times = (0..=steps).map(|i| start + (end - start) * i as f64 / steps as f64).collect();
    Box::new(DpmFast { single: evaluations == 1, times, orders, asked: 0, made: 0, done: 0 })
}

impl Sampler for DpmFast {
    fn step(&mut self, denoise: &mut Denoise, x: &Tensor, sigma: f64, _next: f64) -> Result<Tensor> {
        if self.single {
            return Ok(denoise(x, sigma)?.guided);
        }
        self.asked += 1;
        let mut x = x.clone();
        while let Some(order) = self.orders.pop_if(|_| self.made < self.asked) {
            let (t, next) = (self.times[self.done], self.times[self.done + 1]);
            let eps = dpm::eps(denoise, &x, t)?;
            x = match order {
                1 => dpm::first(&x, &eps, t, next)?,
                2 => dpm::second(denoise, &x, &eps, (t, next), 0.5)?.0,
                _ => {
                    let third = t + (next - t) / 3.0;
                    let inner = dpm::eps(denoise, &dpm::first(&x, &eps, t, third)?, third)?;
                    dpm::third(denoise, &x, [&eps, &inner], (t, next))?
                }
            };
            self.made += order;
            self.done += 1;
        }
        Ok(x)
    }
}
