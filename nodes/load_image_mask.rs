use flow_graph::{Choice, Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    picture::decode::{decode, probe},
    ports::Mask,
};

/// Which values of a picture become the mask.
#[derive(Choice, Clone, Copy)]
pub enum Channel {
    /// What is transparent (1 − alpha).
    Alpha,
    /// The red values.
    Red,
    /// The green values.
    Green,
    /// The blue values.
    Blue,
}

/// Reads a mask from one channel of a picture file: white is masked, black is kept.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct LoadImageMask {
    /// The file, looked up beside the workflow and in the input folders.
    #[input(alias("file"))]
    image: File,
    /// Which channel: `alpha` masks what is transparent; a picture without transparency then gives 64 × 64 zeros.
    #[input(default = "alpha")]
    channel: Channel,
}

impl Node for LoadImageMask {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        let decoded = decode(&self.image.path).map_err(|error| error.at("image"))?;
        let image = decoded.image;
        let color = |channel: usize| image.rgb.iter().skip(channel).step_by(3).copied().collect();
        let values: Vec<f32> = match (self.channel, decoded.alpha) {
            (Channel::Alpha, None) => return Ok(Mask::none()),
            (Channel::Alpha, Some(alpha)) => alpha.values.iter().map(|alpha| 1.0 - alpha).collect(),
            (Channel::Red, _) => color(0),
            (Channel::Green, _) => color(1),
            (Channel::Blue, _) => color(2),
        };
        Ok(Mask::new(1, image.height, image.width, values))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("image") else { return Ok(Vec::new()) };
        let ((width, height), clear) = probe(&file.path).map_err(|error| error.at("image"))?;
        let none = known.text("channel") == Some("alpha") && !clear;
        Ok(vec![if none { Facts::none().sized(64, 64) } else { Facts::none().sized(width, height) }])
    }
}
