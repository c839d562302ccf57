use std::sync::Arc;

use flow_diffusion::{Runtime, ip_adapter::IpOptions};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    image_prompt::{COMBINE, SCALING, Uncond, Viewer, combine, infer, options},
    ports::{ClipVision, Image, IpAdapter, IpAdapterParams, Model},
};

/// Lets several pictures be prompts, each where, when and as strongly as IPAdapterRegionalConditioning says.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct IPAdapterFromParams {
    /// The model to add to.
    model: Arc<Model>,
    /// The adapter.
    ipadapter: Arc<IpAdapter>,
    /// The pictures.
    ipadapter_params: Arc<IpAdapterParams>,
    /// How several pictures of one part become one prompt.
    #[input(default = "concat", choices = &COMBINE)]
    combine_embeds: String,
    /// Whether the strength scales the values alone or the keys as well.
    #[input(default = "V only", choices = &SCALING)]
    embeds_scaling: String,
    /// A picture of what to keep away from.
    image_negative: Option<Arc<Image>>,
    /// The image encoder the adapter was trained with; not needed with an adapter of IPAdapterUnifiedLoader.
    clip_vision: Option<Arc<ClipVision>>,
    /// What stands for "no picture" with Plus and full-face adapters; base adapters always take zeros.
    #[input(default = "gray", comfy = "black")]
    uncond: Uncond,
    /// Whether the middle block is adapted too, as adapters are trained; IPAdapter_plus, and so graphs of ComfyUI, leave it out.
    #[input(default = true, comfy = false)]
    middle_block: bool,
}

impl Node for IPAdapterFromParams {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let viewer = Viewer::new(&runtime, &self.ipadapter, self.clip_vision.as_deref(), self.uncond)
            .with_middle_block(self.middle_block);
        let combine = combine(&self.combine_embeds)?;
        let mut model = Model::clone(&self.model);
        // Weight 0 adds nothing, so nothing is encoded for it.
        for followed in self.ipadapter_params.0.iter().filter(|followed| followed.weight != 0.0) {
            let mask = followed.attn_mask.as_deref();
            let (weight, kind, window) = (followed.weight, &followed.weight_type, followed.window);
            let common = options(weight, kind, window, &self.embeds_scaling, mask)?;
            let embeds = viewer.embeds(&followed.image, self.image_negative.as_deref())?;
            model = viewer.applied(&model, &embeds, &IpOptions { combine, ..common })?;
        }
        Ok(model)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        infer(known)
    }
}
