use candle_core::{DType, Device, Tensor};

use super::*;
use crate::controlnet::ControlNet;
use crate::fixture::{Tensors, assert_close, project};
use crate::header::Header;
use crate::weights::state_dict;

/// 1e-4 of a tensor's range is promised; f32 in another order of sums stays well below.
const TOLERANCE: f32 = 2e-5;

fn load(file: &str) -> UNet {
    let header = Header::read(&project(file)).unwrap();
    let (mut cfg, keys) = UNetConfig::detect(&header).unwrap();
    miniature(&mut cfg, file);
    let dict = state_dict(&header, move |n| keys.file_name(n), DType::F32, &Device::Cpu).unwrap();
    UNet::new(&cfg, dict).unwrap()
}

/// The random fixtures carry no configuration.
fn miniature(cfg: &mut UNetConfig, file: &str) {
    if file.starts_with("tests/fixtures") {
        cfg.groups = 4;
        for level in &mut cfg.levels {
            level.heads = if file.contains("sdxl") { level.channels / 4 } else { 2 };
        }
    }
}

fn load_controlnet(file: &str) -> ControlNet {
    let header = Header::read(&project(file)).unwrap();
    let (mut cfg, keys, hint) = UNetConfig::detect_controlnet(&header).unwrap();
    miniature(&mut cfg, file);
    let dict = state_dict(&header, move |n| keys.file_name(n), DType::F32, &Device::Cpu).unwrap();
    ControlNet::new(&cfg, &hint, dict).unwrap()
}

/// One call without patches.
fn call(unet: &UNet, x: &Tensor, t: f64, context: &Tensor, residuals: Option<&Residuals>) -> Tensor {
    let step = Step::single(1.0, x.dim(0).unwrap());
    unet.forward(x, t, context, None, residuals, &Patches::default(), &step).unwrap()
}

#[test]
fn tiny_sd_predicts_what_diffusers_predicts() {
    let reference = Tensors::open("models/tiny-sd/reference/reference.safetensors");
    let unet = load("models/tiny-sd/tiny-sd.safetensors");
    let eps = call(&unet, &reference.get("init_noise"), 601.0, &reference.get("text_cond"), None);
    assert_close(&eps, &reference.get("eps_text"), TOLERANCE, "eps_text");
}

#[test]
fn tiny_controlnet_gives_diffusers_residuals() {
    let reference = Tensors::open("models/tiny-sd/reference/reference.safetensors");
    let (x, context) = (reference.get("init_noise"), reference.get("text_cond"));
    let control = load_controlnet("models/tiny-sd/tiny-control-canny.safetensors");
    let hint = control.embed_hint(&reference.get("control_hint"), None).unwrap();
    let residuals = control.forward(&x, 601.0, &context, None, &hint, None).unwrap();
    assert_eq!(residuals.down.len(), 8);
    for (i, r) in residuals.down.iter().enumerate() {
        let name = format!("control_down_{i}");
        assert_close(&ops::to_nchw(r).unwrap(), &reference.get(&name), TOLERANCE, &name);
    }
    assert_close(
        &ops::to_nchw(residuals.mid.as_ref().unwrap()).unwrap(),
        &reference.get("control_mid"),
        TOLERANCE,
        "control_mid",
    );
    let unet = load("models/tiny-sd/tiny-sd.safetensors");
    let eps = call(&unet, &x, 601.0, &context, Some(&residuals));
    assert_close(&eps, &reference.get("eps_control"), TOLERANCE, "eps_control");
}

#[test]
fn sd15_in_miniature_matches_in_even_and_odd_sizes_and_with_two_chunks_of_text() {
    let cases = Tensors::open("tests/fixtures/unet/cases.safetensors");
    let unet = load("tests/fixtures/unet/unet.safetensors");
    let eps = call(&unet, &cases.get("x"), 601.0, &cases.get("ctx"), None);
    assert_close(&eps, &cases.get("eps"), TOLERANCE, "eps");
    let eps = call(&unet, &cases.get("odd/x"), 601.0, &cases.get("odd/ctx"), None);
    assert_close(&eps, &cases.get("odd/eps"), TOLERANCE, "odd/eps");
    let (x, context, expected) = (cases.get("batch/x"), cases.get("batch/ctx"), cases.get("batch/eps"));
    for (row, t) in [981.0, 21.0].into_iter().enumerate() {
        let at = |t: &Tensor| t.narrow(0, row, 1).unwrap();
        assert_close(&call(&unet, &at(&x), t, &at(&context), None), &at(&expected), TOLERANCE, "batch/eps");
    }
}

#[test]
fn a_batch_gives_what_its_rows_give() {
    let cases = Tensors::open("tests/fixtures/unet/cases.safetensors");
    let unet = load("tests/fixtures/unet/unet.safetensors");
    let (x, context) = (cases.get("batch/x"), cases.get("batch/ctx"));
    let both = call(&unet, &x, 300.0, &context, None);
    for row in 0..2 {
        let at = |t: &Tensor| t.narrow(0, row, 1).unwrap();
        let alone = call(&unet, &at(&x), 300.0, &at(&context), None);
        assert_close(&at(&both), &alone, TOLERANCE, "row");
    }
}

#[test]
fn controlnet_in_miniature_matches_in_even_and_odd_sizes() {
    let cases = Tensors::open("tests/fixtures/unet/cases.safetensors");
    let unet = load("tests/fixtures/unet/unet.safetensors");
    let control = load_controlnet("tests/fixtures/unet/controlnet.safetensors");
    let residuals = |case: &str, x: &Tensor, context: &Tensor| {
        let hint = (cases.get(&format!("{case}/hint_u8")) / 255.0).unwrap().unsqueeze(0).unwrap();
        control.forward(x, 601.0, context, None, &control.embed_hint(&hint, None).unwrap(), None).unwrap()
    };
    let (x, context) = (cases.get("x"), cases.get("ctx"));
    let r = residuals("control", &x, &context);
    for (i, down) in r.down.iter().enumerate() {
        let expected = cases.get(&format!("control/down/{i}"));
        assert_close(&ops::to_nchw(down).unwrap(), &expected, TOLERANCE, &format!("control/down/{i}"));
    }
    assert_close(
        &ops::to_nchw(r.mid.as_ref().unwrap()).unwrap(),
        &cases.get("control/mid"),
        TOLERANCE,
        "control/mid",
    );
    let eps = call(&unet, &x, 601.0, &context, Some(&r.scale(0.6).unwrap()));
    assert_close(&eps, &cases.get("control/eps"), TOLERANCE, "control/eps");
    let (x, context) = (cases.get("odd/x"), cases.get("odd/ctx"));
    let eps = call(&unet, &x, 601.0, &context, Some(&residuals("odd_control", &x, &context)));
    assert_close(&eps, &cases.get("odd_control/eps"), TOLERANCE, "odd_control/eps");
}

#[test]
fn sdxl_in_miniature_matches_with_pooled_text_and_sizes() {
    let cases = Tensors::open("tests/fixtures/sdxl/cases.safetensors");
    let unet = load("tests/fixtures/sdxl/unet.safetensors");
    let run = |x: &Tensor, context: &Tensor, y: &Tensor| {
        let step = Step::single(1.0, x.dim(0).unwrap());
        unet.forward(x, 601.0, context, Some(y), None, &Patches::default(), &step).unwrap()
    };
    let (context, y) = (cases.get("ctx"), cases.get("y"));
    assert_close(&run(&cases.get("x"), &context, &y), &cases.get("eps"), TOLERANCE, "eps");
    let first = |t: &Tensor| t.narrow(0, 0, 1).unwrap();
    let odd = run(&cases.get("odd/x"), &first(&context), &first(&y));
    assert_close(&odd, &cases.get("odd/eps"), TOLERANCE, "odd/eps");
}

#[test]
fn text_of_another_family_is_refused_with_both_widths() {
    let unet = load("models/tiny-sd/tiny-sd.safetensors");
    let x = Tensor::zeros((1, 4, 8, 8), DType::F32, &Device::Cpu).unwrap();
    let context = Tensor::zeros((1, 77, 768), DType::F32, &Device::Cpu).unwrap();
    let step = Step::single(1.0, 1);
    let error = unet.forward(&x, 1.0, &context, None, None, &Patches::default(), &step).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the text has width 768, the model takes 96; use the text encoder of the same checkpoint"
    );
}
