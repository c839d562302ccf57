//! The times of a run, and what a network's blocks make of them. That depends on nothing that a step changes, so it is made
//! for many steps at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Tensor, TensorId};

use crate::Result;
use crate::ops::Linear;

/// When a network is called.
#[derive(Debug, Clone)]
pub(crate) enum Time {
    /// At a time that stands alone: `SiLU` of what it is embedded as (with the sizes, of SDXL), `[B or 1, 4 · model channels]`.
    Alone(Tensor),
    /// At one of the times of a run, by its number among those.
    OfRun(Arc<Embedded>, usize),
}

/// Some times of a run, embedded one after the other.
#[derive(Debug)]
pub(crate) struct Embedded {
    timesteps: Vec<f64>,
    /// `[times · rows, 4 · model channels]`
    values: Tensor,
    /// What each block makes of them, by its name: `[times · rows, channels]`.
    projected: Mutex<HashMap<String, Tensor>>,
}

impl Time {
    /// What a block, by its name, makes of the time: `[B or 1, channels]`.
    ///
    /// # Errors
    /// Those of the projection.
    pub fn projected(&self, block: &str, projection: &Linear) -> Result<Tensor> {
        match self {
            Self::Alone(embedded) => Ok(projection.forward(embedded)?),
            Self::OfRun(embedded, number) => embedded.projected(*number, block, projection),
        }
    }
}

impl Embedded {
    fn projected(&self, number: usize, block: &str, projection: &Linear) -> Result<Tensor> {
        let rows = self.values.dim(0)? / self.timesteps.len();
        let mut projected = self.projected.lock().unwrap_or_else(PoisonError::into_inner);
        let all = match projected.get(block) {
            Some(all) => all,
            None => projected.entry(block.to_owned()).or_insert(projection.forward(&self.values)?),
        };
        Ok(all.narrow(0, number * rows, rows)?)
    }
}

/// The times at which a run will call a network, and what those under way come to.
#[derive(Debug, Default)]
pub(crate) struct Times {
    expected: Vec<f64>,
    /// Those embedded last, by the sizes that went with them.
    embedded: Vec<(Option<TensorId>, Arc<Embedded>)>,
}

impl Times {
    /// Rows that are embedded at once, so that what all blocks of SDXL make of them stays below 8 MB.
    const MOST_ROWS: usize = 128;
    /// Kinds of calls whose times are made together: with the sizes of one group of prompts each. Those of more stand alone.
    const MOST_KINDS: usize = 4;

    /// Those of a run that will call at these, in this order; at others it may.
    pub fn expect(timesteps: &[f64]) -> Self {
        let mut expected = timesteps.to_vec();
        expected.dedup();
        Self { expected, embedded: Vec::new() }
    }

    /// A time as the blocks want it; `beside` is what the network is told for each row at every time. `embed` makes of times
    /// what [`Time::Alone`] holds, for one after the other.
    ///
    /// # Errors
    /// Those of `embed`.
    pub fn at(
        &mut self,
        timestep: f64,
        beside: Option<&Tensor>,
        embed: impl FnOnce(&[f64]) -> Result<Tensor>,
    ) -> Result<Time> {
        let is = |at: &f64| *at == timestep;
        let kind = beside.map(Tensor::id);
        let known = self.embedded.iter().position(|(of, _)| *of == kind);
        if let Some((_, embedded)) = known.map(|known| &self.embedded[known])
            && let Some(number) = embedded.timesteps.iter().position(is)
        {
            return Ok(Time::OfRun(embedded.clone(), number));
        }
        let is_full = known.is_none() && self.embedded.len() >= Self::MOST_KINDS;
        let Some(first) = self.expected.iter().position(is).filter(|_| !is_full) else {
            return Ok(Time::Alone(embed(&[timestep])?));
        };
        let rows = beside.map_or(Ok(1), |beside| beside.dim(0))?;
        let most = (Self::MOST_ROWS / rows.max(1)).max(1);
        let timesteps: Vec<f64> = self.expected[first..].iter().copied().take(most).collect();
        let values = embed(&timesteps)?;
        let embedded = Arc::new(Embedded { timesteps, values, projected: Mutex::default() });
        match known {
            Some(known) => self.embedded[known].1 = embedded.clone(),
            None => self.embedded.push((kind, embedded.clone())),
        }
        Ok(Time::OfRun(embedded, 0))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::Device;

    use super::*;
    use crate::noise::TorchRng;
    use crate::unet_blocks::timestep_embedding;

    fn random(shape: &[usize], seed: u64) -> Tensor {
        TorchRng::new(seed).randn_tensor(shape, &Device::Cpu).unwrap()
    }

    /// Embeds as a network without sizes does, and counts how often.
    fn embed(count: &Cell<usize>, timesteps: &[f64], rows: usize) -> Result<Tensor> {
        count.set(count.get() + 1);
        let one = |&t: &f64| timestep_embedding(t, 16, &Device::Cpu)?.repeat((rows, 1)).map_err(Into::into);
        Ok(Tensor::cat(&timesteps.iter().map(one).collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn values(t: &Tensor) -> Vec<Vec<f32>> {
        t.to_vec2().unwrap()
    }

    #[test]
    fn times_of_a_run_come_to_what_they_come_to_alone_and_are_embedded_together() {
        let block = Linear::new(random(&[24, 16], 1), Some(random(&[24], 2))).unwrap();
        for rows in [1, 2, 3] {
            let beside = random(&[rows, 5], 3);
            let (count, alone) = (Cell::new(0), Cell::new(0));
            let expected: Vec<f64> = (0..100).map(|n| f64::from(999 - 7 * n)).collect();
            let mut times = Times::expect(&expected);
            for &t in &expected {
                let time = times.at(t, Some(&beside), |ts| embed(&count, ts, rows)).unwrap();
                let single = Time::Alone(embed(&alone, &[t], rows).unwrap());
                for name in ["a", "b"] {
                    let (got, want) =
                        (time.projected(name, &block).unwrap(), single.projected(name, &block).unwrap());
                    assert_eq!(values(&got), values(&want), "{t} with {rows} rows");
                }
            }
            assert_eq!(count.get(), expected.len().div_ceil(Times::MOST_ROWS / rows), "with {rows} rows");
        }
    }

    #[test]
    fn blocks_make_theirs_once_and_each_its_own() {
        let [one, two] = [4, 5].map(|seed| Linear::new(random(&[8, 16], seed), None).unwrap());
        let count = Cell::new(0);
        let mut times = Times::expect(&[900.0, 500.0]);
        let first = times.at(900.0, None, |ts| embed(&count, ts, 1)).unwrap();
        let a = first.projected("a", &one).unwrap();
        assert_ne!(values(&a), values(&first.projected("b", &two).unwrap()));
        // Made with the first step: another projection under its name is not asked.
        let second = times.at(500.0, None, |ts| embed(&count, ts, 1)).unwrap();
        let alone = Time::Alone(embed(&count, &[500.0], 1).unwrap());
        assert_eq!(
            values(&second.projected("a", &two).unwrap()),
            values(&alone.projected("a", &one).unwrap())
        );
    }

    #[test]
    fn a_time_that_was_not_expected_stands_alone_and_kinds_of_calls_are_bounded() {
        let count = Cell::new(0);
        let mut times = Times::expect(&[900.0, 500.0]);
        let other = times.at(700.0, None, |ts| embed(&count, ts, 1)).unwrap();
        assert!(matches!(other, Time::Alone(_)));
        for n in 0..10 {
            let beside = random(&[2, 5], n);
            for t in [900.0, 500.0] {
                let time = times.at(t, Some(&beside), |ts| embed(&count, ts, 2)).unwrap();
                assert_eq!(matches!(time, Time::OfRun(..)), (n as usize) < Times::MOST_KINDS);
            }
        }
        let alone = 2 * (10 - Times::MOST_KINDS);
        assert_eq!((count.get(), times.embedded.len()), (1 + Times::MOST_KINDS + alone, Times::MOST_KINDS));
    }
}
