//! `flow inspect`: what a model file is, from its header.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};
use flow_diffusion::{Header, attn_layers::attn_layers, kind, unet_config::UNetConfig};

use crate::{Ending, output};

/// Says what a model file is: family, parts, number types; reads its header only
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Model file
    file: PathBuf,
    /// Lists the attention layers in diffusers' order: name, LDM name, self or cross, widths
    #[arg(long)]
    attn: bool,
}

impl Inspect {
    /// Prints what the file is.
    ///
    /// # Errors
    /// When it is no file of weights, or `--attn` is asked of one without a UNet.
    pub fn run(&self) -> Result<Ending> {
        let header = Header::read(&self.file)?;
        let text = if self.attn { layers(&header)? } else { self.about(&header) };
        output::print(&text)?;
        Ok(Ending::Done)
    }

    fn about(&self, header: &Header) -> String {
        let mut text = format!("{}\n", self.file.display());
        let what = kind::detect(header).map_or_else(|| "nothing known".to_owned(), |kind| kind.description);
        let _ = writeln!(text, "  is          {what}");
        let _ = writeln!(text, "  tensors     {}", header.tensors.len());
        let _ = writeln!(text, "  parameters  {}", thousands(header.parameters("")));
        let mut dtypes: BTreeMap<String, u64> = BTreeMap::new();
        for info in header.tensors.values() {
            *dtypes.entry(format!("{:?}", info.dtype)).or_default() += info.elements();
        }
        for (dtype, count) in dtypes {
            let _ = writeln!(text, "  {dtype:<10}  {}", thousands(count));
        }
        for (key, value) in &header.metadata {
            let _ = writeln!(text, "  {key}: {}", shortened(value));
        }
        text
    }
}

fn layers(header: &Header) -> Result<String> {
    let (cfg, _) = UNetConfig::detect(header).context("attention layers are listed of files with a UNet")?;
    let layers = attn_layers(&cfg);
    let width = layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0);
    let ldm = layers.iter().map(|layer| layer.ldm.len()).max().unwrap_or(0);
    let mut text = format!("{:>3}  {:width$}  {:ldm$}  kind   hidden  context\n", "#", "diffusers", "LDM");
    for (number, layer) in layers.iter().enumerate() {
        let kind = if layer.cross { "cross" } else { "self" };
        let _ = writeln!(
            text,
            "{number:>3}  {:width$}  {:ldm$}  {kind:5}  {:6}  {:7}",
            layer.name, layer.ldm, layer.hidden, layer.context
        );
    }
    Ok(text)
}

/// `859520964` as `859 520 964`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn shortened(value: &str) -> String {
    const SHOWN: usize = 100;
    let line = value.replace(char::is_control, " ");
    if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN).collect::<String>() + " …" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([7, 1234, 859_520_964].map(thousands), ["7", "1 234", "859 520 964"]);
    }

    #[test]
    fn long_metadata_is_cut_between_characters() {
        assert_eq!(shortened(&"ä".repeat(200)).chars().count(), 102);
        assert_eq!(shortened("a\nb"), "a b");
    }
}
