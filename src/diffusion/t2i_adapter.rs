//! T2I-Adapter (Mou et al. 2023, arXiv:2302.08453): a small network that looks at a hint once and adds what it sees to the
//! UNet's feature maps on the way down, the same at every step.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::header::Header;
use crate::model::Model;
use crate::ops::{self, Conv2d, Padding};
use crate::runtime::Runtime;
use crate::state_dict::StateDict;
use crate::store::Recipe;
use crate::unet::Residuals;
use crate::weights::state_dict;
use crate::{Error, Result, kind};

/// A T2I-Adapter's structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct T2iAdapterConfig {
    /// Width of each level.
    pub channels: Vec<usize>,
    /// Channels of the hint it sees: 3, or 1 for grey ones.
    pub inputs: usize,
    /// Side of the square of hint pixels that becomes one place.
    pub unshuffle: usize,
    /// Residual blocks of each level.
    pub blocks: usize,
    /// The small kind, with narrow blocks between two 1×1 convolutions.
    pub light: bool,
    /// Whether levels are halved by a convolution, not by means.
    strided: bool,
    /// Side of the last kernel of a block.
    kernel: usize,
    names: Names,
}

/// How an adapter's tensors are called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    prefix: &'static str,
    /// diffusers counts blocks within levels.
    nested: bool,
}

impl T2iAdapterConfig {
    /// Tells the structure by names and shapes; `None` if it is none that is known.
    pub fn detect(header: &Header) -> Option<Self> {
        ["", "adapter."].into_iter().find_map(|prefix| Self::below(header, prefix))
    }

    fn below(header: &Header, prefix: &'static str) -> Option<Self> {
        let shape = |name: String| header.shape(&format!("{prefix}{name}.weight")).filter(|s| s.len() == 4);
        let nested = shape("body.0.resnets.0.block1".into()).is_some();
        let names = Names { prefix, nested };
        let light = shape("body.0.out_conv".into()).is_some();
        let (first, channels, blocks): (_, Vec<usize>, _) = if light && !nested {
            let level = |i: usize| shape(format!("body.{i}.out_conv")).map(|s| s[0]);
            let blocks = (0..).take_while(|j| shape(format!("body.0.body.{j}.block1")).is_some()).count();
            (shape("body.0.in_conv".into())?[1], (0..).map_while(level).collect(), blocks)
        } else if !light {
            // Two blocks a level, as all that were published have.
            let level = |i: usize| shape(names.block(i, 0, "block2")).map(|s| s[0]);
            (shape("conv_in".into())?[1], (0..).map_while(level).collect(), 2)
        } else {
            return None;
        };
        let unshuffle = if matches!(first, 256 | 768) { 16 } else { 8 };
        let inputs = first / (unshuffle * unshuffle);
        let kernel = if light { 3 } else { shape(names.block(0, 0, "block2"))?[2] };
        let strided =
            !light && (1..channels.len()).any(|i| shape(names.block(i, 0, "down_opt.op")).is_some());
        let known = matches!(inputs, 1 | 3) && channels.len() == 4 && blocks > 0;
        known.then_some(Self { channels, inputs, unshuffle, blocks, light, strided, kernel, names })
    }

    /// SDXL's: it halves but once, and its last level is for the middle.
    pub fn is_xl(&self) -> bool {
        self.unshuffle == 16
    }

    /// Whether the level halves what the one before made.
    fn halves(&self, level: usize) -> bool {
        if self.is_xl() { level == 2 } else { level > 0 }
    }
}

impl Names {
    /// A part of block `j` of level `i` of the large kind.
    fn block(&self, i: usize, j: usize, part: &str) -> String {
        match (self.nested, part) {
            (false, _) => format!("body.{}.{part}", 2 * i + j),
            (true, "in_conv") => format!("body.{i}.in_conv"),
            (true, _) => format!("body.{i}.resnets.{j}.{part}"),
        }
    }
}

/// A T2I-Adapter's weights in a file.
#[derive(Debug)]
pub struct T2iAdapterSource {
    /// The file's header.
    pub header: Arc<Header>,
    /// Its structure.
    pub config: T2iAdapterConfig,
}

impl T2iAdapterSource {
    /// The adapter in a file whose header has been read.
    ///
    /// # Errors
    /// If it is of no structure that is known.
    pub fn from_header(header: Arc<Header>) -> Result<Self> {
        kind::expect(&header, "a T2I-Adapter", |part| part == kind::Part::T2iAdapter)?;
        let config = T2iAdapterConfig::detect(&header);
        let config = config
            .ok_or_else(|| Error::file(&header.path, "this T2I-Adapter is of no structure that is known"))?;
        Ok(Self { header, config })
    }

    /// Reads the header of an adapter's file.
    ///
    /// # Errors
    /// As [`T2iAdapterSource::from_header`], and if the file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_header(Arc::new(Header::read(path)?))
    }

    /// Refuses a model of another family.
    ///
    /// # Errors
    /// `Error::Mismatch` with both sides' widths.
    pub fn check(&self, model: &Model) -> Result<()> {
        let levels: Vec<usize> = model.unet.config.levels.iter().map(|level| level.channels).collect();
        let ours = if self.config.is_xl() { &self.config.channels[..3] } else { &self.config.channels };
        if levels == ours {
            return Ok(());
        }
        Err(Error::Mismatch(format!(
            "the T2I-Adapter `{}` is made for levels {ours:?} wide, the model `{}` has {levels:?}",
            self.header.path.display(),
            model.unet.header.path.display()
        )))
    }

    /// The weights, loaded unless they are.
    ///
    /// # Errors
    /// If a weight is missing or misshapen, or memory runs out.
    pub fn load(&self, rt: &Runtime) -> Result<Arc<T2iAdapter>> {
        let recipe = Recipe::new(&self.header, "t2i_adapter", rt.dtype, &rt.device);
        rt.store.lease(&recipe, rt.weight_bytes(&self.header, "", rt.dtype), || {
            let dict = state_dict(&self.header, str::to_owned, rt.dtype, &rt.device)?;
            T2iAdapter::load(&dict, &self.config)
        })
    }
}

/// A loaded adapter.
#[derive(Debug)]
pub struct T2iAdapter {
    config: T2iAdapterConfig,
    dtype: DType,
    /// Of the large kind.
    conv_in: Option<Conv2d>,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    halving: Halving,
    conv_in: Option<Conv2d>,
    blocks: Vec<[Conv2d; 2]>,
    conv_out: Option<Conv2d>,
}

#[derive(Debug)]
enum Halving {
    None,
    Mean,
    Strided(Conv2d),
}

impl T2iAdapter {
    fn load(dict: &StateDict, config: &T2iAdapterConfig) -> Result<Self> {
        let at = |name: String| dict.pp(format!("{}{name}", config.names.prefix));
        let conv = |name: String, inputs, outputs, kernel: usize| {
            Conv2d::load(&at(name), inputs, outputs, kernel, 1, Padding::Same(kernel / 2))
        };
        let first = config.inputs * config.unshuffle * config.unshuffle;
        let before = |i: usize| if i == 0 { first } else { config.channels[i - 1] };
        let light = |i: usize| {
            let (inner, outputs) = (config.channels[i] / 4, config.channels[i]);
            let block = |j: usize| {
                let part = |k: usize| conv(format!("body.{i}.body.{j}.block{k}"), inner, inner, 3);
                Ok([part(1)?, part(2)?])
            };
            Ok(Level {
                halving: if i == 0 { Halving::None } else { Halving::Mean },
                conv_in: Some(conv(format!("body.{i}.in_conv"), before(i), inner, 1)?),
                blocks: (0..config.blocks).map(block).collect::<candle_core::Result<_>>()?,
                conv_out: Some(conv(format!("body.{i}.out_conv"), inner, outputs, 1)?),
            })
        };
        let large = |i: usize| {
            let (names, outputs, kernel) = (&config.names, config.channels[i], config.kernel);
            let inputs = if i == 0 { outputs } else { before(i) };
            let block = |j: usize| {
                let first = conv(names.block(i, j, "block1"), outputs, outputs, 3)?;
                Ok([first, conv(names.block(i, j, "block2"), outputs, outputs, kernel)?])
            };
            let halving = match (config.halves(i), config.strided) {
                (false, _) => Halving::None,
                (true, false) => Halving::Mean,
                (true, true) => {
                    let dict = at(names.block(i, 0, "down_opt.op"));
                    Halving::Strided(Conv2d::load(&dict, inputs, inputs, 3, 2, Padding::Same(1))?)
                }
            };
            let conv_in =
                (inputs != outputs).then(|| conv(names.block(i, 0, "in_conv"), inputs, outputs, kernel));
            Ok(Level {
                halving,
                conv_in: conv_in.transpose()?,
                blocks: (0..config.blocks).map(block).collect::<candle_core::Result<_>>()?,
                conv_out: None,
            })
        };
        let levels = (0..config.channels.len()).map(|i| if config.light { light(i) } else { large(i) });
        let conv_in = (!config.light).then(|| conv("conv_in".into(), first, config.channels[0], 3));
        Ok(Self {
            dtype: ops::activations(dict),
            conv_in: conv_in.transpose()?,
            levels: levels.collect::<candle_core::Result<_>>()?,
            config: config.clone(),
        })
    }

    /// Sides of the hint for a latent of these sides: eight times as long, rounded up to whole squares.
    pub fn hint_size(&self, latent: (usize, usize)) -> (usize, usize) {
        let side = |latent: usize| (8 * latent).next_multiple_of(self.config.unshuffle);
        (side(latent.0), side(latent.1))
    }

    /// What a hint `[B, 3, H, W]` with values 0..1 and sides of [`T2iAdapter::hint_size`] adds, at full strength: to the
    /// last feature map of each level; SDXL's is a level behind, and its last is for the middle.
    ///
    /// # Errors
    /// If the sides are no whole squares, or the device fails.
    pub fn forward(&self, hint: &Tensor) -> Result<Residuals> {
        let hint = if self.config.inputs == 1 { hint.mean_keepdim(1)? } else { hint.clone() };
        let x = ops::to_nhwc(&hint.to_dtype(self.dtype)?)?;
        let mut x = ops::pixel_unshuffle(&x, self.config.unshuffle)?;
        if let Some(conv) = &self.conv_in {
            x = conv.forward(&x)?;
        }
        let mut features = vec![];
        for level in &self.levels {
            x = level.forward(&x)?;
            features.push(x.clone());
        }
        let places: &[usize] = if self.config.is_xl() { &[3, 5, 8] } else { &[2, 5, 8, 11] };
        let mid = if self.config.is_xl() { features.pop() } else { None };
        let mut input = vec![None; places.last().map_or(0, |last| last + 1)];
        for (place, feature) in places.iter().zip(features) {
            input[*place] = Some(feature);
        }
        Ok(Residuals { input, down: vec![], mid })
    }
}

impl Level {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = match &self.halving {
            Halving::None => x.clone(),
            Halving::Mean => halved(x)?,
            Halving::Strided(conv) => conv.forward(x)?,
        };
        if let Some(conv) = &self.conv_in {
            x = conv.forward(&x)?;
        }
        for [first, second] in &self.blocks {
            x = (&x + second.forward(&first.forward(&x)?.relu()?)?)?;
        }
        match &self.conv_out {
            Some(conv) => conv.forward(&x),
            None => Ok(x),
        }
    }
}

/// Means of squares of two pixels a side; an odd side gets zeros at both ends, which count (torch's `AvgPool2d`).
fn halved(x: &Tensor) -> candle_core::Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let x = x.pad_with_zeros(1, h % 2, h % 2)?.pad_with_zeros(2, w % 2, w % 2)?;
    let (h, w) = ((h + 2 * (h % 2)) / 2, (w + 2 * (w % 2)) / 2);
    let x = x.narrow(1, 0, 2 * h)?.narrow(2, 0, 2 * w)?.contiguous()?;
    x.reshape(&[b, h, 2, w, 2, c])?.mean(4)?.mean(2)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::attention::{Patches, Step};
    use crate::fixture::{Tensors, assert_close, project};
    use crate::model::UNetSource;

    #[test]
    fn features_match_the_reference_large_light_and_sdxl() {
        let tensors = Tensors::open("tests/fixtures/t2i_adapter/adapters.safetensors");
        let (folder, rt) = (tempfile::tempdir().unwrap(), Runtime::cpu());
        for name in ["full", "strided", "light", "xl", "nested", "grey"] {
            let file = folder.path().join(format!("{name}.safetensors"));
            candle_core::safetensors::save(&tensors.below(&format!("{name}/weights/")), &file).unwrap();
            let source = T2iAdapterSource::open(&file).unwrap();
            let adapter = source.load(&rt).unwrap();
            assert_eq!(
                (adapter.config.is_xl(), adapter.config.light),
                (name == "xl", name == "light"),
                "{name}"
            );
            for hint in ["even", "odd"] {
                let hint_size = if hint == "even" { (8, 10) } else { (9, 7) };
                let (height, width) = adapter.hint_size(hint_size);
                let pixels = tensors.get(&format!("hint/{hint}")).narrow(2, 0, height).unwrap();
                let seen =
                    adapter.forward(&pixels.narrow(3, 0, width).unwrap().contiguous().unwrap()).unwrap();
                let found: Vec<_> =
                    seen.input.iter().enumerate().filter_map(|(i, f)| Some((i, f.as_ref()?))).collect();
                let places: &[usize] = if name == "xl" { &[3, 5, 8] } else { &[2, 5, 8, 11] };
                assert_eq!(found.iter().map(|(i, _)| *i).collect::<Vec<_>>(), places, "{name}");
                for (i, feature) in found {
                    let expected = tensors.get(&format!("{name}/{hint}/{i}"));
                    assert_close(
                        &ops::to_nchw(feature).unwrap(),
                        &expected,
                        1e-5,
                        &format!("{name}/{hint}/{i}"),
                    );
                }
                if let Some(mid) = &seen.mid {
                    let expected = tensors.get(&format!("{name}/{hint}/mid"));
                    assert_close(&ops::to_nchw(mid).unwrap(), &expected, 1e-5, "mid");
                }
            }
        }
    }

    #[test]
    fn features_go_on_through_the_unet_from_where_they_are_added() {
        let (cases, expected) = (
            Tensors::open("tests/fixtures/unet/cases.safetensors"),
            Tensors::open("tests/fixtures/t2i_adapter/unet.safetensors"),
        );
        let header = Header::read(&project("tests/fixtures/unet/unet.safetensors")).unwrap();
        let mut source = UNetSource::from_header(Arc::new(header)).unwrap();
        source.config.groups = 4;
        source.config.levels.iter_mut().for_each(|l| l.heads = 2);
        let unet = source.load(&Runtime::cpu()).unwrap();
        let mut input = vec![None; 12];
        for place in [2, 5, 8, 11] {
            input[place] = Some(ops::to_nhwc(&expected.get(&format!("feature/{place}"))).unwrap());
        }
        let seen = Residuals { input, down: vec![], mid: None };
        let step = Step::single(3.0, 1);
        let run = |seen: Option<&Residuals>| {
            let patches = Patches::default();
            unet.forward(&cases.get("x"), 601.0, &cases.get("ctx"), None, seen, &patches, &step).unwrap()
        };
        assert_close(&run(Some(&seen)), &expected.get("eps"), 2e-5, "eps");
        assert_close(&run(None), &cases.get("eps"), 2e-5, "without");

        // Beside a ControlNet both are added, in either order.
        let skips = seen.input.iter().map(|_| Tensor::ones((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap());
        let net = Residuals { input: vec![], down: skips.collect(), mid: None };
        let (one, other) = (seen.add(&net).unwrap(), net.add(&seen).unwrap());
        assert_eq!((one.down.len(), one.input.len(), other.input.len()), (12, 12, 12));
        assert_close(&run(Some(&one)), &run(Some(&other)), 1e-6, "order");
    }
}
