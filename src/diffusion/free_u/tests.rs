use super::*;
use crate::fixture::{assert_close, tensors};

#[test]
fn maps_meet_as_in_comfyui() {
    let expected = tensors("free_u/cases.safetensors");
    let nhwc = |name: &str| expected[name].permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    for (node, where_strong) in [("FreeU", false), ("FreeU_V2", true)] {
        let free = FreeU { model_channels: 4, backbone: [1.3, 1.4], skip: [0.9, 0.2], where_strong };
        for case in ["wide", "half", "thin", "odd"] {
            let (h, skip) = free.apply(nhwc(&format!("{case}/h")), nhwc(&format!("{case}/skip"))).unwrap();
            assert_close(&h, &nhwc(&format!("{case}/{node}/h")), 1e-6, &format!("{case} {node} h"));
            assert_close(&skip, &nhwc(&format!("{case}/{node}/skip")), 1e-6, &format!("{case} {node} skip"));
        }
    }
}

#[test]
fn a_line_and_a_map_without_strength_stay_finite() {
    let free = FreeU { model_channels: 4, backbone: [1.3, 1.4], skip: [0.9, 0.2], where_strong: true };
    for shape in [(1, 1, 6, 8), (1, 1, 1, 8)] {
        let flat = Tensor::ones(shape, DType::F32, &candle_core::Device::Cpu).unwrap();
        let (h, skip) = free.apply(flat.clone(), flat.clone()).unwrap();
        assert_close(&h, &flat, 1e-6, "h");
        // All of it is of the lowest frequency.
        assert_close(&skip, &(flat * 0.2).unwrap(), 1e-6, "skip");
    }
}
