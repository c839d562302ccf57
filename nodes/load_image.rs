use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    picture::decode::{decode, probe},
    ports::{Image, Mask},
};

/// Reads a picture from a file.
///
/// PNG, JPEG and WebP; turned as the camera's orientation tag says; 16-bit values keep their precision. The mask is
/// what the picture leaves transparent (1 − alpha); a picture without transparency gives 64 × 64 zeros.
#[derive(Inputs)]
#[node(category = "image")]
pub struct LoadImage {
    /// The file, looked up beside the workflow and in the input folders.
    #[input(alias("file"))]
    image: File,
}

impl Node for LoadImage {
    type Output = (Image, Mask);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let decoded = decode(&self.image.path).map_err(|error| error.at("image"))?;
        let mask = match decoded.alpha {
            Some(alpha) => {
                let values: Vec<f32> = alpha.values.iter().map(|alpha| 1.0 - alpha).collect();
                Mask::new(alpha.frames, alpha.height, alpha.width, values)
            }
            None => Mask::none(),
        };
        Ok((decoded.image, mask))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("image") else { return Ok(Vec::new()) };
        let ((width, height), clear) = probe(&file.path).map_err(|error| error.at("image"))?;
        let facts = Facts::none().sized(width, height);
        let mask = if clear { facts.clone() } else { Facts::none().sized(64, 64) };
        Ok(vec![facts, mask])
    }
}
