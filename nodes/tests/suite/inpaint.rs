use flow_nodes::{
    picture::{mask, resize},
    ports::Mask,
};

use crate::{fixture, values};

#[test]
fn a_mask_grows_as_in_comfyui() {
    let tensors = fixture("inpaint/encode.safetensors");
    let from = resize::Shape { frames: 1, height: 20, width: 30, channels: 1 };
    let fitted = resize::resize(&values(&tensors["mask"]), from, 37, 43, resize::Method::Bilinear);
    let whole = resize::Shape { frames: 1, height: 37, width: 43, channels: 1 };
    let fitted = Mask::new(1, 32, 40, resize::crop(&fitted, whole, 2, 1, 32, 40));
    for by in [0, 1, 6, 7] {
        let expected = values(&tensors[&format!("g{by}/mask")]);
        assert_eq!(mask::grow(&fitted, by).values.to_vec(), expected, "by {by}");
    }
}
