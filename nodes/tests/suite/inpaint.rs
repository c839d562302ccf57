use flow_nodes::{
    picture::mask,
    ports::{Image, Mask},
};

use crate::{fixture, values};

#[test]
fn pictures_and_masks_are_prepared_as_in_comfyui() {
    let tensors = fixture("inpaint/encode.safetensors");
    let whole = Image::new(1, 37, 43, values(&tensors["pixels"]));
    let part = whole.rgb.chunks_exact(43 * 3).skip(2).take(32).flat_map(|row| row[3..][..40 * 3].to_vec());
    let part = Image::new(1, 32, 40, part.collect::<Vec<_>>());
    let fitted = mask::fit(&Mask::new(1, 20, 30, values(&tensors["mask"])), &whole, &part);
    for by in [0, 1, 6, 7] {
        let expected = values(&tensors[&format!("g{by}/mask")]);
        assert_eq!(mask::grow(&fitted, by).values.to_vec(), expected, "by {by}");
    }
    let holed = mask::grey(&part, &mask::grow(&fitted, 0));
    assert_eq!(holed.rgb.to_vec(), values(&tensors["encoded_pixels"]));
}
