use super::IpOptions;
use crate::attn_layers::Part;

/// How an adapter's weight is spread over the layers (`IPAdapter_plus`'s names and formulas).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names say it, the formulas are below")]
pub enum WeightType {
    #[default]
    Linear,
    EaseIn,
    EaseOut,
    EaseInOut,
    ReverseInOut,
    WeakInput,
    WeakOutput,
    WeakMiddle,
    StrongMiddle,
    StyleTransfer,
    Composition,
    StrongStyleTransfer,
    StyleAndComposition,
    StyleTransferPrecise,
    CompositionPrecise,
    StrongStyleAndComposition,
}

/// The weight of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LayerWeight {
    pub weight: f64,
    /// Whether the conditioned rows get nothing and the others the image (the `precise` types).
    pub swapped: bool,
}

impl WeightType {
    /// All of them by ComfyUI's names.
    pub const NAMES: &[(&str, Self)] = &[
        ("linear", Self::Linear),
        ("ease in", Self::EaseIn),
        ("ease out", Self::EaseOut),
        ("ease in-out", Self::EaseInOut),
        ("reverse in-out", Self::ReverseInOut),
        ("weak input", Self::WeakInput),
        ("weak output", Self::WeakOutput),
        ("weak middle", Self::WeakMiddle),
        ("strong middle", Self::StrongMiddle),
        ("style transfer", Self::StyleTransfer),
        ("composition", Self::Composition),
        ("strong style transfer", Self::StrongStyleTransfer),
        ("style and composition", Self::StyleAndComposition),
        ("style transfer precise", Self::StyleTransferPrecise),
        ("composition precise", Self::CompositionPrecise),
        ("strong style and composition", Self::StrongStyleAndComposition),
    ];

    /// The weight of the transformer that runs as number `t`; `None` where the adapter is off. SDXL counts 11
    /// transformers, everything else 16.
    pub(super) fn of(self, part: Part, t: usize, sdxl: bool, options: &IpOptions) -> Option<LayerWeight> {
        let (w, composition) = (options.weight, options.weight_composition);
        let boost = options.boost.unwrap_or(w);
        let n = if sdxl { 11.0 } else { 16.0 };
        let at = t as f64;
        let middle = (at - n / 2.0).abs() / (n / 2.0);
        let ease = |x: f64| Some(w * (0.05 + 0.95 * x));
        let weak = |yes: bool| Some(if yes { 0.2 * w } else { w });
        let layout = Layout { sdxl, t };
        let weight = match self {
            Self::Linear => Some(w),
            Self::EaseIn => ease(1.0 - at / n),
            Self::EaseOut => ease(at / n),
            Self::EaseInOut => ease(1.0 - middle),
            Self::ReverseInOut => ease(middle),
            Self::WeakInput => weak(part == Part::Input),
            Self::WeakOutput => weak(part == Part::Output),
            Self::WeakMiddle => weak(part == Part::Middle),
            Self::StrongMiddle => weak(part != Part::Middle),
            Self::StyleTransfer => layout.style().then_some(w),
            Self::Composition => layout.composition(w),
            Self::StrongStyleTransfer => layout.composition(w).is_none().then_some(w),
            Self::StyleAndComposition => layout.composition(composition).or(layout.style().then_some(w)),
            Self::StyleTransferPrecise => layout.composition(boost).or(layout.style().then_some(w)),
            Self::CompositionPrecise => {
                layout.composition(w).or(Some(if layout.style() { boost } else { 0.1 * boost }))
            }
            // Here the first composition layer of SD1.5 is not quartered.
            Self::StrongStyleAndComposition => {
                Some(if layout.composition(w).is_some() { composition } else { w })
            }
        };
        weight.map(|weight| LayerWeight { weight, swapped: self.swaps(t, sdxl) })
    }

    /// Whether the transformer that runs as number `t` gives the conditioned rows nothing and the others the image.
    pub(super) fn swaps(self, t: usize, sdxl: bool) -> bool {
        let composition = Layout { sdxl, t }.composition(1.0).is_some();
        match self {
            Self::StyleTransferPrecise => composition,
            Self::CompositionPrecise => !composition,
            _ => false,
        }
    }
}

/// Which transformers make style and which composition.
struct Layout {
    sdxl: bool,
    t: usize,
}

impl Layout {
    fn style(&self) -> bool {
        if self.sdxl { self.t == 6 } else { matches!(self.t, 0..=3 | 9..) }
    }

    fn composition(&self, w: f64) -> Option<f64> {
        match (self.sdxl, self.t) {
            (true, 3) | (false, 5) => Some(w),
            (false, 4) => Some(0.25 * w),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attn_layers::attn_layers;
    use crate::fixture::project as path;
    use crate::unet_config::UNetConfig;

    /// Every type on every layer of a family, with the layers that are swapped.
    fn table(family: &str, cfg: &UNetConfig) {
        let text = std::fs::read(path("tests/fixtures/unet/weight_types.json")).unwrap();
        let all: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let options = IpOptions { weight: 0.8, weight_composition: 0.5, ..IpOptions::default() };
        for (name, kind) in WeightType::NAMES {
            let swaps = &all[format!("{family}_negative_swap")][name];
            for layer in attn_layers(cfg) {
                let t = layer.transformer;
                let found = kind.of(layer.part, t, family == "sdxl", &options);
                let expected = all[family][name][t].as_f64();
                let close = match (found, expected) {
                    (Some(found), Some(expected)) => (found.weight - expected).abs() < 1e-5,
                    (None, None) => true,
                    _ => false,
                };
                assert!(close, "{family} {name} {t}: {found:?} and {expected:?}");
                let swapped =
                    swaps.as_array().is_some_and(|s| s.iter().any(|v| v.as_u64() == Some(t as u64)));
                assert_eq!(found.is_some_and(|f| f.swapped), swapped, "{family} {name} {t}");
            }
        }
    }

    #[test]
    fn weight_types_on_sd15_are_those_of_ipadapter_plus() {
        table("sd15", &UNetConfig::sd15());
    }

    #[test]
    fn weight_types_on_sdxl_are_those_of_ipadapter_plus() {
        table("sdxl", &UNetConfig::sdxl());
    }
}
