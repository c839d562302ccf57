use std::sync::Arc;

use flow_graph::{Context, Inputs, Node, NodeError};

use crate::ports::IpAdapterParams;

/// Joins pictures of several IPAdapterRegionalConditioning nodes for one IPAdapterFromParams.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct IPAdapterCombineParams {
    /// The first pictures.
    params_1: Arc<IpAdapterParams>,
    /// The second.
    params_2: Arc<IpAdapterParams>,
    /// More.
    params_3: Option<Arc<IpAdapterParams>>,
    /// More.
    params_4: Option<Arc<IpAdapterParams>>,
    /// More.
    params_5: Option<Arc<IpAdapterParams>>,
}

impl Node for IPAdapterCombineParams {
    type Output = IpAdapterParams;

    fn run(self, _cx: &Context) -> Result<IpAdapterParams, NodeError> {
        let more = [self.params_3, self.params_4, self.params_5].into_iter().flatten();
        let all = [self.params_1, self.params_2].into_iter().chain(more);
        Ok(IpAdapterParams(all.flat_map(|params| params.0.clone()).collect()))
    }
}
