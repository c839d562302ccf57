use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::cpu::{self, Packed};

/// `y = x Wᵀ + b` over the last dimension; also a 1×1 convolution on NHWC.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Matrix,
    bias: Option<Tensor>,
}

/// The weights as the form that uses them wants them; held once.
#[derive(Debug, Clone)]
enum Matrix {
    /// `[out, in]`, as files have it.
    Plain(Tensor),
    Packed {
        weight: Packed,
        bias: Option<Vec<f32>>,
        inputs: usize,
        outputs: usize,
    },
}

impl Linear {
    /// From a weight `[out, in]` and a bias `[out]`.
    ///
    /// # Errors
    /// If the weight has other than two dimensions.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let Some(products) = super::products(&weight) else {
            return Ok(Self { weight: Matrix::Plain(super::plain_weight(weight)?), bias });
        };
        let values = weight.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let packed = Packed::new(products, (outputs, 1, inputs), |row, _, i| values[row * inputs + i]);
        let bias = bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        let values = bias.as_ref().map(Tensor::to_vec1).transpose()?;
        Ok(Self { weight: Matrix::Packed { weight: packed, bias: values, inputs, outputs }, bias })
    }

    /// Loads `weight` `[out, in]` (or `[out, in, 1, 1]`) and `bias` `[out]`.
    ///
    /// # Errors
    /// If either is missing or has another shape.
    pub fn load(vb: &VarBuilder, inputs: usize, outputs: usize) -> Result<Self> {
        Self::new(vb.get((outputs, inputs), "weight")?, Some(super::load_vector(vb, outputs, "bias")?))
    }

    /// Loads `weight` `[out, in]` of a linear that has no bias.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn load_no_bias(vb: &VarBuilder, inputs: usize, outputs: usize) -> Result<Self> {
        Self::new(vb.get((outputs, inputs), "weight")?, None)
    }

    /// What it takes and gives.
    pub fn dtype(&self) -> DType {
        match &self.weight {
            Matrix::Plain(weight) => weight.dtype(),
            Matrix::Packed { .. } => DType::F32,
        }
    }

    /// Where its weights are.
    pub fn device(&self) -> &Device {
        match &self.weight {
            Matrix::Plain(weight) => weight.device(),
            Matrix::Packed { .. } => &Device::Cpu,
        }
    }

    /// `[…, in]` → `[…, out]`.
    ///
    /// # Errors
    /// If the last dimension is not `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let (outputs, inputs) = self.sizes()?;
        match shape.last_mut() {
            Some(last) if *last == inputs => *last = outputs,
            _ => candle_core::bail!("a linear of {inputs} inputs was given {:?}", x.dims()),
        }
        match &self.weight {
            Matrix::Packed { weight, bias, .. } if super::fast(&[x]) => {
                cpu::map1(x, shape, |x, y| cpu::linear(weight, bias.as_deref(), x, y))
            }
            Matrix::Packed { weight, .. } => {
                let values = (0..outputs).flat_map(|row| (0..inputs).map(move |i| weight.get(row, 0, i)));
                self.plain(x, &Tensor::from_iter(values, x.device())?.reshape((outputs, inputs))?, shape)
            }
            Matrix::Plain(weight) => self.plain(x, weight, shape),
        }
    }

    fn sizes(&self) -> Result<(usize, usize)> {
        match &self.weight {
            Matrix::Plain(weight) => weight.dims2(),
            Matrix::Packed { inputs, outputs, .. } => Ok((*outputs, *inputs)),
        }
    }

    fn plain(&self, x: &Tensor, weight: &Tensor, shape: Vec<usize>) -> Result<Tensor> {
        // One matrix of all rows: a batch of small ones would be a loop of small products.
        let y = x.reshape(((), weight.dim(1)?))?.matmul(&weight.t()?)?;
        let y = match &self.bias {
            Some(bias) if super::fast(&[&y, bias]) => {
                cpu::add_bias(&y, bias)?;
                y
            }
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        y.reshape(shape)
    }
}
