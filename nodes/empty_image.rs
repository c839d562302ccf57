use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{picture::check_size, ports::Image};

/// Pictures of one colour.
#[derive(Inputs)]
#[node(category = "image")]
pub struct EmptyImage {
    /// Width in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    width: usize,
    /// Height in pixels.
    #[input(default = 512, range = 1usize..=16384usize)]
    height: usize,
    /// How many pictures.
    #[input(default = 1, range = 1usize..=4096usize)]
    batch_size: usize,
    /// The colour as one number: 0xRRGGBB, 16777215 is white.
    #[input(default = 0, range = 0u32..=0xFF_FFFFu32)]
    color: u32,
}

impl Node for EmptyImage {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let Self { width, height, batch_size, color } = self;
        check_size(batch_size, height, width).map_err(|error| error.at("width"))?;
        let pixel = [16, 8, 0].map(|shift| ((color >> shift) & 0xFF) as f32 / 255.0);
        Ok(Image::new(batch_size, height, width, pixel.repeat(batch_size * height * width)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let number = |input| known.number(input).map(|number| number as usize);
        if let (Some(frames), Some(height), Some(width)) =
            (number("batch_size"), number("height"), number("width"))
        {
            check_size(frames, height, width).map_err(|error| error.at("width"))?;
            return Ok(vec![Facts::none().sized(width, height)]);
        }
        Ok(Vec::new())
    }
}
