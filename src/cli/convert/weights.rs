use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flow_diffusion::{Header, kind, save};

use crate::{Ending, output};

/// Endings of files that PyTorch writes.
const ENDINGS: [&str; 4] = ["ckpt", "pt", "pth", "bin"];

/// Whether a file is one of weights and no workflow.
pub(super) fn is_meant(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

/// Writes the weights of a file of PyTorch as safetensors: to `out`, else beside it.
pub(super) fn convert(file: &Path, out: Option<&PathBuf>, force: bool) -> Result<Ending> {
    let to = out.cloned().unwrap_or_else(|| file.with_extension("safetensors"));
    if to.is_dir() {
        bail!("`{}` is a folder; name a file", to.display());
    }
    if to.exists() && !force {
        bail!("`{}` is there already; --force replaces it", to.display());
    }
    if to.extension().is_none_or(|ending| ending != "safetensors") {
        bail!("`{}`: weights are written as safetensors; name a file that ends so", to.display());
    }
    let count = save::convert(file, &to, |_, _| ())?;
    let header = Header::read(&to).context("the file that was written")?;
    let what = kind::detect(&header).map_or_else(|| "nothing known".to_owned(), |kind| kind.description);
    output::note(format_args!("wrote {}: {count} tensors, {what}", to.display()));
    Ok(Ending::Done)
}
