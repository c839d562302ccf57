use flow_nodes::{
    picture::resize::{Method, Shape, of_aspect, resize},
    ports::Image,
};

use crate::{fixture, node, values};

const METHODS: [Method; 5] =
    [Method::NearestExact, Method::Bilinear, Method::Area, Method::Bicubic, Method::Lanczos];

#[test]
fn images_get_the_pixels_of_comfyui() {
    let tensors = fixture("resize/image.safetensors");
    let source = Image::new(1, 17, 23, values(&tensors["src"]));
    for method in METHODS {
        for (width, height) in [(16usize, 16usize), (40, 12), (31, 25), (9, 21)] {
            for crop in ["disabled", "center"] {
                let name = format!("{}/{width}x{height}/{crop}", method.name());
                let found = node("ImageScale")
                    .link("image", source.clone())
                    .set("upscale_method", method.name())
                    .set("width", width)
                    .set("height", height)
                    .set("crop", crop)
                    .image();
                let scale = if method == Method::Lanczos { 255.0 } else { 1.0 };
                let expected: Vec<f32> = values(&tensors[&name]).iter().map(|value| value / scale).collect();
                // Sums of up to sixteen products in another order.
                let tolerance = match method {
                    Method::NearestExact | Method::Lanczos => 0.0,
                    _ => 2e-6,
                };
                assert_close(&found.rgb, &expected, tolerance, &name);
            }
        }
    }
}

#[test]
fn latent_planes_get_the_values_of_comfyui() {
    let tensors = fixture("resize/latent.safetensors");
    let source = values(&tensors["src"]);
    let from = Shape { frames: 4, height: 9, width: 7, channels: 1 };
    for method in &METHODS[..4] {
        for (width, height) in [(14, 18), (10, 5), (5, 12)] {
            for cropped in [false, true] {
                let (part, kept) = if cropped {
                    of_aspect(&source, from, height, width)
                } else {
                    ((&source[..]).into(), from)
                };
                let found = resize(&part, kept, height, width, *method);
                let word = if cropped { "center" } else { "disabled" };
                let name = format!("{}/{width}x{height}/{word}", method.name());
                // A millionth of the range, which is about -3..3.
                let tolerance = if *method == Method::NearestExact { 0.0 } else { 6e-6 };
                assert_close(&found, &values(&tensors[&name]), tolerance, &name);
            }
        }
    }
}

#[test]
fn padding_keeps_the_whole_picture_and_repeats_its_border() {
    // Left half black, right half white, twice as wide as high.
    let rgb: Vec<f32> = (0..2 * 4).flat_map(|i| [f32::from(u8::from(i % 4 >= 2)); 3]).collect();
    let image = Image::new(1, 2, 4, rgb);
    let padded = |background: &str| {
        node("ImageResize")
            .link("image", image.clone())
            .set("width", 4)
            .set("height", 4)
            .set("fit", "pad")
            .set("background", background)
            .image()
    };
    let columns =
        |image: &Image, y: usize| image.rgb[y * 12..][..12].iter().step_by(3).copied().collect::<Vec<_>>();
    assert!((0..4).all(|y| columns(&padded("edge"), y) == [0.0, 0.0, 1.0, 1.0]));
    assert_eq!(columns(&padded("gray"), 0), [0.5; 4]);
    assert_eq!(columns(&padded("gray"), 1), [0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn a_size_beyond_memory_is_refused_before_it_is_taken() {
    let image = Image::new(1, 1, 1, vec![0.0; 3]);
    for kind in ["ImageScale", "ImageResize"] {
        let error = node(kind)
            .link("image", image.clone())
            .set("width", 16384)
            .set("height", 16384)
            .run()
            .unwrap_err();
        assert_eq!(error.input, Some("width"));
        assert_eq!(error.to_string(), "16384×16384 is 269 megapixels, more than the 134 allowed");
    }
}

#[test]
fn a_batch_takes_the_size_of_its_first_picture() {
    let (black, white) = (Image::new(1, 2, 3, vec![0.0; 18]), Image::new(2, 4, 4, vec![1.0; 96]));
    let batch = node("ImageBatch").link("image1", black).link("image2", white).image();
    assert_eq!((batch.frames, batch.height, batch.width), (3, 2, 3));
    assert_eq!((batch.frame(0)[0], batch.frame(1)[0], batch.frame(2)[17]), (0.0, 1.0, 1.0));
    let inverted = node("ImageInvert").link("image", batch.clone()).image();
    assert_eq!((inverted.frame(0)[0], inverted.frame(2)[0]), (1.0, 0.0));
    let sizes = node("ImageSize").link("image", batch).run().unwrap();
    assert_eq!([0, 1, 2].map(|i| *sizes[i].get::<i64>().unwrap()), [3, 2, 3]);
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{name}: off by {worst}");
}

#[test]
fn the_middle_of_a_line_is_never_empty() {
    let line = Shape { frames: 1, height: 1, width: 4, channels: 1 };
    // Rounding half to even would cut two of four columns from each side.
    let (values, kept) = of_aspect(&[1.0, 2.0, 3.0, 4.0], line, 1, 1);
    assert_eq!((&*values, kept.width, kept.height), (&[2.0, 3.0][..], 2, 1));
}
