//! The beta distribution's quantiles.

/// Where the regularised incomplete beta function of (a, b) reaches `p`: bisection on [`cdf`].
pub(super) fn quantile(p: f64, a: f64, b: f64) -> f64 {
    // Exact where the timestep would otherwise round to the wrong side of a tie.
    if p >= 1.0 || (p == 0.5 && a == b) {
        return p;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if cdf(middle, a, b) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function: its continued fraction (DLMF 8.17.22), normalised by the sum of both
/// tails at the mean, where each converges.
fn cdf(x: f64, a: f64, b: f64) -> f64 {
    let mean = a / (a + b);
    let left = |x: f64| x.powf(a) * (1.0 - x).powf(b) / (a * fraction(x, a, b));
    let right = |x: f64| x.powf(a) * (1.0 - x).powf(b) / (b * fraction(1.0 - x, b, a));
    let whole = left(mean) + right(mean);
    if x <= mean { left(x) / whole } else { 1.0 - right(x) / whole }
}

fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let term = |m: f64, odd: bool| match odd {
        true => -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        false => m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
    };
    (1..=100).rev().fold(1.0, |tail, k: u32| 1.0 + term(f64::from(k / 2), k % 2 == 1) / tail)
}
