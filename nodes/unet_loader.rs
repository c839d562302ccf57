use flow_diffusion::model;
use flow_graph::{Choice, Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{model_facts, opened},
    ports::Model,
};

/// The number types that ComfyUI offers to hold weights in.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum WeightDtype {
    /// That of the run.
    Default,
    /// Eight bits, four for the exponent.
    #[choice("fp8_e4m3fn")]
    Fp8E4m3fn,
    /// The same, multiplied in eight bits.
    #[choice("fp8_e4m3fn_fast")]
    Fp8E4m3fnFast,
    /// Eight bits, five for the exponent.
    #[choice("fp8_e5m2")]
    Fp8E5m2,
}

/// Opens a UNet, from its own file or out of a checkpoint.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("LoadUNet"), loads = "diffusion_models")]
pub struct UNETLoader {
    /// The file, looked up in the `diffusion_models` and `unet` folders; its ending may be left out.
    #[input(folder = "diffusion_models", alias("file"))]
    unet_name: File,
    /// What ComfyUI would hold the weights in. Here they are held in the run's number type, which is never coarser.
    #[input(default = "default")]
    weight_dtype: WeightDtype,
}

impl Node for UNETLoader {
    type Output = Model;

    fn run(self, cx: &Context) -> Result<Model, NodeError> {
        if self.weight_dtype != WeightDtype::Default {
            cx.note("weights are held in the run's number type instead of eight bits");
        }
        opened("unet_name", &self.unet_name, model::Model::open).map(Model)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("unet_name") else { return Ok(Vec::new()) };
        Ok(vec![model_facts(&opened("unet_name", file, model::Model::open)?)])
    }
}
