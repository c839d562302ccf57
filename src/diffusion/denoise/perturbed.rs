//! A model whose middle does not look around, for perturbed-attention guidance.

use std::sync::Arc;

use candle_core::Tensor;

use crate::attention::{AttnProcessor, Call, Next, Patches, Step};
use crate::unet_config::UNetConfig;
use crate::{Result, attn_layers::attn_layers};

/// Self-attention in which every token sees itself alone (Ahn et al. 2024, equation 17).
#[derive(Debug)]
struct Identity;

impl AttnProcessor for Identity {
    fn attend(&self, call: &Call, _next: Next) -> Result<Tensor> {
        call.attn.values(call.context)
    }

    fn way(&self, _step: &Step) -> Option<u64> {
        Some(0)
    }
}

/// These patches and one around every self-attention of the middle block.
pub(super) fn patches(of: &Patches, config: &UNetConfig) -> Patches {
    let middle =
        attn_layers(config).into_iter().filter(|layer| !layer.cross && layer.name.starts_with("mid_block."));
    of.with_all(middle.map(|layer| (layer.name, Arc::new(Identity) as Arc<dyn AttnProcessor>)))
}
