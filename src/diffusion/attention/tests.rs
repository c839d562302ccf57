use candle_core::Device;

use super::*;
use crate::fixture::assert_close;
use crate::noise::TorchRng;
use crate::state_dict::StateDict;

fn random(shape: &[usize], seed: u64) -> Tensor {
    TorchRng::new(seed).randn_tensor(shape, &Device::Cpu).unwrap()
}

fn layer() -> Attention {
    let weight = |name: &str, shape: &[usize], seed| (name.to_owned(), random(shape, seed));
    let weights = [
        weight("to_q.weight", &[16, 16], 1),
        weight("to_k.weight", &[16, 12], 2),
        weight("to_v.weight", &[16, 12], 3),
        weight("to_out.0.weight", &[16, 16], 4),
        weight("to_out.0.bias", &[16], 5),
    ];
    let dict = StateDict::from_tensors(weights.into(), candle_core::DType::F32, &Device::Cpu);
    Attention::load(&dict, 16, 12, 2).unwrap()
}

fn norm() -> LayerNorm {
    let weights = [("weight".to_owned(), random(&[16], 6)), ("bias".to_owned(), random(&[16], 7))];
    let dict = StateDict::from_tensors(weights.into(), candle_core::DType::F32, &Device::Cpu);
    LayerNorm::load(&dict, 16, 1e-5).unwrap()
}

#[test]
fn a_run_makes_keys_and_values_of_a_text_once() {
    let layer = layer();
    let (plain, run) = (Patches::default(), Patches::default().for_a_run());
    let attend = |patches: &Patches, x: u64, text: &Tensor| {
        let x = random(&[1, 9, 16], x);
        layer.forward(&x, &norm(), Some(text), patches, &Step::single(1.0, 1), (3, 3)).unwrap()
    };
    let kept = || run.texts.as_ref().unwrap().0.lock().unwrap().len();
    let texts: Vec<_> = (10..16).map(|seed| random(&[1, 7, 12], seed)).collect();
    for text in texts.iter().chain(&texts) {
        for x in [20, 21] {
            assert_close(&attend(&run, x, text), &attend(&plain, x, text), 0.0, "with kept keys and values");
        }
        assert!((1..=Texts::MOST).contains(&kept()), "{} texts are kept", kept());
    }

    let one = Patches::default().for_a_run();
    attend(&one, 20, &texts[0]);
    let first = one.texts.as_ref().unwrap().0.lock().unwrap()[&texts[0].id()][&layer.name][0].id();
    attend(&one, 21, &texts[0]);
    let again = one.texts.as_ref().unwrap().0.lock().unwrap()[&texts[0].id()][&layer.name][0].id();
    assert_eq!(first, again, "the keys of the first step");
}

#[test]
fn what_attends_to_itself_keeps_nothing() {
    let dict = StateDict::zeros(candle_core::DType::F32, &Device::Cpu);
    let layer = Attention::load(&dict, 16, 16, 2).unwrap();
    let run = Patches::default().for_a_run();
    layer.forward(&random(&[1, 9, 16], 1), &norm(), None, &run, &Step::single(1.0, 1), (3, 3)).unwrap();
    assert!(run.texts.unwrap().0.lock().unwrap().is_empty());
}

/// Changes nothing, and so shows what a layer does that has processors.
#[derive(Debug)]
struct Same;

impl AttnProcessor for Same {
    fn attend(&self, call: &Call, next: Next) -> Result<Tensor> {
        next.run(call)
    }
}

#[test]
fn queries_keys_and_values_at_once_are_those_made_one_by_one() {
    for (channels, heads, rows) in [(16, 2, 9), (96, 3, 500), (320, 8, 1)] {
        let weight = |name: &str, seed| (format!("{name}.weight"), random(&[channels, channels], seed));
        let mut weights =
            Vec::from([weight("to_q", 1), weight("to_k", 2), weight("to_v", 3), weight("to_out.0", 4)]);
        weights.extend(
            ["to_out.0.bias", "weight", "bias"].map(|name| (name.to_owned(), random(&[channels], 5))),
        );
        let dict =
            StateDict::from_tensors(weights.into_iter().collect(), candle_core::DType::F32, &Device::Cpu);
        let layer = Attention::load(&dict, channels, channels, heads).unwrap();
        let norm = LayerNorm::load(&dict, channels, 1e-5).unwrap();
        let (plain, patched) =
            (Patches::default(), Patches::default().with(layer.name.clone(), Arc::new(Same)));
        let x = random(&[2, rows, channels], 8);
        let attend = |layer: &Attention, patches: &Patches| {
            layer.forward(&x, &norm, None, patches, &Step::single(1.0, 2), (3, 3)).unwrap()
        };
        assert_close(&attend(&layer, &plain), &attend(&layer, &patched), 0.0, "at once");
        // In 8 bits, where the processor has them, rows too are the same whole numbers.
        let layer = layer.quantised();
        assert_close(&attend(&layer, &plain), &attend(&layer, &patched), 0.0, "at once in 8 bits");
    }
}
