//! Loops over values that the compiler turns into vector instructions, and functions that have no branches in its way.

/// Runs a loop compiled for the widest vectors this processor has. `work` must be small enough to be inlined here.
#[inline]
pub fn wide<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        if super::avx512::has_f32() {
            // SAFETY: the processor has what is enabled.
            #[expect(unsafe_code, reason = "asks for instructions that were just found to be there")]
            return unsafe { wide_avx512(work) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what is enabled.
            #[expect(unsafe_code, reason = "asks for instructions that were just found to be there")]
            return unsafe { wide_avx2(work) };
        }
    }
    work()
}

/// A function compiled for the widest vectors this processor has: for loops too large to be inlined into [`wide`].
macro_rules! wide_fn {
    ($(#[$about:meta])* fn $name:ident($($input:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$about])*
        fn $name($($input: $type),*) {
            #[inline(always)]
            fn any($($input: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                /// # Safety
                /// The processor has AVX-512F.
                #[target_feature(enable = "avx512f")]
                unsafe fn avx512($($input: $type),*) {
                    any($($input),*)
                }
                /// # Safety
                /// The processor has AVX2 and fused products.
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2($($input: $type),*) {
                    any($($input),*)
                }
                if super::avx512::has_f32() {
                    // SAFETY: the processor has what is enabled.
                    return unsafe { avx512($($input),*) };
                }
                if super::avx2::has_f32() {
                    // SAFETY: the processor has what is enabled.
                    return unsafe { avx2($($input),*) };
                }
            }
            any($($input),*)
        }
    };
}
pub(super) use wide_fn;

/// # Safety
/// The processor has AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "only a processor with these instructions may run it")]
unsafe fn wide_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "only a processor with these instructions may run it")]
unsafe fn wide_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// `e^x` to 2 ulp (Cephes' polynomial); values beyond ±87 count as ±87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 · 2^23 rounds to a whole number, which is then in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    // ln 2 in two parts, so that what is left of x keeps its digits.
    let rest = x - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5, 1.0, 1.0] {
        p = p * rest + c;
    }
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(in crate::ops) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x · sigmoid(1.702 x)`.
#[inline(always)]
pub(in crate::ops) fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

/// `x · Φ(x)`; the error function by Abramowitz & Stegun 7.1.26, to 1.5e-7.
#[inline(always)]
pub(in crate::ops) fn gelu_erf(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4;
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + c;
    }
    let erf = 1.0 - p * t * exp(-z * z);
    0.5 * x * (1.0 + erf.copysign(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values across the whole range, and the rounding points of `exp`.
    fn values() -> impl Iterator<Item = f32> {
        (-100_000..100_000).map(|i| i as f32 * 8.5e-4)
    }

    #[test]
    fn exponentials_are_those_of_the_standard_library() {
        for x in values() {
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got - want).abs() <= 3e-7 * want, "e^{x}: {got}, not {want}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!((exp(-1e30), exp(1e30)), (exp(-87.0), exp(87.0)));
    }

    #[test]
    fn activations_are_those_of_candle() {
        for x in values() {
            let wide = f64::from(x);
            let silu_f64 = wide / (1.0 + (-wide).exp());
            assert!((f64::from(silu(x)) - silu_f64).abs() <= 4e-7 * silu_f64.abs().max(1e-30) + 1e-36, "{x}");
            let erf = candle_core::cpu::erf::erf_f64(wide * std::f64::consts::FRAC_1_SQRT_2);
            assert!(
                (f64::from(gelu_erf(x)) - 0.5 * wide * (1.0 + erf)).abs() <= 3e-7 * wide.abs().max(1.0),
                "{x}"
            );
        }
    }
}
