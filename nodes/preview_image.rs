use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError, Port};

use crate::{picture::encode, ports::Image, results::save_content};

/// Shows pictures on the way to a result: they are written to `preview/` below the output folder.
///
/// The name comes from the pixels, so that equal pictures share a file and no preview overwrites another.
#[derive(Inputs)]
#[node(category = "image")]
pub struct PreviewImage {
    /// Pictures to show.
    #[input(alias("image"))]
    images: Arc<Image>,
}

impl Node for PreviewImage {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        let Image { height, width, .. } = *self.images;
        for frame in 0..self.images.frames {
            cx.check()?;
            let picture = Image::new(1, height, width, self.images.frame(frame).to_vec());
            let name = picture.content().map(|hash| hash.to_string()).unwrap_or_default();
            let bytes = encode::png(&picture, 0, &[])?;
            save_content(cx, &format!("preview/{}.png", &name[..name.len().min(12)]), &bytes)?;
        }
        Ok(())
    }
}
