//! What nodes that encode text have in common: embeddings named in prompts.

use flow_diffusion::{
    clip::ClipSource,
    embedding::{EmbeddingSource, Embeddings},
    prompt,
};
use flow_graph::{Context, File, Known, Mention, NodeError};

use crate::model_file::clip_of;

const FOLDER: &str = "embeddings";

/// The files that `embedding:name` means in a prompt.
pub(crate) fn mentions(text: &str) -> Vec<Mention> {
    let mut names = prompt::embeddings(text);
    names.sort();
    names.dedup();
    names.into_iter().map(|name| Mention { folder: FOLDER, name }).collect()
}

/// The encoder with the embeddings that these prompts, of the inputs named, mean.
///
/// # Errors
/// On the input whose prompt names one that is not there or no embedding.
pub(crate) fn with_embeddings(
    clip: &ClipSource,
    prompts: &[(&'static str, &str)],
    cx: &Context,
) -> Result<ClipSource, NodeError> {
    let mut embeddings = Embeddings::new();
    for (input, text) in prompts {
        for Mention { folder, name } in mentions(text) {
            let missing = |_| NodeError::on(input, format!("no file `{name}` among the {folder}"));
            let file = cx.files.find(folder, &name).map_err(missing)?;
            embeddings.insert(name.clone(), opened(clip, &file, input)?);
        }
    }
    Ok(if embeddings.is_empty() { clip.clone() } else { clip.with_embeddings(embeddings) })
}

/// Refuses, before anything runs, embeddings that are none or made for another encoder.
///
/// # Errors
/// On `input`, with both widths.
pub(crate) fn check_embeddings(known: &Known, input: &'static str) -> Result<(), NodeError> {
    if known.mentioned().is_empty() {
        return Ok(());
    }
    let Some(clip) = clip_of(known) else { return Ok(()) };
    known.mentioned().iter().try_for_each(|file| opened(&clip, file, input).map(drop))
}

fn opened(clip: &ClipSource, file: &File, input: &'static str) -> Result<EmbeddingSource, NodeError> {
    let open = || {
        let source = EmbeddingSource::open(&file.path)?;
        clip.towers().iter().try_for_each(|tower| tower.check_embedding(&source))?;
        Ok(source)
    };
    open().map_err(|error: flow_diffusion::Error| NodeError::from(error).at(input))
}
