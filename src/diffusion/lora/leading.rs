//! The leading part of a matrix: its largest singular values and their vectors, by subspace iteration with Rayleigh and Ritz's
//! projection (Golub & Van Loan, Matrix Computations, 8.2 and 8.5), in f64.

use candle_core::{D, DType, Device, Tensor};

use crate::Result;
use crate::noise::TorchRng;

/// Most steps of the iteration: values that are still mixed then are nearly equal, and any mixture of theirs is as good.
const MOST_STEPS: usize = 150;
/// How near a vector has to come, as a share of the largest value of the squared matrix.
const NEAR: f64 = 1e-8;

/// `left · right` `[m, rank] · [rank, n]` is the matrix `[m, n]` as nearly as that rank allows: the columns of `left` are as long as
/// the singular values, the rows of `right` are orthonormal. Both in f32 on the host. `rank` is at most the shorter side.
pub(super) fn leading(matrix: &Tensor, rank: usize) -> Result<(Tensor, Tensor)> {
    let (m, n) = matrix.dims2()?;
    let wide = matrix.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let across = if m <= n { wide.clone() } else { wide.t()?.contiguous()? };
    let square = across.matmul(&across.t()?)?;
    // Rows; across · acrossᵀ has them as its vectors.
    let vectors = Tensor::new(vectors(&square, rank)?, &Device::Cpu)?;
    let (left, right) = if m <= n {
        // Rows as long as the singular values; where those are 0, the rows are any others.
        let long = vectors.matmul(&across)?;
        let right = Tensor::new(orthonormal(long.to_vec2()?), &Device::Cpu)?;
        let lengths = (&long * &right)?.sum_keepdim(D::Minus1)?;
        (vectors.broadcast_mul(&lengths)?.t()?.contiguous()?, right)
    } else {
        (wide.matmul(&vectors.t()?.contiguous()?)?, vectors)
    };
    Ok((left.to_dtype(DType::F32)?, right.to_dtype(DType::F32)?))
}

/// The vectors of the largest values of a symmetric matrix that has no negative ones, as rows, the largest first.
fn vectors(square: &Tensor, count: usize) -> Result<Vec<Vec<f64>>> {
    let size = square.dim(0)?;
    let wanted = count.max(8).saturating_mul(2) + 8;
    if 2 * wanted >= size {
        let (_, turn) = diagonal(square.to_vec2()?);
        return Ok(turn.into_iter().take(count).collect());
    }
    // A start that is the same in every run.
    let mut rng = TorchRng::new(0);
    let start = (0..wanted).map(|_| rng.randn(size).into_iter().map(f64::from).collect());
    let mut rows = Tensor::new(orthonormal(start.collect()), &Device::Cpu)?;
    for _ in 0..MOST_STEPS {
        let mapped = rows.matmul(square)?;
        let (values, turn) = diagonal(mapped.matmul(&rows.t()?.contiguous()?)?.to_vec2()?);
        let turn = Tensor::new(turn, &Device::Cpu)?;
        let (turned, mapped) = (turn.matmul(&rows)?, turn.matmul(&mapped)?);
        let values_of = Tensor::from_slice(&values, (wanted, 1), &Device::Cpu)?;
        let off = (&mapped - turned.broadcast_mul(&values_of)?)?.narrow(0, 0, count)?;
        let off = off.sqr()?.sum(D::Minus1)?.sqrt()?.max(0)?.to_scalar::<f64>()?;
        if off <= NEAR * values[0].max(f64::MIN_POSITIVE) {
            return Ok(turned.narrow(0, 0, count)?.to_vec2()?);
        }
        rows = Tensor::new(orthonormal(mapped.to_vec2()?), &Device::Cpu)?;
    }
    Ok(rows.narrow(0, 0, count)?.to_vec2()?)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rows of length 1 that are at right angles and span what these span, in this order (Gram and Schmidt, twice). Rows that
/// add nothing to those before them become any others.
fn orthonormal(mut rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let longest = rows.iter().map(|row| dot(row, row)).fold(0.0, f64::max).sqrt();
    let mut rng = TorchRng::new(1);
    for i in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(i);
        let row = &mut rest[0];
        if dot(row, row).sqrt() <= 1e-9 * longest {
            *row = rng.randn(row.len()).into_iter().map(f64::from).collect();
        }
        for _ in 0..2 {
            for other in before.iter() {
                let along = dot(row, other);
                row.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
            let length = dot(row, row).sqrt().max(f64::MIN_POSITIVE);
            row.iter_mut().for_each(|value| *value /= length);
        }
    }
    rows
}

/// The values of a symmetric matrix, the largest first, and their vectors as rows (Jacobi's rotations).
fn diagonal(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = a.len();
    let mut turn: Vec<Vec<f64>> =
        (0..size).map(|i| (0..size).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).collect();
    for _ in 0..60 {
        let square = |row: &Vec<f64>| dot(row, row);
        let whole: f64 = a.iter().map(square).sum();
        let off = whole - (0..size).map(|i| a[i][i] * a[i][i]).sum::<f64>();
        if off <= 1e-24 * whole {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                // Too little to turn anything.
                if a[p][q].powi(2) <= 1e-26 * (a[p][p] * a[q][q]).abs() || a[p][q].abs() <= f64::MIN_POSITIVE
                {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cos = 1.0 / tangent.hypot(1.0);
                let corner = tangent * a[p][q];
                let (first, second) = (a[p][p] - corner, a[q][q] + corner);
                rotate(&mut a, p, q, cos, tangent * cos);
                rotate(&mut turn, p, q, cos, tangent * cos);
                // What the columns become, since the matrix stays symmetric.
                let columns: Vec<_> = a[p].iter().copied().zip(a[q].iter().copied()).collect();
                for (row, (one, other)) in a.iter_mut().zip(columns) {
                    (row[p], row[q]) = (one, other);
                }
                (a[p][p], a[q][q], a[p][q], a[q][p]) = (first, second, 0.0, 0.0);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|i, j| a[*j][*j].total_cmp(&a[*i][*i]));
    (order.iter().map(|i| a[*i][*i]).collect(), order.iter().map(|i| turn[*i].clone()).collect())
}

/// Two rows of a matrix turned into each other.
fn rotate(rows: &mut [Vec<f64>], p: usize, q: usize, cos: f64, sin: f64) {
    let (head, tail) = rows.split_at_mut(q);
    for (one, other) in head[p].iter_mut().zip(&mut tail[0]) {
        (*one, *other) = (cos * *one - sin * *other, sin * *one + cos * *other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        let off = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        off.to_scalar::<f32>().unwrap()
    }

    #[test]
    fn matrices_are_factored_as_torch_factors_them() {
        let tensors = fixture::tensors("lora/extract.safetensors");
        let mut compared = 0;
        for (name, matrix) in tensors.iter().filter_map(|(name, t)| Some((name.strip_suffix("/diff")?, t))) {
            let matrix = matrix.flatten_from(1).unwrap();
            let theirs = (&tensors[&format!("{name}/left")], &tensors[&format!("{name}/right")]);
            let (left, right) = leading(&matrix, theirs.0.dim(1).unwrap()).unwrap();
            assert_eq!((left.dims(), right.dims()), (theirs.0.dims(), theirs.1.dims()), "{name}");
            let product = |(left, right): (&Tensor, &Tensor)| left.matmul(right).unwrap();
            let off = worst(&product((&left, &right)), &product(theirs));
            let lengths = |t: &Tensor| t.sqr().unwrap().sum(0).unwrap().sqrt().unwrap();
            let values = worst(&lengths(&left), &lengths(theirs.0));
            println!("{name}: {off:e}, singular values {values:e}");
            assert!(off < 2e-5 && values < 2e-5, "{name}: {off}, {values}");
            let square = right.matmul(&right.t().unwrap()).unwrap();
            let one = Tensor::eye(right.dim(0).unwrap(), DType::F32, &Device::Cpu).unwrap();
            assert!(worst(&square, &one) < 1e-5, "{name}");
            compared += 1;
        }
        assert_eq!(compared, 7);
    }
}
