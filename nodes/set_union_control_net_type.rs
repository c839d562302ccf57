use std::sync::Arc;

use flow_diffusion::{control::ControlSource, controlnet::CONTROL_TYPES};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::passed_on,
    names::{names, value_of},
    ports::ControlNet,
};

/// Tells a union ControlNet which kind of picture it will look at; without it, it is told of none.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct SetUnionControlNetType {
    /// The union ControlNet; another is left as it is.
    control_net: Arc<ControlNet>,
    /// The kind of picture, `auto` to say nothing of it.
    #[input(default = "auto", choices = &TYPES, alias("type"))]
    control_type: String,
}

const TYPES: [&str; CONTROL_TYPES.len()] = names(CONTROL_TYPES);

impl Node for SetUnionControlNetType {
    type Output = ControlNet;

    fn run(self, cx: &Context) -> Result<ControlNet, NodeError> {
        let net = &self.control_net.0;
        let union = match &**net {
            ControlSource::ControlNet(source) if source.control_types().is_some() => source,
            _ => {
                let name = net.header().file_name();
                cx.note(format!("`{name}` is no union ControlNet and is left as it is"));
                return Ok(ControlNet(net.clone()));
            }
        };
        let kind = value_of(CONTROL_TYPES, &self.control_type, "control_type")?;
        let told = union.with_control_type(kind).map_err(|e| NodeError::from(e).at("control_type"))?;
        Ok(ControlNet(Arc::new(told.into())))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(vec![passed_on(known, "control_net")])
    }
}
