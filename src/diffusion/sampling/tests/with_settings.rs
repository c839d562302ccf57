//! Samplers with settings of their own, against k-diffusion.

use super::*;
use crate::samplers::{Adaptive, Renoise, Solver};

fn spec(name: &str, settings: &Value) -> SamplerSpec {
    let number = |key: &str| settings[key].as_f64().unwrap();
    let renoise = || Renoise { eta: number("eta"), s_noise: number("s_noise") };
    match name.split('/').next().unwrap() {
        "euler_ancestral" => SamplerSpec::EulerAncestral(renoise()),
        "euler_ancestral_cfg_pp" => SamplerSpec::EulerAncestralCfgPp(renoise()),
        "dpmpp_2s_ancestral" => SamplerSpec::Dpmpp2sAncestral(renoise()),
        "dpmpp_sde" => SamplerSpec::DpmppSde(renoise(), number("r")),
        "dpmpp_2m_sde" if settings["solver_type"] == "heun" => {
            SamplerSpec::Dpmpp2mSde(renoise(), Solver::Heun)
        }
        "dpmpp_2m_sde" => SamplerSpec::Dpmpp2mSde(renoise(), Solver::Midpoint),
        "dpmpp_3m_sde" => SamplerSpec::Dpmpp3mSde(renoise()),
        "lms" => SamplerSpec::Lms(number("order") as usize),
        "dpm_adaptive" => SamplerSpec::DpmAdaptive(Adaptive {
            order: number("order") as usize,
            rtol: number("rtol"),
            atol: number("atol"),
            h_init: number("h_init"),
            pcoeff: number("pcoeff"),
            icoeff: number("icoeff"),
            dcoeff: number("dcoeff"),
            accept_safety: number("accept_safety"),
            renoise: renoise(),
        }),
        name => named(name),
    }
}

#[test]
fn samplers_with_settings_equal_the_references() {
    let torch = fixture::tensors("sampling/settings.safetensors");
    let json = fixture::json("sampling/settings.json");
    let schedule = Schedule::default();
    let sigmas = schedule::curves::karras(9, 0.0291675, 14.614642, 7.0);
    let mut seen = std::collections::BTreeSet::new();
    for (name, settings) in json["runs"].as_object().unwrap() {
        let sampler = spec(name, settings);
        let settings = Settings {
            sampler: &sampler,
            sigmas: &sigmas,
            noise: torch_noise(json["seed"].as_u64().unwrap()),
            add_noise: false,
            numbers: None,
            schedule: &schedule,
            latent_scale: 1.0,
        };
        let mut got = sample(&torch["a"], &settings, &torch["start"], None).unwrap();
        if name.starts_with("dpm_adaptive") {
            // The reference stops at the last level above 0, and so does ours there.
            let settings = Settings { sigmas: &sigmas[..9], ..settings };
            let cut = sample(&torch["a"], &settings, &torch["start"], None).unwrap();
            assert_eq!(fixture::max_abs_diff(&got, &cut), 0.0);
            got = cut;
        }
        let diff = fixture::max_abs_diff(&got, &torch[&format!("run/{name}")]);
        println!("{name}: {diff:e}");
        // Lengths of adaptive steps follow from sums in f32.
        let tolerance = if name.starts_with("dpm_adaptive") { 2e-4 } else { 1e-5 };
        assert!(diff < tolerance, "{name} differs by {diff:e}");
        seen.insert(name.split('/').next().unwrap().to_owned());
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn an_adaptive_sampler_that_finds_no_step_says_so() {
    let sampler = SamplerSpec::DpmAdaptive(Adaptive { rtol: 0.0, atol: 0.0, ..Adaptive::default() });
    let schedule = Schedule::default();
    let sigmas = [schedule.sigma_max(), 1.0, 0.0];
    let a = fixture::tensors("sampling/settings.safetensors")["a"].clone();
    let error = sample(&a, &settings(&sampler, &sigmas, &schedule), &flat(0.0), None).unwrap_err();
    assert!(error.to_string().starts_with("`dpm_adaptive` finds no step"), "{error}");
}
