//! Custom sampling, prompts on parts of the picture, and what a model is patched with.

use flow_diffusion::{
    conditioning::{Area, Rect},
    model::Prediction,
};
use flow_graph::{Port, Value};
use flow_nodes::ports::{Conditioning, Latent, Mask, Model, Sigmas};

use crate::{Call, diffusion::Studio, node, repository, values};

fn levels(call: Call) -> Vec<f64> {
    call.run().unwrap()[0].get::<Sigmas>().unwrap().0.to_vec()
}

fn some_levels() -> Sigmas {
    vec![14.0, 7.0, 3.0, 1.0, 0.0].into()
}

/// Both outputs of a node that divides levels.
fn parts(call: Call) -> [Vec<f64>; 2] {
    let values = call.run().unwrap();
    [0, 1].map(|i| values[i].get::<Sigmas>().unwrap().0.to_vec())
}

fn message(call: Call) -> String {
    let error = call.run().unwrap_err();
    format!("{}: {error}", error.input.unwrap_or_default())
}

#[test]
fn custom_samplers_draw_what_k_sampler_draws() {
    let studio = Studio::apple();
    let one = |call: Call| studio.one(call);
    for (name, scheduler, rng) in [
        ("euler", "karras", "torch-cpu"),
        ("dpmpp_2m_sde", "normal", "flow"),
        ("euler_cfg_pp", "beta", "flow"),
    ] {
        let call = studio.sampler("KSampler").set("sampler_name", name).set("scheduler", scheduler);
        let want = studio.latent(call.set("steps", 5).set("seed", 3).set("rng", rng));
        let sampler = one(node("KSamplerSelect").set("sampler_name", name));
        let schedule = node("BasicScheduler").value("model", &studio.checkpoint[0]);
        let sigmas = one(schedule.set("scheduler", scheduler).set("steps", 5));

        let custom = node("SamplerCustom")
            .value("model", &studio.checkpoint[0])
            .value("positive", &studio.positive)
            .value("negative", &studio.negative)
            .value("sampler", &sampler)
            .value("sigmas", &sigmas)
            .value("latent_image", &studio.empty());
        let custom = custom.set("cfg", 4.0).set("noise_seed", 3).set("rng", rng);
        assert!(studio.latent(custom) == want, "{name}");

        let guider = node("CFGGuider")
            .value("model", &studio.checkpoint[0])
            .value("positive", &studio.positive)
            .value("negative", &studio.negative);
        let noise = one(node("RandomNoise").set("noise_seed", 3).set("rng", rng));
        let advanced = node("SamplerCustomAdvanced")
            .value("noise", &noise)
            .value("guider", &one(guider.set("cfg", 4.0)))
            .value("sampler", &sampler)
            .value("sigmas", &sigmas)
            .value("latent_image", &studio.empty());
        assert!(studio.latent(advanced) == want, "{name}");
    }
}

#[test]
fn a_denoised_output_is_cleaner_where_noise_is_left_over() {
    let studio = Studio::apple();
    let one = |call: Call| studio.one(call);
    let schedule = node("BasicScheduler").value("model", &studio.checkpoint[0]).set("steps", 8);
    let split = node("SplitSigmas").value("sigmas", &one(schedule)).set("step", 4).run().unwrap();
    let basic = node("BasicGuider").value("model", &studio.checkpoint[0]);
    let guider = one(basic.value("conditioning", &studio.positive));
    let run = |noise: Value, sigmas: &Value, latent: &Value| {
        let call = node("SamplerCustomAdvanced")
            .value("noise", &noise)
            .value("guider", &guider)
            .value("sampler", &one(node("KSamplerSelect")))
            .value("sigmas", sigmas)
            .value("latent_image", latent);
        call.run_in(&studio.cx).unwrap()
    };
    let spread = |value: &Value| {
        let latent = values(&value.get::<Latent>().unwrap().samples);
        latent.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()
    };
    let first = run(one(node("RandomNoise")), &split[0], &studio.empty());
    assert!(spread(&first[1]) < 0.5 * spread(&first[0]));
    // The rest goes on from the noisy latent, without noise of its own, and ends with what the model sees.
    let second = run(one(node("DisableNoise")), &split[1], &first[0]);
    let whole = studio.sampler("KSampler").set("scheduler", "simple").set("steps", 8).set("cfg", 1.0);
    let whole = studio.latent(whole);
    let got = values(&second[0].get::<Latent>().unwrap().samples);
    assert!(got.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-3), "two parts are the whole");
    assert!(
        got.iter()
            .zip(values(&second[1].get::<Latent>().unwrap().samples))
            .all(|(a, b)| (a - b).abs() < 1e-4)
    );
}

#[test]
fn levels_are_divided_turned_and_replaced() {
    let split = |step: i64| parts(node("SplitSigmas").link("sigmas", some_levels()).set("step", step));
    assert_eq!(split(0), [vec![14.0], vec![14.0, 7.0, 3.0, 1.0, 0.0]]);
    assert_eq!(split(2), [vec![14.0, 7.0, 3.0], vec![3.0, 1.0, 0.0]]);
    assert_eq!(split(9), [vec![14.0, 7.0, 3.0, 1.0, 0.0], vec![]]);
    let share = |denoise: f64| {
        parts(node("SplitSigmasDenoise").link("sigmas", some_levels()).set("denoise", denoise))
    };
    assert_eq!(share(0.5), [vec![14.0, 7.0, 3.0], vec![3.0, 1.0, 0.0]]);
    assert_eq!(share(0.0), [vec![14.0, 7.0, 3.0, 1.0, 0.0], vec![0.0]]);
    assert_eq!(share(1.0), [vec![14.0], vec![14.0, 7.0, 3.0, 1.0, 0.0]]);
    let flip = |sigmas: Sigmas| levels(node("FlipSigmas").link("sigmas", sigmas));
    assert_eq!(flip(some_levels()), [0.0001, 1.0, 3.0, 7.0, 14.0]);
    assert_eq!(flip(vec![].into()), [0.0; 0]);
    let first = node("SetFirstSigma").link("sigmas", some_levels()).set("sigma", 20.0);
    assert_eq!(levels(first), [20.0, 7.0, 3.0, 1.0, 0.0]);
    let none = node("SetFirstSigma").link("sigmas", Sigmas::from(vec![]));
    assert_eq!(message(none), "sigmas: there are no noise levels, so none can be the first");
    let stored = some_levels().store(&crate::context(std::path::Path::new("/nowhere"))).unwrap();
    let cx = crate::context(std::path::Path::new("/nowhere"));
    assert_eq!(Sigmas::load(&stored, &cx), Some(some_levels()));
    assert!((0..stored.len()).all(|len| Sigmas::load(&stored[..len], &cx).is_none()));
}

#[test]
fn schedules_of_nodes_equal_the_references() {
    let json = std::fs::read_to_string(repository("tests/fixtures/sampling/settings.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut seen = 0;
    for (name, want) in json["schedules"].as_object().unwrap() {
        let [kind, family, steps, share] = name.split('/').collect::<Vec<_>>()[..] else { continue };
        if kind != "ays" {
            continue;
        }
        let steps: i64 = steps.parse().unwrap();
        let share: f64 = share.parse().unwrap();
        let call = node("AlignYourStepsScheduler").set("model_type", family).set("steps", steps);
        let got = levels(call.set("denoise", share));
        let want: Vec<f64> = want.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * b;
        assert!(
            got.len() == want.len() && got.iter().zip(&want).all(close),
            "{name}: {got:?} is not {want:?}"
        );
        seen += 1;
    }
    assert_eq!(seen, 5);
    let studio = Studio::apple();
    let turbo = node("SDTurboScheduler").value("model", &studio.checkpoint[0]);
    let sigma = |t: f64| studio.checkpoint[0].get::<Model>().unwrap().schedule.sigma(t);
    assert_eq!(levels(turbo.set("steps", 2).set("denoise", 0.5)), [sigma(499.0), sigma(399.0), 0.0]);
}

#[test]
fn settings_that_give_no_levels_are_refused() {
    let none = "these settings give no noise levels: one of them is not a number";
    let karras = node("KarrasScheduler").set("rho", 0.0);
    assert_eq!(message(karras), "rho: there is no root of order 0: expected more");
    let exponential = node("ExponentialScheduler").set("sigma_min", 0.0);
    assert_eq!(message(exponential), format!("sigma_min: {none}"));
    let studio = Studio::apple();
    let beta = node("BetaSamplingScheduler").value("model", &studio.checkpoint[0]).set("beta", 0.0);
    assert_eq!(message(beta), "beta: a beta distribution needs a number above 0");
    assert!(message(node("SamplerDPMPP_SDE").set("r", 0.0)).starts_with("r: the second evaluation"));
    assert!(message(node("SamplerDPMAdaptative").set("h_init", 0.0)).starts_with("h_init: a first step"));
    let edm = node("ModelSamplingContinuousEDM").value("model", &studio.checkpoint[0]).set("sigma_min", 0.0);
    assert!(message(edm).starts_with("sigma_min: sigma_min is 0"));
}

#[test]
fn nodes_say_where_and_when_a_prompt_counts() {
    let studio = Studio::apple();
    let prompt = |call: Call| {
        let value = studio.one(call.value("conditioning", &studio.positive));
        let conditioning = Conditioning::clone(&value.get::<Conditioning>().unwrap());
        conditioning.0.0[0].clone()
    };
    let area = node("ConditioningSetArea").set("width", 104).set("height", 64).set("x", 15).set("y", 24);
    let area = prompt(area.set("strength", 0.5)).region;
    assert_eq!(area.area, Some(Area::Cells(Rect { top: 3, left: 1, height: 8, width: 13 })));
    assert_eq!(area.strength, 0.5);
    let share = node("ConditioningSetAreaPercentage").set("width", 0.5).set("height", 0.25).set("y", 0.75);
    let want = Area::Shares { top: 0.75, left: 0.0, height: 0.25, width: 0.5 };
    assert_eq!(prompt(share).region.area, Some(want));
    assert_eq!(prompt(node("ConditioningSetAreaStrength").set("strength", 2.0)).region.strength, 2.0);
    let window = prompt(node("ConditioningSetTimestepRange").set("start", 0.25).set("end", 0.5));
    assert_eq!((window.start_percent, window.end_percent), (0.25, 0.5));
    let mask =
        node("ConditioningSetMask").link("mask", Mask::new(1, 1, 2, vec![0.0, 1.0])).set("strength", 0.5);
    let mask = prompt(mask.set("set_cond_area", "mask bounds")).region.mask.unwrap();
    assert_eq!((mask.strength, mask.bounds, mask.mask.parts().0), (0.5, true, [1, 1, 2]));
    let zero = prompt(node("ConditioningZeroOut"));
    assert!(values(&zero.context).iter().all(|v| *v == 0.0));

    let two = |kind| {
        let call = node(kind).value("conditioning_to", &studio.positive);
        let value = studio.one(call.value("conditioning_from", &studio.negative));
        let conditioning = Conditioning::clone(&value.get::<Conditioning>().unwrap());
        conditioning.0.0[0].context.clone()
    };
    assert_eq!(two("ConditioningConcat").dims(), [1, 154, 96]);
    let positive = studio.positive.get::<Conditioning>().unwrap();
    assert!(values(&two("ConditioningAverage")) == values(&positive.0.0[0].context));
}

#[test]
fn nodes_patch_a_model_and_leave_the_one_they_were_given() {
    let studio = Studio::apple();
    let patched = |call: Call| {
        let value = studio.one(call.value("model", &studio.checkpoint[0]));
        Model::clone(&value.get::<Model>().unwrap()).0
    };
    let zsnr = patched(node("ModelSamplingDiscrete").set("sampling", "v_prediction").set("zsnr", true));
    assert_eq!(zsnr.prediction, Prediction::V);
    assert!(zsnr.schedule.sigma_max() > 4000.0);
    let lcm = patched(node("ModelSamplingDiscrete").set("sampling", "lcm"));
    assert_eq!((lcm.prediction, lcm.schedule.sigmas().len()), (Prediction::Lcm, 50));
    let edm = patched(node("ModelSamplingContinuousEDM").set("sampling", "edm").set("sigma_max", 80.0));
    assert_eq!(edm.prediction, Prediction::Edm);
    assert!((edm.schedule.sigma_max() - 80.0).abs() < 1e-4);
    let draw = |model: &Value, cfg: f64| {
        let call = studio.sampler("KSampler").value("model", model).set("cfg", cfg).set("steps", 3);
        studio.latent(call)
    };
    let plain = draw(&studio.checkpoint[0], 4.0);
    let zeros = studio.one(node("ConditioningZeroOut").value("conditioning", &studio.negative));
    let changes = [
        node("RescaleCFG"),
        node("PerpNeg").value("empty_conditioning", &zeros),
        node("PerturbedAttentionGuidance"),
        node("SelfAttentionGuidance"),
    ];
    for call in changes {
        let kind = call.kind;
        let model = studio.one(call.value("model", &studio.checkpoint[0]));
        assert!(draw(&model, 4.0) != plain, "{kind}");
    }
    assert!(draw(&studio.checkpoint[0], 4.0) == plain);
    let off = node("PerturbedAttentionGuidance").set("scale", 0.0).value("model", &studio.checkpoint[0]);
    assert!(draw(&studio.one(off), 4.0) == plain);
}
