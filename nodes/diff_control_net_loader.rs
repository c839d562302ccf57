use std::sync::Arc;

use flow_diffusion::control::ControlSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{control_net_facts, opened},
    ports::{ControlNet, Model},
};

/// Opens a ControlNet whose file holds differences to a model, and adds them to the weights of that model.
///
/// A file that holds a whole ControlNet is opened as LoadControlNet opens it, and the model has no say.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device")]
pub struct DiffControlNetLoader {
    /// The model that the differences are added to, LoRAs and mixtures included.
    model: Arc<Model>,
    /// The file, looked up in the `controlnet` folders; its ending may be left out.
    #[input(folder = "controlnet", alias("file"))]
    control_net_name: File,
}

impl Node for DiffControlNetLoader {
    type Output = ControlNet;

    fn run(self, _cx: &Context) -> Result<ControlNet, NodeError> {
        let source = match opened("control_net_name", &self.control_net_name, ControlSource::open)? {
            ControlSource::ControlNet(net) if net.is_difference() => {
                net.added_to(&self.model).map_err(|error| NodeError::from(error).at("model"))?.into()
            }
            whole => whole,
        };
        Ok(ControlNet(Arc::new(source)))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("control_net_name") else { return Ok(Vec::new()) };
        Ok(vec![control_net_facts(&opened("control_net_name", file, ControlSource::open)?)])
    }
}
