//! Amounts of memory as a person reads them.

use std::fmt;

/// Bytes, shown as `1.7 GiB`, `240 MiB` or `12 KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_units = |shift: u32| self.0 as f64 / (1u64 << shift) as f64;
        match self.0 {
            0x4000_0000.. => write!(f, "{:.1} GiB", in_units(30)),
            0x0010_0000.. => write!(f, "{:.0} MiB", in_units(20)),
            _ => write!(f, "{:.0} KiB", in_units(10).ceil()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        let shown = [0, 1, 4096, 3 << 20, 1_719_000_000, 24 << 30].map(|bytes| Size(bytes).to_string());
        assert_eq!(shown, ["0 KiB", "1 KiB", "4 KiB", "3 MiB", "1.6 GiB", "24.0 GiB"]);
    }
}
