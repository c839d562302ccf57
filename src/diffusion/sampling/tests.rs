mod with_settings;

use candle_core::Device;
use serde_json::Value;

use super::*;
use crate::noise::Rng;
use crate::{fixture, samplers, schedule};

/// The fixtures' denoiser: x / (1 + s^2) + 0.3 tanh(a x) / (1 + s). For the cfg_pp kinds that is the prompt's guess,
/// its first part the unguided one, and guidance is 1.5.
fn analytic(a: &Tensor, cfg_pp: bool) -> Model<'_> {
    Box::new(move |x, at| {
        let s = at.sigma;
        let bend = ((x * a)?.tanh()? * (0.3 / (1.0 + s)))?;
        let uncond = (x / (1.0 + s * s))?;
        let guided = (&uncond + (bend * if cfg_pp { 1.5 } else { 1.0 })?)?;
        Ok(Guess { guided, uncond })
    })
}

/// A model that takes everything for what `f` says.
fn taking<'a>(f: impl Fn(&Tensor, Moment) -> candle_core::Result<Tensor> + 'a) -> Model<'a> {
    Box::new(move |x, at| {
        let guided = f(x, at)?;
        Ok(Guess { uncond: guided.clone(), guided })
    })
}

fn sample(a: &Tensor, settings: &Settings, latent: &Tensor, mask: Option<&NoiseMask>) -> Result<Tensor> {
    let model = analytic(a, settings.sampler.needs_uncond());
    let mut sampling = Sampling::new(model, settings, latent, mask)?;
    for step in sampling.by_ref() {
        step?;
    }
    Ok(sampling.finish()?.0)
}

fn torch_noise(seed: u64) -> Noise {
    Noise { rng: Rng::TorchCpu, seed }
}

fn named(name: &str) -> SamplerSpec {
    SamplerSpec::named(name).unwrap()
}

fn sigmas_of(schedule: &Schedule, run: &Value) -> Vec<f64> {
    let kind = samplers::find(run["sampler"].as_str().unwrap()).unwrap();
    let number = |key: &str, default| run[key].as_u64().map_or(default, |n| n as usize);
    let all = schedule::sigmas(
        schedule,
        run["scheduler"].as_str().unwrap(),
        number("steps", 0),
        run["denoise"].as_f64().unwrap_or(1.0),
        kind.drops_penultimate,
    );
    let leftover = run["leftover"].as_bool().unwrap_or(true);
    window(all.unwrap(), number("start_step", 0), number("last_step", usize::MAX), leftover)
}

/// ComfyUI's UniPC and DPM-Solvers leave a single step undone and return scaled noise; ours take it.
fn undone(run: &Value) -> bool {
    let name = run["sampler"].as_str().unwrap();
    ["uni_pc", "uni_pc_bh2", "dpm_fast", "dpm_adaptive"].contains(&name)
        && run["sigmas"].as_array().unwrap().len() == 2
}

#[test]
fn every_sampler_equals_the_references() {
    let torch = fixture::tensors("sampling/samplers.safetensors");
    let json = fixture::json("sampling/samplers.json");
    let schedule = Schedule::default();
    let (mut seen, mut wrong) = (std::collections::BTreeSet::new(), Vec::new());
    for (name, run) in json["runs"].as_object().unwrap() {
        let sampler = run["sampler"].as_str().unwrap();
        if !samplers::NAMES.contains(&sampler) || undone(run) {
            continue;
        }
        let sigmas = sigmas_of(&schedule, run);
        let settings = Settings {
            sampler: &named(sampler),
            sigmas: &sigmas,
            noise: torch_noise(json["seed"].as_u64().unwrap()),
            add_noise: run["add_noise"].as_bool().unwrap_or(true),
            numbers: None,
            schedule: &schedule,
            latent_scale: 1.0,
        };
        let latent = match run["latent"].as_str().unwrap() {
            "zero" => torch["latent"].zeros_like().unwrap(),
            name => torch[name].clone(),
        };
        let got = sample(&torch["a"], &settings, &latent, None).unwrap();
        let diff = f64::from(fixture::max_abs_diff(&got, &torch[&format!("run/{name}")]));
        // `error64` is what f32 costs the reference itself.
        let tolerance = 1e-5 + 2.0 * run["error64"].as_f64().unwrap_or(0.0);
        if diff > tolerance || diff.is_nan() {
            wrong.push(format!("{name}: differs by {diff:e}, more than {tolerance:e}"));
        }
        seen.insert(sampler.to_owned());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // `res_multistep_ancestral_cfg_pp` is among the samplers with settings.
    let aliases = samplers::NAMES.iter().filter(|n| n.ends_with("_gpu")).count();
    assert_eq!(seen.len(), samplers::NAMES.len() - aliases - 1, "samplers with a reference: {seen:?}");
}

#[test]
fn inpainting_equals_the_references() {
    let torch = fixture::tensors("inpaint/sampling.safetensors");
    let seed = fixture::metadata("inpaint/sampling.safetensors")["seed"].as_str().unwrap().parse().unwrap();
    let mask = NoiseMask::new(1, 64, 64, fixture::values(&torch["mask"]).into()).unwrap();
    let schedule = Schedule::default();
    let mut runs = 0;
    for (name, want) in torch.iter().filter(|(name, _)| name.starts_with("run/")) {
        let [_, sampler, scheduler, denoise] = name.split('/').collect::<Vec<_>>()[..] else {
            panic!("{name}")
        };
        let drop = samplers::find(sampler).unwrap().drops_penultimate;
        let sigmas = schedule::sigmas(&schedule, scheduler, 7, denoise.parse().unwrap(), drop).unwrap();
        let settings = Settings {
            sampler: &named(sampler),
            sigmas: &sigmas,
            noise: torch_noise(seed),
            add_noise: true,
            numbers: None,
            schedule: &schedule,
            latent_scale: 1.0,
        };
        let got = sample(&torch["a"], &settings, &torch["latent"], Some(&mask)).unwrap();
        let diff = fixture::max_abs_diff(&got, want);
        assert!(diff <= 1e-5, "{name}: differs by {diff:e}");
        runs += 1;
    }
    assert_eq!(runs, 16);
}

fn settings<'a>(sampler: &'a SamplerSpec, sigmas: &'a [f64], schedule: &'a Schedule) -> Settings<'a> {
    Settings {
        sampler,
        sigmas,
        noise: torch_noise(5),
        add_noise: true,
        numbers: None,
        schedule,
        latent_scale: 0.18215,
    }
}

fn flat(value: f32) -> Tensor {
    Tensor::full(value, (1, 4, 8, 8), &Device::Cpu).unwrap()
}

#[test]
fn a_single_step_of_every_sampler_gives_the_denoised_latent() {
    let schedule = Schedule::default();
    let sigmas = [schedule.sigma_max(), 0.0];
    for name in samplers::NAMES {
        let model = taking(|x, _| x.zeros_like()? + 0.5);
        let mut sampling =
            Sampling::new(model, &settings(&named(name), &sigmas, &schedule), &flat(0.0), None).unwrap();
        assert_eq!(sampling.by_ref().map(|s| s.unwrap().total).collect::<Vec<_>>(), [1]);
        let got = (sampling.finish().unwrap().0 * 0.18215).unwrap();
        // UniPC stops at level 0.001 and so keeps a little of the noise.
        let limit = if name.starts_with("uni_pc") { 5e-3 } else { 1e-5 };
        let diff = fixture::max_abs_diff(&got, &flat(0.5));
        assert!(diff < limit, "{name}: {diff}");
    }
}

#[test]
fn no_levels_leave_the_latent_as_it_is() {
    let schedule = Schedule::default();
    for sigmas in [&[][..], &[3.0][..]] {
        let model: Model = Box::new(|_, _| panic!("the model is not called"));
        let sampling =
            Sampling::new(model, &settings(&named("euler"), sigmas, &schedule), &flat(2.0), None).unwrap();
        assert_eq!(sampling.total(), 0);
        assert_eq!(fixture::max_abs_diff(&sampling.finish().unwrap().0, &flat(2.0)), 0.0);
    }
}

#[test]
fn a_step_tells_its_number_and_the_first_denoised_latent() {
    let schedule = Schedule::default();
    let sigmas = schedule::sigmas(&schedule, "karras", 3, 1.0, false).unwrap();
    let calls = std::cell::RefCell::new(Vec::new());
    let model = taking(|x, at| {
        calls.borrow_mut().push((at.index, at.sigma));
        x.zeros_like()? + at.sigma
    });
    let sampling =
        Sampling::new(model, &settings(&named("heun"), &sigmas, &schedule), &flat(0.0), None).unwrap();
    let steps: Vec<StepDone> = sampling.map(|s| s.unwrap()).collect();
    assert_eq!(steps.iter().map(|s| (s.index, s.total)).collect::<Vec<_>>(), [(0, 3), (1, 3), (2, 3)]);
    assert_eq!(fixture::values(&steps[1].denoised)[0], sigmas[1] as f32);
    let two_a_step = [(0, sigmas[0]), (0, sigmas[1]), (1, sigmas[1]), (1, sigmas[2]), (2, sigmas[2])];
    assert_eq!(calls.into_inner(), two_a_step);
}

#[test]
fn a_failed_step_ends_the_sampling() {
    let schedule = Schedule::default();
    let model: Model = Box::new(|_, _| Err(Error::Mismatch("broken".into())));
    let euler = named("euler");
    let settings = settings(&euler, &[3.0, 2.0, 0.0], &schedule);
    let mut sampling = Sampling::new(model, &settings, &flat(0.0), None).unwrap();
    assert!(sampling.next().unwrap().is_err());
    assert!(sampling.next().is_none());
}

#[test]
fn levels_that_rise_and_fall_are_refused() {
    let schedule = Schedule::default();
    for sigmas in [&[1.0, 2.0, 1.0][..], &[1.0, 0.0, 0.0], &[f64::NAN, 0.0], &[1.0, -1.0], &[0.0, 1.0]] {
        let model = taking(|x, _| Ok(x.clone()));
        let euler = named("euler");
        let settings = settings(&euler, sigmas, &schedule);
        assert!(Sampling::new(model, &settings, &flat(0.0), None).is_err(), "{sigmas:?}");
    }
}

#[test]
fn samplers_without_noise_lead_up_and_down_again() {
    let schedule = Schedule::default();
    let down = schedule::sigmas(&schedule, "karras", 200, 1.0, false).unwrap();
    let down = &down[100..200];
    let up: Vec<f64> = down.iter().rev().copied().collect();
    let a = fixture::tensors("sampling/samplers.safetensors")["a"].clone();
    let start = fixture::tensors("sampling/samplers.safetensors")["latent"].clone();
    for kind in samplers::SAMPLERS {
        let spec = SamplerSpec::Named(kind);
        let lead = |sigmas: &[f64], latent: &Tensor| {
            let settings =
                Settings { add_noise: false, latent_scale: 1.0, ..settings(&spec, sigmas, &schedule) };
            sample(&a, &settings, latent, None)
        };
        if !kind.climbs {
            let error = lead(&up, &start).unwrap_err().to_string();
            assert!(error.starts_with("this sampler adds noise"), "{}: {error}", kind.name);
            continue;
        }
        let noisy = lead(&up, &start).unwrap();
        let back = lead(down, &noisy).unwrap();
        let (moved, off) = (fixture::max_abs_diff(&noisy, &start), fixture::max_abs_diff(&back, &start));
        assert!(off < 0.05 * moved, "{}: moved by {moved}, came back {off} off", kind.name);
    }
}

#[test]
fn no_sampler_asks_for_more_than_its_noise() {
    let schedule = Schedule::default();
    let sigmas = schedule::sigmas(&schedule, "normal", 6, 1.0, false).unwrap();
    let torch = fixture::tensors("sampling/samplers.safetensors");
    for kind in samplers::SAMPLERS {
        let spec = SamplerSpec::Named(kind);
        let run = |rng| {
            let noise = Noise { rng, seed: 3 };
            let settings = Settings { noise, latent_scale: 1.0, ..settings(&spec, &sigmas, &schedule) };
            sample(&torch["a"], &settings, &torch["latent"], None).unwrap()
        };
        let (ours, again, theirs) = (run(Rng::Flow), run(Rng::Flow), run(Rng::TorchCpu));
        assert_eq!(fixture::max_abs_diff(&ours, &again), 0.0, "{}", kind.name);
        assert!(fixture::max_abs_diff(&ours, &theirs) > 0.1, "{}", kind.name);
        assert!(fixture::values(&ours).iter().all(|v| v.abs() < 20.0), "{}", kind.name);
    }
}

#[test]
fn an_unknown_sampler_is_refused_with_the_known_ones() {
    let error = SamplerSpec::named("eular").unwrap_err();
    assert!(error.to_string().starts_with("no sampler `eular`: there are euler, euler_cfg_pp"));
}

#[test]
fn a_window_is_cut_as_ksampler_advanced_cuts_it() {
    let all = vec![4.0, 3.0, 2.0, 1.0, 0.0];
    assert_eq!(window(all.clone(), 0, 10_000, false), all);
    assert_eq!(window(all.clone(), 1, 3, true), [3.0, 2.0, 1.0]);
    assert_eq!(window(all.clone(), 1, 3, false), [3.0, 2.0, 0.0]);
    assert_eq!(window(all.clone(), 4, 10_000, false), [0.0; 0]);
    assert_eq!(window(all.clone(), 0, 0, false), [0.0; 0]);
    assert_eq!(window(all, usize::MAX, usize::MAX, true), [0.0; 0]);
    assert_eq!(window(Vec::new(), 0, 10_000, false), [0.0; 0]);
}
