//! How much memory models and results may take: what is asked for, else a share of what the machine has.

use std::{env, str::FromStr};

use anyhow::{Result, anyhow, bail};
use candle_core::Device;
use flow_diffusion::runtime::card_memory;
use flow_graph::Bytes;

use crate::machine;

/// Of main memory, where nothing else is said: models' working memory and other programs need the rest.
const RAM: Amount = Amount::Share(0.7);
/// Of a GPU's memory: nothing but working memory needs the rest.
const VRAM: Amount = Amount::Share(0.85);
/// Assumed of a system that does not say how much main memory it has.
const UNKNOWN_RAM: u64 = 8 << 30;
/// Results take at most this part of a budget, so that models always have most of it.
const RESULTS: u64 = 4;

/// An amount of memory as people write it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// A share of what there is, 0 to 1.
    Share(f64),
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HOW: &str = "write 8GiB, 8G, 8000M or 50%";
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: f64 = number.parse().map_err(|_| HOW.to_owned())?;
        let unit = unit.trim().to_ascii_lowercase();
        if unit == "%" {
            return if number <= 100.0 { Ok(Self::Share(number / 100.0)) } else { Err(HOW.to_owned()) };
        }
        // `8G` is what it is to containers and batch systems, 8 GiB; `8GB` says itself that it is not.
        let unit: f64 = match &*unit {
            "" | "b" => 1.0,
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1024f64.powi(2),
            "g" | "gib" => 1024f64.powi(3),
            "t" | "tib" => 1024f64.powi(4),
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "tb" => 1e12,
            _ => return Err(HOW.to_owned()),
        };
        // Above 2^64 the cast stays there: no limit.
        Ok(Self::Bytes((number * unit) as u64))
    }
}

impl Amount {
    fn of(self, what: &str, total: Option<u64>) -> Result<u64> {
        match (self, total) {
            (Self::Bytes(bytes), _) => Ok(bytes),
            (Self::Share(share), Some(total)) => Ok((total as f64 * share) as u64),
            (Self::Share(_), None) => {
                bail!("a share of an unknown size: give {what} an amount like 8GiB")
            }
        }
    }
}

/// Budgets a person sets.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Memory {
    /// Main memory for models and results: 8GiB, 8000M or 50% [default: FLOW_RAM, else 70%]
    #[arg(long, value_name = "SIZE")]
    ram: Option<Amount>,
    /// GPU memory for models and results [default: FLOW_VRAM, else 85%]
    #[arg(long, value_name = "SIZE")]
    vram: Option<Amount>,
}

/// What models and results may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Results of earlier nodes.
    pub results: Bytes,
    /// Models, together with the results in the same memory.
    pub weights: u64,
}

impl Memory {
    /// The budgets on a device.
    ///
    /// # Errors
    /// When an environment variable holds no amount, or a share is asked of a memory whose size is not known.
    pub fn budgets(&self, device: &Device) -> Result<Budgets> {
        let ram = self.ram()?;
        if device.is_cpu() {
            // Nothing lies on a device.
            return Ok(Budgets { results: Bytes { host: ram / RESULTS, device: 0 }, weights: ram });
        }
        let vram = self.vram(device)?;
        Ok(Budgets { results: Bytes { host: ram, device: vram / RESULTS }, weights: vram })
    }

    /// The budget of main memory in bytes.
    ///
    /// # Errors
    /// When FLOW_RAM holds no amount.
    pub fn ram(&self) -> Result<u64> {
        let total = machine::main_memory().unwrap_or(UNKNOWN_RAM);
        asked(self.ram, "FLOW_RAM")?.unwrap_or(RAM).of("--ram", Some(total))
    }

    /// The budget of GPU memory in bytes; without a limit where its size is not known and none is asked for.
    ///
    /// # Errors
    /// When FLOW_VRAM holds no amount, or a share is asked for and the size is not known.
    fn vram(&self, device: &Device) -> Result<u64> {
        let asked = asked(self.vram, "FLOW_VRAM")?;
        if let Some(Amount::Bytes(bytes)) = asked {
            return Ok(bytes);
        }
        // The card's own driver knows which one it is; nvidia-smi counts in an order of its own.
        let total = card_memory(device).map(|(_, total)| total).or_else(machine::gpu_memory);
        match (asked, total) {
            // What does not fit is found out when it is tried: then what is unused goes.
            (None, None) => Ok(u64::MAX),
            (asked, total) => asked.unwrap_or(VRAM).of("--vram", total),
        }
    }
}

fn asked(given: Option<Amount>, variable: &str) -> Result<Option<Amount>> {
    let Some(value) = env::var_os(variable).filter(|value| !value.is_empty() && given.is_none()) else {
        return Ok(given);
    };
    let value = value.to_string_lossy();
    value.parse().map(Some).map_err(|how| anyhow!("the environment's {variable} is `{value}`; {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("8GiB", 8 << 30),
            ("8G", 8 << 30),
            ("8 gib", 8 << 30),
            ("8000M", 8000 << 20),
            ("1.5g", 3 << 29),
            ("512k", 512 << 10),
            ("8GB", 8_000_000_000),
            ("1000", 1000),
            ("99999999T", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Amount::Bytes(bytes)), "{text}");
        }
        assert_eq!("50%".parse(), Ok(Amount::Share(0.5)));
        for wrong in ["", "much", "-8G", "8X", "101%", "%", "8G8", "1.2.3G"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn on_the_cpu_models_and_results_share_main_memory() {
        let memory = Memory { ram: Some(Amount::Bytes(8 << 30)), vram: None };
        let budgets = memory.budgets(&Device::Cpu).unwrap();
        assert_eq!(budgets, Budgets { results: Bytes { host: 2 << 30, device: 0 }, weights: 8 << 30 });
    }

    #[test]
    fn a_share_is_of_what_there_is() {
        assert_eq!(Amount::Share(0.25).of("--ram", Some(1000)).unwrap(), 250);
        let error = Amount::Share(0.25).of("--vram", None).unwrap_err().to_string();
        assert_eq!(error, "a share of an unknown size: give --vram an amount like 8GiB");
    }
}
