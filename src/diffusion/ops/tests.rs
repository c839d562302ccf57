use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;

use super::*;
use crate::fixture::assert_close;
use crate::state_dict::StateDict;

/// Random values. Shape and seed decide them, candle's own generator does not.
fn random(shape: &[usize], seed: u64) -> Tensor {
    let n = shape.iter().product();
    let values = crate::noise::TorchRng::new(seed).randn(n);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The same values as a variable: gradients are wanted, so the plain form computes.
fn variable(t: &Tensor) -> Tensor {
    Var::from_tensor(t).unwrap().as_tensor().clone()
}

const TOLERANCE: f32 = 2e-6;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn convolutions_are_the_same_fast_and_plain(
        (batch, height, width) in (1usize..3, 1usize..12, 1usize..12),
        (inputs, outputs) in (1usize..9, 1usize..9),
        kind in 0usize..4,
    ) {
        let (size, stride, padding) = [
            (3, 1, Padding::Same(1)),
            (3, 2, Padding::Same(1)),
            (3, 2, Padding::BottomRight),
            (1, 1, Padding::Same(0)),
        ][kind];
        prop_assume!(padding != Padding::BottomRight || height.min(width) > 1);
        let x = random(&[batch, height, width, inputs], 1);
        let weight = random(&[outputs, inputs, size, size], 2);
        let bias = random(&[outputs], 3);
        let fast = Conv2d::new(weight.clone(), Some(bias.clone()), stride, padding).unwrap();
        let plain = Conv2d::new(variable(&weight), Some(bias), stride, padding).unwrap();
        let expected = plain.forward(&x).unwrap();
        assert_close(&fast.forward(&x).unwrap(), &expected, TOLERANCE, "convolution");
        assert_close(&fast.forward(&variable(&x)).unwrap(), &expected, TOLERANCE, "packed weight, plain form");
    }

    #[test]
    fn attention_is_the_same_fast_and_plain(
        (batch, n, m) in (1usize..3, 1usize..40, 1usize..40),
        (heads, width) in (1usize..4, 1usize..9),
        masked: bool,
        apart: bool,
        of_heads: bool,
    ) {
        let (q, k, v) = (
            random(&[batch, n, heads * width], 1),
            random(&[batch, m, heads * width], 2),
            random(&[batch, m, heads * width], 3),
        );
        let many = |apart: bool, many: usize| if apart { many } else { 1 };
        let mask = masked.then(|| random(&[many(apart, batch), many(of_heads, heads), n, m], 4));
        let fast = attention(&q, &k, &v, heads, mask.as_ref()).unwrap();
        let plain = super::attention::plain(&q, &k, &v, heads, mask.as_ref()).unwrap();
        assert_close(&fast, &plain, TOLERANCE, "attention");
    }

    #[test]
    fn norms_are_the_same_fast_and_plain(
        (batch, height, width) in (1usize..3, 1usize..20, 1usize..20),
        (groups, size) in (1usize..5, 1usize..9),
        offset in -20.0f64..20.0,
    ) {
        let channels = groups * size;
        prop_assume!(height * width * size > 1 && channels > 1);
        let map = std::collections::HashMap::from([
            ("weight".to_owned(), random(&[channels], 1)),
            ("bias".to_owned(), random(&[channels], 2)),
        ]);
        let dict = StateDict::from_tensors(map, DType::F32, &Device::Cpu);
        let x = (random(&[batch, height, width, channels], 3) + offset).unwrap();
        let norm = GroupNorm::load(&dict, groups, channels, 1e-5).unwrap();
        let plain = norm.plain(&x).unwrap();
        assert_close(&norm.forward(&x).unwrap(), &plain, 2e-5, "group norm");
        assert_close(&norm.forward_silu(&x).unwrap(), &plain.silu().unwrap(), 2e-5, "group norm and silu");
        // A few values so far from zero may be so near each other that f32 says nothing of their differences.
        if channels >= 8 {
            let norm = LayerNorm::load(&dict, channels, 1e-5).unwrap();
            assert_close(&norm.forward(&x).unwrap(), &norm.plain(&x).unwrap(), 5e-5, "layer norm");
        }
    }

    #[test]
    fn elementwise_operations_are_the_same_fast_and_plain(rows in 1usize..300, half in 1usize..90) {
        let x = random(&[rows, 2 * half], 1);
        let v = variable(&x);
        for (name, f) in [
            ("silu", silu as fn(&Tensor) -> candle_core::Result<Tensor>),
            ("gelu", gelu_erf),
            ("quick gelu", quick_gelu),
            ("geglu", geglu),
        ] {
            assert_close(&f(&x).unwrap(), &f(&v).unwrap(), TOLERANCE, name);
        }
    }

    #[test]
    fn upsampling_is_the_same_fast_and_plain(
        (batch, height, width, channels) in (1usize..3, 1usize..9, 1usize..9, 1usize..5),
        (to_height, to_width) in (1usize..20, 1usize..20),
    ) {
        let x = random(&[batch, height, width, channels], 1);
        let fast = upsample_nearest(&x, to_height, to_width).unwrap();
        let plain = upsample_nearest(&variable(&x), to_height, to_width).unwrap();
        assert_close(&fast, &plain, 0.0, "upsampling");
    }

    #[test]
    fn linears_are_the_same_fast_and_plain((rows, inputs, outputs) in (2usize..70, 1usize..40, 2usize..40)) {
        let (x, w, b) = (random(&[2, rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3));
        let fast = Linear::new(w.clone(), Some(b.clone())).unwrap().forward(&x).unwrap();
        let plain = Linear::new(variable(&w), Some(b)).unwrap().forward(&x).unwrap();
        assert_close(&fast, &plain, TOLERANCE, "linear");
    }

    #[test]
    fn what_goes_around_a_convolution_is_the_same_in_one_pass_and_in_several(
        (batch, height, width) in (1usize..3, 1usize..9, 1usize..9),
        (groups, size, outputs) in (1usize..4, 2usize..5, 1usize..40),
        (normal, larger, shifts, added) in (any::<bool>(), prop_oneof![Just(None), (1usize..3, 0usize..2).prop_map(Some)], 0usize..3, any::<bool>()),
    ) {
        let inputs = groups * size;
        let x = random(&[batch, height, width, inputs], 1);
        let norm = GroupNorm::load(&vectors(inputs), groups, inputs, 1e-5).unwrap();
        let (weight, bias) = (random(&[outputs, inputs, 3, 3], 4), random(&[outputs], 5));
        let enlarged = larger.map(|(times, more)| (height * times + more, width * times + more));
        let (tall, wide) = enlarged.unwrap_or((height, width));
        let shift = (shifts > 0).then(|| random(&[if shifts == 1 { 1 } else { batch }, outputs], 6));
        let beside = added.then(|| random(&[batch, tall, wide, outputs], 7));
        let around = Around {
            norm: normal.then_some(&norm),
            enlarged,
            shift: shift.as_ref(),
            beside: beside.as_ref(),
        };
        let conv = |weight| Conv2d::new(weight, Some(bias.clone()), 1, Padding::Same(1)).unwrap();
        let fast = conv(weight.clone()).forward_with(&x, around).unwrap();
        let plain = conv(variable(&weight)).forward_with(&x, around).unwrap();
        assert_close(&fast, &plain, 1e-5, "convolution");
    }

    #[test]
    fn what_goes_around_a_linear_is_the_same_in_one_pass_and_in_several(
        (rows, inputs, outputs) in (1usize..250, 2usize..40, prop_oneof![Just(64usize), Just(128), Just(10)]),
    ) {
        let (x, w, b) = (random(&[2, rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3));
        let norm = LayerNorm::load(&vectors(inputs), inputs, 1e-5).unwrap();
        let fast = Linear::new(w.clone(), Some(b.clone())).unwrap();
        let plain = Linear::new(variable(&w), Some(b)).unwrap();
        let beside = random(&[2, rows, outputs], 4);
        let sums = (fast.forward_add(&x, &beside).unwrap(), plain.forward_add(&x, &beside).unwrap());
        assert_close(&sums.0, &sums.1, TOLERANCE, "linear and sum");
        let gated = (fast.forward_geglu(&x, &norm).unwrap(), plain.forward_geglu(&x, &norm).unwrap());
        assert_close(&gated.0, &gated.1, 2e-5, "norm, linear and GEGLU");
    }

    #[test]
    fn joined_rows_are_the_same_fast_and_plain((rows, a, b) in (1usize..300, 1usize..90, 1usize..90)) {
        let (x, y) = (random(&[rows, a], 1), random(&[rows, b], 2));
        assert_close(&join(&x, &y).unwrap(), &join(&variable(&x), &y).unwrap(), 0.0, "join");
    }
}

/// A weight and a bias of this length.
fn vectors(length: usize) -> StateDict {
    let map = [("weight".to_owned(), random(&[length], 8)), ("bias".to_owned(), random(&[length], 9))];
    StateDict::from_tensors(map.into(), DType::F32, &Device::Cpu)
}

#[test]
fn long_attention_and_large_convolutions_go_in_blocks() {
    // 3000 keys leave 699 queries a block; 96 channels at 200 pixels are gathered in two parts.
    let (q, k) = (random(&[1, 1500, 8], 1), random(&[1, 3000, 8], 2));
    let plain = super::attention::plain(&q, &k, &k, 2, None).unwrap();
    assert_close(&attention(&q, &k, &k, 2, None).unwrap(), &plain, TOLERANCE, "attention");
    // Keys that are not seen: after a query's own place, and the first of several blocks as a whole.
    let after = |row: usize, key: usize| key > row;
    let before = |row: usize, key: usize| key < 300 + row % 7;
    for hidden in [&after as &dyn Fn(usize, usize) -> bool, &before] {
        let mask = (0..600 * 600).map(|at| if hidden(at / 600, at % 600) { f32::NEG_INFINITY } else { 0.0 });
        let mask = Tensor::from_iter(mask, &Device::Cpu).unwrap().reshape((600, 600)).unwrap();
        let x = random(&[2, 600, 16], 5);
        let plain = super::attention::plain(&x, &x, &x, 2, Some(&mask)).unwrap();
        assert_close(&attention(&x, &x, &x, 2, Some(&mask)).unwrap(), &plain, TOLERANCE, "masked attention");
    }
    let (x, w) = (random(&[1, 200, 60, 96], 3), random(&[4, 96, 3, 3], 4));
    let fast = Conv2d::new(w.clone(), None, 1, Padding::Same(1)).unwrap().forward(&x).unwrap();
    let plain = Conv2d::new(variable(&w), None, 1, Padding::Same(1)).unwrap().forward(&x).unwrap();
    assert_close(&fast, &plain, TOLERANCE, "convolution");
}

#[test]
fn a_plain_form_has_gradients_through_every_operation() {
    let x = Var::from_tensor(&random(&[1, 4, 4, 8], 1)).unwrap();
    let dict = StateDict::from_tensors(
        std::collections::HashMap::from([
            ("weight".to_owned(), random(&[8], 2)),
            ("bias".to_owned(), random(&[8], 3)),
        ]),
        DType::F32,
        &Device::Cpu,
    );
    let conv = Conv2d::new(random(&[8, 8, 3, 3], 4), None, 1, Padding::Same(1)).unwrap();
    let norm = GroupNorm::load(&dict, 2, 8, 1e-5).unwrap();
    let shift = random(&[1, 8], 5);
    let around = Around { norm: Some(&norm), enlarged: Some((8, 8)), shift: Some(&shift), beside: None };
    let h = conv.forward_with(x.as_tensor(), around).unwrap();
    let h = join(&h, &h).unwrap().narrow(3, 4, 8).unwrap().contiguous().unwrap();
    let norm = LayerNorm::load(&dict, 8, 1e-5).unwrap();
    let tokens = norm.forward(&h.reshape((1, 64, 8)).unwrap()).unwrap();
    let y = attention(&tokens, &tokens, &tokens, 2, None).unwrap();
    let wide = Linear::new(random(&[16, 8], 6), None).unwrap();
    let y = wide
        .forward_add(&y, &random(&[1, 64, 16], 7))
        .unwrap()
        .narrow(2, 0, 8)
        .unwrap()
        .contiguous()
        .unwrap();
    let y = wide.forward_geglu(&y, &norm).unwrap();
    let y = geglu(&quick_gelu(&y).unwrap()).unwrap();
    let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(gradient > 0.0 && gradient.is_finite());
}

#[test]
fn misfits_are_errors_with_shapes() {
    let x = random(&[1, 4, 4, 8], 1);
    let conv = Conv2d::new(random(&[2, 5, 3, 3], 1), None, 1, Padding::Same(1)).unwrap();
    let error = crate::Error::from(conv.forward(&x).unwrap_err());
    assert_eq!(error.to_string(), "a convolution of 5 inputs was given [1, 4, 4, 8]");
    let q = random(&[1, 3, 8], 1);
    assert!(attention(&q, &q, &q, 3, None).is_err());
    assert!(Linear::new(random(&[2, 5], 1), None).unwrap().forward(&q).is_err());
    assert!(geglu(&random(&[2, 3], 1)).is_err());
    let bias = || Some(random(&[3], 1));
    assert!(Linear::new(random(&[2, 5], 1), bias()).is_err());
    assert!(Conv2d::new(random(&[2, 5, 3, 3], 1), bias(), 1, Padding::Same(1)).is_err());
}

#[test]
fn norms_of_halves_do_not_overflow_or_lose_small_differences() {
    let x = random(&[1, 64, 64, 8], 3).affine(40.0, 100.0).unwrap();
    let parameters = |dtype: DType| {
        let ones = Tensor::ones(8, dtype, &Device::Cpu).unwrap();
        let both = [("weight".to_owned(), ones.clone()), ("bias".to_owned(), ones.zeros_like().unwrap())];
        StateDict::from_tensors(both.into(), dtype, &Device::Cpu)
    };
    let (wide, narrow) = (parameters(DType::F32), parameters(DType::F16));
    let group = |dict: &StateDict, x: &Tensor| GroupNorm::load(dict, 2, 8, 1e-5).unwrap().forward(x).unwrap();
    let layer = |dict: &StateDict, x: &Tensor| LayerNorm::load(dict, 8, 1e-5).unwrap().forward(x).unwrap();
    let halved = x.to_dtype(DType::F16).unwrap();
    assert_close(&group(&narrow, &halved), &group(&wide, &x), 2e-3, "group norm");
    assert_close(&layer(&narrow, &halved), &layer(&wide, &x), 2e-3, "layer norm");
}
