use std::sync::Arc;

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    extent::warn_of_rest,
    latents::{check_channels, from_block, to_block},
    model_file::passed_on,
    ports::Latent,
};

/// Lays one latent on another, with sides that fade.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct LatentComposite {
    /// The latent that lies below, and gives the size.
    samples_to: Arc<Latent>,
    /// The latent that is laid on it; what sticks out is left away.
    samples_from: Arc<Latent>,
    /// Pixels of the picture to the left of it, rounded down to multiples of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    x: usize,
    /// Pixels of the picture above it, rounded down to multiples of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    y: usize,
    /// Pixels of the picture over which it fades, at the sides where the other shows; rounded down to multiples of 8.
    #[input(default = 0, range = 0usize..=16384usize)]
    feather: usize,
}

impl Node for LatentComposite {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Latent, NodeError> {
        check_channels("samples_from", &self.samples_from, &self.samples_to)?;
        let (below, above) = (to_block(&self.samples_to.samples)?, to_block(&self.samples_from.samples)?);
        let to = below.shape;
        if above.shape.frames != 1 && above.shape.frames != to.frames {
            let message = format!("{} latents on {}; give one, or as many", above.shape.frames, to.frames);
            return Err(NodeError::on("samples_from", message));
        }
        let (top, left, feather) = (self.y / 8, self.x / 8, self.feather / 8);
        let rows = above.shape.height.min(to.height.saturating_sub(top));
        let columns = above.shape.width.min(to.width.saturating_sub(left));
        let down = ramp(rows, top > 0, top + rows < to.height, feather);
        let across = ramp(columns, left > 0, left + columns < to.width, feather);
        let mut values = below.values.into_owned();
        for frame in 0..to.frames {
            for (y, down) in down.iter().enumerate() {
                for (x, across) in across.iter().enumerate() {
                    let from = (frame % above.shape.frames * above.shape.height + y) * above.shape.width + x;
                    let at = (frame * to.height + top + y) * to.width + left + x;
                    let share = down * across;
                    let above = &above.values[from * to.channels..][..to.channels];
                    let out = &mut values[at * to.channels..][..to.channels];
                    for (out, above) in out.iter_mut().zip(above) {
                        *out = above * share + *out * (1.0 - share);
                    }
                }
            }
        }
        Ok(self.samples_to.with_samples(from_block(values, to)?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        warn_of_rest(known, &["x", "y", "feather"]);
        Ok(vec![passed_on(known, "samples_to")])
    }
}

/// The share of each place of a side, which fades at the ends where something lies below.
fn ramp(length: usize, start: bool, end: bool, feather: usize) -> Vec<f32> {
    let mut ramp = vec![1.0; length];
    for t in 0..feather.min(length) {
        let share = (1.0 / feather as f64 * (t + 1) as f64) as f32;
        if start {
            ramp[t] *= share;
        }
        if end {
            ramp[length - 1 - t] *= share;
        }
    }
    ramp
}
