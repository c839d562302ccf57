use super::*;
use crate::{fixture::tiny_sd, model::Model};

#[test]
fn a_model_is_told_by_its_shapes() {
    let tiny = Model::open(&tiny_sd("tiny-sd.safetensors")).unwrap();
    let config = tiny.unet.config.clone();
    assert_eq!(LatentRgb::of(&config), TINY);
    let sd = UNetConfig { context_dim: 768, ..config.clone() };
    assert_eq!(LatentRgb::of(&sd), SD);
    assert_eq!(LatentRgb::of(&UNetConfig { context_dim: 2048, add_dim: Some(2816), ..config }), SDXL);
}

#[test]
fn a_latent_of_zeros_shows_the_bias_and_values_out_of_range_saturate() {
    let picture = |value: f32| {
        let latent = Tensor::full(value, (1, 4, 1, 2), &Device::Cpu).unwrap();
        let rgb = LatentRgb { factors: [[1.0, 0.0, -1.0]; 4], bias: [0.0, 0.5, 0.0] };
        rgb.picture(&latent).unwrap()
    };
    assert_eq!(picture(0.0), (2, 1, [127, 191, 127, 127, 191, 127].into()));
    assert_eq!(picture(9.0), (2, 1, [255, 191, 0, 255, 191, 0].into()));
}
