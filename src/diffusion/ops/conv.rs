use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

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
    fn sides(self) -> (usize, usize) {
        match self {
            Self::Same(n) => (n, n),
            Self::BottomRight => (0, 1),
        }
    }
}

/// A convolution over NHWC.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: Padding,
}

impl Conv2d {
    /// From a weight `[out, in, k, k]` as files have it, and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: Padding) -> Self {
        Self { weight, bias, stride, padding }
    }

    /// Loads a 3×3 convolution, padding 1.
    ///
    /// # Errors
    /// If `weight` or `bias` is missing or has another shape.
    pub fn load3x3(vb: &VarBuilder, inputs: usize, outputs: usize, stride: usize) -> Result<Self> {
        Self::load(vb, inputs, outputs, 3, stride, Padding::Same(1))
    }

    /// Loads a convolution with a square kernel and a bias.
    ///
    /// # Errors
    /// If `weight` or `bias` is missing or has another shape.
    pub fn load(
        vb: &VarBuilder,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<Self> {
        let weight = vb.get((outputs, inputs, kernel, kernel), "weight")?;
        Ok(Self::new(weight, Some(vb.get(outputs, "bias")?), stride, padding))
    }

    /// `[B, H, W, in]` → `[B, H', W', out]`.
    ///
    /// # Errors
    /// If the last dimension is not `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.plain(x)
    }

    fn plain(&self, x: &Tensor) -> Result<Tensor> {
        let (before, after) = self.padding.sides();
        let x = super::to_nchw(x)?.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?;
        let y = super::to_nhwc(&x.conv2d(&self.weight, 0, self.stride, 1, 1)?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
