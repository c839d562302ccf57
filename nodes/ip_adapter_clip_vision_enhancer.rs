use std::sync::Arc;

use flow_diffusion::{
    Runtime,
    ip_adapter::{ImageEmbeds, IpOptions, enhanced},
};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{COMBINE, SCALING, Uncond, Viewer, WEIGHT_TYPES, combine, infer, options},
    ports::{ClipVision, Image, IpAdapter, Mask, Model},
};

/// How many tiles are encoded at once.
const TILES_AT_ONCE: usize = 16;

/// Lets a picture be a prompt whose encoder looks at it in tiles as well, so that more of its detail is seen.
///
/// What is seen in the tiles is joined to one more picture; of several pictures, it is mixed with what is seen of each whole.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct IPAdapterClipVisionEnhancer {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// Reference pictures.
    image: Arc<Image>,
    /// Strength: 1 is full, 0 is off; 0.5 to 0.8 leaves room for the text.
    #[input(default = 1.0, range = -1.0..=5.0)]
    weight: f64,
    /// How the strength is spread over the layers: `style transfer` takes the look alone, `composition` the layout alone.
    #[input(default = "linear", choices = &WEIGHT_TYPES)]
    weight_type: String,
    /// How several pictures become one prompt; the tiles of a single one count as a second.
    #[input(default = "concat", choices = &COMBINE)]
    combine_embeds: String,
    /// Share of the sampling at which the adapter starts, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start_at: f64,
    /// Share of the sampling at which it ends, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    end_at: f64,
    /// Whether the strength scales the values alone or the keys as well.
    #[input(default = "V only", choices = &SCALING)]
    embeds_scaling: String,
    /// Tiles along each side; 1 is the whole picture alone.
    #[input(default = 2, range = 1usize..=16usize)]
    enhance_tiles: usize,
    /// How much of the whole picture, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    enhance_ratio: f64,
    /// A picture of what to keep away from.
    image_negative: Option<Arc<Image>>,
    /// Where the adapter acts: white everywhere, black nowhere.
    attn_mask: Option<Arc<Mask>>,
    /// The image encoder the adapter was trained with; not needed with an adapter of IPAdapterUnifiedLoader.
    clip_vision: Option<Arc<ClipVision>>,
    /// What stands for "no picture" with Plus and full-face adapters; base adapters always take zeros.
    #[input(default = "gray", comfy = "black")]
    uncond: Uncond,
    /// Whether the middle block is adapted too, as adapters are trained; IPAdapter_plus, and so graphs of ComfyUI, leave it out.
    #[input(default = true, comfy = false)]
    middle_block: bool,
}

impl Node for IPAdapterClipVisionEnhancer {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        if self.weight == 0.0 {
            return Ok(Model::clone(&self.model));
        }
        let runtime = cx.resource::<Runtime>()?;
        let window = (self.start_at, self.end_at);
        let common =
            options(self.weight, &self.weight_type, window, &self.embeds_scaling, self.attn_mask.as_deref())?;
        let options = IpOptions { combine: combine(&self.combine_embeds)?, ..common };
        let mut viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        let ImageEmbeds { mut cond, uncond, composition } =
            viewer.embeds(&self.image, self.image_negative.as_deref())?;
        if self.enhance_tiles > 1 {
            let tiles = self.tiles()?;
            cx.check()?;
            viewer.at_once = TILES_AT_ONCE;
            cond = enhanced(&cond, &viewer.features(&tiles)?, self.enhance_tiles, self.enhance_ratio)
                .map_err(|error| NodeError::from(error).at("ipadapter"))?;
        }
        viewer.applied(&self.model, &ImageEmbeds { cond, uncond, composition }, &options)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}

impl IPAdapterClipVisionEnhancer {
    /// The tiles of every picture, row by row.
    fn tiles(&self) -> Result<Image, NodeError> {
        let (image, side) = (&self.image, self.enhance_tiles);
        let (height, width) = (image.height / side, image.width / side);
        if height.min(width) == 0 {
            let message =
                format!("a picture of {}×{} has no {side} tiles along each side", image.width, image.height);
            return Err(NodeError::on("enhance_tiles", message));
        }
        let mut rgb = Vec::with_capacity(image.rgb.len());
        for frame in 0..image.frames {
            let frame = Image::new(1, image.height, image.width, image.frame(frame).to_vec());
            for tile in 0..side * side {
                let place = (tile / side * height, tile % side * width);
                rgb.extend_from_slice(&frame.part(place, height, width).rgb);
            }
        }
        Ok(Image::new(image.frames * side * side, height, width, rgb))
    }
}
