use std::sync::Arc;

use flow_diffusion::{Runtime, ip_adapter::IpOptions, preprocess};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{COMBINE, SCALING, Uncond, Viewer, WEIGHT_TYPES, combine, infer, mask_tensor, options},
    model_file::passed_on,
    picture::{
        check_size,
        geometry::middle,
        pillow::{self, Filter},
        sharpen::contrast_adaptive,
    },
    ports::{ClipVision, Image, IpAdapter, Mask, Model},
};

/// Side of a tile in pixels; the encoder makes 224 of them.
const TILE: usize = 256;

/// Lets a picture be a prompt in up to four tiles, each for its own part of the result: what a picture that is no square
/// shows at its ends is seen, and more of its detail.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device", outputs("model", "tiles", "masks"))]
pub struct IPAdapterTiled {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// Reference pictures, of about the aspect of the result.
    image: Arc<Image>,
    /// Strength: 1 is full, 0 is off; 0.5 to 0.8 leaves room for the text.
    #[input(default = 1.0, range = -1.0..=3.0)]
    weight: f64,
    /// How the strength is spread over the layers: `style transfer` takes the look alone, `composition` the layout alone.
    #[input(default = "linear", choices = &WEIGHT_TYPES)]
    weight_type: String,
    /// How several pictures become one prompt.
    #[input(default = "concat", choices = &COMBINE)]
    combine_embeds: String,
    /// Share of the sampling at which the adapter starts, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    start_at: f64,
    /// Share of the sampling at which it ends, 0..1.
    #[input(default = 1.0, range = 0.0..=1.0)]
    end_at: f64,
    /// How much of the sharpness lost in shrinking is brought back, 0..1.
    #[input(default = 0.0, range = 0.0..=1.0)]
    sharpening: f32,
    /// Whether the strength scales the values alone or the keys as well.
    #[input(default = "V only", choices = &SCALING)]
    embeds_scaling: String,
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

impl Node for IPAdapterTiled {
    type Output = (Model, Image, Mask);

    fn run(self, cx: &Context) -> Result<Self::Output, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let common = options(
            self.weight,
            &self.weight_type,
            (self.start_at, self.end_at),
            &self.embeds_scaling,
            None,
        )?;
        let combine = combine(&self.combine_embeds)?;
        let (image, mask) = self.fitted()?;
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        let places = places(image.height, image.width);
        let mut model = Model::clone(&self.model);
        let (mut tiles, mut masks) = (Vec::new(), Vec::new());
        for place in &places {
            cx.check()?;
            let (tile, under) = (image.part(*place, TILE, TILE), only(&mask, *place));
            if self.weight != 0.0 {
                let options = IpOptions { combine, mask: Some(mask_tensor(&under)?), ..common.clone() };
                let embeds = viewer.embeds(&tile, self.image_negative.as_deref())?;
                model = viewer.applied(&model, &embeds, &options)?;
            }
            tiles.extend_from_slice(&tile.rgb);
            masks.extend_from_slice(&under.values);
        }
        let tiles = Image::new(places.len() * image.frames, TILE, TILE, tiles);
        Ok((model, tiles, Mask::new(places.len() * mask.frames, mask.height, mask.width, masks)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)?;
        Ok(vec![passed_on(known, "model"), Facts::none(), Facts::none()])
    }
}

impl IPAdapterTiled {
    /// The pictures with a shorter side of one tile (of two, where they are nearly square) and a longer of at most four,
    /// and the mask cut and resized like them.
    fn fitted(&self) -> Result<(Image, Mask), NodeError> {
        let image = &self.image;
        let (height, width) = (image.height, image.width);
        let aspect = height as f64 / width as f64;
        let mask = match &self.attn_mask {
            Some(mask) => stretched(mask, height, width),
            None => Mask::new(1, height, width, vec![1.0; height * width]),
        };
        let (image, mask, to) = if aspect > 0.75 && aspect < 1.33 {
            let side = height.min(width);
            let place = middle((height, width), side, side);
            (image.part(place, side, side), mask.part(place, side, side), (2 * TILE, 2 * TILE))
        } else {
            let longer = |a: usize, b: usize| (TILE as f64 * a as f64 / b as f64) as usize;
            let to =
                if height < width { (TILE, longer(width, height)) } else { (longer(height, width), TILE) };
            (Image::clone(image), mask, to)
        };
        check_size(image.frames, to.0, to.1).map_err(|error| error.at("image"))?;
        let rgb = pillow::resize(&image.rgb, image.shape(), to.0, to.1, Filter::Lanczos);
        let mut image = Image::new(image.frames, to.0, to.1, rgb);
        let mut mask = stretched(&mask, to.0, to.1);
        if !(0.25..=4.0).contains(&aspect) {
            let (rows, columns) = (to.0.min(4 * TILE), to.1.min(4 * TILE));
            let place = middle(to, rows, columns);
            (image, mask) = (image.part(place, rows, columns), mask.part(place, rows, columns));
        }
        let image = if self.sharpening > 0.0 { contrast_adaptive(&image, self.sharpening) } else { image };
        Ok((image, mask))
    }
}

/// Bicubic with antialiasing.
fn stretched(mask: &Mask, height: usize, width: usize) -> Mask {
    let resize = |frame| preprocess::resize(mask.frame(frame), (mask.height, mask.width), (height, width));
    Mask::new(mask.frames, height, width, (0..mask.frames).flat_map(resize).collect::<Vec<_>>())
}

/// Where the tiles start: as few as cover the picture, spread evenly, row by row.
fn places(height: usize, width: usize) -> Vec<(usize, usize)> {
    let starts = |length: usize| {
        let count = length.div_ceil(TILE);
        let overlap = (count * TILE - length) as f64 / (count.max(2) - 1) as f64;
        (0..count).map(move |i| (i as f64 * (TILE as f64 - overlap)) as usize)
    };
    starts(height).flat_map(|top| starts(width).map(move |left| (top, left))).collect()
}

/// The mask where a tile lies, black around it.
fn only(mask: &Mask, (top, left): (usize, usize)) -> Mask {
    let (rows, columns) = (top..top + TILE, left..left + TILE);
    let value = |(i, value): (usize, &f32)| {
        let (y, x) = (i / mask.width % mask.height, i % mask.width);
        if rows.contains(&y) && columns.contains(&x) { *value } else { 0.0 }
    };
    let values: Vec<f32> = mask.values.iter().enumerate().map(value).collect();
    Mask::new(mask.frames, mask.height, mask.width, values)
}
