use crate::header::Header;
use crate::{Error, Result};

/// The structure of an upscale model, told by names and shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpscalerConfig {
    /// ESRGAN's.
    Rrdb(RrdbConfig),
    /// Real-ESRGAN's compact one.
    Compact(CompactConfig),
}

/// ESRGAN's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RrdbConfig {
    /// How its tensors are called.
    pub(super) names: Names,
    /// Width inside.
    pub filters: usize,
    /// Channels that each convolution of a dense block adds.
    pub growth: usize,
    /// Residual-in-residual dense blocks.
    pub blocks: usize,
    /// How often the picture is doubled.
    pub doublings: usize,
    /// By what it is first folded: each pixel then holds a square of so many a side.
    pub unshuffle: usize,
}

/// The compact network: convolutions at the picture's own size, then a shuffle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactConfig {
    /// Before the names of all tensors.
    pub(super) prefix: String,
    /// Width inside.
    pub filters: usize,
    /// Convolutions between the first and the last.
    pub convs: usize,
    /// How many times as wide and high the result is.
    pub scale: usize,
}

/// The three ways ESRGAN's tensors are called, and what stands before the names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    prefix: String,
    spelling: Spelling,
    blocks: usize,
    doublings: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// `model.0`, `model.1.sub.0.RDB1.conv1.0`.
    Old,
    /// `conv_first`, `body.0.rdb1.conv1`.
    New,
    /// `conv_first`, `RRDB_trunk.0.RDB1.conv1` (BSRGAN, RealSR).
    Trunk,
}

/// What programs wrap their weights in.
const PREFIXES: [&str; 4] = ["", "params_ema.", "params.", "module."];

impl UpscalerConfig {
    /// Tells the structure.
    ///
    /// # Errors
    /// `Error::File` if it is none of those supported, and why.
    pub fn detect(header: &Header) -> Result<Self> {
        let found = PREFIXES.iter().find_map(|prefix| {
            let rrdb = || RrdbConfig::detect(header, prefix).map(|config| config.map(Self::Rrdb));
            rrdb().or_else(|| CompactConfig::detect(header, prefix).map(|config| Ok(Self::Compact(config))))
        });
        found.unwrap_or_else(|| {
            Err(Error::file(
                &header.path,
                "this upscale model is of no structure that is supported (ESRGAN, Real-ESRGAN, compact)",
            ))
        })
    }

    /// How many times as wide and high the result is.
    pub fn scale(&self) -> usize {
        match self {
            Self::Rrdb(config) => (1 << config.doublings) / config.unshuffle,
            Self::Compact(config) => config.scale,
        }
    }
}

impl RrdbConfig {
    fn detect(header: &Header, prefix: &str) -> Option<Result<Self>> {
        let has = |name: String| header.tensors.contains_key(&format!("{prefix}{name}.weight"));
        let spelling = [Spelling::Old, Spelling::New, Spelling::Trunk]
            .into_iter()
            .find(|spelling| has(spelling.dense(0, 1, 1)) && has(spelling.first().to_owned()))?;
        let count = |name: &dyn Fn(usize) -> String| (0..).take_while(|i| has(name(*i))).count();
        let blocks = count(&|i| spelling.dense(i, 1, 1));
        let doublings = count(&|i| spelling.double(i));
        let names = Names { prefix: prefix.to_owned(), spelling, blocks, doublings };
        Some(Self::read(header, names))
    }

    fn read(header: &Header, names: Names) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::file(&header.path, format!("this ESRGAN model {why}, which is not supported")))
        };
        let shape = |name: String| header.shape(&format!("{name}.weight")).filter(|shape| shape.len() == 4);
        if header.tensors.keys().any(|name| name.contains(".conv1x1.")) {
            return refuse("has the extra paths of ESRGAN+");
        }
        let (Some(first), Some(dense), Some(last)) =
            (shape(names.first()), shape(names.dense(0, 1, 1)), shape(names.last()))
        else {
            return refuse(
                "lacks its first or last convolution, or enlarges by another factor than 1, 2, 4 or 8",
            );
        };
        let unshuffle = match (first[1], last[0]) {
            (3, 3) => 1,
            (12, 3) => 2,
            (48, 3) => 4,
            (inputs, outputs) => {
                return refuse(&format!("takes {inputs} channels and gives {outputs}, no RGB picture"));
            }
        };
        let (doublings, blocks) = (names.doublings, names.blocks);
        if doublings > 3 || 1 << doublings < unshuffle {
            return refuse("enlarges by another factor than 1, 2, 4 or 8");
        }
        Ok(Self { filters: first[0], growth: dense[0], blocks, doublings, unshuffle, names })
    }
}

impl Spelling {
    fn first(self) -> &'static str {
        if self == Self::Old { "model.0" } else { "conv_first" }
    }

    /// Block, dense block in it (1 to 3), convolution in that (1 to 5).
    fn dense(self, block: usize, dense: usize, conv: usize) -> String {
        match self {
            Self::Old => format!("model.1.sub.{block}.RDB{dense}.conv{conv}.0"),
            Self::New => format!("body.{block}.rdb{dense}.conv{conv}"),
            Self::Trunk => format!("RRDB_trunk.{block}.RDB{dense}.conv{conv}"),
        }
    }

    /// The convolution after a doubling, from 0.
    fn double(self, number: usize) -> String {
        match self {
            Self::Old => format!("model.{}", 3 * (number + 1)),
            Self::New => format!("conv_up{}", number + 1),
            Self::Trunk => format!("upconv{}", number + 1),
        }
    }
}

impl Names {
    pub fn first(&self) -> String {
        format!("{}{}", self.prefix, self.spelling.first())
    }

    pub fn dense(&self, block: usize, dense: usize, conv: usize) -> String {
        format!("{}{}", self.prefix, self.spelling.dense(block, dense, conv))
    }

    /// After the blocks.
    pub fn body(&self) -> String {
        let name = match self.spelling {
            Spelling::Old => &format!("model.1.sub.{}", self.blocks),
            Spelling::New => "conv_body",
            Spelling::Trunk => "trunk_conv",
        };
        format!("{}{name}", self.prefix)
    }

    pub fn double(&self, number: usize) -> String {
        format!("{}{}", self.prefix, self.spelling.double(number))
    }

    /// Before the last.
    pub fn large(&self) -> String {
        let name = match self.spelling {
            Spelling::Old => &format!("model.{}", 3 * self.doublings + 2),
            Spelling::New => "conv_hr",
            Spelling::Trunk => "HRconv",
        };
        format!("{}{name}", self.prefix)
    }

    pub fn last(&self) -> String {
        let name = match self.spelling {
            Spelling::Old => &format!("model.{}", 3 * self.doublings + 4),
            Spelling::New | Spelling::Trunk => "conv_last",
        };
        format!("{}{name}", self.prefix)
    }
}

impl CompactConfig {
    fn detect(header: &Header, prefix: &str) -> Option<Self> {
        let shape = |i: usize| header.shape(&format!("{prefix}body.{i}.weight"));
        // Convolution, slopes, convolution, slopes, …, convolution.
        let count = (0..).take_while(|i| shape(*i).is_some()).count();
        let [filters, 3, 3, 3] = *shape(0)? else { return None };
        let slopes = (1..count).step_by(2).all(|i| shape(i).is_some_and(|shape| *shape == [filters]));
        let outputs = *shape(count.checked_sub(1)?)?.first()?;
        let scale = (1..=8).find(|scale| 3 * scale * scale == outputs)?;
        let convs = count.checked_sub(3)? / 2;
        (slopes && count % 2 == 1).then(|| Self { prefix: prefix.to_owned(), filters, convs, scale })
    }
}
