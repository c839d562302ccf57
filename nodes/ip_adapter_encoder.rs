use std::sync::Arc;

use candle_core::Tensor;
use flow_diffusion::{Runtime, preprocess};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    clip_vision_encode::preprocessed,
    image_prompt::{Uncond, Viewer},
    model_file::check_adapter,
    picture::geometry::center_square,
    ports::{ClipVision, ClipVisionOutput, Embeds, Image, IpAdapter, Mask},
};

/// Encodes pictures for IPAdapterEmbeds, so that several can be weighted and joined before they are applied.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device", outputs("pos_embed", "neg_embed"))]
pub struct IPAdapterEncoder {
    /// The adapter the pictures are encoded for.
    ipadapter: Arc<IpAdapter>,
    /// Reference pictures; their middle is looked at.
    image: Arc<Image>,
    /// What the features are multiplied by.
    #[input(default = 1.0, range = -1.0..=3.0)]
    weight: f64,
    /// What of the pictures is seen: white; black is the mean colour. Its middle is taken.
    mask: Option<Arc<Mask>>,
    /// The image encoder the adapter was trained with; not needed with an adapter of IPAdapterUnifiedLoader.
    clip_vision: Option<Arc<ClipVision>>,
    /// What stands for "no picture" with Plus and full-face adapters; base adapters always take zeros.
    #[input(default = "gray", comfy = "black")]
    uncond: Uncond,
}

impl Node for IPAdapterEncoder {
    type Output = (Embeds, Embeds);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond);
        let cond = match &self.mask {
            None => viewer.features(&self.image)?,
            Some(mask) => {
                let vision = viewer.vision()?;
                let pixels = preprocessed(&runtime, vision, &self.image, preprocess::Crop::Center)?;
                let mask = self.mask_tensor(&runtime, mask, vision.config().image)?;
                let weights = vision.load(&runtime)?;
                let seen = runtime
                    .retried("encoding the picture", || weights.forward(&pixels.broadcast_mul(&mask)?))?;
                viewer.of(&ClipVisionOutput { seen, source: vision.clone() })
            }
        };
        let uncond = match viewer.no_picture()? {
            Some(uncond) => uncond,
            None => cond.zeros_like()?,
        };
        let cond = if self.weight == 1.0 { cond } else { (cond * self.weight)? };
        Ok((Embeds::new(&cond)?, Embeds::new(&uncond)?))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_adapter(known, "clip_vision")?;
        Ok(Vec::new())
    }
}

impl IPAdapterEncoder {
    /// The mask at the encoder's size, `[n, 1, size, size]`.
    fn mask_tensor(&self, runtime: &Runtime, mask: &Mask, size: usize) -> Result<Tensor, NodeError> {
        if mask.frames != 1 && mask.frames != self.image.frames {
            let message =
                format!("{} masks for {} pictures; give one, or as many", mask.frames, self.image.frames);
            return Err(NodeError::on("mask", message));
        }
        let mask = if (mask.height, mask.width) == (size, size) {
            mask.clone()
        } else {
            let square = center_square(mask);
            let side = square.width;
            let values: Vec<f32> = (0..square.frames)
                .flat_map(|frame| preprocess::resize(square.frame(frame), (side, side), (size, size)))
                .collect();
            Mask::new(square.frames, size, size, values)
        };
        Ok(Tensor::from_slice(&mask.values, (mask.frames, 1, size, size), &runtime.device)?)
    }
}
