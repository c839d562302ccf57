use std::collections::HashMap;

use half::f16;

use super::*;

fn saved(tensors: &[(&str, Tensor)]) -> (tempfile::TempDir, Header) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let map: HashMap<_, _> = tensors.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
    candle_core::safetensors::save(&map, &path).unwrap();
    let header = Header::read(&path).unwrap();
    (dir, header)
}

fn tensor(shape: &[usize], value: f32) -> Tensor {
    Tensor::full(value, shape, &Device::Cpu).unwrap()
}

fn open(header: &Header) -> StateDict {
    state_dict(header, |n| format!("file.{n}"), DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn a_tensor_is_found_by_its_inner_name_and_widened() {
    let half = tensor(&[2, 3], 0.5).to_dtype(DType::F16).unwrap();
    let (_dir, header) = saved(&[("file.a.weight", half)]);
    let t = open(&header).pp("a").get((2, 3), "weight").unwrap();
    assert_eq!((t.dtype(), t.to_vec2::<f32>().unwrap()), (DType::F32, vec![vec![0.5; 3]; 2]));
}

#[test]
fn a_1x1_convolution_answers_for_a_linear_and_the_other_way_round() {
    let (_dir, header) =
        saved(&[("file.conv", tensor(&[2, 3, 1, 1], 1.0)), ("file.linear", tensor(&[2, 3], 1.0))]);
    let dict = open(&header);
    assert_eq!(dict.get((2, 3), "conv").unwrap().dims(), [2, 3]);
    assert_eq!(dict.get((2, 3, 1, 1), "linear").unwrap().dims(), [2, 3, 1, 1]);
    assert!(dict.get((3, 2), "conv").is_err());
}

#[test]
fn a_missing_a_misshapen_and_a_broken_tensor_are_named_with_their_file() {
    let (_dir, header) = saved(&[("file.a", tensor(&[2, 3], 1.0)), ("file.nan", tensor(&[2], f32::NAN))]);
    let (dict, path) = (open(&header), header.path.display());
    let said = |shape: &[usize], name: &str| Error::from(dict.get(shape, name).unwrap_err()).to_string();
    assert_eq!(said(&[2], "b"), format!("`{path}`: the tensor `file.b` is missing, expected with shape [2]"));
    assert_eq!(said(&[3, 2], "a"), format!("`{path}`: tensor `file.a` has shape [2, 3], expected [3, 2]"));
    let nan = format!("`{path}`: tensor `file.nan` has values that are not finite; download the file again");
    assert_eq!(said(&[2], "nan"), nan);
}

#[test]
fn infinities_are_found_in_every_float() {
    for (dtype, infinite, largest) in [
        (Dtype::F16, vec![0x00, 0x7c], vec![0xff, 0x7b]),
        (Dtype::BF16, vec![0x80, 0xff], vec![0x7f, 0xff]),
        (Dtype::F32, vec![0, 0, 0x80, 0x7f], vec![0xff, 0xff, 0x7f, 0x7f]),
    ] {
        assert!(!all_finite(dtype, &infinite), "{dtype}");
        assert!(all_finite(dtype, &largest), "{dtype}");
    }
}

#[test]
fn a_file_that_changed_since_its_header_was_read_is_refused() {
    let (_dir, header) = saved(&[("file.a", tensor(&[2, 3], 1.0))]);
    std::fs::write(&header.path, b"short").unwrap();
    let error = state_dict(&header, str::to_owned, DType::F32, &Device::Cpu).err().unwrap();
    assert!(error.to_string().contains("changed while it was being read"), "{error}");
}

#[test]
fn numbers_are_read_where_they_lie_and_copied_where_they_lie_askew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let halves = [0.5f32, -2.0, 65504.0, 6e-8, 1.0, 3.0].map(f16::from_f32);
    let header = r#"{"file.a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}}"#;
    for spaces in 0..8 {
        let header = format!("{header}{}", " ".repeat(spaces));
        let bytes = halves.iter().flat_map(|half| half.to_le_bytes());
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, length.into_iter().chain(header.bytes()).chain(bytes).collect::<Vec<_>>())
            .unwrap();
        let dict = open(&Header::read(&path).unwrap());
        let Some(Stored { values: Values::F16(found), .. }) = dict.stored(&(2, 3).into(), "a").unwrap()
        else {
            panic!("f16 is f16");
        };
        assert_eq!(*found, halves);
        assert_eq!(matches!(found, Cow::Borrowed(_)), header.len().is_multiple_of(2), "{spaces} spaces");
        let wide = dict.get((2, 3), "a").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(wide, halves.map(f16::to_f32));
    }
}
