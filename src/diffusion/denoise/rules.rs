//! What guidance does with prompts, windows and ControlNets, one model call at a time.

use candle_core::Device;

use super::*;
use crate::clip::ClipSource;
use crate::conditioning::{Conditioning, Hint};
use crate::control::ControlSource;
use crate::fixture::{self, Tensors};
use crate::schedule::Schedule;

struct Bench {
    rt: Runtime,
    model: Model,
    clip: ClipSource,
}

impl Bench {
    fn new() -> Self {
        let checkpoint = fixture::tiny_sd("tiny-sd.safetensors");
        let (model, clip) = (Model::open(&checkpoint).unwrap(), ClipSource::open(&checkpoint).unwrap());
        Self { rt: Runtime::cpu(), model, clip }
    }

    fn text(&self, text: &str) -> Conditioning {
        Conditioning::text(self.clip.encode(&self.rt, text).unwrap().context, None)
    }

    fn denoised(&self, positive: &Conditioning, negative: &Conditioning, cfg: f64, sigma: f64) -> Tensor {
        let x = (Tensors::reference().get("init_noise") * sigma).unwrap();
        let dims = x.dims4().unwrap();
        let guider = cfg_guider(positive, negative, cfg);
        let mut guided = Guided::new(&self.rt, &self.model, &guider, dims, false).unwrap();
        guided.guess(&x, Moment { index: 0, total: 1, sigma }).unwrap().guided
    }
}

fn cfg_guider(positive: &Conditioning, negative: &Conditioning, cfg: f64) -> Guider {
    Guider::Cfg { positive: positive.clone(), negative: negative.clone(), cfg }
}

fn control(start_percent: f64, end_percent: f64) -> Control {
    let net = ControlSource::open(&fixture::tiny_sd("tiny-control-canny.safetensors")).unwrap();
    let rgb: Vec<f32> = (0..128 * 128 * 3).map(|i| f32::from((i / 3) % 128 == 64)).collect();
    let hint = Hint::new(1, 128, 128, rgb.into()).unwrap();
    Control { net: Arc::new(net), hint, strength: 1.0, start_percent, end_percent }
}

fn diff(a: &Tensor, b: &Tensor) -> f32 {
    fixture::max_abs_diff(a, b)
}

#[test]
fn combined_prompts_are_averaged() {
    let bench = Bench::new();
    let (apple, star, none) = (bench.text("a red apple"), bench.text("a yellow star"), bench.text(""));
    let of = |positive: &Conditioning| bench.denoised(positive, &none, 3.0, 5.0);
    let mean = ((of(&apple) + of(&star)).unwrap() / 2.0).unwrap();
    assert!(diff(&of(&apple.combine(&star)), &mean) < 1e-4);
    assert!(diff(&of(&apple), &mean) > 1e-2, "the prompts do not differ");
}

#[test]
fn a_prompt_counts_only_in_its_window() {
    let bench = Bench::new();
    let (mut early, mut late, none) =
        (bench.text("a red apple"), bench.text("a yellow star"), bench.text(""));
    (early.0[0].end_percent, late.0[0].start_percent) = (0.4, 0.6);
    let both = early.combine(&late);
    let at = |percent| Schedule::default().percent_to_sigma(percent);
    let of = |positive: &Conditioning, percent| bench.denoised(positive, &none, 3.0, at(percent));
    assert_eq!(diff(&of(&both, 0.2), &of(&early, 0.2)), 0.0);
    assert_eq!(diff(&of(&both, 0.8), &of(&late, 0.8)), 0.0);
    let nothing = bench.denoised(&both, &none, 1.0, at(0.5));
    assert_eq!(diff(&nothing, &nothing.zeros_like().unwrap()), 0.0);
}

#[test]
fn without_guidance_the_negative_prompt_is_not_run() {
    let bench = Bench::new();
    let broken =
        Conditioning::text(Tensor::zeros((1, 77, 5), candle_core::DType::F32, &Device::Cpu).unwrap(), None);
    let apple = bench.text("a red apple");
    let alone = bench.denoised(&apple, &broken, 1.0, 5.0);
    let guided = bench.denoised(&apple, &bench.text("a car"), 1.0 + 1e-7, 5.0);
    assert!(diff(&alone, &guided) < 1e-4);
}

#[test]
fn texts_of_different_length_share_a_call() {
    let bench = Bench::new();
    let long = bench.text(&vec!["a yellow star"; 30].join(", "));
    assert_ne!(long.0[0].context.dim(1).unwrap(), 77);
    let (apple, dims) = (bench.text("a red apple"), (1, 4, 16, 16));
    let guider = cfg_guider(&apple, &long, 3.0);
    let guided = Guided::new(&bench.rt, &bench.model, &guider, dims, false).unwrap();
    assert_eq!(guided.groups(|_| true), [[0, 1]]);
    let together = bench.denoised(&apple, &long, 3.0, 5.0);
    let [pos, neg] = [&apple, &long].map(|c| bench.denoised(c, c, 1.0, 5.0));
    let apart = (&neg + ((pos - &neg).unwrap() * 3.0).unwrap()).unwrap();
    assert!(diff(&together, &apart) < 1e-4);
}

#[test]
fn a_control_net_that_is_not_active_changes_no_bit() {
    let bench = Bench::new();
    let (apple, none) = (bench.text("a red apple"), bench.text(""));
    let at = Schedule::default().percent_to_sigma(0.2);
    let of = |control: &Control| {
        let with = |c: &Conditioning| c.with_control(control, false);
        bench.denoised(&with(&apple), &with(&none), 3.0, at)
    };
    let plain = bench.denoised(&apple, &none, 3.0, at);
    assert_eq!(diff(&of(&control(0.5, 1.0)), &plain), 0.0);
    assert_eq!(diff(&of(&Control { strength: 0.0, ..control(0.0, 1.0) }), &plain), 0.0);
    assert!(diff(&of(&control(0.0, 0.5)), &plain) > 1e-2);
}

#[test]
fn a_control_net_on_the_positive_prompt_alone_may_be_lent_to_the_negative() {
    let bench = Bench::new();
    let (apple, none, control) = (bench.text("a red apple"), bench.text(""), control(0.0, 1.0));
    let both =
        bench.denoised(&apple.with_control(&control, false), &none.with_control(&control, false), 3.0, 5.0);
    let lent = bench.denoised(&apple.with_control(&control, true), &none, 3.0, 5.0);
    let kept = bench.denoised(&apple.with_control(&control, false), &none, 3.0, 5.0);
    assert_eq!(diff(&lent, &both), 0.0);
    assert!(diff(&kept, &both) > 1e-2);
}

#[test]
fn two_control_nets_add_up_in_either_order() {
    let bench = Bench::new();
    let (apple, none) = (bench.text("a red apple"), bench.text(""));
    let (a, b) = (control(0.0, 1.0), Control { strength: 0.5, ..control(0.0, 1.0) });
    let of = |controls: &[&Control]| {
        let with = |c: &Conditioning| controls.iter().fold(c.clone(), |c, k| c.with_control(k, false));
        bench.denoised(&with(&apple), &with(&none), 3.0, 5.0)
    };
    assert!(diff(&of(&[&a, &b]), &of(&[&b, &a])) < 1e-4);
    assert!(diff(&of(&[&a, &b]), &of(&[&Control { strength: 1.5, ..a.clone() }])) < 1e-4);
}

#[test]
fn velocity_and_noise_predictions_of_one_output_agree_where_they_must() {
    let mut bench = Bench::new();
    let apple = bench.text("a red apple");
    let sigma = 5.0;
    let x = (Tensors::reference().get("init_noise") * sigma).unwrap();
    let noise = bench.denoised(&apple, &apple, 1.0, sigma);
    let output = ((&x - noise).unwrap() / sigma).unwrap();
    bench.model.prediction = Prediction::V;
    let velocity = bench.denoised(&apple, &apple, 1.0, sigma);
    let (cos, sin) = (1.0 / (1.0 + sigma * sigma).sqrt(), sigma / (1.0 + sigma * sigma).sqrt());
    // Salimans & Ho 2022: x0 = alpha z - sigma v, with z = x / sqrt(1 + sigma^2).
    let want = ((x * (cos * cos)).unwrap() - (output * sin).unwrap()).unwrap();
    assert!(diff(&velocity, &want) < 1e-4);
}
