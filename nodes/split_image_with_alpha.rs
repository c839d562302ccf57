use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::{Image, Mask};

/// A picture and its mask, of pictures that have no transparency: the picture as it is, and a black mask.
///
/// An IMAGE is red, green and blue here. What was transparent in a file is the mask of LoadImage.
#[derive(Inputs)]
#[node(category = "image")]
pub struct SplitImageWithAlpha {
    /// The picture.
    image: Arc<Image>,
}

impl Node for SplitImageWithAlpha {
    type Output = (Image, Mask);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let Image { frames, height, width, .. } = *self.image;
        let mask = Mask::new(frames, height, width, vec![0.0; frames * height * width]);
        Ok((Image::clone(&self.image), mask))
    }
}
