use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::attention::{Patches, Row, Step};
use crate::fixture::{Tensors, assert_close, max_abs_diff as error, project as path, shapes_only};
use crate::header::Header;
use crate::model::{ControlNetSource, UNetSource};
use crate::state_dict::StateDict;
use crate::unet_config::UNetConfig;

const TOLERANCE: f32 = 2e-5;

/// The random UNet of the fixtures, its adapters, and its cases.
struct Miniature {
    rt: Runtime,
    model: Model,
    adapters: Tensors,
    cases: Tensors,
    _files: tempfile::TempDir,
}

impl Miniature {
    fn new() -> Self {
        let header = Header::read(&path("tests/fixtures/unet/unet.safetensors")).unwrap();
        let mut source = UNetSource::from_header(Arc::new(header)).unwrap();
        source.config.groups = 4;
        source.config.levels.iter_mut().for_each(|l| l.heads = 2);
        Self {
            rt: Runtime::cpu(),
            model: Model::new(source).unwrap(),
            adapters: Tensors::open("tests/fixtures/unet/adapters.safetensors"),
            cases: Tensors::open("tests/fixtures/unet/cases.safetensors"),
            _files: tempfile::tempdir().unwrap(),
        }
    }

    fn adapter(&self, name: &str) -> IpAdapterSource {
        let file = self._files.path().join(format!("{name}.safetensors"));
        candle_core::safetensors::save(&self.adapters.below(&format!("{name}/")), &file).unwrap();
        IpAdapterSource::open(&file).unwrap()
    }

    fn embeds(&self, name: &str) -> ImageEmbeds {
        ImageEmbeds::new(self.cases.get(name))
    }

    fn apply(&self, model: &Model, adapter: &str, embeds: &str, options: &IpOptions) -> Model {
        apply(&self.rt, model, &self.adapter(adapter), &self.embeds(embeds), options).unwrap()
    }

    fn run(&self, model: &Model, x: &Tensor, context: &Tensor, rows: &[Row], sigma: f64) -> Tensor {
        let step = Step { rows: rows.to_vec(), ..Step::single(sigma, rows.len()) };
        let unet = model.unet.load(&self.rt).unwrap();
        unet.forward(x, 601.0, context, None, None, &model.patches, &step).unwrap()
    }

    /// One conditioned row.
    fn single(&self, model: &Model) -> Tensor {
        self.run(model, &self.cases.get("x"), &self.cases.get("ctx"), &[Row::Cond], 3.0)
    }

    /// A conditioned and an unconditioned row, as the fixtures of `IPAdapter_plus` have them.
    fn pair(&self, model: &Model, sigma: f64) -> Tensor {
        let x = self.cases.get("x").repeat((2, 1, 1, 1)).unwrap();
        let context = Tensor::cat(&[self.cases.get("ctx"), self.cases.get("ctx2")], 0).unwrap();
        self.run(model, &x, &context, &[Row::Cond, Row::Uncond], sigma)
    }
}

fn at(weight: f64) -> IpOptions {
    IpOptions { weight, ..IpOptions::default() }
}

#[test]
fn adapters_match_diffusers_alone_two_at_once_and_plus() {
    let m = Miniature::new();
    let base = m.apply(&m.model, "base", "ip/embeds", &at(0.7));
    assert_close(&m.single(&base), &m.cases.get("ip/eps"), TOLERANCE, "ip/eps");
    let two = m.apply(&base, "second", "ip/embeds2", &at(0.4));
    assert_close(&m.single(&two), &m.cases.get("ip/eps_two"), TOLERANCE, "ip/eps_two");
    let plus = m.apply(&m.model, "plus", "ip/states", &at(0.5));
    assert_close(&m.single(&plus), &m.cases.get("ip/eps_plus"), TOLERANCE, "ip/eps_plus");
}

#[test]
fn each_half_of_guidance_gets_its_own_tokens() {
    let m = Miniature::new();
    let model = m.apply(&m.model, "base", "ip/embeds", &at(0.7));
    let x = m.cases.get("x").repeat((2, 1, 1, 1)).unwrap();
    let context = Tensor::cat(&[m.cases.get("ctx2"), m.cases.get("ctx")], 0).unwrap();
    let eps = m.run(&model, &x, &context, &[Row::Uncond, Row::Cond], 3.0);
    assert_close(&eps, &m.cases.get("ip/eps_cfg"), TOLERANCE, "ip/eps_cfg");
    let uncond = m.run(&model, &m.cases.get("x"), &m.cases.get("ctx2"), &[Row::Uncond], 3.0);
    assert_close(&uncond, &m.cases.get("ip/eps_cfg").narrow(0, 0, 1).unwrap(), TOLERANCE, "one half alone");
}

#[test]
fn every_weight_type_matches_ipadapter_plus() {
    let (m, expected) = (Miniature::new(), Tensors::open("tests/fixtures/unet/ipadapter_plus.safetensors"));
    for (name, weight_type) in WeightType::NAMES {
        if *name == "strong style and composition" {
            continue; // only in the table of weights
        }
        let options = IpOptions { weight_composition: 0.5, weight_type: *weight_type, ..at(0.8) };
        let model = m.apply(&m.model, "base", "ip/embeds", &options);
        assert_close(&m.pair(&model, 3.0), &expected.get(name), TOLERANCE, name);
    }
}

#[test]
fn scalings_combinations_and_layer_weights_match_ipadapter_plus() {
    let (m, expected) = (Miniature::new(), Tensors::open("tests/fixtures/unet/ipadapter_plus.safetensors"));
    for &(name, scaling) in &EmbedsScaling::NAMES[1..] {
        let model = m.apply(&m.model, "base", "ip/embeds", &IpOptions { scaling, ..at(0.8) });
        assert_close(&m.pair(&model, 3.0), &expected.get(&format!("scaling/{name}")), TOLERANCE, name);
    }
    let both = Tensor::cat(&[m.cases.get("ip/embeds"), m.cases.get("ip/embeds2")], 0).unwrap();
    let (adapter, both) = (m.adapter("base"), ImageEmbeds::new(both));
    for &(name, combine) in Combine::NAMES {
        let model = apply(&m.rt, &m.model, &adapter, &both, &IpOptions { combine, ..at(0.8) }).unwrap();
        assert_close(&m.pair(&model, 3.0), &expected.get(&format!("combine/{name}")), TOLERANCE, name);
    }
    let layers = "0:0.5, 5:1.2, 6:0.3".parse().unwrap();
    let model = m.apply(&m.model, "base", "ip/embeds", &IpOptions { layer_weights: Some(layers), ..at(0.8) });
    assert_close(&m.pair(&model, 3.0), &expected.get("layers"), TOLERANCE, "layers");
}

#[test]
fn masks_match_ipadapter_plus_in_even_and_odd_sizes_and_by_region() {
    let (m, expected) = (Miniature::new(), Tensors::open("tests/fixtures/unet/ipadapter_plus.safetensors"));
    let mask = m.cases.get("ip/mask").unsqueeze(0).unwrap();
    let under = |mask: &Tensor, weight: f64| IpOptions { mask: Some(mask.clone()), ..at(weight) };
    let full = m.apply(&m.model, "base", "ip/embeds", &under(&mask, 0.8));
    assert_close(&m.pair(&full, 3.0), &expected.get("mask/full"), TOLERANCE, "mask/full");
    let rest = (1.0 - &mask).unwrap();
    let two = m.apply(&full, "second", "ip/embeds2", &under(&rest, 0.6));
    assert_close(&m.pair(&two, 3.0), &expected.get("mask/two"), TOLERANCE, "mask/two");
    let mask = expected.get("mask/odd_mask").unsqueeze(0).unwrap();
    let odd = m.apply(&m.model, "base", "ip/embeds", &under(&mask, 0.8));
    let x = m.cases.get("odd/x").repeat((2, 1, 1, 1)).unwrap();
    let context = Tensor::cat(&[m.cases.get("odd/ctx"), m.cases.get("ctx2")], 0).unwrap();
    let eps = m.run(&odd, &x, &context, &[Row::Cond, Row::Uncond], 3.0);
    assert_close(&eps, &expected.get("mask/odd"), TOLERANCE, "mask/odd");
}

#[test]
fn outside_its_window_an_adapter_is_skipped_bit_for_bit() {
    let (m, expected) = (Miniature::new(), Tensors::open("tests/fixtures/unet/ipadapter_plus.safetensors"));
    let model = m.apply(&m.model, "base", "ip/embeds", &IpOptions { start_at: 0.2, end_at: 0.7, ..at(0.8) });
    for (sigma, inside) in [(10.0, false), (3.0, true), (0.3, false)] {
        let eps = m.pair(&model, sigma);
        assert_close(&eps, &expected.get(&format!("window/{sigma}")), TOLERANCE, "window");
        assert_eq!(error(&eps, &m.pair(&m.model, sigma)) == 0.0, !inside, "{sigma}");
    }
}

#[test]
fn weight_zero_is_the_base_model_bit_for_bit() {
    let m = Miniature::new();
    let zero = m.apply(&m.model, "base", "ip/embeds", &at(0.0));
    let some = m.apply(&m.model, "base", "ip/embeds", &at(0.1));
    assert_eq!(error(&m.single(&zero), &m.single(&m.model)), 0.0);
    assert!(error(&m.single(&some), &m.single(&m.model)) > 1e-3);
}

#[test]
fn two_adapters_add_up_in_either_order() {
    let m = Miniature::new();
    let (a, b) = (("base", "ip/embeds", at(0.7)), ("second", "ip/embeds2", at(0.4)));
    let chain = |one: &(&str, &str, IpOptions), two: &(&str, &str, IpOptions)| {
        let first = m.apply(&m.model, one.0, one.1, &one.2);
        m.single(&m.apply(&first, two.0, two.1, &two.2))
    };
    assert_close(&chain(&a, &b), &chain(&b, &a), 1e-5, "order");
}

#[test]
fn controlnet_residuals_are_the_same_bits_with_and_without_an_adapter() {
    let reference = Tensors::open("models/tiny-sd/reference/reference.safetensors");
    let rt = Runtime::cpu();
    let model = Model::open(&path("models/tiny-sd/tiny-sd.safetensors")).unwrap();
    let control = ControlNetSource::open(&path("models/tiny-sd/tiny-control-canny.safetensors")).unwrap();
    let adapter = IpAdapterSource::open(&path("models/tiny-sd/tiny-ip-adapter.safetensors")).unwrap();
    control.check(&model).unwrap();
    let embeds = ImageEmbeds::new(reference.get("clip_embeds"));
    let patched = apply(&rt, &model, &adapter, &embeds, &at(1.0)).unwrap();
    let (x, context) = (reference.get("init_noise"), reference.get("text_cond"));
    let residuals = |model: &Model| {
        // The order a sampler calls them in; the model's patches are the only thing that differs.
        let step = Step::single(3.0, 1);
        let unet = model.unet.load(&rt).unwrap();
        let net = control.load(&rt).unwrap();
        let hint = net.embed_hint(&reference.get("control_hint"), None).unwrap();
        let r = net.forward(&x, 601.0, &context, None, &hint, None).unwrap();
        let eps = unet.forward(&x, 601.0, &context, None, Some(&r), &model.patches, &step).unwrap();
        (r, eps)
    };
    let ((plain, eps), (with, eps_ip)) = (residuals(&model), residuals(&patched));
    assert!(error(&eps, &eps_ip) > 1e-3, "the adapter acts");
    for (a, b) in plain.down.iter().chain(&plain.mid).zip(with.down.iter().chain(&with.mid)) {
        assert_eq!(error(a, b), 0.0);
    }
}

#[test]
fn tiny_sd_with_its_adapter_predicts_what_diffusers_predicts() {
    let reference = Tensors::open("models/tiny-sd/reference/reference.safetensors");
    let rt = Runtime::cpu();
    let model = Model::open(&path("models/tiny-sd/tiny-sd.safetensors")).unwrap();
    let adapter = IpAdapterSource::open(&path("models/tiny-sd/tiny-ip-adapter.safetensors")).unwrap();
    let embeds = reference.get("clip_embeds");
    let loaded = adapter.load(&rt).unwrap();
    assert_close(&loaded.project(&embeds).unwrap(), &reference.get("ip_tokens"), TOLERANCE, "ip_tokens");
    let nothing = loaded.project(&embeds.zeros_like().unwrap()).unwrap();
    assert_close(&nothing, &reference.get("ip_tokens_uncond"), TOLERANCE, "ip_tokens_uncond");
    let model = apply(&rt, &model, &adapter, &ImageEmbeds::new(embeds), &at(1.0)).unwrap();
    let unet = model.unet.load(&rt).unwrap();
    let (x, context) = (reference.get("init_noise"), reference.get("text_uncond"));
    let eps = unet.forward(&x, 601.0, &context, None, None, &model.patches, &Step::single(3.0, 1)).unwrap();
    assert_close(&eps, &reference.get("eps_ip"), TOLERANCE, "eps_ip");
}

#[test]
fn sdxl_in_miniature_matches_with_an_adapter() {
    let cases = Tensors::open("tests/fixtures/sdxl/cases.safetensors");
    let rt = Runtime::cpu();
    let header = Header::read(&path("tests/fixtures/sdxl/unet.safetensors")).unwrap();
    let mut source = UNetSource::from_header(Arc::new(header)).unwrap();
    source.config.groups = 4;
    source.config.levels.iter_mut().for_each(|l| l.heads = l.channels / 4);
    let model = Model::new(source).unwrap();
    let adapter = IpAdapterSource::open(&path("tests/fixtures/sdxl/adapter.safetensors")).unwrap();
    let (x, context, y, embeds) = (cases.get("x"), cases.get("ctx"), cases.get("y"), cases.get("ip/embeds"));
    for row in 0..2 {
        let at_row = |t: &Tensor| t.narrow(0, row, 1).unwrap();
        let model = apply(&rt, &model, &adapter, &ImageEmbeds::new(at_row(&embeds)), &at(0.7)).unwrap();
        let unet = model.unet.load(&rt).unwrap();
        let (step, y) = (Step::single(3.0, 1), at_row(&y));
        let eps = unet
            .forward(&at_row(&x), 601.0, &at_row(&context), Some(&y), None, &model.patches, &step)
            .unwrap();
        assert_close(&eps, &at_row(&cases.get("ip/eps")), TOLERANCE, "ip/eps");
    }
}

/// The files people have, as headers with their real shapes (no weights are written).
fn published(name: &str) -> tempfile::TempDir {
    let list = |file: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path("tests/fixtures/keys").join(file)).unwrap()).unwrap()
    };
    let all = match name {
        "sdxl" => list("ip_adapter_sdxl.json"),
        name => list("ip_adapter.json")[name].clone(),
    };
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_value(all).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("adapter.safetensors");
    shapes_only(&file, shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())));
    dir
}

fn open(dir: &tempfile::TempDir) -> IpAdapterSource {
    IpAdapterSource::open(&dir.path().join("adapter.safetensors")).unwrap()
}

#[test]
fn published_adapters_are_known_by_their_headers() {
    let text = std::fs::read(path("tests/fixtures/keys/ip_adapter.json")).unwrap();
    let all: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for (name, variant, pooled, width, context_dim) in [
        ("sd15", "base, SD1.x", true, 1024, 768),
        ("sd15_plus", "plus, SD1.x", false, 1280, 768),
        ("sd15_full_face", "full-face, SD1.x", false, 1280, 768),
        ("sdxl_vit_h", "base, SDXL", true, 1024, 2048),
        ("sdxl_plus_vit_h", "plus, SDXL", false, 1280, 2048),
    ] {
        let dir = published(name);
        let adapter = open(&dir);
        assert_eq!(adapter.variant.to_string(), variant);
        assert_eq!(adapter.needs(), Needs { pooled, width, context_dim });
        assert_eq!(Some(adapter.parameters()), all["parameters"][name].as_u64(), "{name}");
    }
}

#[test]
fn the_sdxl_adapter_for_bigg_takes_its_embeds() {
    let adapter = open(&published("sdxl"));
    assert_eq!(adapter.variant.to_string(), "base, SDXL");
    assert_eq!(adapter.needs(), Needs { pooled: true, width: 1280, context_dim: 2048 });
    assert_eq!(adapter.parameters(), 351_285_248);
}

#[test]
fn the_sd15_adapter_has_22_million_weights() {
    assert_eq!(open(&published("sd15")).parameters(), 22_319_616);
}

#[test]
fn an_sd15_adapter_at_real_width_makes_four_tokens_and_keys_for_the_first_layer() {
    let dir = published("sd15");
    let adapter = open(&dir).load(&Runtime::cpu()).unwrap();
    let embeds = Tensor::ones((1, 1024), DType::F32, &Device::Cpu).unwrap();
    let tokens = adapter.project(&embeds).unwrap();
    assert_eq!(tokens.dims(), [1, 4, 768]);
    let both = Tensor::cat(&[&tokens, &tokens], 0).unwrap();
    let kv = adapter.keys_values(1, &both, false).unwrap();
    assert_eq!((kv.k.dims(), kv.v.dims()), (&[2, 4, 320][..], &[2, 4, 320][..]));
}

#[test]
fn queries_of_the_first_level_at_512_pixels_are_4096_by_320() {
    let dict = StateDict::zeros(DType::F32, &Device::Cpu);
    let level = &UNetConfig::sd15().levels[0];
    let layer =
        crate::attention::Attention::load(&dict.pp("attn2"), level.channels, 768, level.heads).unwrap();
    let hidden = Tensor::zeros((1, 64 * 64, 320), DType::F32, &Device::Cpu).unwrap();
    let text = Tensor::zeros((1, 77, 768), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(layer.queries(&hidden).unwrap().dims(), [1, 4096, 320]);
    let norm = crate::ops::LayerNorm::load(&dict.pp("norm2"), 320, 1e-5).unwrap();
    let y = layer
        .forward(&hidden, &norm, Some(&text), &Patches::default(), &Step::single(1.0, 1), (64, 64))
        .unwrap();
    assert_eq!(y.dims(), [1, 4096, 320]);
}

#[test]
fn an_adapter_of_another_family_is_refused_with_both_sides() {
    let m = Miniature::new();
    let sdxl = published("sdxl_vit_h");
    let message = open(&sdxl).check_model(&m.model).unwrap_err().to_string();
    assert!(message.contains("(base, SDXL) has 70 layers for text of width 2048"), "{message}");
    assert!(message.ends_with("has 16 of width 12"), "{message}");
}

#[test]
fn embeds_of_another_encoder_are_refused() {
    let m = Miniature::new();
    let embeds = ImageEmbeds::new(Tensor::zeros((1, 1024), DType::F32, &Device::Cpu).unwrap());
    let error = apply(&m.rt, &m.model, &m.adapter("base"), &embeds, &at(1.0)).unwrap_err().to_string();
    assert!(error.contains("takes pooled embeds [n, 20], the image encoder gave [1, 1024]"), "{error}");
}

#[test]
fn a_checkpoint_is_no_adapter_and_an_adapter_no_checkpoint() {
    let (checkpoint, adapter) =
        (path("models/tiny-sd/tiny-sd.safetensors"), path("models/tiny-sd/tiny-ip-adapter.safetensors"));
    let error = IpAdapterSource::open(&checkpoint).unwrap_err().to_string();
    assert!(
        error.ends_with("this is a checkpoint (tiny-sd: UNet, VAE, CLIP text), expected an IP-Adapter"),
        "{error}"
    );
    let error = Model::open(&adapter).unwrap_err().to_string();
    assert!(
        error.ends_with("this is an IP-Adapter (base, tiny-sd), expected a checkpoint or UNet"),
        "{error}"
    );
}

/// Leaves its layer as it is.
#[derive(Debug)]
struct Through;

impl crate::attention::AttnProcessor for Through {
    fn attend(&self, call: &crate::Call, next: crate::Next) -> Result<Tensor> {
        next.run(call)
    }
}

#[test]
fn patches_on_top_of_an_adapter_share_its_keys_and_values() {
    let reference = Tensors::open("models/tiny-sd/reference/reference.safetensors");
    let rt = Runtime::cpu();
    let model = Model::open(&path("models/tiny-sd/tiny-sd.safetensors")).unwrap();
    let adapter = IpAdapterSource::open(&path("models/tiny-sd/tiny-ip-adapter.safetensors")).unwrap();
    let embeds = ImageEmbeds::new(reference.get("clip_embeds"));
    let adapted = apply(&rt, &model, &adapter, &embeds, &at(1.0)).unwrap();
    let names: Vec<String> = adapted.patches.names().map(str::to_owned).collect();
    let through = |name: &String| (name.clone(), Arc::new(Through) as Arc<dyn crate::AttnProcessor>);
    let mut patched = vec![adapted.clone()];
    for _ in 0..5 {
        let last = &patched[patched.len() - 1];
        patched.push(last.with_patches(last.patches.with_all(names.iter().map(through))));
    }
    for name in &names {
        let first = adapted.patches.of(name)[0].clone();
        assert!(patched.iter().all(|model| Arc::ptr_eq(&model.patches.of(name)[0], &first)), "{name}");
        // The first itself, and one place in each of the six maps.
        assert_eq!(Arc::strong_count(&first), 1 + patched.len(), "{name}");
    }
}

/// What `IPAdapter_plus`'s other nodes make of the same attention.
fn more() -> Tensors {
    Tensors::open("tests/fixtures/ipadapter_nodes/attention.safetensors")
}

#[test]
fn each_latent_of_a_batch_has_a_picture_of_its_own() {
    let (m, expected) = (Miniature::new(), more());
    let both = Tensor::cat(&[m.cases.get("ip/embeds"), m.cases.get("ip/embeds2")], 0).unwrap();
    let (adapter, both) = (m.adapter("base"), ImageEmbeds::new(both));
    let x = expected.get("unfold/x");
    let x = Tensor::cat(&[&x, &x], 0).unwrap();
    let context = [m.cases.get("ctx"), m.cases.get("ctx2")].map(|c| c.repeat((3, 1, 1)).unwrap());
    let context = Tensor::cat(&context, 0).unwrap();
    let rows = [[Row::Cond; 3], [Row::Uncond; 3]].concat();
    for (name, mask) in [("unfold", None), ("unfold_mask", Some(expected.get("unfold/mask")))] {
        let options = IpOptions { unfold: true, mask, ..at(0.8) };
        let model = apply(&m.rt, &m.model, &adapter, &both, &options).unwrap();
        assert_close(&m.run(&model, &x, &context, &rows, 3.0), &expected.get(name), TOLERANCE, name);
    }
}

#[test]
fn boosts_and_means_match_ipadapter_plus() {
    let (m, expected) = (Miniature::new(), more());
    for (name, weight_type, boost) in [
        ("style_boost", WeightType::StyleTransferPrecise, 1.5),
        ("composition_boost", WeightType::CompositionPrecise, 0.4),
    ] {
        let options = IpOptions { weight_type, boost: Some(boost), ..at(0.8) };
        let model = m.apply(&m.model, "base", "ip/embeds", &options);
        assert_close(&m.pair(&model, 3.0), &expected.get(name), TOLERANCE, name);
    }
    let both = Tensor::cat(&[m.cases.get("ip/embeds"), m.cases.get("ip/embeds2")], 0).unwrap();
    let options = IpOptions { scaling: EmbedsScaling::KMeanVPenalty, ..at(0.8) };
    let model = apply(&m.rt, &m.model, &m.adapter("base"), &ImageEmbeds::new(both), &options).unwrap();
    assert_close(&m.pair(&model, 3.0), &expected.get("mean_two"), TOLERANCE, "mean_two");
}

#[test]
fn the_picture_of_the_composition_is_seen_by_the_third_transformer_alone() {
    let m = Miniature::new();
    let adapter = m.adapter("base");
    let on = |model: &Model, layers: &str, embeds: &ImageEmbeds| {
        let options = IpOptions { layer_weights: Some(layers.parse().unwrap()), ..at(0.8) };
        apply(&m.rt, model, &adapter, embeds, &options).unwrap()
    };
    let (look, layout) = (m.embeds("ip/embeds"), m.embeds("ip/embeds2"));
    let both = ImageEmbeds { composition: Some(layout.cond.clone()), ..look.clone() };
    let together = m.pair(&on(&m.model, "2:1, 3:0.5, 6:1", &both), 3.0);
    let apart = m.pair(&on(&on(&m.model, "2:1, 6:1", &look), "3:0.5", &layout), 3.0);
    assert_eq!(error(&together, &apart), 0.0);
    let pictures = Tensor::cat(&[&both.cond, &both.cond], 0).unwrap();
    let uneven = ImageEmbeds { cond: pictures, ..both };
    let refused = apply(&m.rt, &m.model, &adapter, &uneven, &at(0.8)).unwrap_err().to_string();
    assert!(refused.contains("2 pictures for the style and 1 for the composition"), "{refused}");
}
