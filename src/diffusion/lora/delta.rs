use candle_core::{Result, Tensor};

use super::names::{Parts, Role};
use crate::header::Header;
use crate::state_dict::StateDict;

/// How a file writes down the difference of one weight; the strings are names of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delta {
    /// LoRA (Hu et al. 2021): `up · down`; of a convolution also `up · mid · down`, `mid` having the kernel (CP
    /// decomposition).
    LowRank { up: String, down: String, mid: Option<String> },
    /// LoHa (Hyeon-Woo et al. 2022): `(a₁ · b₁) ⊙ (a₂ · b₂)`, of a convolution with a core between the two.
    Hadamard { first: [String; 2], second: [String; 2], cores: Option<[String; 2]> },
    /// LoKr (Yeh et al. 2023): the Kronecker product of two matrices.
    Kronecker { first: Factor, second: Factor, core: Option<String> },
    /// The difference itself.
    Full(String),
}

/// A matrix of a Kronecker product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Factor {
    Whole(String),
    Product(String, String),
}

impl Factor {
    fn of(parts: &Parts, whole: Role, product: [Role; 2]) -> Option<Self> {
        let product =
            || Some(Self::Product(parts.get(&product[0])?.clone(), parts.get(&product[1])?.clone()));
        parts.get(&whole).cloned().map(Self::Whole).or_else(product)
    }

    fn shape(&self, header: &Header) -> Option<Vec<usize>> {
        match self {
            Self::Whole(name) => header.shape(name).map(<[usize]>::to_vec),
            Self::Product(a, b) => product(header, a, b),
        }
    }

    fn rank(&self, header: &Header) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Product(_, b) => first_dim(header, b),
        }
    }

    fn value(&self, file: &StateDict) -> Result<Tensor> {
        match self {
            Self::Whole(name) => file.get_unchecked(name),
            Self::Product(a, b) => file.get_unchecked(a)?.matmul(&file.get_unchecked(b)?),
        }
    }
}

impl Delta {
    /// What the parts of one module add up to.
    pub(super) fn of(parts: &Parts) -> Option<Self> {
        let get = |role| parts.get(&role).cloned();
        if let (Some(up), Some(down)) = (get(Role::Up), get(Role::Down)) {
            return Some(Self::LowRank { up, down, mid: get(Role::Mid) });
        }
        let pair = |a, b| Some([get(a)?, get(b)?]);
        if let (Some(first), Some(second)) =
            (pair(Role::Hada1A, Role::Hada1B), pair(Role::Hada2A, Role::Hada2B))
        {
            return Some(Self::Hadamard { first, second, cores: pair(Role::Hada1Core, Role::Hada2Core) });
        }
        if let (Some(first), Some(second)) = (
            Factor::of(parts, Role::Lokr1, [Role::Lokr1A, Role::Lokr1B]),
            Factor::of(parts, Role::Lokr2, [Role::Lokr2A, Role::Lokr2B]),
        ) {
            return Some(Self::Kronecker { first, second, core: get(Role::LokrCore) });
        }
        get(Role::Full).map(Self::Full)
    }

    /// The shape it makes, rows first; `None` if its tensors do not go together.
    pub(super) fn shape(&self, header: &Header) -> Option<Vec<usize>> {
        match self {
            Self::LowRank { up, down, mid: None } => {
                let (rows, rank) = matrix(header.shape(up)?)?;
                let (&first, rest) = header.shape(down)?.split_first()?;
                (rank == first && rank > 0).then(|| [&[rows], rest].concat())
            }
            Self::LowRank { up, down, mid: Some(mid) } => {
                let ((rows, outer), (inner, columns)) =
                    (matrix(header.shape(up)?)?, matrix(header.shape(down)?)?);
                let &[a, b, height, width] = header.shape(mid)? else { return None };
                (a == outer && b == inner && a > 0 && b > 0).then(|| vec![rows, columns, height, width])
            }
            Self::Hadamard { first, second, cores: None } => {
                let shape = product(header, &first[0], &first[1])?;
                (shape == product(header, &second[0], &second[1])?).then_some(shape)
            }
            Self::Hadamard { first, second, cores: Some(cores) } => {
                let shape = tucker(header, &cores[0], &first[0], &first[1])?;
                (shape == tucker(header, &cores[1], &second[0], &second[1])?).then_some(shape)
            }
            Self::Kronecker { first, second, core } => {
                let &[rows, columns] = first.shape(header)?.as_slice() else { return None };
                let mut shape = match (second, core) {
                    (Factor::Product(a, b), Some(core)) => tucker(header, core, a, b)?,
                    _ => second.shape(header)?,
                };
                let [first, second, ..] = shape.as_mut_slice() else { return None };
                (*first, *second) = (first.checked_mul(rows)?, second.checked_mul(columns)?);
                Some(shape)
            }
            Self::Full(name) => header.shape(name).map(<[usize]>::to_vec),
        }
    }

    /// What `alpha` is divided by; nothing has a rank where nothing was factored.
    pub(super) fn rank(&self, header: &Header) -> Option<usize> {
        match self {
            Self::LowRank { down, .. } => first_dim(header, down),
            Self::Hadamard { first, .. } => first_dim(header, &first[1]),
            Self::Kronecker { first, second, .. } => second.rank(header).or_else(|| first.rank(header)),
            Self::Full(_) => None,
        }
    }

    /// The difference before `alpha`, of the shape that [`Delta::shape`] says; `file` is the LoRA's in f32.
    pub(super) fn value(&self, file: &StateDict) -> Result<Tensor> {
        let get = |name: &String| file.get_unchecked(name);
        match self {
            Self::LowRank { up, down, mid: None } => {
                get(up)?.flatten_from(1)?.matmul(&get(down)?.flatten_from(1)?)
            }
            Self::LowRank { up, down, mid: Some(mid) } => {
                core_product(&get(mid)?, &get(up)?.flatten_from(1)?.t()?, &get(down)?.flatten_from(1)?)
            }
            Self::Hadamard { first, second, cores } => {
                let side = |pair: &[String; 2], core: Option<&String>| match core {
                    Some(core) => core_product(&get(core)?, &get(&pair[0])?, &get(&pair[1])?),
                    None => get(&pair[0])?.matmul(&get(&pair[1])?),
                };
                let core = |i: usize| cores.as_ref().map(|cores| &cores[i]);
                side(first, core(0))? * side(second, core(1))?
            }
            Self::Kronecker { first, second, core } => {
                let second = match (second, core) {
                    (Factor::Product(a, b), Some(core)) => core_product(&get(core)?, &get(a)?, &get(b)?)?,
                    _ => second.value(file)?,
                };
                kronecker(&first.value(file)?, &second)
            }
            Self::Full(name) => get(name),
        }
    }
}

/// Rows and columns of a matrix, which may be written as a 1×1 convolution.
fn matrix(shape: &[usize]) -> Option<(usize, usize)> {
    match shape {
        &[rows, columns] | &[rows, columns, 1, 1] => Some((rows, columns)),
        _ => None,
    }
}

fn first_dim(header: &Header, name: &str) -> Option<usize> {
    header.shape(name)?.first().copied()
}

/// The shape of `a · b`.
fn product(header: &Header, a: &str, b: &str) -> Option<Vec<usize>> {
    let (&[rows, rank], &[same, columns]) = (header.shape(a)?, header.shape(b)?) else { return None };
    (rank == same && rank > 0).then(|| vec![rows, columns])
}

/// The shape of [`core_product`].
fn tucker(header: &Header, core: &str, a: &str, b: &str) -> Option<Vec<usize>> {
    let &[i, j, height, width] = header.shape(core)? else { return None };
    let (&[i2, rows], &[j2, columns]) = (header.shape(a)?, header.shape(b)?) else { return None };
    (i == i2 && j == j2 && i > 0 && j > 0).then(|| vec![rows, columns, height, width])
}

/// `Σ core[i, j, k, l] · a[i, p] · b[j, r]` as `[p, r, k, l]`.
fn core_product(core: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (i, j, height, width) = core.dims4()?;
    let (rows, columns) = (a.dim(1)?, b.dim(1)?);
    let left = a.t()?.contiguous()?.matmul(&core.reshape((i, j * height * width))?)?;
    let left = left.reshape((rows, j, height * width))?.transpose(1, 2)?.contiguous()?;
    let both = left.reshape((rows * height * width, j))?.matmul(&b.contiguous()?)?;
    let both = both.reshape((rows, height * width, columns))?.transpose(1, 2)?.contiguous()?;
    both.reshape((rows, columns, height, width))
}

/// `a ⊗ b`; the kernel of a convolution is `b`'s.
fn kronecker(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((rows, columns), shape) = (a.dims2()?, b.dims());
    let kernel: usize = shape[2..].iter().product();
    let a = a.reshape((rows, 1, columns, 1, 1))?;
    let product = a.broadcast_mul(&b.reshape((1, shape[0], 1, shape[1], kernel))?)?;
    let mut whole = vec![rows * shape[0], columns * shape[1]];
    whole.extend_from_slice(&shape[2..]);
    product.reshape(whole)
}
