use super::*;
use crate::fixture;

fn hint(height: usize, width: usize) -> Hint {
    let rgb: Vec<f32> = (0..height * width * 3).map(|i| i as f32).collect();
    Hint::new(1, height, width, rgb.into()).unwrap()
}

#[test]
fn a_wide_hint_is_cut_left_and_right() {
    let got = hint(2, 6).at(2, 2, &Device::Cpu).unwrap();
    assert_eq!(got.dims(), [1, 3, 2, 2]);
    let red = fixture::values(&got.narrow(1, 0, 1).unwrap());
    assert_eq!(red, [6.0, 9.0, 24.0, 27.0]);
}

#[test]
fn a_tall_hint_is_cut_above_and_below_and_enlarged() {
    let red = |t: Tensor| fixture::values(&t.narrow(1, 0, 1).unwrap());
    let got = hint(6, 2).at(4, 4, &Device::Cpu).unwrap();
    let row = |y: f32| [6.0 * y, 6.0 * y, 6.0 * y + 3.0, 6.0 * y + 3.0];
    assert_eq!(red(got), [row(2.0), row(2.0), row(3.0), row(3.0)].concat());
}

#[test]
fn a_hint_one_pixel_wide_survives_the_cut() {
    for (h, w) in [(2, 1000), (1000, 2), (1, 1)] {
        assert_eq!(hint(h, w).at(8, 8, &Device::Cpu).unwrap().dims(), [1, 3, 8, 8]);
    }
}

#[test]
fn a_hint_of_the_wrong_number_of_values_is_refused() {
    let error = Hint::new(1, 2, 2, vec![0.0; 4].into()).unwrap_err();
    assert_eq!(error.to_string(), "4 values for 1 hint pictures of 2x2 in RGB");
    assert!(Hint::new(usize::MAX, 2, 2, vec![0.0; 4].into()).is_err());
    assert!(Hint::new(0, 2, 2, vec![].into()).is_err());
}

#[test]
fn sdxl_is_told_sizes_as_the_reference_tells_them() {
    let torch = fixture::tensors("sdxl/adm.safetensors");
    let text = fixture::metadata("sdxl/adm.safetensors")["sizes"].as_str().unwrap().to_owned();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pooled = Tensor::zeros((1, 1280), candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut cond = Conditioning::text(torch["y/0"].clone(), Some(pooled)).0.remove(0);
    let cases = cases.as_array().unwrap();
    assert!(!cases.is_empty());
    for (k, case) in cases.iter().enumerate() {
        let n = |key: &str| case[key].as_u64().unwrap() as u32;
        cond.sizes = case.get("crop_w").map(|_| Sizes {
            height: n("height"),
            width: n("width"),
            crop_top: n("crop_h"),
            crop_left: n("crop_w"),
            target_height: n("target_height"),
            target_width: n("target_width"),
        });
        let y = cond.added(n("height") as usize, n("width") as usize).unwrap().unwrap();
        assert_eq!(y.dims(), [1, 2816]);
        let diff = fixture::max_abs_diff(&y.narrow(1, 1280, 1536).unwrap(), &torch[&format!("y/{k}")]);
        // An ulp of a frequency, times the size.
        assert!(diff < 1e-4, "{k}: {diff}");
    }
}
