//! Whole samplings of the shipped family, against ComfyUI's and diffusers'.

use std::collections::HashMap;

use serde_json::Value;

use candle_core::Device;

use super::*;
use crate::clip::ClipSource;
use crate::conditioning::{Conditioning, Hint};
use crate::control::ControlSource;
use crate::fixture::{self, Tensors, assert_close};
use crate::inpaint::NoiseMask;
use crate::ip_adapter::{self, EmbedsScaling, ImageEmbeds, IpAdapterSource, IpOptions, WeightType};
use crate::noise::{Noise, Rng, TorchRng};
use crate::samplers::{self, SamplerSpec};
use crate::sampling::{Sampling, Settings, window};
use crate::schedule;
use crate::schedule::Schedule;

/// The shipped family and what the references make with it.
struct Family {
    rt: Runtime,
    model: Model,
    adapter: IpAdapterSource,
    clip: ClipSource,
    cases: Value,
    latents: HashMap<String, Tensor>,
}

/// How a sampling is done: KSampler's inputs.
#[derive(Clone, Copy)]
struct Run<'a> {
    sampler: &'a str,
    sigmas: &'a [f64],
    seed: u64,
    cfg: f64,
    add_noise: bool,
}

impl Family {
    fn open() -> Self {
        let checkpoint = fixture::tiny_sd("tiny-sd.safetensors");
        Self {
            rt: Runtime::cpu(),
            model: Model::open(&checkpoint).unwrap(),
            adapter: IpAdapterSource::open(&fixture::tiny_sd("tiny-ip-adapter.safetensors")).unwrap(),
            clip: ClipSource::open(&checkpoint).unwrap(),
            cases: fixture::json("pipeline/cases.json"),
            latents: fixture::tensors("pipeline/latents.safetensors"),
        }
    }

    fn text(&self, text: &str) -> Conditioning {
        Conditioning::text(self.clip.encode(&self.rt, text).unwrap().context, None)
    }

    /// The final latent, and what the model took the first one for.
    fn sample(
        &self,
        model: &Model,
        [positive, negative]: [&Conditioning; 2],
        run: Run,
        latent: &Tensor,
        mask: Option<&NoiseMask>,
    ) -> (Tensor, Tensor) {
        let dims = latent.dims4().unwrap();
        let guider = Guider::Cfg { positive: positive.clone(), negative: negative.clone(), cfg: run.cfg };
        let sampler = SamplerSpec::named(run.sampler).unwrap();
        let mut guided = Guided::new(&self.rt, model, &guider, dims, sampler.needs_uncond()).unwrap();
        guided.expect(run.sigmas);
        let settings = Settings {
            sampler: &sampler,
            sigmas: run.sigmas,
            noise: Noise { rng: Rng::TorchCpu, seed: run.seed },
            add_noise: run.add_noise,
            numbers: None,
            schedule: &model.schedule,
            latent_scale: model.latent.scale,
        };
        let denoise = Box::new(|x: &Tensor, at| guided.guess(x, at));
        let mut sampling = Sampling::new(denoise, &settings, latent, mask).unwrap();
        let steps: Vec<Tensor> = sampling.by_ref().map(|step| step.unwrap().denoised).collect();
        (sampling.finish().unwrap().0, steps[0].clone())
    }

    /// Runs a case of the pipeline fixtures and compares its latents with ComfyUI's.
    fn check(&self, name: &str) {
        let case = &self.cases[name];
        let number = |key: &str| case[key].as_u64().unwrap();
        let size = |key: &str| number(key) as usize;
        let text = |key: &str| self.text(case[key].as_str().unwrap());
        let (mut positive, mut negative) = (text("positive"), text("negative"));
        if let Some(control) = case.get("control") {
            let control = hinted(control);
            positive = positive.with_control(&control, false);
            negative = negative.with_control(&control, false);
        }
        let model = case.get("adapters").map_or_else(|| self.model.clone(), |a| self.with_adapters(a));
        let empty = (size("batch"), 4, size("height") / 8, size("width") / 8);
        let mut latent = match self.latents.get(&format!("{name}/start")) {
            Some(start) => start.clone(),
            None => Tensor::zeros(empty, candle_core::DType::F32, &Device::Cpu).unwrap(),
        };
        let sampler = case["sampler"].as_str().unwrap();
        let all = schedule::sigmas(
            &Schedule::default(),
            case["scheduler"].as_str().unwrap(),
            size("steps"),
            case["denoise"].as_f64().unwrap(),
            samplers::find(sampler).unwrap().drops_penultimate,
        )
        .unwrap();
        let mask = self.mask(name);
        let whole = serde_json::json!([{"start": 0, "end": 10_000, "add_noise": true, "leftover": false}]);
        let stages = case.get("stages").unwrap_or(&whole).as_array().unwrap();
        let mut first = None;
        for stage in stages {
            let step = |key: &str| stage[key].as_u64().unwrap() as usize;
            let flag = |key: &str| stage[key].as_bool().unwrap();
            let run = Run {
                sampler,
                sigmas: &window(all.clone(), step("start"), step("end"), flag("leftover")),
                seed: number("seed"),
                cfg: case["cfg"].as_f64().unwrap(),
                add_noise: flag("add_noise"),
            };
            let (result, x0) = self.sample(&model, [&positive, &negative], run, &latent, mask.as_ref());
            latent = result;
            first.get_or_insert(x0);
        }
        for (part, got) in [("x0", &first.unwrap()), ("latent", &latent)] {
            let want = &self.latents[&format!("{name}/{part}")];
            let diff = fixture::max_abs_diff(got, want);
            println!("{name}/{part}: {diff:e}");
            assert!(diff < 1e-3, "{name}: {part} differs by {diff}");
        }
    }

    fn with_adapters(&self, adapters: &Value) -> Model {
        adapters.as_array().unwrap().iter().fold(self.model.clone(), |model, adapter| {
            let number = |key: &str, default| adapter[key].as_f64().unwrap_or(default);
            let named = |key: &str, default| adapter[key].as_str().unwrap_or(default).to_owned();
            let weight_type = named("weight_type", "linear");
            let scaling = named("embeds_scaling", "V only");
            let mask = adapter.get("mask").map(painted);
            let options = IpOptions {
                weight: number("weight", 1.0),
                weight_type: WeightType::NAMES.iter().find(|(n, _)| *n == weight_type).unwrap().1,
                scaling: EmbedsScaling::NAMES.iter().find(|(n, _)| *n == scaling).unwrap().1,
                start_at: number("start", 0.0),
                end_at: number("end", 1.0),
                mask: mask.map(|m| Tensor::from_vec(m, (1, 128, 128), &Device::Cpu).unwrap()),
                ..IpOptions::default()
            };
            let picture = format!("embeds/{}", adapter["image"].as_str().unwrap());
            let embeds = ImageEmbeds::new(self.latents[&picture].clone());
            ip_adapter::apply(&self.rt, &model, &self.adapter, &embeds, &options).unwrap()
        })
    }

    fn mask(&self, name: &str) -> Option<NoiseMask> {
        if let Some(mask) = self.latents.get(&format!("{name}/mask")) {
            return Some(NoiseMask::new(1, 128, 128, fixture::values(mask).into()).unwrap());
        }
        let values = painted(self.cases[name].get("noise_mask")?);
        Some(NoiseMask::new(1, 128, 128, values.into()).unwrap())
    }
}

/// A mask of 128 by 128 pixels with rectangles painted on it in turn.
fn painted(rectangles: &Value) -> Vec<f32> {
    let mut values = vec![0f32; 128 * 128];
    for rectangle in rectangles.as_array().unwrap() {
        let side = |i: usize| rectangle[0][i].as_u64().unwrap() as usize;
        for y in side(1)..side(3) {
            values[128 * y + side(0)..128 * y + side(2)].fill(rectangle[1].as_f64().unwrap() as f32);
        }
    }
    values
}

fn hint(path: &std::path::Path) -> Hint {
    let picture = image::open(path).unwrap().to_rgb8();
    let rgb: Vec<f32> = picture.as_raw().iter().map(|&b| f32::from(b) / 255.0).collect();
    Hint::new(1, picture.height() as usize, picture.width() as usize, rgb.into()).unwrap()
}

fn control_net() -> Arc<ControlSource> {
    Arc::new(ControlSource::open(&fixture::tiny_sd("tiny-control-canny.safetensors")).unwrap())
}

fn hinted(settings: &Value) -> Control {
    let number = |key: &str| settings[key].as_f64().unwrap();
    let picture = format!("reference/inputs/{}", settings["image"].as_str().unwrap());
    Control {
        net: control_net(),
        hint: hint(&fixture::tiny_sd(&picture)),
        strength: number("strength"),
        start_percent: number("start"),
        end_percent: number("end"),
    }
}

#[test]
fn text_to_image_equals_comfyui() {
    let family = Family::open();
    for case in ["text", "text_euler20", "text_cfg1", "text_uni_pc", "text_wide_odd"] {
        family.check(case);
    }
}

#[test]
fn a_batch_with_ancestral_noise_equals_comfyui() {
    Family::open().check("text_ancestral_batch2");
}

#[test]
fn prompts_of_different_lengths_equal_comfyui() {
    Family::open().check("text_weights_long");
}

#[test]
fn two_stages_with_leftover_noise_equal_comfyui() {
    Family::open().check("text_two_stages");
}

#[test]
fn image_to_image_and_inpainting_equal_comfyui() {
    let family = Family::open();
    for case in ["img2img", "inpaint", "inpaint_encode"] {
        family.check(case);
    }
}

#[test]
fn a_control_net_equals_comfyui_all_along_and_in_a_window() {
    let family = Family::open();
    for case in ["control", "control_window"] {
        family.check(case);
    }
}

#[test]
fn adapters_equal_ipadapter_plus() {
    let family = Family::open();
    for case in ["ip", "ip_window", "ip_style", "ip_k_v", "ip_two", "ip_two_masks"] {
        family.check(case);
    }
}

#[test]
fn an_adapter_and_a_control_net_together_equal_comfyui() {
    Family::open().check("product");
}

const PROMPT: &str = "a red apple on a blue background";

#[test]
fn told_of_its_times_it_guesses_the_same() {
    let family = Family::open();
    let text = family.text("a red apple");
    let settings = &family.cases["control"]["control"];
    let positive = text.with_control(&hinted(settings), false);
    let guider = Guider::Cfg { positive, negative: text, cfg: 5.0 };
    let x = TorchRng::new(5).randn_tensor(&[1, 4, 32, 32], &Device::Cpu).unwrap();
    let guided = || Guided::new(&family.rt, &family.model, &guider, x.dims4().unwrap(), false).unwrap();
    let (mut told, mut untold) = (guided(), guided());
    let sigmas = [14.6, 7.0, 2.0, 0.0];
    told.expect(&sigmas);
    for (index, sigma) in [14.6, 7.0, 5.5, 2.0].into_iter().enumerate() {
        let at = Moment { index, total: 3, sigma };
        let [a, b] = [&mut told, &mut untold].map(|guided| guided.guess(&x, at).unwrap().guided);
        assert_close(&a, &b, 0.0, &format!("at {sigma}"));
    }
}

/// diffusers' DDIM: timesteps 951, 901, .., 1, and it ends at the first training level, not at 0. Its latents
/// are ours divided by sqrt(1 + sigma^2).
fn ddim20(family: &Family, model: &Model, conditioning: [&Conditioning; 2]) -> Tensor {
    let schedule = Schedule::default();
    let level = |t: usize| f64::from(schedule.sigmas()[t]);
    let sigmas: Vec<f64> = (0..20).rev().map(|i| level(50 * i + 1)).chain([level(0)]).collect();
    let scale = family.model.latent.scale;
    let start =
        (Tensors::reference().get("init_noise") * ((1.0 + sigmas[0] * sigmas[0]).sqrt() / scale)).unwrap();
    let run = Run { sampler: "ddim", sigmas: &sigmas, seed: 42, cfg: 4.0, add_noise: false };
    let (latent, _) = family.sample(model, conditioning, run, &start, None);
    (latent * (scale / (1.0 + sigmas[20] * sigmas[20]).sqrt())).unwrap()
}

#[test]
fn twenty_ddim_steps_equal_diffusers() {
    let family = Family::open();
    let got = ddim20(&family, &family.model, [&family.text(PROMPT), &family.text("")]);
    assert_close(&got, &Tensors::reference().get("ddim20_latents"), 1e-4, "ddim20");
}

#[test]
fn twenty_ddim_steps_with_a_control_net_equal_diffusers() {
    let family = Family::open();
    let control = Control {
        net: control_net(),
        hint: hint(&fixture::tiny_sd("reference/canny_100_200.png")),
        strength: 1.0,
        start_percent: 0.0,
        end_percent: 1.0,
    };
    let with = |text| family.text(text).with_control(&control, false);
    let got = ddim20(&family, &family.model, [&with(PROMPT), &with("")]);
    let want = Tensors::reference().get("ddim20_control_latents");
    assert_close(&got, &want, 1e-4, "ddim20_control");
}

#[test]
fn twenty_ddim_steps_with_an_adapter_equal_diffusers() {
    let family = Family::open();
    let embeds = ImageEmbeds::new(Tensors::reference().get("clip_embeds"));
    let model = ip_adapter::apply(&family.rt, &family.model, &family.adapter, &embeds, &IpOptions::default());
    let got = ddim20(&family, &model.unwrap(), [&family.text(""), &family.text("")]);
    assert_close(&got, &Tensors::reference().get("ddim20_ip_latents"), 1e-4, "ddim20_ip");
}

/// Peak signal-to-noise ratio of pictures in -1..1.
fn psnr(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (fixture::values(a), fixture::values(b));
    let bound = |v: f32| f64::from(v.clamp(-1.0, 1.0)) / 2.0;
    let error: f64 = a.iter().zip(&b).map(|(&a, &b)| (bound(a) - bound(b)).powi(2)).sum();
    -10.0 * (error / a.len() as f64).log10()
}

/// diffusers' Euler walks through fractional timesteps 999, 946.4, .., 0 and interpolates levels linearly;
/// ours are whole, so the pictures are compared.
#[test]
fn twenty_euler_steps_give_diffusers_picture() {
    let family = Family::open();
    let schedule = Schedule::default();
    let level = |t: f64| {
        let (low, high) = (t.floor() as usize, t.ceil() as usize);
        let (a, b) = (f64::from(schedule.sigmas()[low]), f64::from(schedule.sigmas()[high]));
        a + (b - a) * t.fract()
    };
    let sigmas: Vec<f64> = (0..20).map(|i| level(999.0 * (1.0 - f64::from(i) / 19.0))).chain([0.0]).collect();
    let scale = family.model.latent.scale;
    let start = (Tensors::reference().get("init_noise") * (sigmas[0] / scale)).unwrap();
    let run = Run { sampler: "euler", sigmas: &sigmas, seed: 42, cfg: 4.0, add_noise: false };
    let (latent, _) =
        family.sample(&family.model, [&family.text(PROMPT), &family.text("")], run, &start, None);
    let vae = crate::vae::VaeSource::open(&fixture::tiny_sd("tiny-sd.safetensors")).unwrap();
    let picture = vae.load(&family.rt).unwrap().decode(&latent, &|| true).unwrap();
    let psnr = psnr(&picture, &Tensors::reference().get("euler20_image"));
    println!("euler20: {psnr} dB");
    assert!(psnr >= 40.0, "{psnr} dB");
}

/// On the CPU, bf16 and 8 bits are forms of weights; where the processor has no such products they are computed in f32.
#[test]
fn weights_of_fewer_bits_draw_nearly_the_same_picture() {
    let full = Family::open();
    let vae = crate::vae::VaeSource::open(&fixture::tiny_sd("tiny-sd.safetensors")).unwrap();
    let embeds = ImageEmbeds::new(Tensors::reference().get("clip_embeds"));
    let picture = |family: &Family| {
        let options = IpOptions::default();
        let model = ip_adapter::apply(&family.rt, &family.model, &family.adapter, &embeds, &options).unwrap();
        let latent = ddim20(family, &model, [&family.text(PROMPT), &family.text("")]);
        vae.load(&family.rt).unwrap().decode(&latent, &|| true).unwrap()
    };
    let full = picture(&full);
    for int8 in [false, true] {
        let rt = Runtime::new(Device::Cpu, candle_core::DType::BF16, 1 << 30).with_int8(int8);
        let psnr = psnr(&picture(&Family { rt, ..Family::open() }), &full);
        println!("8 bits {int8}: {psnr} dB");
        assert!(psnr > 30.0, "8 bits {int8}: {psnr} dB");
    }
}
