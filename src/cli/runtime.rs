//! The nodes there are, and where they compute: the one place that knows both.

use std::str::FromStr;

use anyhow::{Result, bail};
use candle_core::{DType, Device};
use flow_diffusion::{Runtime, ops};
use flow_graph::Registry;

/// All nodes.
pub fn registry() -> Registry {
    flow_nodes::registry()
}

/// Where tensors are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first GPU if this build and machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by number.
    Cuda(usize),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| "write cuda:0, cuda:1, …".to_owned());
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", gpu)) => number(gpu).map(Self::Cuda),
            _ => Err("expected auto, cpu or cuda:N".to_owned()),
        }
    }
}

/// What models compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// bf16 on a CPU that multiplies it in less time than f32, f32 on others, f16 on a GPU
    Auto,
    /// 32 bits
    F32,
    /// 16 bits with f32's range
    Bf16,
    /// 16 bits
    F16,
    /// 8 bits for the linears of UNets and ControlNets, and what auto takes for all else; on a CPU that multiplies 8 bits
    Int8,
}

/// Where models run, and in what numbers.
#[derive(Debug)]
pub struct Numbers {
    pub device: Device,
    pub dtype: DType,
    /// Whether linears are held in 8 bits.
    pub int8: bool,
}

/// The device and number type of a run.
///
/// # Errors
/// When this build or machine has no such device or numbers.
pub fn numbers(place: Place, precision: Precision) -> Result<Numbers> {
    let device = match place {
        Place::Cpu => Device::Cpu,
        Place::Auto => gpu(0).unwrap_or(Device::Cpu),
        Place::Cuda(number) => gpu(number)?,
    };
    let int8 = precision == Precision::Int8;
    if int8 && !(device.is_cpu() && ops::has_int8()) {
        let who = if device.is_cpu() { "this CPU has no products" } else { "a GPU has no linears" };
        bail!("{who} of 8 bits here; use --precision auto");
    }
    let dtype = match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
        Precision::F16 => DType::F16,
        Precision::Auto | Precision::Int8 if device.is_cpu() && !ops::bf16_is_faster() => DType::F32,
        Precision::Auto | Precision::Int8 if device.is_cpu() => DType::BF16,
        Precision::Auto | Precision::Int8 => DType::F16,
    };
    Ok(Numbers { device, dtype, int8 })
}

fn gpu(number: usize) -> Result<Device> {
    if !candle_core::utils::cuda_is_available() {
        bail!(
            "this flow was built without CUDA; use --device cpu, or build it with --features cuda (docs/gpu.md)"
        );
    }
    flow_diffusion::runtime::gpu(number).map_err(|error| anyhow::anyhow!("cannot use cuda:{number}: {error}"))
}

/// Names what results on this device in these numbers depend on, for their keys.
pub fn salt(runtime: &Runtime) -> String {
    let kind = if runtime.device.is_cpu() { "cpu" } else { "gpu" };
    let linears = if runtime.int8 { " int8" } else { "" };
    format!("{kind} {:?}{linears}", runtime.dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_people_write_them() {
        assert_eq!("cuda:1".parse(), Ok(Place::Cuda(1)));
        assert_eq!(
            ["auto", "cpu", "cuda"].map(str::parse),
            [Ok(Place::Auto), Ok(Place::Cpu), Ok(Place::Cuda(0))]
        );
        for wrong in ["gpu", "cuda:", "cuda:x", "cpu:0"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
