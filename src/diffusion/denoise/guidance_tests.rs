//! Prompts on parts of the picture, guidance and model sampling, against ComfyUI's.

use std::collections::HashMap;

use candle_core::Device;

use super::*;
use crate::conditioning::{Area, Conditioning, RegionMask};
use crate::fixture;
use crate::guidance::{Guidance, SelfAttention};
use crate::inpaint::NoiseMask;
use crate::noise::{Noise, Rng};
use crate::samplers::{self, SamplerSpec};
use crate::sampling::{Sampling, Settings};
use crate::schedule::Schedule;

struct Bench {
    rt: Runtime,
    model: Model,
    torch: HashMap<String, Tensor>,
}

impl Bench {
    fn new() -> Self {
        let model = Model::open(&fixture::tiny_sd("tiny-sd.safetensors")).unwrap();
        Self { rt: Runtime::cpu(), model, torch: fixture::tensors("guidance/cases.safetensors") }
    }

    fn text(&self, name: &str) -> Conditioning {
        let pooled = self.torch.get(&format!("pooled/{name}")).cloned();
        Conditioning::text(self.torch[&format!("text/{name}")].clone(), pooled)
    }

    fn mask(&self, name: &str, strength: f64, bounds: bool) -> RegionMask {
        let mask = &self.torch[&format!("mask/{name}")];
        let (frames, height, width) = mask.dims3().unwrap();
        let mask = NoiseMask::new(frames, height, width, fixture::values(mask).into()).unwrap();
        RegionMask { mask, strength, bounds }
    }

    fn x(&self, batch: usize, sigma: f64) -> Tensor {
        (self.torch["x"].narrow(0, 0, batch).unwrap() * sigma).unwrap()
    }

    fn guess(&self, guider: &Guider, batch: usize, sigma: f64) -> Guess {
        let x = self.x(batch, sigma);
        let mut guided = Guided::new(&self.rt, &self.model, guider, x.dims4().unwrap(), false).unwrap();
        guided.guess(&x, Moment { index: 0, total: 1, sigma }).unwrap()
    }

    fn check(&self, name: &str, got: &Tensor) {
        let want = &self.torch[name];
        let size = fixture::values(want).iter().fold(0f32, |size, v| size.max(v.abs()));
        let diff = fixture::max_abs_diff(got, want) / size;
        println!("{name}: {diff:e} of {size}");
        assert!(diff < 1e-4, "{name} differs by {diff:e} of its size {size}");
    }

    fn cfg(&self, name: &str, positive: &Conditioning, negative: &Conditioning, batch: usize) {
        let guider = Guider::Cfg { positive: positive.clone(), negative: negative.clone(), cfg: 3.0 };
        for (sigma, end) in [(5.0, ""), (0.5, "/1")] {
            self.check(&format!("cond/{name}{end}"), &self.guess(&guider, batch, sigma).guided);
        }
    }
}

/// In pixels, as the nodes have it.
fn area(of: &Conditioning, width: usize, height: usize, x: usize, y: usize, strength: f64) -> Conditioning {
    let rect = Rect { top: y / 8, left: x / 8, height: height / 8, width: width / 8 };
    of.with_area(Area::Cells(rect), strength)
}

#[test]
fn prompts_on_areas_equal_comfyui() {
    let b = Bench::new();
    let [apple, star, car, none] = ["apple", "star", "car", "none"].map(|name| b.text(name));
    let with = |part: Conditioning| part.combine(&apple);
    b.cfg("area", &with(area(&star, 256, 192, 64, 48, 1.0)), &none, 1);
    b.cfg("area_strong", &with(area(&star, 256, 320, 128, 0, 3.0)), &none, 1);
    b.cfg("area_small", &with(area(&star, 64, 72, 0, 200, 2.0)), &none, 1);
    b.cfg("area_beyond", &with(area(&star, 384, 320, 200, 160, 1.0)), &none, 1);
    let left_and_right = area(&star, 256, 320, 0, 0, 1.0).combine(&area(&car, 256, 320, 128, 0, 0.5));
    b.cfg("two_areas", &left_and_right, &none, 1);
    let around = area(&car, 320, 256, 32, 32, 1.0).combine(&none);
    b.cfg("nested_areas", &with(area(&star, 192, 192, 64, 64, 1.0)), &around, 1);
    b.cfg("nothing_around", &area(&star, 160, 160, 64, 64, 1.0), &none, 1);
    let part = star.with_area(Area::Shares { top: 0.31, left: 0.25, height: 0.4, width: 0.5 }, 1.5);
    let rest = car.with_area(Area::Shares { top: 0.0, left: 0.0, height: 1.0, width: 1.0 }, 0.5);
    b.cfg("shares", &part.combine(&rest), &none, 1);
    b.cfg("strength", &with(star.with_strength(2.5)), &none, 1);
}

#[test]
fn prompts_under_masks_equal_comfyui() {
    let b = Bench::new();
    let [apple, star, none] = ["apple", "star", "none"].map(|name| b.text(name));
    let with = |part: Conditioning| part.combine(&apple);
    b.cfg("mask", &with(star.with_mask(&b.mask("soft", 0.8, false))), &none, 1);
    let boxed = star.with_mask(&b.mask("box", 1.0, true));
    b.cfg("mask_bounds", &with(boxed.clone()), &none, 1);
    let soft = b.mask("soft", 1.0, false);
    b.cfg("mask_and_area", &with(area(&star, 256, 320, 64, 0, 1.0).with_mask(&soft)), &none, 1);
    b.cfg("area_after_bounds", &with(area(&boxed, 256, 320, 0, 0, 2.0)), &none, 1);
    b.cfg("batch", &with(star.with_mask(&b.mask("soft", 1.5, false))), &none, 2);
}

#[test]
fn prompts_in_windows_and_mixed_texts_equal_comfyui() {
    let b = Bench::new();
    let [apple, star, car, none] = ["apple", "star", "car", "none"].map(|name| b.text(name));
    let early_and_late = star.with_window(0.0, 0.3).combine(&car.with_window(0.3, 1.0));
    b.cfg("window", &early_and_late.combine(&apple), &none, 1);
    let (concat, average) = (apple.concat(&star).unwrap(), apple.average(&star, 0.7).unwrap());
    b.check("concat", &concat.0[0].context);
    b.check("average/text", &average.0[0].context);
    b.check("average/pooled", average.0[0].pooled.as_ref().unwrap());
    let mut shorter = star.clone();
    shorter.0[0].context = shorter.0[0].context.narrow(1, 0, 50).unwrap();
    b.check("average/short", &apple.average(&shorter, 0.7).unwrap().0[0].context);
    b.check("average/long", &shorter.average(&apple, 0.25).unwrap().0[0].context);
    b.cfg("concat", &concat, &none, 1);
    b.cfg("average", &average, &apple.zeroed().unwrap(), 1);
    let wide =
        Conditioning::text(Tensor::zeros((1, 77, 5), candle_core::DType::F32, &Device::Cpu).unwrap(), None);
    let message = apple.concat(&wide).unwrap_err().to_string();
    assert_eq!(message, "one text has tokens 96 wide, the other 5: they are for different models");
    assert!(apple.average(&wide, 0.5).is_err());
}

#[test]
fn an_area_outside_the_picture_is_refused() {
    let b = Bench::new();
    let outside = area(&b.text("star"), 64, 64, 0, 320, 1.0);
    let guider = Guider::Basic { positive: outside };
    let error = Guided::new(&b.rt, &b.model, &guider, (1, 4, 40, 48), false).err().unwrap();
    let message = "the area of a prompt begins at x 0, y 320, outside the picture of 384x320";
    assert_eq!(error.to_string(), message);
}

#[test]
fn rules_of_guidance_equal_the_references() {
    let mut b = Bench::new();
    let [apple, star, car, none] = ["apple", "star", "car", "none"].map(|name| b.text(name));
    let guided = |b: &Bench, guider: Guider, batch| b.guess(&guider, batch, 5.0).guided;
    let (cfg_conds, cfg_cond2_negative) = (3.0, 2.0);
    for (name, nested) in [("dual", false), ("dual_nested", true)] {
        let (first, second, negative) = (apple.clone(), star.clone(), car.clone());
        let dual = Guider::Dual { first, second, negative, cfg_conds, cfg_cond2_negative, nested };
        b.check(&format!("rule/{name}"), &guided(&b, dual, 1));
    }
    let (positive, negative, empty) = (apple.clone(), car.clone(), none.clone());
    let perp_neg = Guider::PerpNeg { positive, negative, empty, cfg: 4.0, neg_scale: 0.8 };
    b.check("rule/perp_neg", &guided(&b, perp_neg, 1));

    let cfg = |negative: &Conditioning, cfg| Guider::Cfg {
        positive: apple.clone(),
        negative: negative.clone(),
        cfg,
    };
    b.model.guidance.rule = CfgRule::PerpNeg(none.clone(), 0.8);
    b.check("rule/perp_neg", &guided(&b, cfg(&car, 4.0), 1));
    b.model.guidance.rule = CfgRule::Rescaled(0.7);
    b.check("rule/rescaled", &guided(&b, cfg(&none, 6.0), 2));
    b.model.guidance = Guidance { perturbed_attention: 2.0, ..Guidance::default() };
    b.check("rule/perturbed", &guided(&b, cfg(&none, 3.0), 1));
    let self_attention = Some(SelfAttention { scale: 0.75, blur_sigma: 2.0 });
    b.model.guidance = Guidance { self_attention, ..Guidance::default() };
    b.check("rule/self_attention", &guided(&b, cfg(&none, 3.0), 2));
}

#[test]
fn guidance_that_changes_nothing_is_the_prompt_alone() {
    let b = Bench::new();
    let [apple, star, none] = ["apple", "star", "none"].map(|name| b.text(name));
    let alone = b.guess(&Guider::Basic { positive: apple.clone() }, 1, 5.0).guided;
    let (positive, negative) = (apple.clone(), none.clone());
    let cfg = Guider::Cfg { positive, negative, cfg: 1.0 };
    let (first, second, negative) = (apple.clone(), star, none.clone());
    let (cfg_conds, cfg_cond2_negative, nested) = (1.0, 1.0, false);
    let dual = Guider::Dual { first, second, negative, cfg_conds, cfg_cond2_negative, nested };
    let (positive, negative, empty) = (apple.clone(), none.clone(), none);
    let perp_neg = Guider::PerpNeg { positive, negative, empty, cfg: 1.0, neg_scale: 0.0 };
    for guider in [cfg, dual, perp_neg] {
        let x = b.x(1, 5.0);
        let guided = Guided::new(&b.rt, &b.model, &guider, x.dims4().unwrap(), false).unwrap();
        assert_eq!(guided.prompts.len(), 1, "{guider:?}");
        let diff = fixture::max_abs_diff(&b.guess(&guider, 1, 5.0).guided, &alone);
        assert!(diff < 1e-5, "{diff}: {guider:?}");
    }
}

#[test]
fn the_unguided_guess_is_there_for_who_needs_it() {
    let b = Bench::new();
    let (positive, negative) = (b.text("apple"), b.text("none"));
    let guider = Guider::Cfg { positive, negative: negative.clone(), cfg: 1.0 };
    let x = b.x(1, 5.0);
    let mut guided = Guided::new(&b.rt, &b.model, &guider, x.dims4().unwrap(), true).unwrap();
    let uncond = guided.guess(&x, Moment { index: 0, total: 1, sigma: 5.0 }).unwrap().uncond;
    let want = b.guess(&Guider::Basic { positive: negative }, 1, 5.0).guided;
    assert!(fixture::max_abs_diff(&uncond, &want) < 1e-4);
}

#[test]
fn model_sampling_equals_comfyui() {
    let mut b = Bench::new();
    let text = fixture::metadata("guidance/cases.safetensors")["levels"].as_str().unwrap().to_owned();
    let levels: serde_json::Value = serde_json::from_str(&text).unwrap();
    let plain = Schedule::default();
    let continuous = |min, max| Schedule::continuous(min, max).unwrap();
    let kinds = [
        ("eps", Prediction::Epsilon, plain.clone()),
        ("v", Prediction::V, plain.clone()),
        ("x0", Prediction::X0, plain.clone()),
        ("lcm", Prediction::Lcm, plain.distilled()),
        ("v_zsnr", Prediction::V, Schedule::zero_terminal_snr()),
        ("lcm_zsnr", Prediction::Lcm, Schedule::zero_terminal_snr().distilled()),
        ("edm_v", Prediction::V, continuous(0.002, 120.0)),
        ("edm", Prediction::Edm, continuous(0.002, 80.0)),
        ("edm_eps", Prediction::Epsilon, continuous(0.01, 50.0)),
    ];
    for (name, prediction, schedule) in kinds {
        let close = |got: f64, want: f64| (got - want).abs() <= 2e-6 * want.abs() + 1e-7;
        let sigmas = fixture::values(&b.torch[&format!("sigmas/{name}")]);
        assert_eq!(schedule.sigmas().len(), sigmas.len(), "{name}");
        for (got, want) in schedule.sigmas().iter().zip(&sigmas) {
            assert!(close(f64::from(*got), f64::from(*want)), "{name}: {got} is not {want}");
        }
        let pairs = |key: &str| levels[name][key].as_array().unwrap().clone();
        for pair in pairs("timestep") {
            let (sigma, want) = (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap());
            assert!(close(schedule.timestep(sigma), want), "{name}: timestep of {sigma}");
        }
        for pair in pairs("percent") {
            let (percent, want) = (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap());
            let got = schedule.percent_to_sigma(percent);
            assert!((got - want).abs() <= 2e-6 * want, "{name}: {got} at {percent} is not {want}");
        }
        for scheduler in ["normal", "sgm_uniform", "simple", "ddim_uniform"] {
            let got = crate::schedule::sigmas(&schedule, scheduler, 6, 1.0, false).unwrap();
            let want: Vec<f64> = pairs(scheduler).iter().map(|v| v.as_f64().unwrap()).collect();
            assert!(
                got.len() == want.len() && got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 2e-6 * w),
                "{name} {scheduler}: {got:?} is not {want:?}"
            );
        }
        (b.model.prediction, b.model.schedule) = (prediction, schedule);
        let guider = Guider::Basic { positive: b.text("apple") };
        for sigma in [8.0, 0.6] {
            b.check(&format!("sampling/{name}/{sigma:.1}"), &b.guess(&guider, 1, sigma).guided);
        }
    }
    let message = Schedule::continuous(3.0, 2.0).unwrap_err().to_string();
    assert_eq!(message, "sigma_min is 3 and sigma_max 2: expected 0 < sigma_min < sigma_max");
}

#[test]
fn whole_runs_of_samplers_and_schedules_equal_comfyui() {
    let b = Bench::new();
    let [apple, star, car, none] = ["apple", "star", "car", "none"].map(|name| b.text(name));
    let mut runs = 0;
    for (name, want) in fixture::tensors("guidance/runs.safetensors") {
        let [.., sampler, scheduler] = name.split('/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let (positive, negative) = if name.starts_with("area/") {
            let inner = area(&star, 64, 64, 24, 24, 1.0).combine(&apple);
            (inner, area(&car, 104, 80, 8, 8, 1.0).combine(&none))
        } else {
            (apple.clone(), none.clone())
        };
        let guider = Guider::Cfg { positive, negative, cfg: 3.0 };
        let kind = samplers::find(sampler).unwrap();
        let schedule = &b.model.schedule;
        let drop = kind.drops_penultimate;
        let settings = Settings {
            sampler: &SamplerSpec::Named(kind),
            sigmas: &crate::schedule::sigmas(schedule, scheduler, 7, 1.0, drop).unwrap(),
            noise: Noise { rng: Rng::TorchCpu, seed: 42 },
            add_noise: true,
            numbers: None,
            schedule,
            latent_scale: b.model.latent.scale,
        };
        let empty = Tensor::zeros((1, 4, 16, 16), candle_core::DType::F32, &Device::Cpu).unwrap();
        let mut guided = Guided::new(&b.rt, &b.model, &guider, (1, 4, 16, 16), false).unwrap();
        let mut sampling =
            Sampling::new(Box::new(|x, at| guided.guess(x, at)), &settings, &empty, None).unwrap();
        assert_eq!(sampling.by_ref().map(Result::unwrap).count(), settings.sigmas.len() - 1);
        let got = sampling.finish().unwrap().0;
        let size = fixture::values(&want).iter().fold(0f32, |size, v| size.max(v.abs()));
        let diff = fixture::max_abs_diff(&got, &want) / size;
        println!("{name}: {diff:e} of {size}");
        assert!(diff < 1e-4, "{name} differs by {diff:e} of its size {size}");
        runs += 1;
    }
    assert_eq!(runs, 6 * 9 + 1);
}
