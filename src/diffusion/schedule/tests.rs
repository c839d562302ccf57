use super::*;
use crate::fixture;

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() <= 2e-7 * want.abs()
}

fn pairs(v: &serde_json::Value) -> impl Iterator<Item = (f64, f64)> {
    v.as_array().unwrap().iter().map(|p| (p[0].as_f64().unwrap(), p[1].as_f64().unwrap()))
}

#[test]
fn training_levels_equal_the_references() {
    let torch = fixture::tensors("sampling/model_sigmas.safetensors");
    let model = Schedule::default();
    for (i, want) in fixture::values(&torch["sigmas"]).into_iter().enumerate() {
        assert!(close(model.sigmas[i].into(), want.into()), "{i}: {} {want}", model.sigmas[i]);
    }
}

#[test]
fn every_schedule_equals_the_references() {
    let json = fixture::json("sampling/sigmas.json");
    let model = Schedule::default();
    let (mut values, mut exact) = (0, 0);
    for (kind, drop) in [("sigmas", false), ("discard", true)] {
        for name in NAMES {
            for (denoise, by_steps) in json[kind][name].as_object().unwrap() {
                for (steps, want) in by_steps.as_object().unwrap() {
                    let (n, d) = (steps.parse().unwrap(), denoise.parse().unwrap());
                    let got = sigmas(&model, name, n, d, drop).unwrap();
                    // One step of kl_optimal is 0 / 0 in the reference.
                    let number = |x: &serde_json::Value| x.as_f64().unwrap_or(got[0]);
                    let want: Vec<f64> = want.as_array().unwrap().iter().map(number).collect();
                    assert_eq!(got.len(), want.len(), "{kind} {name} {denoise} {steps}");
                    for (g, w) in got.iter().zip(&want) {
                        assert!(close(*g, *w), "{kind} {name} {denoise} {steps}: {got:?} is not {want:?}");
                        // torch's f32 tangent is not rounded as f64's is.
                        if name != "kl_optimal" {
                            values += 1;
                            exact += usize::from(*g as f32 == *w as f32);
                        }
                    }
                }
            }
        }
    }
    assert!(exact * 100 > values * 99, "only {exact} of {values} are equal to the last bit");
}

#[test]
fn timesteps_and_percentages_equal_the_references() {
    let json = fixture::json("sampling/sigmas.json");
    let model = Schedule::default();
    for (sigma, t) in pairs(&json["timestep_of_sigma"]) {
        assert_eq!(model.timestep(sigma), t, "timestep of {sigma}");
    }
    for (t, sigma) in pairs(&json["sigma_of_timestep"]) {
        assert!(close(model.sigma(t), sigma), "sigma of {t}");
    }
    for (p, sigma) in pairs(&json["percent_to_sigma"]) {
        assert!(close(model.percent_to_sigma(p), sigma), "sigma at {p}");
    }
    assert!(close(model.sigma_min(), json["sigma_min"].as_f64().unwrap()));
    assert!(close(model.sigma_max(), json["sigma_max"].as_f64().unwrap()));
}

#[test]
fn nothing_to_denoise_is_no_steps() {
    assert!(sigmas(&Schedule::default(), "normal", 20, 0.0, false).unwrap().is_empty());
    assert!(sigmas(&Schedule::default(), "normal", 0, 1.0, false).unwrap().is_empty());
}

#[test]
fn a_tiny_denoise_does_not_ask_for_a_huge_schedule() {
    let error = sigmas(&Schedule::default(), "karras", 20, 1e-9, false).unwrap_err();
    assert!(error.to_string().contains("at most 1000000"), "{error}");
    let error = sigmas(&Schedule::default(), "kerras", 20, 1.0, false).unwrap_err();
    assert!(error.to_string().starts_with("no scheduler `kerras`: there are normal, karras"), "{error}");
}

#[test]
fn schedules_of_their_ends_alone_equal_the_references() {
    let json = fixture::json("sampling/settings.json");
    let (min, max) = (0.029_167_5, 14.614_642);
    let model = Schedule::default();
    let mut seen = 0;
    for (name, want) in json["schedules"].as_object().unwrap() {
        let parts: Vec<&str> = name.split('/').collect();
        let number = |i: usize| parts[i].parse::<f64>().unwrap();
        let steps = parts[1].parse().unwrap_or(0);
        let got = match parts[0] {
            "karras" => curves::karras(steps, min, max, number(2)),
            "exponential" => curves::exponential(steps, min, max),
            "polyexponential" => curves::polyexponential(steps, min, max, number(2)),
            "vp" if steps == 9 => curves::vp(steps, 19.9, 0.1, 1e-3),
            "vp" => curves::vp(steps, 10.0, 0.3, 0.01),
            "laplace" if steps == 9 => curves::laplace(steps, min, max, 0.0, 0.5),
            "laplace" => curves::laplace(steps, min, max, 0.7, 1.5),
            "beta" => beta(&model, steps, number(2), number(3)),
            // Their levels are the node's.
            "ays" => continue,
            name => panic!("{name}"),
        };
        let want: Vec<f64> = want.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(got.len(), want.len(), "{name}");
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 2e-6 * w, "{name}: {got:?} is not {want:?}");
        }
        seen += 1;
    }
    assert_eq!(seen, 11);
}
