use crate::header::Dtype;

/// What a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pickle) enum Global {
    /// `collections.OrderedDict`.
    Dict,
    /// `torch._utils._rebuild_tensor_v2`, and `_v3`.
    Tensor,
    /// A function that gives its first argument: `torch._utils._rebuild_parameter`, `torch.Size`.
    First,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
    /// `torch.float32` and its like.
    Dtype(Dtype),
    /// What checkpoints of training carry along; it makes nothing here.
    Inert,
}

/// Classes of training code, and parts of numpy that old loss values are made of. Nothing of them is read.
const INERT: [(&str, &str); 7] = [
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("torch", "device"),
];

impl Global {
    /// The global that a pickle names.
    ///
    /// # Errors
    /// With its name, if it is none of those that state dicts are made of.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, String> {
        let storage = |module: &str| matches!(module, "torch" | "torch.cuda" | "torch.storage");
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::Dict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") | ("torch", "Size") => {
                Self::First
            }
            ("pytorch_lightning" | "lightning", _) => Self::Inert,
            _ if module.starts_with("pytorch_lightning.") || module.starts_with("lightning.") => Self::Inert,
            _ if INERT.contains(&(module, name)) => Self::Inert,
            _ if storage(module) => match storage_type(name) {
                Some(dtype) => Self::Storage(dtype),
                None => Self::Dtype(number_type(name).ok_or_else(|| refused(module, name))?),
            },
            _ => return Err(refused(module, name)),
        })
    }
}

fn refused(module: &str, name: &str) -> String {
    let short = |text: &str| text.chars().take(100).filter(|c| !c.is_control()).collect::<String>();
    format!(
        "it would have `{}.{}` called, which state dicts have no need of; nothing was run",
        short(module),
        short(name)
    )
}

fn storage_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" | "UntypedStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        _ => return None,
    })
}

fn number_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" => Dtype::F64,
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float8_e4m3fn" => Dtype::F8E4M3,
        "float8_e5m2" => Dtype::F8E5M2,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "uint16" => Dtype::U16,
        "uint32" => Dtype::U32,
        "uint64" => Dtype::U64,
        "bool" => Dtype::Bool,
        _ => return None,
    })
}
