use std::sync::Arc;

use flow_diffusion::control::ControlSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{control_net_facts, opened},
    ports::ControlNet,
};

/// Opens a ControlNet or a T2I-Adapter: what lets a picture of edges, depth or pose hold the composition.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("ControlNetLoader"), loads = "controlnet")]
pub struct LoadControlNet {
    /// The file, looked up in the `controlnet` folders; its ending may be left out.
    #[input(folder = "controlnet", alias("file"))]
    control_net_name: File,
}

impl Node for LoadControlNet {
    type Output = ControlNet;

    fn run(self, _cx: &Context) -> Result<ControlNet, NodeError> {
        Ok(ControlNet(Arc::new(whole(&self.control_net_name)?)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("control_net_name") else { return Ok(Vec::new()) };
        Ok(vec![control_net_facts(&whole(file)?)])
    }
}

/// Opens a file that needs no model beside it.
fn whole(file: &File) -> Result<ControlSource, NodeError> {
    let source = opened("control_net_name", file, ControlSource::open)?;
    if matches!(&source, ControlSource::ControlNet(net) if net.is_difference()) {
        let error = NodeError::on("control_net_name", "this ControlNet is a difference to a model");
        return Err(error.hint("open it with a DiffControlNetLoader, which adds it to the model"));
    }
    Ok(source)
}
