use flow_nodes::ports::Image;

use crate::{differing, load, node};

const INPUTS: &str = "models/tiny-sd/reference/inputs";

fn edges(image: Image, low: f64, high: f64) -> Image {
    node("CannyDetect").link("image", image).set("low_threshold", low).set("high_threshold", high).image()
}

/// OpenCV's 8-bit grey (15-bit fixed point), on three channels.
fn grey(image: &Image) -> Image {
    let luma = |rgb: &[f32]| {
        let part = |value: f32, weight: u32| (value * 255.0) as u32 * weight;
        let sum = part(rgb[0], 9798) + part(rgb[1], 19235) + part(rgb[2], 3735);
        [((sum + (1 << 14)) >> 15) as f32 / 255.0; 3]
    };
    let rgb: Vec<f32> = image.rgb.chunks_exact(3).flat_map(luma).collect();
    Image::new(image.frames, image.height, image.width, rgb)
}

fn pictures() -> [(&'static str, Image); 5] {
    ["teapot", "blueberries", "gradient", "noise", "shapes"].map(|name| {
        let path = match name {
            "teapot" => format!("{INPUTS}/product_teapot.png"),
            "blueberries" => format!("{INPUTS}/held_out_blueberries.png"),
            made => format!("tests/fixtures/canny/{made}.png"),
        };
        (name, load(&path))
    })
}

#[test]
fn grey_pictures_give_the_pixels_of_opencv() {
    for (name, image) in pictures() {
        for (low, high) in [(100, 200), (50, 150), (20, 60)] {
            let expected = load(&format!("tests/fixtures/canny/{name}_cv_{low}_{high}.png"));
            let found = edges(grey(&image), low.into(), high.into());
            assert_eq!(differing(&found, &expected), 0, "{name} {low} {high}");
        }
    }
}

#[test]
fn coloured_pictures_give_the_pixels_of_opencv() {
    let reference = "models/tiny-sd/reference";
    let mut pairs = vec![(format!("{reference}/canny_input.png"), format!("{reference}/canny_100_200.png"))];
    for product in ["automobile", "handbag", "rocket", "running-shoe", "t-shirt", "teapot"] {
        let of = |kind: &str| format!("{INPUTS}/product_{product}{kind}.png");
        pairs.push((of(""), of("_canny")));
    }
    for (input, output) in pairs {
        let expected = load(&output);
        assert!(expected.rgb.contains(&1.0), "{output} shows edges");
        assert_eq!(differing(&edges(load(&input), 100.0, 200.0), &expected), 0, "{input}");
    }
}

#[test]
fn the_preprocessor_gives_the_pixels_of_controlnet_aux() {
    let pictures: std::collections::HashMap<_, _> = pictures().into();
    for (name, resolutions) in [
        ("teapot", &[32, 64, 100, 128, 192][..]),
        ("blueberries", &[96]),
        ("noise", &[33, 64]),
        ("shapes", &[14, 35, 64, 100, 140]),
    ] {
        for &resolution in resolutions {
            let expected = load(&format!("tests/fixtures/canny/{name}_aux_{resolution}.png"));
            let call = node("CannyEdgePreprocessor").link("image", pictures[name].clone());
            let found = call.set("resolution", resolution).image();
            assert_eq!(differing(&found, &expected), 0, "{name} {resolution}");
        }
    }
    let teapot = || node("CannyEdgePreprocessor").link("image", pictures["teapot"].clone());
    let turned = teapot().set("low_threshold", 200).set("high_threshold", 100).image();
    assert_eq!(turned.rgb, teapot().image().rgb, "OpenCV takes the lower one for the low one");
    let own = node("CannyEdgePreprocessor").link("image", pictures["teapot"].clone()).set("resolution", 0);
    assert_eq!(own.image().rgb, edges(pictures["teapot"].clone(), 100.0, 200.0).rgb);
}

#[test]
fn thresholds_below_one_give_the_pixels_of_kornia() {
    for (name, image) in pictures() {
        for (low, high) in [(0.4, 0.8), (0.1, 0.2), (0.05, 0.3)] {
            let expected = load(&format!("tests/fixtures/canny/{name}_kornia_{low}_{high}.png"));
            let found = edges(image.clone(), low, high);
            // `gradient` is made of exact ramps, where neighbours tie: there kornia in f32 and kornia in f64 differ in
            // 188 pixels, and the last bit of a sum decides.
            let allowed = if name == "gradient" { 3 * 188 } else { 0 };
            let differing = differing(&found, &expected);
            assert!(differing <= allowed, "{name} {low} {high}: {differing}");
        }
    }
}

#[test]
fn imageproc_draws_other_edges_than_opencv() {
    // Why picture/canny.rs has its own thinning: imageproc blurs first and rounds directions differently.
    let image = grey(&load(&format!("{INPUTS}/product_teapot.png")));
    let luma: Vec<u8> = image.rgb.iter().step_by(3).map(|value| (value * 255.0) as u8).collect();
    let luma = image::GrayImage::from_raw(image.width as u32, image.height as u32, luma).unwrap();
    let theirs = imageproc::edges::canny(&luma, 100.0, 200.0);
    let theirs: Vec<f32> = theirs.iter().flat_map(|value| [f32::from(*value) / 255.0; 3]).collect();
    let theirs = Image::new(1, image.height, image.width, theirs);
    let ours = edges(image, 100.0, 200.0);
    assert!(differing(&ours, &theirs) > 0);
}

#[test]
fn a_low_threshold_above_the_high_one_is_refused() {
    let image = Image::new(1, 4, 4, vec![0.0; 48]);
    let call =
        node("CannyDetect").link("image", image).set("low_threshold", 200.0).set("high_threshold", 100.0);
    let error = call.run().unwrap_err();
    assert_eq!(error.input, Some("low_threshold"));
    assert_eq!(error.to_string(), "the low threshold 200 exceeds the high one, 100");
}

#[test]
fn the_smallest_pictures_have_no_edges_and_do_not_panic() {
    for (height, width) in [(1, 1), (1, 2), (2, 1), (3, 2)] {
        let image = Image::new(2, height, width, vec![0.5; 2 * height * width * 3]);
        for (low, high) in [(0.1, 0.2), (100.0, 200.0)] {
            assert!(edges(image.clone(), low, high).rgb.iter().all(|value| *value == 0.0));
        }
    }
}
