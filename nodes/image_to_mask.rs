use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::ports::{Image, Mask};

/// One of the values of a pixel.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The red values.
    Red,
    /// The green values.
    Green,
    /// The blue values.
    Blue,
    /// How solid a pixel is.
    Alpha,
}

/// Takes one channel of a picture as a mask.
#[derive(Inputs)]
#[node(category = "mask")]
pub struct ImageToMask {
    /// The picture.
    image: Arc<Image>,
    /// Which channel. Pictures here have no `alpha`: take LoadImage's mask.
    #[input(default = "red")]
    channel: Channel,
}

impl Node for ImageToMask {
    type Output = Mask;

    fn run(self, _cx: &Context) -> Result<Mask, NodeError> {
        let channel = match self.channel {
            Channel::Red => 0,
            Channel::Green => 1,
            Channel::Blue => 2,
            Channel::Alpha => {
                let error = NodeError::on("channel", "an IMAGE is red, green and blue, it has no alpha");
                return Err(error.hint("link the mask of LoadImage: it is 1 - alpha"));
            }
        };
        let values: Vec<f32> = self.image.rgb.iter().skip(channel).step_by(3).copied().collect();
        Ok(Mask::new(self.image.frames, self.image.height, self.image.width, values))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
