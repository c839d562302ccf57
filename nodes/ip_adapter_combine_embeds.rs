use std::sync::Arc;

use candle_core::Tensor;
use flow_diffusion::ip_adapter::Combine;
use flow_graph::{Choice, Context, Inputs, Node, NodeError};

use crate::ports::Embeds;

/// How features become one.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// All stay.
    Concat,
    /// Their sum.
    Add,
    /// The first less the mean of the others.
    Subtract,
    /// Their mean.
    Average,
    /// The mean after each feature is divided by its norm over the pictures.
    #[choice("norm average")]
    NormAverage,
    /// The greatest of each feature.
    Max,
    /// The least of each feature.
    Min,
}

/// Joins up to five encoded pictures, or batches of them.
#[derive(Inputs)]
#[node(category = "conditioning")]
pub struct IPAdapterCombineEmbeds {
    /// The first.
    embed1: Arc<Embeds>,
    /// How they become one; `concat` keeps all side by side.
    #[input(default = "concat")]
    method: Method,
    /// The second.
    embed2: Option<Arc<Embeds>>,
    /// The third.
    embed3: Option<Arc<Embeds>>,
    /// The fourth.
    embed4: Option<Arc<Embeds>>,
    /// The fifth.
    embed5: Option<Arc<Embeds>>,
}

impl Node for IPAdapterCombineEmbeds {
    type Output = Embeds;

    fn run(self, _cx: &Context) -> Result<Embeds, NodeError> {
        let first = self.embed1.features.clone();
        let mut all = vec![first.clone()];
        for (input, embeds) in [
            ("embed2", self.embed2),
            ("embed3", self.embed3),
            ("embed4", self.embed4),
            ("embed5", self.embed5),
        ] {
            let Some(embeds) = embeds else { continue };
            let (dims, wanted) = (embeds.features.dims(), first.dims());
            if dims[1..] != wanted[1..] {
                let message =
                    format!("its features are {:?} each, those of `embed1` {:?}", &dims[1..], &wanted[1..]);
                return Err(NodeError::on(input, message).hint("encode all for one adapter"));
            }
            all.push(embeds.features.clone());
        }
        let all = Tensor::cat(&all, 0)?;
        let combined = match self.method {
            Method::Concat => all,
            Method::Add => Combine::Add.apply(&all)?,
            Method::Subtract => Combine::Subtract.apply(&all)?,
            Method::Average => Combine::Average.apply(&all)?,
            Method::NormAverage => Combine::NormAverage.apply(&all)?,
            Method::Max => all.max_keepdim(0)?,
            Method::Min => all.min_keepdim(0)?,
        };
        Ok(Embeds::new(&combined)?)
    }
}
