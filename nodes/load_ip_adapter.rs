use std::sync::Arc;

use flow_diffusion::ip_adapter::IpAdapterSource;
use flow_graph::{Context, Facts, File, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{ALONE, adapter_facts, opened},
    ports::IpAdapter,
};

/// Opens an IP-Adapter: what lets a picture serve as a prompt.
#[derive(Inputs)]
#[node(category = "loaders", lane = "device", alias("IPAdapterModelLoader"), loads = "ipadapter")]
pub struct LoadIPAdapter {
    /// The file, looked up in the `ipadapter` folders; its ending may be left out.
    #[input(folder = "ipadapter", alias("file"))]
    ipadapter_file: File,
}

impl Node for LoadIPAdapter {
    type Output = IpAdapter;

    fn run(self, _cx: &Context) -> Result<IpAdapter, NodeError> {
        let source = opened("ipadapter_file", &self.ipadapter_file, IpAdapterSource::open)?;
        Ok(IpAdapter { source: Arc::new(source), clip_vision: None })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let Some(file) = known.file("ipadapter_file") else { return Ok(Vec::new()) };
        let facts = adapter_facts(&opened("ipadapter_file", file, IpAdapterSource::open)?);
        Ok(vec![facts.int(ALONE, 1)])
    }
}
