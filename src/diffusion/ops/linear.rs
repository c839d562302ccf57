use candle_core::{D, DType, Device, Result, Tensor};

use super::{
    LayerNorm, Weight,
    cpu::{self, Products, Quantised},
    kernels,
};
use crate::state_dict::StateDict;

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
        weight: cpu::Matrix,
        bias: Option<Vec<f32>>,
        inputs: usize,
        outputs: usize,
    },
}

impl Linear {
    /// From a weight `[out, in]` and a bias `[out]`.
    ///
    /// # Errors
    /// If the weight has other than two dimensions, or the bias is not one for each output.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        weight.dims2()?;
        Self::of(Weight::of(weight)?, bias)
    }

    fn of(weight: Weight, bias: Option<Tensor>) -> Result<Self> {
        let (outputs, inputs) = match &weight {
            Weight::Tiled(packed) => packed.sizes(),
            Weight::Plain(weight) => weight.dims2()?,
        };
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dims() != [outputs]) {
            candle_core::bail!("a linear to {outputs} values with a bias {:?}", bias.dims());
        }
        let packed = match weight {
            Weight::Tiled(packed) => packed,
            Weight::Plain(weight) => return Ok(Self { weight: Matrix::Plain(weight), bias }),
        };
        let bias = bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        let values = bias.as_ref().map(Tensor::to_vec1).transpose()?;
        let weight = cpu::Matrix::Packed(packed);
        Ok(Self { weight: Matrix::Packed { weight, bias: values, inputs, outputs }, bias })
    }

    /// Loads `weight` `[out, in]` (or `[out, in, 1, 1]`) and `bias` `[out]`.
    ///
    /// # Errors
    /// If either is missing or has another shape.
    pub fn load(dict: &StateDict, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = Weight::load(dict, (outputs, inputs), "weight")?;
        Self::of(weight, Some(super::load_vector(dict, outputs, "bias")?))
    }

    /// Loads `weight` `[out, in]` of a linear that has no bias.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn load_no_bias(dict: &StateDict, inputs: usize, outputs: usize) -> Result<Self> {
        Self::of(Weight::load(dict, (outputs, inputs), "weight")?, None)
    }

    /// The same with its weights in 8 bits, where the CPU multiplies these.
    #[must_use]
    pub fn quantised(mut self) -> Self {
        if let Matrix::Packed { weight, .. } = &mut self.weight
            && let cpu::Matrix::Packed(packed) = &*weight
            && Quantised::available()
        {
            *weight = cpu::Matrix::Quantised(Quantised::new(packed));
        }
        self
    }

    /// What it takes and gives.
    pub fn dtype(&self) -> DType {
        match &self.weight {
            Matrix::Plain(weight) => weight.dtype(),
            Matrix::Packed { .. } => DType::F32,
        }
    }

    /// What its weights are multiplied as, where the tiles of `cpu` do it.
    pub(super) fn products(&self) -> Option<Products> {
        match &self.weight {
            Matrix::Plain(_) => None,
            Matrix::Packed { weight, .. } => Some(weight.products()),
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
                cpu::map1(x, shape, |x, y| tiled(weight, bias).run(x, y))
            }
            Matrix::Packed { weight, .. } => {
                let values = (0..outputs).flat_map(|row| (0..inputs).map(move |i| weight.get(row, i)));
                self.plain(x, &Tensor::from_iter(values, x.device())?.reshape((outputs, inputs))?, shape)
            }
            Matrix::Plain(weight) => self.plain(x, weight, shape),
        }
    }

    /// The same plus `beside`, which has the result's shape.
    ///
    /// # Errors
    /// As [`Linear::forward`], and if the shapes differ.
    pub fn forward_add(&self, x: &Tensor, beside: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.sizes()?;
        let rows = x.elem_count() / inputs.max(1);
        match &self.weight {
            Matrix::Packed { weight, bias, .. }
                if super::fast(&[x, beside])
                    && x.dims().last() == Some(&inputs)
                    && beside.elem_count() == rows * outputs =>
            {
                cpu::map2(x, beside, beside.shape(), |x, beside, y| {
                    cpu::Linear { beside: Some(beside), ..tiled(weight, bias) }.run(x, y);
                })
            }
            Matrix::Plain(weight)
                if super::on_device(&[x, weight, beside])
                    && x.dims().last() == Some(&inputs)
                    && beside.elem_count() == rows * outputs =>
            {
                let bias = self.bias.as_ref();
                if let Some(y) = super::device_linear(x, weight, bias, Some(beside))? {
                    return y.reshape(beside.shape());
                }
                let product = product(x, weight)?.reshape(beside.shape())?;
                let sum = super::device(&[&product, beside], || {
                    kernels::finish(&product, bias, None, Some(beside))
                })?;
                match (sum, bias) {
                    (Some(sum), _) => Ok(sum),
                    (None, Some(bias)) => beside + product.broadcast_add(bias)?,
                    (None, None) => beside + product,
                }
            }
            _ => beside + self.forward(x)?.reshape(beside.shape())?,
        }
    }

    /// What three linears without biases make of the same normalised rows, `[…, in]` → `[…, out]` each: queries, keys and values of
    /// self-attention.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_three(three: [&Self; 3], x: &Tensor, norm: &LayerNorm) -> Result<[Tensor; 3]> {
        if let Some(all) = Self::at_once(three, x, norm)? {
            return Ok([all.get(0)?, all.get(1)?, all.get(2)?]);
        }
        let x = norm.forward(x)?;
        let [a, b, c] = three.map(|linear| linear.forward(&x));
        Ok([a?, b?, c?])
    }

    /// The three results one after the other, of rows that are normalised and made into factors once.
    fn at_once(three: [&Self; 3], x: &Tensor, norm: &LayerNorm) -> Result<Option<Tensor>> {
        let (outputs, inputs) = three[0].sizes()?;
        let [Some(a), Some(b), Some(c)] = three.map(Self::without_bias) else { return Ok(None) };
        let (&[ref before @ .., last], Some((scale, shift))) = (x.dims(), norm.fast_values()?) else {
            return Ok(None);
        };
        if last != inputs || scale.len() != inputs || !super::fast(&[x]) || !b.is_like(a) || !c.is_like(a) {
            return Ok(None);
        }
        let norm = Some(cpu::LayerNorm { eps: norm.eps, weight: &scale, bias: &shift });
        let linear = cpu::Linear { weight: a, bias: None, norm, beside: None };
        cpu::map1(x, [&[3], before, &[outputs]].concat(), |x, y| linear.run_with(&[b, c], x, y)).map(Some)
    }

    fn without_bias(&self) -> Option<&cpu::Matrix> {
        match &self.weight {
            Matrix::Packed { weight, bias: None, .. } => Some(weight),
            _ => None,
        }
    }

    /// GEGLU (Shazeer 2020) of normalised rows: `[…, in]` → `[…, out / 2]`, the first half of each result times the exact
    /// GELU of the second.
    ///
    /// # Errors
    /// As [`Linear::forward`], and if the number of results is odd.
    pub fn forward_geglu(&self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let (outputs, inputs) = self.sizes()?;
        let (&[ref before @ .., last], Some((scale, shift)), Matrix::Packed { weight, bias, .. }) =
            (x.dims(), norm.fast_values()?, &self.weight)
        else {
            return self.geglu(&norm.forward(x)?);
        };
        if last != inputs || scale.len() != inputs || !super::fast(&[x]) || !cpu::Linear::can_be_gated(weight)
        {
            return self.geglu(&norm.forward(x)?);
        }
        let norm = cpu::LayerNorm { eps: norm.eps, weight: &scale, bias: &shift };
        cpu::map1(x, [before, &[outputs / 2]].concat(), |x, y| {
            cpu::Linear { norm: Some(norm), ..tiled(weight, bias) }.run_gated(x, y);
        })
    }

    /// [`super::geglu`] of the results, on a device with the bias in the same pass.
    fn geglu(&self, x: &Tensor) -> Result<Tensor> {
        if let (Matrix::Plain(weight), Some(bias)) = (&self.weight, &self.bias)
            && super::on_device(&[x, weight, bias])
            && x.dim(D::Minus1)? == weight.dim(1)?
        {
            let product = product(x, weight)?;
            let gated = super::device(&[&product, bias], || kernels::geglu(&product, Some(bias)))?;
            if let Some(y) = gated {
                let mut shape = x.dims().to_vec();
                shape.pop();
                shape.push(y.dim(1)?);
                return y.reshape(shape);
            }
        }
        super::geglu(&self.forward(x)?)
    }

    fn sizes(&self) -> Result<(usize, usize)> {
        match &self.weight {
            Matrix::Plain(weight) => weight.dims2(),
            Matrix::Packed { inputs, outputs, .. } => Ok((*outputs, *inputs)),
        }
    }

    fn plain(&self, x: &Tensor, weight: &Tensor, shape: Vec<usize>) -> Result<Tensor> {
        // Without a bias there is nothing to spare.
        if let Some(bias) = &self.bias
            && let Some(y) = super::device_linear(x, weight, Some(bias), None)?
        {
            return y.reshape(shape);
        }
        let y = product(x, weight)?;
        let y = match &self.bias {
            Some(bias) if super::fast(&[&y, bias]) => {
                cpu::add_bias(&y, bias)?;
                y
            }
            Some(bias) => match super::device(&[&y, bias], || kernels::finish(&y, Some(bias), None, None))? {
                Some(y) => y,
                None => y.broadcast_add(bias)?,
            },
            None => y,
        };
        y.reshape(shape)
    }
}

/// Rows times the weight, `[rows, out]`. One matrix of all rows: a batch of small ones would be a loop of small products.
fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.reshape(((), weight.dim(1)?))?.matmul(&weight.t()?)
}

fn tiled<'a>(weight: &'a cpu::Matrix, bias: &'a Option<Vec<f32>>) -> cpu::Linear<'a> {
    cpu::Linear { weight, bias: bias.as_deref(), norm: None, beside: None }
}
