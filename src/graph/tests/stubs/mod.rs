//! Nodes without tensors, in the shapes of the real ones.

use std::sync::Arc;

use flow_graph::{Bytes, Choice, Context, Facts, File, Inputs, Known, Node, NodeError, Port, Registry};

macro_rules! ports {
    ($($name:ident = $ty:literal),*) => {$(
        /// A stub.
        pub struct $name;

        impl Port for $name {
            const TYPE: &'static str = $ty;
            const JOINED: bool = matches!($ty.as_bytes(), b"IMAGE" | b"MASK");

            fn bytes(&self) -> Bytes {
                Bytes::host(1)
            }

            fn join(_items: &[flow_graph::collect::Joined<Self>]) -> Result<Self, NodeError> {
                Ok(Self)
            }
        }
    )*};
}
ports!(
    Model = "MODEL",
    Clip = "CLIP",
    Vae = "VAE",
    Cond = "CONDITIONING",
    Latent = "LATENT",
    Image = "IMAGE",
    Mask = "MASK",
    Vision = "CLIP_VISION"
);

/// Loads a checkpoint.
#[derive(Inputs)]
#[node(category = "loaders", alias("CheckpointLoaderSimple"), loads = "checkpoints")]
pub struct LoadCheckpoint {
    /// Which.
    #[input(folder = "checkpoints", alias("file"))]
    ckpt_name: File,
}

impl Node for LoadCheckpoint {
    type Output = (Model, Clip, Vae);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = self.ckpt_name;
        Ok((Model, Clip, Vae))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let name = known.file("ckpt_name").map(|file| file.name.clone()).unwrap_or_default();
        Ok(vec![Facts::none().text("family", if name.contains("xl") { "SDXL" } else { "SD1.5" })])
    }
}

/// Loads a vision model.
#[derive(Inputs)]
#[node(category = "loaders", alias("CLIPVisionLoader"), loads = "clip_vision")]
pub struct LoadCLIPVision {
    /// Which.
    #[input(folder = "clip_vision", alias("file"))]
    clip_name: File,
}

impl Node for LoadCLIPVision {
    type Output = Vision;

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = self.clip_name;
        Ok(Vision)
    }
}

/// Loads a picture.
#[derive(Inputs)]
#[node(category = "image")]
pub struct LoadImage {
    /// Which.
    image: File,
}

impl Node for LoadImage {
    type Output = (Image, Mask);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = self.image;
        Ok((Image, Mask))
    }
}

/// Encodes a prompt.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct CLIPTextEncode {
    /// What to say.
    text: String,
    /// The encoder.
    clip: Arc<Clip>,
}

impl Node for CLIPTextEncode {
    type Output = Cond;

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = (self.text, self.clip);
        Ok(Cond)
    }
}

/// An empty latent.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct EmptyLatentImage {
    /// Pixels across.
    #[input(default = 512, range = 16..=16384)]
    width: u32,
    /// Pixels down.
    #[input(default = 512, range = 16..=16384)]
    height: u32,
}

impl Node for EmptyLatentImage {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = (self.width, self.height);
        Ok(Latent)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        if known.number("width").is_some_and(|width| width % 8.0 != 0.0) {
            known.warn("width", "it is no multiple of 8");
        }
        Ok(Vec::new())
    }
}

/// How samples are drawn.
#[derive(Choice)]
pub enum Sampler {
    /// Euler.
    Euler,
    /// Heun.
    Heun,
    /// DPM++ 2M.
    #[choice("dpmpp_2m")]
    Dpmpp2m,
}

/// Samples.
#[derive(Inputs)]
#[node(category = "sampling")]
pub struct KSampler {
    /// The model.
    model: Arc<Model>,
    /// The seed.
    #[input(default = 0)]
    seed: u64,
    /// How many.
    #[input(default = 20, range = 1..=10000)]
    steps: u32,
    /// Guidance.
    #[input(default = 8.0f32, comfy = 7.0f32, range = 0.0f32..=100.0)]
    cfg: f32,
    /// How.
    #[input(default = "euler")]
    sampler_name: Sampler,
    /// What to show.
    positive: Arc<Cond>,
    /// What not to show.
    negative: Arc<Cond>,
    /// Where to begin.
    #[input(alias("latent"))]
    latent_image: Arc<Latent>,
    /// How much is new.
    #[input(default = 1.0f32, range = 0.0f32..=1.0)]
    denoise: f32,
    /// Tells what it does.
    #[input(default = false)]
    verbose: bool,
}

impl Node for KSampler {
    type Output = Latent;

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = (self.model, self.seed, self.steps, self.cfg, self.sampler_name, self.positive);
        let _ = (self.negative, self.latent_image, self.denoise, self.verbose);
        Ok(Latent)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let family = known.facts("model").and_then(|facts| facts.get_text("family"));
        if family == Some("SDXL") && known.number("denoise").is_some_and(|denoise| denoise < 0.5) {
            return Err(NodeError::on("denoise", "SDXL wants at least 0.5").hint("raise it"));
        }
        Ok(Vec::new())
    }
}

/// Decodes a latent.
#[derive(Inputs)]
#[node(category = "latent")]
pub struct VAEDecode {
    /// The latent.
    samples: Arc<Latent>,
    /// The decoder.
    vae: Arc<Vae>,
}

impl Node for VAEDecode {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = (self.samples, self.vae);
        Ok(Image)
    }
}

/// Applies an adapter to both conditionings.
#[derive(Inputs)]
#[node(category = "conditioning", alias("ControlNetApplyAdvanced"), outputs("positive", "negative"))]
pub struct ControlNetApply {
    /// What to show.
    positive: Arc<Cond>,
    /// What not to show.
    negative: Arc<Cond>,
    /// The outline.
    image: Arc<Image>,
    /// Sees, if it is given.
    clip_vision: Option<Arc<Vision>>,
    /// How much.
    #[input(default = 1.0f32, range = 0.0f32..=10.0)]
    strength: f32,
}

impl Node for ControlNetApply {
    type Output = (Cond, Cond);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = (self.positive, self.negative, self.image, self.clip_vision, self.strength);
        Ok((Cond, Cond))
    }
}

/// Blurs a picture.
#[derive(Inputs)]
#[node(category = "image")]
pub struct ImageBlur {
    /// The picture.
    image: Arc<Image>,
    /// How far.
    #[input(default = 1, range = 1..=31, alias("radius"))]
    blur_radius: u32,
    /// Where, if not everywhere.
    mask: Option<Arc<Mask>>,
}

impl Node for ImageBlur {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = (self.image, self.blur_radius, self.mask);
        Ok(Image)
    }
}

/// Measures a picture.
#[derive(Inputs)]
#[node(category = "image", outputs("width", "height", "ratio"))]
pub struct GetImageSize {
    /// The picture.
    image: Arc<Image>,
}

impl Node for GetImageSize {
    type Output = (i64, i64, f64);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = self.image;
        Ok((1, 1, 1.0))
    }
}

/// Has an input with a reserved name.
#[derive(Inputs)]
#[node(category = "loaders")]
pub struct CLIPLoader {
    /// What for.
    #[input(default = "sd")]
    r#type: String,
}

impl Node for CLIPLoader {
    type Output = Clip;

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = self.r#type;
        Ok(Clip)
    }
}

/// Writes a picture.
#[derive(Inputs)]
#[node(category = "image")]
pub struct SaveImage {
    /// The picture.
    images: Arc<Image>,
    /// Its name.
    #[input(default = "flow", comfy = "ComfyUI")]
    filename_prefix: String,
    /// The whole name.
    path: Option<String>,
}

impl Node for SaveImage {
    type Output = ();

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let _ = (self.images, self.filename_prefix, self.path);
        Ok(())
    }
}

/// All of them.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .add::<LoadCheckpoint>()
        .add::<LoadCLIPVision>()
        .add::<LoadImage>()
        .add::<CLIPTextEncode>()
        .add::<EmptyLatentImage>()
        .add::<KSampler>()
        .add::<VAEDecode>()
        .add::<ControlNetApply>()
        .add::<ImageBlur>()
        .add::<GetImageSize>()
        .add::<CLIPLoader>()
        .add::<SaveImage>();
    registry
}
