//! `cache:` and `seed_mode:` of a node.

use std::fs;

use crate::place::Place;

const SAMPLING: &str = "\
flow: 1
inputs: { seed: 5 }
nodes:
  ckpt: { type: LoadCheckpoint, file: tiny-sd }
  pos: { type: CLIPTextEncode, clip: ckpt, text: a red apple }
  latent: { type: EmptyLatentImage, width: 64, height: 64 }
  out: { type: KSampler, model: ckpt, positive: pos, negative: pos, latent: latent, seed: $seed, steps: 1 }
  image: { type: VAEDecode, samples: out, vae: ckpt }
  save: { type: SaveImage, images: image, path: out/a.png }
";

fn count(place: &Place) -> usize {
    place.written("cache/results").len()
}

#[test]
fn a_node_whose_cache_is_off_always_runs_and_what_it_feeds_only_when_it_differs() {
    let place = Place::new(&[("a.yaml", &SAMPLING.replace("steps: 1 }", "steps: 1, cache: off }"))]);
    let first = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((first.started("out"), first.started("image")), (1, 1));
    let kept = count(&place);
    let plan = place.flow(&["plan", "a.yaml"]).fine();
    assert!(plan.out.contains("`cache: off`, every time"), "{}", plan.out);
    let second = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!((second.started("out"), second.started("image")), (1, 0), "{}", second.out);
    assert_eq!(count(&place), kept);
    // Nothing of it is there to be found when it is kept again.
    place.write("a.yaml", SAMPLING);
    let third = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(third.started("out"), 1);
    let fourth = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(fourth.started("out"), 0);
    place.write("a.yaml", &SAMPLING.replace("steps: 1 }", "steps: 1, cache: off }"));
    let found_before = place.flow(&["run", "a.yaml", "--json"]).fine();
    assert_eq!(found_before.started("out"), 1, "what was kept before is not used either");
}

#[test]
fn in_one_process_an_uncached_node_runs_in_each_run_and_a_cached_one_once() {
    let sweep = "\
flow: 1
inputs: { high: 200 }
nodes:
  photo: { type: LoadImage, image: product_teapot.png, MODE }
  edges: { type: CannyDetect, image: photo, low: 100, high: $high }
  save: { type: SaveImage, images: edges, path: \"out/${high}.png\" }
matrix: { high: [150, 200, 250] }
";
    for (mode, times) in [("cache: off", 3), ("cache: memory", 1), ("cache: disk", 1), ("note: none", 1)] {
        let place = Place::new(&[("a.yaml", &sweep.replace("MODE", mode))]);
        let said = place.flow(&["run", "a.yaml", "--json"]).fine();
        assert_eq!((said.started("photo"), said.started("edges")), (times, 3), "{mode}: {}", said.out);
    }
}

#[test]
fn memory_only_leaves_nothing_on_disk() {
    let place = Place::new(&[("a.yaml", SAMPLING)]);
    place.flow(&["run", "a.yaml"]).fine();
    let kept = count(&place);
    let place = Place::new(&[("a.yaml", &SAMPLING.replace("steps: 1 }", "steps: 1, cache: memory }"))]);
    place.flow(&["run", "a.yaml"]).fine();
    assert_eq!(count(&place), kept - 1);
    let again = place.flow(&["run", "a.yaml", "--json"]).fine();
    // The picture behind it is known, so nobody needs it.
    assert_eq!((again.started("out"), again.started("image")), (1, 0), "{}", again.out);
}

#[test]
fn words_that_are_none_are_refused_with_those_there_are() {
    let place = Place::new(&[(
        "a.yaml",
        &SAMPLING.replace("steps: 1 }", "steps: 1, cache: on, seed_mode: randomize }"),
    )]);
    let said = place.flow(&["check", "a.yaml"]);
    assert_eq!(said.code, 2);
    assert!(
        said.err.contains("`on` is no value of `cache`") && said.err.contains("`disk`, `memory`, `off`"),
        "{}",
        said.err
    );
    assert!(said.err.contains("`randomize` is no value of `seed_mode`"), "{}", said.err);
    place.write("a.yaml", &SAMPLING.replace("vae: ckpt }", "vae: ckpt, seed_mode: random }"));
    let said = place.flow(&["check", "a.yaml"]);
    assert!(said.err.contains("VAEDecode has no seed for a `seed_mode`"), "{}", said.err);
}

/// The seed in the recipe that a picture carries.
fn seed_in(place: &Place, picture: &str) -> String {
    place.flow(&["convert", picture, "-o", "recipe.json"]).fine();
    let recipe: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(place.path("recipe.json")).unwrap()).unwrap();
    fs::remove_file(place.path("recipe.json")).unwrap();
    recipe["out"]["inputs"]["seed"].to_string()
}

#[test]
fn a_random_seed_is_drawn_once_told_and_stored() {
    let place = Place::new(&[("a.yaml", &SAMPLING.replace("steps: 1 }", "steps: 1, seed_mode: random }"))]);
    let told = || {
        let said = place.flow(&["run", "a.yaml", "--json"]).fine();
        let note = said
            .events()
            .into_iter()
            .find(|event| event["event"] == "note" && event["node"] == "out")
            .unwrap();
        note["message"].as_str().unwrap().strip_prefix("seed ").unwrap().to_owned()
    };
    let first = told();
    assert_eq!(seed_in(&place, "out/a.png"), first);
    place.flow(&["verify", "out/a.png"]).fine();
    assert_ne!(told(), first);
    let set = place.flow(&["run", "a.yaml", "--set", "out.seed=7"]).fine();
    assert!(!set.err.contains("seed "), "{}", set.err);
    assert_eq!(seed_in(&place, "out/a.png"), "7");
}

#[test]
fn a_seed_counts_up_or_down_with_the_runs_and_is_one_for_an_item_in_all_combinations() {
    let counted = |mode: &str| {
        let workflow = SAMPLING.replace(
            "seed: $seed, steps: 1 }",
            &format!("seed: $seed, steps: 1, seed_mode: {mode}, cfg: $cfg }}"),
        );
        let workflow = workflow
            .replace("inputs: { seed: 5 }", "inputs: { seed: 5, cfg: 1 }")
            .replace("out/a.png", "\"out/${cfg}.png\"");
        let place = Place::new(&[("a.yaml", &format!("{workflow}matrix: {{ cfg: [1, 2, 3] }}\n"))]);
        place.flow(&["run", "a.yaml"]).fine();
        ["out/1.png", "out/2.png", "out/3.png"].map(|name| seed_in(&place, name))
    };
    assert_eq!(counted("increment"), ["5", "6", "7"]);
    assert_eq!(counted("decrement"), ["5", "4", "3"]);
    assert_eq!(counted("fixed"), ["5", "5", "5"]);
    let each = SAMPLING
        .replace("inputs: { seed: 5 }", "inputs: { cfg: 1, words: { type: list, default: [apple, pear] } }")
        .replace("text: a red apple }", "text: $each, each: $words }")
        .replace(
            "seed: $seed, steps: 1 }",
            "seed: 18446744073709551615, seed_mode: increment, steps: 1, cfg: $cfg }",
        )
        .replace("out/a.png", "\"out/${cfg}-${each}.png\"");
    let place = Place::new(&[("a.yaml", &format!("{each}matrix: {{ cfg: [1, 2] }}\n"))]);
    place.flow(&["run", "a.yaml"]).fine();
    let seeds = ["out/1-apple.png", "out/1-pear.png", "out/2-apple.png", "out/2-pear.png"]
        .map(|name| seed_in(&place, name));
    // After the greatest seed comes the least.
    assert_eq!(seeds, ["18446744073709551615", "0", "18446744073709551615", "0"]);
}
