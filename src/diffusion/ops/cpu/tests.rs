//! Each vector form against the plain loops, and packed weights against a product in f64.

use half::{bf16, f16};
use proptest::prelude::*;

use super::{
    heads::Attention,
    held::Held,
    packed::{Form, Packed},
    pixels::Convolution,
    product::{self, COLUMNS, Product, Start},
    quantised::{HEAD, Int8, Quantised},
    rows::{Linear, Matrix},
    tiles::Products,
    winograd,
};
use crate::noise::TorchRng;
use crate::state_dict::Values;

fn random(n: usize, seed: u64) -> Vec<f32> {
    TorchRng::new(seed).randn(n.max(16))[..n].to_vec()
}

const HELD: [Held; 4] = [Held::F32, Held::F16, Held::Bf16, Held::Bf16Pairs];

/// The nearest value that is held so; those of bf16 are larger than an f16 can be.
fn kept(held: Held, value: f32) -> f32 {
    match held {
        Held::F32 | Held::Bf16Pairs => value,
        Held::F16 => f16::from_f32(value).to_f32(),
        Held::Bf16 => bf16::from_f32(value * 1_048_576.0).to_f32(),
    }
}

/// What a value becomes as a factor.
fn factor(products: Products, value: f32) -> f64 {
    match products {
        Products::F32 => f64::from(value),
        Products::Bf16 => f64::from(bf16::from_f32(value).to_f32()),
    }
}

fn packed(products: Products, sizes: (usize, usize, usize), weight: &[f32]) -> Packed {
    let form = if products == Products::Bf16 { Form::Bf16 } else { Form::F32 };
    Packed::new(form, sizes, &Values::F32(weight.into()))
}

/// The largest difference, as a part of the largest value, or of 1.
fn distance(got: &[f32], want: &[f64]) -> f64 {
    let largest = want.iter().fold(1f64, |most, value| most.max(value.abs()));
    got.iter().zip(want).fold(0.0f64, |most, (a, b)| most.max((f64::from(*a) - b).abs())) / largest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    #[expect(unsafe_code, reason = "the forms under test take addresses")]
    fn vector_forms_compute_what_the_plain_loops_compute(
        (rows, columns, k, taps) in (1usize..40, 1usize..=COLUMNS, 1usize..50, 1usize..4),
        start in 0usize..5,
    ) {
        for held in HELD.into_iter().filter(|held| held.products().available()) {
            let products = held.products();
            let mut a = vec![0u32; rows + taps * products.words(2 * k)];
            products.convert(&random(if products == Products::F32 { a.len() } else { 2 * a.len() }, 1), &mut a);
            let mut panel = vec![0u32; taps * k * held.line()];
            let weights = random(taps * products.values(k) * COLUMNS, 2);
            let weights: Vec<_> = weights.into_iter().map(|weight| kept(held, weight)).collect();
            held.write(weights.as_chunks().0, &mut panel);
            let bias = random(columns, 3);
            let offsets: Vec<_> = (0..taps).map(|tap| tap * k).collect();
            let (before, beside) = (random(rows * (columns + 1), 4), random(rows * (columns + 1), 5));
            let (mut got, mut want) = (before.clone(), before.clone());
            let product = |out: &mut [f32]| Product {
                a: a.as_ptr(),
                a_stride: 1,
                taps: &offsets,
                k,
                panel: panel.as_ptr(),
                held,
                out: out.as_mut_ptr(),
                out_stride: columns + 1,
                rows,
                columns,
                start: [
                    Start::Zero,
                    Start::Bias(bias.as_ptr()),
                    Start::Out,
                    Start::Beside(beside.as_ptr(), std::ptr::null()),
                    Start::Beside(beside.as_ptr(), bias.as_ptr()),
                ][start],
            };
            // SAFETY: a row begins a word after the one before, and the buffer has `taps · k` words after the last.
            unsafe {
                product(&mut got).compute();
                product(&mut want).plain();
            }
            let want: Vec<_> = want.into_iter().map(f64::from).collect();
            #[cfg(target_arch = "x86_64")]
            if products == Products::F32 && super::avx2::has_f32() {
                let mut got = before.clone();
                // SAFETY: as above, on a processor that has what it needs.
                unsafe { super::avx2::product_f32(&product(&mut got)) };
                prop_assert!(distance(&got, &want) < 1e-6, "AVX2, {held:?}: {}", distance(&got, &want));
            }
            prop_assert!(distance(&got, &want) < 1e-6, "{held:?}: {}", distance(&got, &want));
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "asks for instructions that were just found to be there")]
    fn softmax_by_vectors_is_that_of_the_plain_loops(keys in 1usize..64, seed in 0u64..99, greatest in -5f32..5.0) {
        let mut got = random(64, seed);
        let mut want = got.clone();
        let (most, sum) = Products::exponentials(&mut got, keys, greatest);
        let (plain_most, plain_sum) = product::exponentials(&mut want, keys, greatest);
        #[cfg(target_arch = "x86_64")]
        if super::avx2::has_f32() {
            let mut row = random(64, seed);
            // SAFETY: the processor has what it needs.
            let (most, sum) = unsafe { super::avx2::exponentials(&mut row, keys, greatest) };
            prop_assert!(most == plain_most && (sum - plain_sum).abs() <= 1e-6 * plain_sum, "AVX2: {} {}", most, sum);
            for (got, want) in row.iter().zip(&want) {
                prop_assert!((got - want).abs() <= 4e-7 * want.max(1e-30), "AVX2: {got} {want}");
            }
        }
        prop_assert_eq!(most, plain_most);
        prop_assert!((sum - plain_sum).abs() <= 1e-6 * plain_sum);
        for (got, want) in got.iter().zip(&want) {
            prop_assert!((got - want).abs() <= 4e-7 * want.max(1e-30), "{got} {want}");
        }
    }

    #[test]
    fn minimal_filtering_gives_what_shifted_products_give(
        (batch, height, width, zoom) in (1usize..4, 1usize..14, 1usize..30, 1usize..3),
        (k, n) in (prop::sample::select(vec![16usize, 64, 80, 336, 656]), 1usize..70),
        around in 0usize..4,
    ) {
        let (x, w) = (random(batch * height * width * k, 1), random(9 * n * k, 2));
        let (bias, beside) = (random(batch * n, 3), random(batch * height * width * zoom * zoom * n, 4));
        for held in HELD {
            let products = held.products();
            let w: Vec<_> = w.iter().map(|w| kept(held, *w)).collect();
            let rounded: Vec<_> = w.iter().map(|w| factor(products, *w) as f32).collect();
            let conv = Convolution {
                batch,
                source: (height, width),
                height: height * zoom,
                width: width * zoom,
                size: 3,
                stride: 1,
                border: (1, 1),
                bias: [None, Some(&bias[..n]), Some(&bias[..]), None][around],
                norm: None,
                beside: (around > 1).then_some(&beside[..]),
            };
            let (mut got, mut want) = (vec![f32::NAN; beside.len()], vec![f32::NAN; beside.len()]);
            winograd::run(&conv, &packed(products, (n, 9, k), &w), &x, &mut got);
            conv.shifted(&packed(Products::F32, (n, 9, k), &rounded), &x, &mut want);
            let want: Vec<_> = want.into_iter().map(f64::from).collect();
            // Sums of 5904 products in another order: most cases are below 1e-5, one was seen at 1.1e-5.
            prop_assert!(distance(&got, &want) < 2e-5, "{held:?}: {}", distance(&got, &want));
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "the forms under test take addresses")]
    fn tiles_of_8_bits_compute_what_the_plain_loops_compute(
        (rows, columns, k) in (1usize..40, 1usize..=COLUMNS, 1usize..50),
        start in 0usize..5,
    ) {
        if !Quantised::available() {
            return Ok(());
        }
        let any = |n: usize, seed| random(n, seed).into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let a = any(rows + k, 1);
        let mut panel = any((HEAD + k) * COLUMNS, 2);
        for (i, word) in panel[..COLUMNS].iter_mut().enumerate() {
            *word = (1000 * i as i32 - 16_000).cast_unsigned();
        }
        let (scales, bias) = (random(2 * rows, 3), random(columns, 4));
        let (before, beside) = (random(rows * (columns + 1), 5), random(rows * (columns + 1), 6));
        let (mut got, mut want) = (before.clone(), before);
        let work = |out: &mut [f32]| Int8 {
            product: Product {
                a: a.as_ptr(),
                a_stride: 1,
                taps: &[0],
                k,
                panel: panel.as_ptr(),
                held: Held::F32,
                out: out.as_mut_ptr(),
                out_stride: columns + 1,
                rows,
                columns,
                start: [
                    Start::Zero,
                    Start::Bias(bias.as_ptr()),
                    Start::Out,
                    Start::Beside(beside.as_ptr(), std::ptr::null()),
                    Start::Beside(beside.as_ptr(), bias.as_ptr()),
                ][start],
            },
            scales: scales.as_ptr(),
            scale_stride: 2,
        };
        // SAFETY: a row begins a word after the one before, and the buffer has `k` words after the last; there are two scales a row.
        unsafe {
            work(&mut got).compute();
            work(&mut want).plain();
        }
        let want: Vec<_> = want.into_iter().map(f64::from).collect();
        prop_assert!(distance(&got, &want) < 1e-6, "{}", distance(&got, &want));
    }

    #[test]
    fn a_linear_of_8_bits_is_near_the_product(
        (rows, k, n) in (1usize..70, 1usize..700, 1usize..100),
        (biased, added) in (any::<bool>(), any::<bool>()),
    ) {
        let (x, w) = (random(rows * k, 1), random(n * k, 2));
        let (bias, beside) = (random(n, 3), random(rows * n, 4));
        let weight = Quantised::new(&packed(Products::F32, (n, 1, k), &w));
        for (at, value) in w.iter().enumerate() {
            // Half a step of the largest of a group, which is less than 6 here.
            prop_assert!((weight.get(at / k, at % k) - value).abs() < 6.0 / 254.0, "weight {at}");
        }
        let weight = Matrix::Quantised(weight);
        let (bias, beside) = (biased.then_some(&bias[..]), added.then_some(&beside[..]));
        let mut got = vec![f32::NAN; rows * n];
        Linear { weight: &weight, bias, norm: None, beside }.run(&x, &mut got);
        for (at, got) in got.iter().enumerate() {
            let (row, column) = (at / n, at % n);
            let terms = (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(w[column * k + i]));
            let more = bias.map_or(0.0, |bias| bias[column]) + beside.map_or(0.0, |beside| beside[at]);
            let error = f64::from(*got) - terms.sum::<f64>() - f64::from(more);
            // Each factor is off by at most half a step: a hundredth of what is typical, and errors add up like noise.
            prop_assert!(error.abs() < 0.1 * (k as f64).sqrt(), "{at}: {error}");
        }
    }

    #[test]
    fn a_linear_of_any_size_is_the_product_of_its_factors(
        (rows, k, n) in (1usize..70, 1usize..90, 1usize..100),
    ) {
        let (x, w, bias) = (random(rows * k, 1), random(n * k, 2), random(n, 3));
        for held in HELD {
            let products = held.products();
            let w: Vec<_> = w.iter().map(|w| kept(held, *w)).collect();
            let weight = packed(products, (n, 1, k), &w);
            prop_assert_eq!(weight.held == Held::F32, held == Held::F32);
            let mut got = vec![0.0; rows * n];
            Linear { weight: &Matrix::Packed(weight.clone()), bias: Some(&bias), norm: None, beside: None }.run(&x, &mut got);
            let value = |at: usize| {
                let (row, column) = (at / n, at % n);
                let terms = (0..k).map(|i| factor(products, x[row * k + i]) * factor(products, w[column * k + i]));
                terms.sum::<f64>() + f64::from(bias[column])
            };
            let want: Vec<_> = (0..rows * n).map(value).collect();
            prop_assert!(distance(&got, &want) < 5e-6);
        }
    }

    #[test]
    fn a_convolution_of_any_size_is_the_product_of_its_factors(
        (height, width, k, n) in (1usize..9, 1usize..20, 1usize..9, 1usize..40),
        (stride, border) in (1usize..3, prop_oneof![Just((1usize, 1usize)), Just((0, 2))]),
    ) {
        let size = 3;
        let (x, w) = (random(height * width * k, 1), random(n * k * 9, 2));
        for held in HELD {
            let products = held.products();
            let w: Vec<_> = w.iter().map(|w| kept(held, *w)).collect();
            let weight = packed(products, (n, 9, k), &w);
            let source = (height, width);
            let sizes = Convolution {
                batch: 1, source, height, width, size, stride, border, bias: None, norm: None, beside: None,
            };
            let (rows, columns) = sizes.out();
            let mut got = vec![0.0; rows * columns * n];
            sizes.run(&weight, &x, &mut got);
            let value = |at: usize| {
                let (row, column, out) = (at / n / columns, at / n % columns, at % n);
                let mut sum = 0.0;
                for tap in 0..9 {
                    let y = (row * stride + tap / 3).wrapping_sub(border.0);
                    let left = (column * stride + tap % 3).wrapping_sub(border.0);
                    for i in 0..if y < height && left < width { k } else { 0 } {
                        let x = factor(products, x[(y * width + left) * k + i]);
                        sum += x * factor(products, w[(out * k + i) * 9 + tap]);
                    }
                }
                sum
            };
            let want: Vec<_> = (0..got.len()).map(value).collect();
            prop_assert!(distance(&got, &want) < 5e-6);
        }
    }
}

#[test]
fn long_rows_go_in_blocks_and_weights_can_be_read_back() {
    let (k, n) = (7000, 40);
    let (x, w) = (random(3 * k, 1), random(n * k, 2));
    for held in HELD {
        let products = held.products();
        let w: Vec<_> = w.iter().map(|w| kept(held, *w)).collect();
        let weight = packed(products, (n, 1, k), &w);
        assert!(weight.block < weight.length(), "rows of this length are cut");
        let mut got = vec![0.0; 3 * n];
        Linear { weight: &Matrix::Packed(weight.clone()), bias: None, norm: None, beside: None }
            .run(&x, &mut got);
        let term = |row: usize, column: usize, i: usize| {
            factor(products, x[row * k + i]) * factor(products, w[column * k + i])
        };
        let want: Vec<_> =
            (0..3 * n).map(|at| (0..k).map(|i| term(at / n, at % n, i)).sum::<f64>()).collect();
        assert!(distance(&got, &want) < 1e-5);
        for at in [0, 1, k - 1, k, n * k - 1] {
            assert_eq!(f64::from(weight.get(at / k, 0, at % k)), factor(products, w[at]));
        }
    }
}

#[test]
fn weights_are_packed_alike_from_every_number_type() {
    let sizes = (40, 9, 37);
    let w = random(40 * 9 * 37, 1);
    let halves: Vec<_> = w.iter().map(|w| f16::from_f32(*w)).collect();
    let brief: Vec<_> = w.iter().map(|w| bf16::from_f32(*w)).collect();
    let of_halves: Vec<_> = halves.iter().map(|w| w.to_f32()).collect();
    let of_brief: Vec<_> = brief.iter().map(|w| w.to_f32()).collect();
    for form in [Form::F32, Form::Rounded, Form::Bf16] {
        for (narrow, wide) in
            [(Values::F16((&halves).into()), &of_halves), (Values::Bf16((&brief).into()), &of_brief)]
        {
            let narrow = Packed::new(form, sizes, &narrow);
            let widened = Packed::new(form, sizes, &Values::F32(wide.into()));
            assert_eq!(narrow.held.line(), widened.held.line(), "{form:?}");
            let rounded: Vec<_> = wide.iter().map(|w| bf16::from_f32(*w).to_f32()).collect();
            let want = if form == Form::F32 { wide } else { &rounded };
            for (at, want) in want.iter().enumerate() {
                let (row, i, tap) = (at / (9 * 37), at / 9 % 37, at % 9);
                let got = (narrow.get(row, tap, i), widened.get(row, tap, i));
                assert_eq!(got, (*want, *want), "{form:?}, {at}");
            }
        }
    }
}

#[test]
fn attention_of_the_widths_of_real_models_is_that_of_its_definition() {
    for (heads, width, n, m) in
        [(8, 40, 50, 300), (2, 64, 13, 77), (3, 80, 49, 257), (2, 160, 5, 33), (1, 512, 3, 70)]
    {
        let row = heads * width;
        let (q, k, v) = (random(2 * n * row, 1), random(2 * m * row, 2), random(2 * m * row, 3));
        let mut want = vec![0.0; 2 * n * row];
        for (token, head) in (0..2 * n).flat_map(|token| (0..heads).map(move |head| (token, head))) {
            let key = |key: usize| (token / n * m + key) * row + head * width;
            let query = &q[token * row + head * width..][..width];
            let score = |at: usize| -> f64 {
                let terms = query.iter().zip(&k[key(at)..][..width]);
                terms.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() / (width as f64).sqrt()
            };
            let chances: Vec<f64> = (0..m).map(|at| score(at).exp()).collect();
            let total: f64 = chances.iter().sum();
            for i in 0..width {
                let seen = (0..m).map(|at| chances[at] * f64::from(v[key(at) + i]));
                want[token * row + head * width + i] = seen.sum::<f64>() / total;
            }
        }
        for (products, bound) in [(Products::F32, 2e-6), (Products::Bf16, 3e-2)] {
            let mut got = vec![0.0; q.len()];
            Attention { batch: 2, n, m, heads, width }.run(products, [&q, &k, &v], None, &mut got);
            let error = distance(&got, &want);
            assert!(error < bound, "{products:?}, {heads} heads of {width}: {error}");
        }
    }
}
