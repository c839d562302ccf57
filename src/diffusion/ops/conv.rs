use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::{
    GroupNorm, Weight,
    cpu::{self, Packed},
    kernels::{self, Taps},
};
use crate::state_dict::StateDict;

/// Zeros around a picture before a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// This many on every side.
    Same(usize),
    /// One row below and one column to the right (the VAE encoder's downsampling).
    BottomRight,
}

impl Padding {
    /// Zeros before and after, the same in both directions.
    pub(super) fn sides(self) -> (usize, usize) {
        match self {
            Self::Same(n) => (n, n),
            Self::BottomRight => (0, 1),
        }
    }
}

/// A convolution over NHWC.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Kernel,
    bias: Option<Tensor>,
    /// Channels that go in and come out.
    inputs: usize,
    outputs: usize,
    /// Side of the square kernel.
    size: usize,
    stride: usize,
    padding: Padding,
}

/// The weights as the form that uses them wants them; held once.
#[derive(Debug, Clone)]
enum Kernel {
    /// `[out, in, k, k]`, as files have it.
    Plain(Tensor),
    /// For the tiles of `cpu`, with the bias.
    Packed(Packed, Option<Vec<f32>>),
    /// `[k · k · in, out]`: what the values under the kernel are multiplied by, on a CPU without our tiles.
    Gathered(Tensor),
    /// `[out, k · k · in]`, for a device's kernels.
    Filters(Tensor),
}

/// What is done in the same pass as a convolution.
#[derive(Debug, Clone, Copy, Default)]
pub struct Around<'a> {
    /// Normalised, and through `SiLU`, before.
    pub norm: Option<&'a GroupNorm>,
    /// Enlarged to this height and width before, by taking the nearest pixels ([`upsample_nearest`](super::upsample_nearest)).
    pub enlarged: Option<(usize, usize)>,
    /// `[1 or B, out]`, added to every pixel of the result.
    pub shift: Option<&'a Tensor>,
    /// Added to the result, and of its shape.
    pub beside: Option<&'a Tensor>,
}

/// Bytes of values under the kernel gathered at once.
const GATHERED: usize = 32 << 20;
/// The same on a device.
const GATHERED_ON_DEVICE: usize = 256 << 20;

impl Conv2d {
    /// From a weight `[out, in, k, k]` as files have it, and a bias `[out]`.
    ///
    /// # Errors
    /// If the weight has other than four dimensions or no square kernel, or the bias is not one for each output.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: Padding) -> Result<Self> {
        let shape = weight.dims4()?;
        Self::of(Weight::of(weight)?, shape, bias, stride, padding)
    }

    fn of(
        weight: Weight,
        (outputs, inputs, size, width): (usize, usize, usize, usize),
        bias: Option<Tensor>,
        stride: usize,
        padding: Padding,
    ) -> Result<Self> {
        if size != width || stride == 0 {
            candle_core::bail!(
                "a convolution with a kernel {size}x{width} and stride {stride} is not supported"
            );
        }
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dims() != [outputs]) {
            candle_core::bail!("a convolution to {outputs} channels with a bias {:?}", bias.dims());
        }
        let row = size * size * inputs;
        let weight = match weight {
            Weight::Tiled(packed) => {
                let bias = bias.as_ref().map(|bias| bias.to_dtype(DType::F32)?.to_vec1()).transpose()?;
                Kernel::Packed(packed, bias)
            }
            Weight::Plain(weight) if super::fast(&[&weight]) => {
                let gathered = weight.permute((2, 3, 1, 0))?.reshape((row, outputs))?;
                Kernel::Gathered(gathered.contiguous()?)
            }
            Weight::Plain(weight) if super::on_device(&[&weight]) => {
                Kernel::Filters(weight.permute((0, 2, 3, 1))?.reshape((outputs, row))?.contiguous()?)
            }
            Weight::Plain(weight) => Kernel::Plain(weight),
        };
        Ok(Self { weight, bias, inputs, outputs, size, stride, padding })
    }

    /// Loads a 3×3 convolution, padding 1.
    ///
    /// # Errors
    /// If `weight` or `bias` is missing or has another shape.
    pub fn load3x3(dict: &StateDict, inputs: usize, outputs: usize, stride: usize) -> Result<Self> {
        Self::load(dict, inputs, outputs, 3, stride, Padding::Same(1))
    }

    /// Loads a convolution with a square kernel and a bias.
    ///
    /// # Errors
    /// If `weight` or `bias` is missing or has another shape.
    pub fn load(
        dict: &StateDict,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<Self> {
        let shape = (outputs, inputs, kernel, kernel);
        let bias = super::load_vector(dict, outputs, "bias")?;
        Self::of(Weight::load(dict, shape, "weight")?, shape, Some(bias), stride, padding)
    }

    /// `[B, H, W, in]` → `[B, H', W', out]`, with all that goes around it.
    ///
    /// # Errors
    /// As [`Conv2d::forward`], and if what is added has another shape than the result.
    pub fn forward_with(&self, x: &Tensor, around: Around) -> Result<Tensor> {
        let Around { norm, enlarged, shift, beside } = around;
        if let Kernel::Packed(weight, bias) = &self.weight
            && super::fast(&[x, shift.unwrap_or(x), beside.unwrap_or(x)])
        {
            let values = norm.map(|norm| norm.fast_values()).transpose()?.flatten();
            if norm.is_some() == values.is_some() {
                return self.tiled(x, weight, bias.as_deref(), around, values);
            }
        }
        let normal = norm.map(|norm| norm.forward_silu(x)).transpose()?;
        let x = normal.as_ref().unwrap_or(x);
        let large = enlarged.map(|(height, width)| super::upsample_nearest(x, height, width)).transpose()?;
        let x = large.as_ref().unwrap_or(x);
        if let Kernel::Filters(filters) = &self.weight {
            self.check(x)?;
            if let Some(y) = self.on_device(x, filters, shift, beside)? {
                return Ok(y);
            }
        }
        let mut y = self.forward(x)?;
        if let Some(shift) = shift {
            y = y.broadcast_add(&shift.unsqueeze(1)?.unsqueeze(1)?)?;
        }
        match beside {
            Some(beside) => beside + y,
            None => Ok(y),
        }
    }

    /// `[B, H, W, in]` → `[B, H', W', out]`.
    ///
    /// # Errors
    /// If the last dimension is not `in`, or the picture is smaller than the kernel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        match &self.weight {
            Kernel::Packed(weight, bias) if super::fast(&[x]) => {
                self.tiled(x, weight, bias.as_deref(), Around::default(), None)
            }
            Kernel::Packed(weight, _) => {
                let (inputs, size) = (self.inputs, self.size);
                let value = |at: usize| {
                    let (row, i, tap) =
                        (at / (inputs * size * size), at / (size * size) % inputs, at % (size * size));
                    weight.get(row, tap, i)
                };
                let values = (0..self.outputs * inputs * size * size).map(value);
                let weight = Tensor::from_iter(values, x.device())?;
                self.plain(x, &weight.reshape((self.outputs, inputs, size, size))?)
            }
            Kernel::Gathered(weight) if super::fast(&[x]) => self.gathered(x, weight),
            Kernel::Gathered(weight) => {
                let shape = (self.size, self.size, self.inputs, self.outputs);
                self.plain(x, &weight.reshape(shape)?.permute((3, 2, 0, 1))?.contiguous()?)
            }
            Kernel::Filters(filters) => match self.on_device(x, filters, None, None)? {
                Some(y) => Ok(y),
                None => {
                    let shape = (self.outputs, self.size, self.size, self.inputs);
                    self.plain(x, &filters.reshape(shape)?.permute((0, 3, 1, 2))?.contiguous()?)
                }
            },
            Kernel::Plain(weight) => self.plain(x, weight),
        }
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let (_, height, width, inputs) = x.dims4()?;
        let (before, after) = self.padding.sides();
        if inputs != self.inputs || before + height.min(width) + after < self.size {
            candle_core::bail!("a convolution of {} inputs was given {:?}", self.inputs, x.dims());
        }
        Ok(())
    }

    fn tiled(
        &self,
        x: &Tensor,
        weight: &Packed,
        bias: Option<&[f32]>,
        around: Around,
        norm: Option<(Vec<f32>, Vec<f32>)>,
    ) -> Result<Tensor> {
        self.check(x)?;
        let (batch, height, width, _) = x.dims4()?;
        let source = (height, width);
        let (height, width) = around.enlarged.unwrap_or(source);
        let shifted = around.shift.map(|shift| self.shifted(bias, shift)).transpose()?;
        let sizes = cpu::Convolution {
            batch,
            source,
            height,
            width,
            size: self.size,
            stride: self.stride,
            border: self.padding.sides(),
            bias: shifted.as_deref().or(bias),
            norm: None,
            beside: None,
        };
        let (rows, columns) = sizes.out();
        let shape = (batch, rows, columns, self.outputs);
        if let Some(beside) = around.beside.filter(|beside| beside.dims4().ok() != Some(shape)) {
            candle_core::bail!("to a convolution's result {shape:?} is added {:?}", beside.dims());
        }
        let run = |x: &[f32], beside: Option<&[f32]>, y: &mut [f32]| {
            let norm = around.norm.zip(norm.as_ref()).map(|(norm, values)| norm.affine(values, x, batch));
            cpu::Convolution { norm: norm.as_deref(), beside, ..sizes }.run(weight, x, y);
        };
        match around.beside {
            Some(beside) => cpu::map2(x, beside, shape, |x, beside, y| run(x, Some(beside), y)),
            None => cpu::map1(x, shape, |x, y| run(x, None, y)),
        }
    }

    /// The bias of each row of `shift`, with it.
    fn shifted(&self, bias: Option<&[f32]>, shift: &Tensor) -> Result<Vec<f32>> {
        let rows = shift.to_vec2::<f32>()?;
        let bias = |i: usize| bias.map_or(0.0, |bias| bias[i]);
        if rows.iter().any(|row| row.len() != self.outputs) {
            candle_core::bail!("{:?} is added to each of {} channels", shift.dims(), self.outputs);
        }
        Ok(rows.iter().flat_map(|row| row.iter().enumerate().map(|(i, value)| value + bias(i))).collect())
    }

    fn plain(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let (before, after) = self.padding.sides();
        let x = super::to_nchw(x)?.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?;
        let y = super::to_nhwc(&x.conv2d(weight, 0, self.stride, 1, 1)?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// On a device: cuDNN's, or the values under the kernel times the filters; `None` where there are no kernels for it.
    fn on_device(
        &self,
        x: &Tensor,
        filters: &Tensor,
        shift: Option<&Tensor>,
        beside: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        if !super::on_device(&[x, filters, shift.unwrap_or(x), beside.unwrap_or(x)]) {
            return Ok(None);
        }
        let (batch, height, width, _) = x.dims4()?;
        let (before, after) = self.padding.sides();
        let out = |n: usize| (before + n + after - self.size) / self.stride + 1;
        let taps = Taps { out: (out(height), out(width)), size: self.size, stride: self.stride, before };
        let shape = (batch, taps.out.0, taps.out.1, self.outputs);
        if let Some(beside) = beside.filter(|beside| beside.dims4().ok() != Some(shape)) {
            candle_core::bail!("to a convolution's result {shape:?} is added {:?}", beside.dims());
        }
        #[cfg(feature = "cudnn")]
        if let (Some(bias), true) = (&self.bias, before == after) {
            // A shift of all pictures is part of the bias.
            let all = shift.filter(|shift| shift.elem_count() == self.outputs);
            let shifted = all.map(|shift| shift.flatten_all()? + bias).transpose()?;
            let rest = shift.filter(|_| shifted.is_none());
            let bias = shifted.as_ref().unwrap_or(bias);
            let sum = beside.filter(|_| rest.is_none());
            if let Some(y) = super::cuda::cudnn::convolve(x, filters, bias, sum, taps)? {
                return match rest {
                    None => Ok(Some(y)),
                    Some(_) => super::device(&[&y], || kernels::finish(&y, None, rest, beside)),
                };
            }
        }
        let pixels = batch * taps.out.0 * taps.out.1;
        let row = self.size * self.size * self.inputs;
        let at_once = (GATHERED_ON_DEVICE / (x.dtype().size_in_bytes() * row).max(1)).clamp(1, pixels.max(1));
        let mut parts = vec![];
        for first in (0..pixels).step_by(at_once) {
            let count = at_once.min(pixels - first);
            let Some(values) = super::device(&[x], || kernels::gather(x, taps, first, count))? else {
                return Ok(None);
            };
            parts.push(values.matmul(&filters.t()?)?);
        }
        let y = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? };
        let y = y.reshape(shape)?;
        super::device(&[&y], || kernels::finish(&y, self.bias.as_ref(), shift, beside))
    }

    /// Gathers the values under the kernel for some lines of the result, multiplies, goes on.
    fn gathered(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let (batch, height, width, inputs) = x.dims4()?;
        let (row, outputs) = weight.dims2()?;
        let (before, after) = self.padding.sides();
        let out = |n: usize| (before + n + after - self.size) / self.stride + 1;
        let grid = Grid { height, width, inputs, size: self.size, stride: self.stride, before };
        let (rows, columns) = (out(height), out(width));
        let lines = batch * rows;
        let at_once = (GATHERED / (4 * columns * row).max(1)).clamp(1, lines.max(1));
        let mut parts = vec![];
        for first in (0..lines).step_by(at_once) {
            let count = at_once.min(lines - first);
            let gathered = cpu::map1(x, (count * columns, row), |x, y| {
                y.par_chunks_mut(columns * row).enumerate().for_each(|(i, line)| {
                    let (picture, y) = ((first + i) / rows, (first + i) % rows);
                    grid.gather(&x[picture * height * width * inputs..], y, line);
                });
            })?;
            let y = gathered.matmul(weight)?;
            if let Some(bias) = &self.bias {
                cpu::add_bias(&y, bias)?;
            }
            parts.push(y);
        }
        let y = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? };
        y.reshape((batch, rows, columns, outputs))
    }
}

/// Where the values under a kernel are.
struct Grid {
    height: usize,
    width: usize,
    inputs: usize,
    size: usize,
    stride: usize,
    before: usize,
}

impl Grid {
    /// Line `y` of the result: for each pixel `[ky][kx][in]`, zero outside of the picture `x`.
    fn gather(&self, x: &[f32], y: usize, line: &mut [f32]) {
        let inside = |at: usize, k: usize, n: usize| {
            (at * self.stride + k).checked_sub(self.before).filter(|&i| i < n)
        };
        for (column, pixel) in line.chunks_exact_mut(self.size * self.size * self.inputs).enumerate() {
            for (k, values) in pixel.chunks_exact_mut(self.inputs).enumerate() {
                let row = inside(y, k / self.size, self.height);
                let column = inside(column, k % self.size, self.width);
                if let (Some(row), Some(column)) = (row, column) {
                    let from = (row * self.width + column) * self.inputs;
                    values.copy_from_slice(&x[from..from + self.inputs]);
                }
            }
        }
    }
}
