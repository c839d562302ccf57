use std::str::FromStr;

use crate::attn_layers::AttnLayer;
use crate::{Error, Result};

/// Factors of single layers; the layers that are not named are off. The last entry that names a layer counts.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerWeights(Vec<(Layer, f64)>);

#[derive(Debug, Clone, PartialEq)]
enum Layer {
    /// A transformer by its number in running order (down, middle, up), as weight types count.
    Number(usize),
    /// All transformers whose diffusers' name starts with these words: `up_blocks.0`, `up_blocks.0.attentions.1`.
    Name(String),
}

impl FromStr for LayerWeights {
    type Err = Error;

    /// `3:2.5, 6:1` (`IPAdapterMS`'s form), with diffusers' names where they are easier to say:
    /// `down_blocks.2.attentions.1:2.5`. Entries are separated by commas or line breaks.
    fn from_str(text: &str) -> Result<Self> {
        let entries = text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        let weights = entries.map(entry).collect::<Result<Vec<_>>>()?;
        match weights.is_empty() {
            true => Err(Error::Mismatch("there is no layer; write `3:2.5, 6:1`".into())),
            false => Ok(Self(weights)),
        }
    }
}

fn entry(text: &str) -> Result<(Layer, f64)> {
    let wrong =
        |what: &str| Error::Mismatch(format!("`{text}` {what}; write `6:1` or `up_blocks.0.attentions.1:1`"));
    let (layer, factor) = text.rsplit_once(':').ok_or_else(|| wrong("has no factor"))?;
    let factor = factor.trim().parse().ok().filter(|factor: &f64| factor.is_finite());
    let factor = factor.ok_or_else(|| wrong("has a factor that is no number"))?;
    let layer = layer.trim();
    let layer = match layer.parse() {
        Ok(number) => Layer::Number(number),
        Err(_) if ["down_blocks", "mid_block", "up_blocks"].iter().any(|part| layer.starts_with(part)) => {
            Layer::Name(layer.to_owned())
        }
        Err(_) => return Err(wrong("names no layer")),
    };
    Ok((layer, factor))
}

impl LayerWeights {
    /// The factor of a layer, unless it is off.
    pub(super) fn of(&self, layer: &AttnLayer) -> Option<f64> {
        self.0.iter().rev().find(|(named, _)| named.is(layer)).map(|(_, factor)| *factor)
    }

    /// Refuses what names no layer of a model.
    pub(super) fn check(&self, layers: &[AttnLayer]) -> Result<()> {
        let Some((missing, _)) = self.0.iter().find(|(named, _)| !layers.iter().any(|layer| named.is(layer)))
        else {
            return Ok(());
        };
        let last = layers.iter().map(|layer| layer.transformer).max().unwrap_or_default();
        let missing = match missing {
            Layer::Number(number) => number.to_string(),
            Layer::Name(name) => name.clone(),
        };
        Err(Error::Mismatch(format!("this model has no layer `{missing}`; it has 0 to {last}")))
    }
}

impl Layer {
    fn is(&self, layer: &AttnLayer) -> bool {
        match self {
            Self::Number(number) => *number == layer.transformer,
            Self::Name(name) => {
                layer.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attn_layers::attn_layers;
    use crate::unet_config::UNetConfig;

    #[test]
    fn layers_go_by_number_and_by_name() {
        let layers = attn_layers(&UNetConfig::sdxl());
        let weights: LayerWeights = "3:2.5,\n up_blocks.0.attentions.1: -1".parse().unwrap();
        weights.check(&layers).unwrap();
        for layer in &layers {
            let expected = match layer.transformer {
                3 => Some(2.5),
                6 => Some(-1.0),
                _ => None,
            };
            assert_eq!(weights.of(layer), expected, "{}", layer.name);
        }
        let last: LayerWeights = "up_blocks.0:1, 6:0.5".parse().unwrap();
        let six = layers.iter().find(|layer| layer.transformer == 6).unwrap();
        assert_eq!(last.of(six), Some(0.5));
    }

    #[test]
    fn what_names_no_layer_is_refused() {
        let error = |text: &str| text.parse::<LayerWeights>().unwrap_err().to_string();
        assert!(error("").contains("there is no layer"));
        assert!(error("3").contains("`3` has no factor"));
        assert!(error("3:x").contains("no number"));
        assert!(error("middle:1").contains("`middle:1` names no layer"));
        let layers = attn_layers(&UNetConfig::sd15());
        for (text, missing) in [
            ("16:1", "16"),
            ("up_blocks.0:1", "up_blocks.0"),
            ("down_blocks.2.attentions.10:1", "down_blocks.2.attentions.10"),
        ] {
            let error = text.parse::<LayerWeights>().unwrap().check(&layers).unwrap_err().to_string();
            assert_eq!(error, format!("this model has no layer `{missing}`; it has 0 to 15"));
        }
    }
}
