use std::sync::Arc;

use flow_diffusion::{Runtime, clip::Encoded, conditioning};
use flow_graph::{Context, Facts, Inputs, Known, Mention, Node, NodeError};

use crate::{
    embeddings::{check_embeddings, mentions, with_embeddings},
    model_file::passed_on,
    ports::{Clip, Conditioning},
};

/// Encodes a prompt for a sampler.
///
/// `(words:1.2)` weighs words, `(words)` is `(words:1.1)`, `\(` is a plain bracket. `embedding:name` is an embedding of the
/// `embeddings` folders. Texts of more than 75 tokens are encoded in chunks.
#[derive(Inputs)]
#[node(category = "conditioning", lane = "device")]
pub struct CLIPTextEncode {
    /// What the picture shows, or for a negative prompt what it should not.
    text: String,
    /// The text encoder of the model that will sample.
    clip: Arc<Clip>,
}

impl Node for CLIPTextEncode {
    type Output = Conditioning;

    fn run(self, cx: &Context) -> Result<Conditioning, NodeError> {
        let runtime = cx.resource::<Runtime>()?;
        let clip = with_embeddings(&self.clip, &[("text", &self.text)], cx)?;
        let Encoded { context, pooled } = clip.encode(&runtime, &self.text)?;
        Ok(Conditioning(conditioning::Conditioning::text(context, pooled)))
    }

    fn mentions(text: &str) -> Vec<Mention> {
        mentions(text)
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_embeddings(known, "text")?;
        Ok(vec![passed_on(known, "clip")])
    }
}
