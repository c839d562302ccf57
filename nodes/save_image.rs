use std::{path::Path, sync::Arc};

use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    picture::encode,
    ports::Image,
    results::{Tokens, check_name, chunks, name_of, save_as, save_numbered},
};

/// Writes pictures as PNG files below the output folder.
///
/// Either `path`, which is written anew by each run, or `filename_prefix` and a running number, as ComfyUI names files
/// (`out/product_00001_.png`). A file appears whole or not at all. The workflow travels in it: chunk `flow` holds the
/// YAML with its inputs resolved, chunk `prompt` the same graph for ComfyUI, chunk `flow-run` the version, device
/// and precision it was made with.
#[derive(Inputs)]
#[node(category = "image")]
pub struct SaveImage {
    /// Pictures to write.
    #[input(alias("image"))]
    images: Arc<Image>,
    /// Folder and start of the name, followed by a running number; `%name%` is the workflow's name, `%width%`,
    /// `%height%` and `%batch_num%` are the picture's, `%date:yyyy-MM-dd%` and `%year%` to `%second%` tell the time. Unused
    /// when `path` is given.
    #[input(default = "out/%name%", comfy = "ComfyUI")]
    filename_prefix: String,
    /// The file to write, ending in `.png` or nothing. From the second picture of a batch on, a number is added.
    path: Option<String>,
}

impl Node for SaveImage {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        let chunks = chunks(&cx.provenance);
        for frame in 0..self.images.frames {
            cx.check()?;
            let bytes = encode::png(&self.images, frame, &chunks)?;
            match &self.path {
                Some(path) => save_as(cx, &name_of(path, frame), &bytes)?,
                None => {
                    let size = Some((self.images.width, self.images.height));
                    save_numbered(&self.filename_prefix, "png", &bytes, &Tokens { size, frame, cx })?
                }
            };
        }
        Ok(())
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if let Some(path) = known.text("path") {
            check_name("path", path)?;
            let ending = Path::new(path).extension().map(|ending| ending.to_string_lossy().to_lowercase());
            // `out/cat-ip0.6` has an "ending" of digits; only those of picture formats are meant.
            if let Some(ending) = ending
                && ["jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif"].contains(&ending.as_str())
            {
                let message = format!("`{path}` asks for a {ending} file; PNG is what is written");
                return Err(NodeError::on("path", message).hint("end the path in `.png`"));
            }
        } else if let Some(prefix) = known.text("filename_prefix") {
            check_name("filename_prefix", prefix)?;
        }
        Ok(Vec::new())
    }
}
