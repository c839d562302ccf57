//! Workflows of several files, with conditions and with many runs: what they become.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod stubs;

use std::{collections::BTreeMap, fs, sync::Arc};

use flow_graph::{
    Collected, Constant, Diagnostics, Files, Hash, Overrides, Plan, Sweep, Workflow, check, sweep::Asked,
};

/// A folder with models, pictures and these files.
struct Place(tempfile::TempDir, Arc<Files>);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let models = ["models/checkpoints/base.safetensors", "models/clip_vision/eye.safetensors"];
        let pictures = ["in/cup.png", "in/photos/a.png", "in/photos/b.png", "in/photos/notes.txt"];
        let plain = models.iter().chain(&pictures).map(|name| (name.to_string(), *name));
        let given = files.iter().map(|(name, text)| (format!("in/{name}"), *text));
        for (name, text) in plain.chain(given) {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files =
            Files::new(vec![dir.path().join("in")], vec![dir.path().join("models")], dir.path().join("out"));
        Self(dir, Arc::new(files))
    }

    fn open(&self, name: &str) -> Result<Workflow, Diagnostics> {
        let path = self.0.path().join("in").join(name);
        let text = fs::read_to_string(&path).unwrap();
        let (workflow, problems) =
            Workflow::open(&path.to_string_lossy(), &text, &self.1, &stubs::registry());
        if problems.has_errors() { Err(problems) } else { Ok(workflow) }
    }

    fn plan_with(&self, name: &str, set: &[(&str, &str)]) -> Plan {
        let workflow = self.open(name).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        check(&workflow, &stubs::registry(), &self.1, &overrides(set), &[])
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
    }

    fn plan(&self, name: &str) -> Plan {
        self.plan_with(name, &[])
    }

    fn sweep(&self, name: &str, sweeps: &[&str], set: &[(&str, &str)]) -> Result<Sweep, Diagnostics> {
        let asked =
            Asked { sweeps: sweeps.iter().map(|text| text.to_string()).collect(), grid: None, turn: 0 };
        self.open(name)?.sweep(&asked, &overrides(set), &self.1)
    }

    fn labels(&self, name: &str, sweeps: &[&str], set: &[(&str, &str)]) -> Vec<String> {
        let sweep =
            self.sweep(name, sweeps, set).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        (0..sweep.len()).map(|run| sweep.label(run)).collect()
    }

    /// The plan of the recipe that one run's pictures carry.
    fn again(&self, plan: &Plan) -> Plan {
        let recipe = plan.provenance().workflow;
        let path = self.0.path().join("in/again.yaml");
        fs::write(&path, &recipe).unwrap();
        let (workflow, problems) = Workflow::parse("again.yaml", &recipe);
        assert!(problems.0.is_empty(), "{recipe}\n{}", problems.render(false));
        check(&workflow, &stubs::registry(), &self.1, &Overrides::default(), &[])
            .unwrap_or_else(|problems| panic!("{recipe}\n{}", problems.render(false)))
    }
}

fn overrides(set: &[(&str, &str)]) -> Overrides {
    Overrides {
        set: set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..Overrides::default()
    }
}

/// Every job in one line, sorted: `id Kind input=value input<-producer.output`.
fn shown(plan: &Plan) -> String {
    let mut lines: Vec<_> = plan
        .graph()
        .node_indices()
        .map(|index| {
            let job = plan.job(index);
            let args = job.args.iter().filter(|(name, _)| !["verbose", "filename_prefix"].contains(name));
            let args = args.map(|(name, constant)| match constant {
                Constant::Literal(literal) => format!("{name}={literal}"),
                Constant::File(file) => format!("{name}={}", file.name),
                Constant::Items(_) => format!("{name}=items"),
            });
            let mut links: Vec<_> = plan
                .inputs(index)
                .map(|(from, link)| {
                    let producer = plan.job(from);
                    format!("{}<-{}.{}", link.input, producer.id, producer.def.outputs[link.from_output].name)
                })
                .collect();
            links.sort();
            let parts: Vec<_> = args.chain(links).collect();
            format!("{} {} {}", job.id, job.def.kind, parts.join(" "))
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

/// What is computed, whatever it is called.
fn keys(plan: &Plan, files: &Files) -> Vec<Hash> {
    let mut all = BTreeMap::new();
    for job in plan.order() {
        let values = plan.inputs(*job).map(|(from, link)| {
            let value: &Hash = &all[&from];
            (link.input, Hash::builder().part(value.as_bytes()).part(link.from_output.to_le_bytes()).finish())
        });
        let key = plan.job(*job).key(&values.collect(), files, &Hash::of(b"")).unwrap();
        all.insert(*job, key);
    }
    let mut keys: Vec<_> = all.into_values().collect();
    keys.sort();
    keys
}

const BASE: &str = "
flow: 1
name: base
inputs:
  radius: { type: int, default: 3, min: 1, max: 9 }
nodes:
  photo: { type: LoadImage, image: cup.png }
  soft: { type: ImageBlur, image: photo, radius: $radius, mask: photo }
  save: { type: SaveImage, images: soft, path: out/base }
  extra: { type: SaveImage, images: photo, path: out/extra }
outputs: { image: soft.image }
";

#[test]
fn an_extending_file_lays_itself_over_its_base() {
    let place = Place::new(&[
        ("lib/base.yaml", BASE),
        ("middle.yaml", "flow: 1\nextends: lib/base.yaml\nnodes: { extra: ~, soft: { mask: ~ } }\n"),
        (
            "top.yaml",
            "flow: 1\nextends: middle.yaml\nname: top\ninputs: { radius: 5 }\nnodes: { save: { path: \"out/${flow.name}\" } }\n",
        ),
    ]);
    let plan = place.plan("top.yaml");
    insta::assert_snapshot!(shown(&plan), @r#"
    photo LoadImage image=cup.png
    save SaveImage path=out/top images<-soft.image
    soft ImageBlur blur_radius=5 image<-photo.image
    "#);
    let names: Vec<_> = plan.files().iter().filter_map(|path| path.file_name()?.to_str()).collect();
    for part in ["base.yaml", "middle.yaml", "top.yaml"] {
        assert!(names.contains(&part), "{part} is not among {names:?}");
    }
    assert_eq!(shown(&place.again(&plan)), shown(&plan));
}

const TWICE: &str = "
flow: 1
inputs:
  image: { type: image }
  radius: { type: int, default: 2, min: 1, max: 9 }
  mask: { type: mask, required: false }
  words: { type: string, default: plain }
models: { base: { kind: checkpoint, file: base } }
nodes:
  ckpt: { type: LoadCheckpoint, file: $models.base }
  text: { type: CLIPTextEncode, clip: $models.base, text: \"${words}, ${radius}\" }
  first: { type: ImageBlur, image: $image, radius: $radius, mask: $mask }
  second: { type: ImageBlur, image: { type: ImageBlur, image: first }, radius: \"${radius * 2}\" }
  size: { type: GetImageSize, image: second }
outputs: { image: second.image, width: size.width, text: text }
";

#[test]
fn a_workflow_used_as_a_node_becomes_nodes() {
    let place = Place::new(&[
        ("lib/twice.yaml", TWICE),
        (
            "top.yaml",
            "
flow: 1
import: { twice: lib/twice.yaml }
inputs: { look: 1, words: a cup }
nodes:
  photo: { type: LoadImage, image: cup.png }
  big: { type: twice, image: photo, radius: \"${look + 1}\", mask: photo, words: \"so: ${words}\" }
  bigger: { type: twice, image: big, words: $words }
  lat: { type: EmptyLatentImage, width: $bigger.width, height: 64 }
  save: { type: SaveImage, images: { type: twice, image: { type: ImageBlur, image: bigger.image }, words: \"$$1\" } }
outputs: { image: bigger.image, lat: lat, t1: big.text, t2: bigger.text, t3: save-images/text }
",
        ),
    ]);
    let plan = place.plan("top.yaml");
    insta::assert_snapshot!(shown(&plan), @r#"
    big/first ImageBlur blur_radius=2 image<-photo.image mask<-photo.mask
    big/second ImageBlur blur_radius=4 image<-big/second.image.image
    big/second.image ImageBlur blur_radius=1 image<-big/first.image
    big/text CLIPTextEncode text=so: a cup, 2 clip<-models.base.clip
    bigger/first ImageBlur blur_radius=2 image<-big/second.image
    bigger/second ImageBlur blur_radius=4 image<-bigger/second.image.image
    bigger/second.image ImageBlur blur_radius=1 image<-bigger/first.image
    bigger/size GetImageSize image<-bigger/second.image
    bigger/text CLIPTextEncode text=a cup, 2 clip<-models.base.clip
    lat EmptyLatentImage height=64 width<-bigger/size.width
    models.base LoadCheckpoint ckpt_name=base
    photo LoadImage image=cup.png
    save SaveImage images<-save-images/second.image
    save-images/first ImageBlur blur_radius=2 image<-save-images/in-image.image
    save-images/in-image ImageBlur blur_radius=1 image<-bigger/second.image
    save-images/second ImageBlur blur_radius=4 image<-save-images/second.image.image
    save-images/second.image ImageBlur blur_radius=1 image<-save-images/first.image
    save-images/text CLIPTextEncode text=$1, 2 clip<-models.base.clip
    "#);
    let again = place.again(&plan);
    assert_eq!(keys(&again, &place.1), keys(&plan, &place.1));
}

#[test]
fn equal_uses_have_equal_keys() {
    let top = "
flow: 1
import: { twice: twice.yaml }
nodes:
  photo: { type: LoadImage, image: cup.png }
  a: { type: twice, image: photo }
  b: { type: twice, image: photo }
  save: { type: SaveImage, images: a }
  save2: { type: SaveImage, images: b }
";
    let place = Place::new(&[("twice.yaml", TWICE), ("top.yaml", top)]);
    let plan = place.plan("top.yaml");
    let mut distinct = keys(&plan, &place.1);
    let all = distinct.len();
    distinct.dedup();
    assert_eq!((all, distinct.len()), (9, 5), "{}", shown(&plan));
}

#[test]
fn subgraphs_are_written_in_place_and_may_use_each_other() {
    let top = "
flow: 1
subgraphs:
  four:
    inputs: { image: { type: image } }
    nodes: { a: { type: two, image: $image }, b: { type: two, image: a } }
    outputs: { image: b }
  two:
    inputs: { image: { type: image } }
    nodes: { a: { type: ImageBlur, image: $image }, b: { type: ImageBlur, image: a } }
    outputs: { image: b.image }
nodes:
  photo: { type: LoadImage, image: cup.png }
  all: { type: four, image: photo }
  save: { type: SaveImage, images: all }
";
    let place = Place::new(&[("top.yaml", top)]);
    let plan = place.plan("top.yaml");
    insta::assert_snapshot!(shown(&plan), @r#"
    all/a/a ImageBlur blur_radius=1 image<-photo.image
    all/a/b ImageBlur blur_radius=1 image<-all/a/a.image
    all/b/a ImageBlur blur_radius=1 image<-all/a/b.image
    all/b/b ImageBlur blur_radius=1 image<-all/b/a.image
    photo LoadImage image=cup.png
    save SaveImage images<-all/b/b.image
    "#);
    assert_eq!(keys(&place.again(&plan), &place.1), keys(&plan, &place.1));
}

#[test]
fn uses_that_multiply_without_end_are_refused() {
    let mut subgraphs = "  s0: { nodes: { x: { type: LoadImage, image: cup.png } } }\n".to_owned();
    for level in 1..10 {
        let uses: Vec<_> = (0..10).map(|i| format!("u{i}: {{ type: s{} }}", level - 1)).collect();
        subgraphs.push_str(&format!("  s{level}: {{ nodes: {{ {} }} }}\n", uses.join(", ")));
    }
    let top = format!("flow: 1\nsubgraphs:\n{subgraphs}nodes: {{ all: {{ type: s9 }} }}\n");
    let place = Place::new(&[("top.yaml", &top)]);
    let problems = place.open("top.yaml").unwrap_err();
    assert!(problems.0.iter().any(|problem| problem.id == "too-big"), "{}", problems.render(false));
}

const CONDITIONS: &str = "
flow: 1
inputs: { look: 0, style: { type: string, required: false } }
subgraphs:
  twice:
    inputs: { image: { type: image } }
    nodes: { a: { type: ImageBlur, image: $image }, b: { type: ImageBlur, image: a } }
    outputs: { image: b.image }
nodes:
  photo: { type: LoadImage, image: cup.png }
  hide: { type: LoadImage, image: cup.png, when: $style != \"\" }
  soft: { type: ImageBlur, image: photo, mask: hide.mask, when: $look > 0 }
  softer: { type: twice, image: soft, when: $look > 1 }
  last: { type: ImageBlur, image: softer, mask: hide.mask, radius: \"${look + 1}\" }
  save: { type: SaveImage, images: last }
  also: { type: SaveImage, images: soft, when: $look > 0 }
outputs: { image: softer.image, hidden: hide.mask }
";

#[test]
fn what_a_condition_takes_out_is_passed_by() {
    let place = Place::new(&[("top.yaml", CONDITIONS)]);
    let out = place.plan("top.yaml");
    insta::assert_snapshot!(shown(&out), @r#"
    last ImageBlur blur_radius=1 image<-photo.image
    photo LoadImage image=cup.png
    save SaveImage images<-last.image
    "#);
    assert_eq!(out.outputs().keys().collect::<Vec<_>>(), ["image"]);
    assert_eq!(keys(&place.again(&out), &place.1), keys(&out, &place.1));
    let within = place.plan_with("top.yaml", &[("look", "2"), ("style", "x")]);
    insta::assert_snapshot!(shown(&within), @r#"
    also SaveImage images<-soft.image
    hide LoadImage image=cup.png
    last ImageBlur blur_radius=3 image<-softer/b.image mask<-hide.mask
    photo LoadImage image=cup.png
    save SaveImage images<-last.image
    soft ImageBlur blur_radius=1 image<-photo.image mask<-hide.mask
    softer/a ImageBlur blur_radius=1 image<-soft.image
    softer/b ImageBlur blur_radius=1 image<-softer/a.image
    "#);
    assert_eq!(keys(&place.again(&within), &place.1), keys(&within, &place.1));
}

#[test]
fn combinations_follow_the_rules_of_github_actions() {
    let top = |matrix: &str| {
        format!("{BASE}matrix: {matrix}\n").replace("radius: { type", "look: 1\n  radius: { type")
    };
    let labels = |matrix: &str, sweeps: &[&str], set: &[(&str, &str)]| {
        Place::new(&[("top.yaml", &top(matrix))]).labels("top.yaml", sweeps, set)
    };
    assert_eq!(
        labels("{ look: [0, 1], radius: [1, 2], exclude: [{ look: 0.0, radius: 2 }] }", &[], &[]),
        ["look=0 radius=1", "look=1 radius=1", "look=1 radius=2"]
    );
    assert_eq!(
        labels("{ zip: { look: [0, 1], radius: [5, 6] }, soft.blur_radius: [7] }", &[], &[]),
        ["look=0 radius=5 soft.blur_radius=7", "look=1 radius=6 soft.blur_radius=7"]
    );
    assert_eq!(
        labels("{ look: [0, 1], include: [{ look: 1, radius: 4 }, { look: 9 }, { radius: 8 }] }", &[], &[]),
        ["look=0 radius=8", "look=1 radius=8", "look=9"]
    );
    assert_eq!(labels("{ include: [{ look: 3 }, { radius: 8 }] }", &[], &[]), ["look=3", "radius=8"]);
    assert_eq!(
        labels("{ look: [0, 1], radius: [1, 2] }", &["radius=7,8"], &[("look", "5")]),
        ["radius=7 look=5", "radius=8 look=5"]
    );
}

#[test]
fn the_command_line_overrules_a_key_in_every_combination() {
    let top = |matrix: &str| {
        format!("{BASE}matrix: {matrix}\n").replace("radius: { type", "look: 1\n  radius: { type")
    };
    let labels = |matrix: &str, sweeps: &[&str], set: &[(&str, &str)]| {
        Place::new(&[("top.yaml", &top(matrix))]).labels("top.yaml", sweeps, set)
    };
    // What is included has the key as well, though the entry does not name it.
    let included = "{ look: [0, 1], include: [{ radius: 4, look: 9 }, { soft.blur_radius: 8 }] }";
    assert_eq!(
        labels(included, &["look=2,3"], &[]),
        ["soft.blur_radius=8 look=2", "soft.blur_radius=8 look=3", "radius=4 look=2", "radius=4 look=3"]
    );
    let alone = "{ radius: [1, 2], include: [{ radius: 5 }, { look: 7 }] }";
    assert_eq!(
        labels(alone, &[], &[("look", "0")]),
        ["radius=1 look=0", "radius=2 look=0", "radius=5 look=0"]
    );
    assert_eq!(
        labels("{ include: [{ look: 3 }, { radius: 8 }] }", &[], &[("look", "0")]),
        ["look=0", "radius=8 look=0"]
    );
    // Where an entry applies is found on the values of the file.
    let both = "{ look: [0, 1], radius: [1, 2], exclude: [{ look: 0, radius: 2 }, { radius: 1 }] }";
    assert_eq!(labels(both, &[], &[("look", "0")]), ["radius=2 look=0"]);
    assert_eq!(labels("{ zip: { look: [0, 1], radius: [5, 5] } }", &["look=3"], &[]), ["radius=5 look=3"]);
    // The last word is that of `--set`.
    assert_eq!(
        labels(included, &["look=2,3"], &[("look", "6")]),
        ["soft.blur_radius=8 look=6", "radius=4 look=6"]
    );
    let long = (0..200).map(|look| look.to_string()).collect::<Vec<_>>().join(", ");
    let long =
        format!("{{ look: [{long}], radius: [{long}], include: [{{ look: 7, soft.blur_radius: 3 }}] }}");
    assert_eq!(
        labels(&long, &[], &[("look", "0"), ("radius", "1")]),
        ["soft.blur_radius=3 look=0 radius=1", "look=0 radius=1"]
    );
}

#[test]
fn an_item_for_each_file_of_a_folder() {
    let top = "
flow: 1
inputs: { photos: { type: list, default: photos }, radius: 1 }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  other: { type: LoadImage, image: cup.png }
  soft: { type: ImageBlur, image: photo, radius: \"${each.index + radius}\" }
  save: { type: SaveImage, images: soft, path: \"out/${each.name}-${radius}\" }
  once: { type: SaveImage, images: other, path: out/once }
matrix: { radius: [1, 2] }
";
    let place = Place::new(&[("top.yaml", top)]);
    assert_eq!(
        place.labels("top.yaml", &[], &[]),
        ["radius=1 photos/a.png", "radius=1 photos/b.png", "radius=2 photos/a.png", "radius=2 photos/b.png"]
    );
    let sweep = place.sweep("top.yaml", &[], &[("photos", "photos/b*")]).unwrap();
    let (registry, overrides) = (stubs::registry(), overrides(&[("photos", "photos/b*")]));
    let checked = sweep.check(&registry, &place.1, &overrides, &[]).unwrap();
    let none = Collected::default();
    let (first, second) = (checked.plan(0, &none).unwrap(), checked.plan(1, &none).unwrap());
    insta::assert_snapshot!(shown(&first), @r#"
    once SaveImage path=out/once images<-other.image
    other LoadImage image=cup.png
    photo LoadImage image=photos/b.png
    save SaveImage path=out/b-1 images<-soft.image
    soft ImageBlur blur_radius=1 image<-photo.image
    "#);
    // What does not depend on the run is not run again.
    insta::assert_snapshot!(shown(&second), @r#"
    photo LoadImage image=photos/b.png
    save SaveImage path=out/b-2 images<-soft.image
    soft ImageBlur blur_radius=2 image<-photo.image
    "#);
    assert_eq!(keys(&place.again(&second), &place.1), keys(&second, &place.1));
}

#[test]
fn what_a_join_needs_of_an_item_writes_nothing() {
    let top = "
flow: 1
inputs: { photos: { type: list, default: photos } }
nodes:
  photo: { type: LoadImage, each: $photos, image: $each }
  soft: { type: ImageBlur, image: photo }
  save: { type: SaveImage, images: soft, path: \"out/${each.name}\" }
  all: { type: SaveImage, images: { collect: photo }, path: out/all }
";
    let place = Place::new(&[("top.yaml", top)]);
    let sweep = place.sweep("top.yaml", &[], &[]).unwrap();
    let checked = sweep.check(&stubs::registry(), &place.1, &overrides(&[]), &[]).unwrap();
    let item = checked.plan(0, &Collected::default()).unwrap();
    assert_eq!(item.order().len(), 3);
    let joined = item.for_a_join();
    insta::assert_snapshot!(shown(&joined), @"photo LoadImage image=photos/a.png");
    assert_eq!((joined.collected().len(), joined.outputs().len()), (1, 0));
    assert_eq!(shown(&joined.for_a_join()), shown(&joined));
    let all = checked.plan(2, &Collected::default()).unwrap();
    assert!(all.for_a_join().order().is_empty(), "nothing is joined to it");
}

#[test]
fn a_random_seed_is_one_for_all_runs() {
    let top = "
flow: 1
inputs: { seed: { type: seed, default: random }, look: 1 }
nodes:
  lat: { type: EmptyLatentImage }
  ckpt: { type: LoadCheckpoint, file: base }
  text: { type: CLIPTextEncode, clip: ckpt, text: x }
  out: { type: KSampler, model: ckpt, positive: text, negative: text, latent: lat, seed: $seed, cfg: $look }
outputs: { out: out }
matrix: { look: [1, 2] }
";
    let place = Place::new(&[("top.yaml", top)]);
    let sweep = place.sweep("top.yaml", &[], &[]).unwrap();
    let (registry, none) = (stubs::registry(), Overrides::default());
    let checked = sweep.check(&registry, &place.1, &none, &[]).unwrap();
    let seed = |run: usize| {
        let plan = checked.plan(run, &Collected::default()).unwrap();
        let out = plan.graph().node_weights().find(|job| &*job.id == "out").unwrap();
        format!("{:?}", out.args["seed"])
    };
    assert_eq!(seed(0), seed(1));
}
