use super::*;
use crate::fixture::{Tensors, assert_close, max_abs_diff, tiny_sd};

fn source() -> VaeSource {
    VaeSource::open(&tiny_sd("tiny-sd.safetensors")).unwrap()
}

fn never(_: usize, _: usize) -> Result<()> {
    Ok(())
}

/// The reference's latent, side by side and one below the other: something that needs several tiles.
fn latent(times: usize) -> Tensor {
    let latent = Tensors::reference().get("vae_mean").narrow(0, 0, 1).unwrap();
    let row = Tensor::cat(&vec![&latent; times], 3).unwrap();
    Tensor::cat(&vec![&row; times], 2).unwrap()
}

#[test]
fn a_small_picture_is_decoded_whole() {
    let (rt, source, latent) = (Runtime::cpu(), source(), latent(1));
    let mut coder = VaeCoder::new(&rt, &source).unwrap();
    let whole = source.load(&rt).unwrap().decode(&latent, &|| true).unwrap();
    assert_eq!(max_abs_diff(&coder.decode(&latent, never).unwrap(), &whole), 0.0);
    assert!(coder.notes().is_empty());
}

#[test]
fn tiles_give_the_picture_and_the_latent_of_the_whole() {
    let (rt, source, latent) = (Runtime::cpu(), source(), latent(3));
    let vae = source.load(&rt).unwrap();
    let whole = vae.decode(&latent, &|| true).unwrap();
    let mut coder = VaeCoder::new(&rt, &source).unwrap().with_tiling(Tiling { tile: 256, overlap: 64 });
    let tiled = coder.decode(&latent, never).unwrap();
    // Norms and attention see a tile, not the picture, so it is not the same; the seams must not be seen.
    let mean = (&tiled - &whole).unwrap().abs().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    println!("decoded: mean {mean}, most {}", max_abs_diff(&tiled, &whole));
    assert!(mean < 0.02, "{mean}");
    let pixels = whole.clamp(-1f32, 1f32).unwrap();
    let means = vae.encode(&pixels, &|| true).unwrap();
    let tiled = coder.encode(&pixels, never).unwrap();
    assert_close(&tiled, &means, 0.1, "encoded");
}

#[test]
fn a_picture_that_exceeds_the_budget_is_done_in_tiles_and_says_so() {
    let (source, latent) = (source(), latent(5));
    let need = working_memory(&source, Half::Decoder, [latent.dims()[2]; 2], DType::F32, &Device::Cpu);
    let probe = Runtime::cpu();
    let weights = source.load(&probe).map(|_| probe.store.bytes()).unwrap();
    let rt = Runtime::new(Device::Cpu, DType::F32, weights + need / 2);
    let mut coder = VaeCoder::new(&rt, &source).unwrap();
    let mut tiles = 0;
    let picture = coder
        .decode(&latent, |_, total| {
            tiles = total;
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(picture.dims()[2], latent.dims()[2] * 8);
    assert!(tiles > 3, "{tiles}");
    let notes = coder.notes().to_vec();
    assert!(
        notes[0].contains("at once needs about") && notes[0].ends_with("done in tiles of 512 pixels"),
        "{notes:?}"
    );
    coder.decode(&latent, never).unwrap();
    assert_eq!(coder.notes(), notes, "said once");
}

#[test]
fn unused_weights_make_way_for_a_whole_picture() {
    let (source, latent) = (source(), latent(3));
    let need = working_memory(&source, Half::Decoder, [latent.dims()[2]; 2], DType::F32, &Device::Cpu);
    let probe = Runtime::cpu();
    let weights = source.load(&probe).map(|_| probe.store.bytes()).unwrap();
    let rt = Runtime::new(Device::Cpu, DType::F32, weights + need + 1);
    let model = crate::model::UNetSource::open(&tiny_sd("tiny-sd.safetensors")).unwrap();
    rt.store
        .lease(&crate::Recipe::new(&model.header, "unused", DType::F32, &rt.device), 2, || Ok(()))
        .unwrap();
    let mut coder = VaeCoder::new(&rt, &source).unwrap();
    coder.decode(&latent, never).unwrap();
    assert!(coder.notes().is_empty(), "{:?}", coder.notes());
    assert_eq!(rt.store.bytes(), weights);
}

#[test]
fn a_whole_picture_that_runs_out_of_memory_twice_is_left_to_tiles() {
    let rt = Runtime::cpu();
    let calls = std::cell::Cell::new(0);
    let fails = || {
        calls.set(calls.get() + 1);
        let message = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        Err(Error::from(candle_core::Error::Cuda(message.into())))
    };
    let Whole::TooLarge(why) = whole(&rt, "decoding a picture of 8×8", 1, fails).unwrap() else {
        panic!("it failed")
    };
    assert_eq!((calls.get(), why.as_str()), (2, "decoding a picture of 8×8 at once ran out of memory"));
    assert!(whole(&rt, "it", 1, || Err(Error::Mismatch("no".into()))).is_err());
}

#[test]
fn latents_that_are_not_finite_are_told_of() {
    let (rt, source) = (Runtime::cpu(), source());
    let latent = Tensor::full(f32::NAN, (1, 4, 8, 8), &Device::Cpu).unwrap();
    let mut coder = VaeCoder::new(&rt, &source).unwrap();
    coder.decode(&latent, never).unwrap();
    assert!(coder.notes()[0].starts_with("the latent has values that are not finite"), "{:?}", coder.notes());
}

/// The shipped autoencoder with the first convolution of either half so strong that f16 cannot hold what it gives. The
/// norms behind it make good for that wherever its values exist.
fn overflowing() -> (tempfile::TempDir, VaeSource) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diffusion_pytorch_model.safetensors");
    let mut tensors = Tensors::open("models/tiny-sd/tiny-sd.safetensors").below("first_stage_model.");
    for (name, tensor) in &mut tensors {
        let strong = ["encoder.conv_in.", "decoder.conv_in."].iter().any(|half| name.starts_with(half));
        let wide = tensor.to_dtype(DType::F32).unwrap();
        *tensor = wide.affine(if strong { 32768.0 } else { 1.0 }, 0.0).unwrap();
    }
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let config = format!(r#"{{"norm_num_groups": {}}}"#, source().kl().unwrap().1.groups);
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let source = VaeSource::open(&path).unwrap();
    (folder, source)
}

#[test]
fn a_vae_that_overflows_in_half_precision_works_in_f32_and_is_remembered() {
    let ((_folder, source), latent) = (overflowing(), latent(1));
    let rt = Runtime::new(Device::Cpu, DType::F16, u64::MAX);
    let wide = source.load_in(&rt, DType::F32).unwrap();
    let narrow = source.load_in(&rt, DType::F16).unwrap();
    assert!(!finite(&narrow.decode(&latent, &|| true).unwrap()).unwrap(), "it overflows");

    let mut coder = VaeCoder::new(&rt, &source).unwrap();
    let pixels = coder.decode(&latent, never).unwrap();
    assert_eq!(max_abs_diff(&pixels, &wide.decode(&latent, &|| true).unwrap()), 0.0);
    assert_eq!(coder.notes(), ["the decoder gave values that are not finite; decoded again in f32"]);

    // The next picture, also of a clone of the source, is decoded in f32 at once.
    let clone = source.clone();
    let mut coder = VaeCoder::new(&rt, &clone).unwrap();
    assert_eq!(coder.vae.dtype(), DType::F32);
    coder.decode(&latent, never).unwrap();
    assert!(coder.notes().is_empty());
}

#[test]
fn an_encoder_that_overflows_in_half_precision_is_asked_again() {
    let ((_folder, source), pixels) =
        (overflowing(), Tensors::reference().get("vae_in").narrow(0, 0, 1).unwrap());
    let rt = Runtime::new(Device::Cpu, DType::F16, u64::MAX);
    let mut coder = VaeCoder::new(&rt, &source).unwrap();
    let means = coder.encode(&pixels, never).unwrap();
    let wide = source.load_in(&rt, DType::F32).unwrap().encode(&pixels, &|| true).unwrap();
    assert_eq!(max_abs_diff(&means, &wide), 0.0);
    assert_eq!(coder.notes(), ["the encoder gave values that are not finite; encoded again in f32"]);
}

#[test]
fn half_precision_that_is_enough_stays() {
    let (source, latent) = (source(), latent(1));
    let rt = Runtime::new(Device::Cpu, DType::F16, u64::MAX);
    let mut coder = VaeCoder::new(&rt, &source).unwrap();
    let pixels = coder.decode(&latent, never).unwrap();
    assert_eq!(coder.vae.dtype(), DType::F16);
    assert!(coder.notes().is_empty());
    assert_close(
        &pixels,
        &source.load_in(&rt, DType::F32).unwrap().decode(&latent, &|| true).unwrap(),
        2e-2,
        "f16",
    );
}
