use std::sync::Arc;

use flow_graph::{Choice, Context, Inputs, Node, NodeError};

use crate::{
    picture::resize::{Method, of_aspect, resize, scale},
    ports::{Image, Mask},
};

/// What the source and the destination become where they overlap, and where only one is (Porter & Duff 1984, and the
/// usual blend modes).
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    #[choice("ADD")]
    Add,
    #[choice("CLEAR")]
    Clear,
    #[choice("DARKEN")]
    Darken,
    #[choice("DST")]
    Dst,
    #[choice("DST_ATOP")]
    DstAtop,
    #[choice("DST_IN")]
    DstIn,
    #[choice("DST_OUT")]
    DstOut,
    #[choice("DST_OVER")]
    DstOver,
    #[choice("LIGHTEN")]
    Lighten,
    #[choice("MULTIPLY")]
    Multiply,
    #[choice("OVERLAY")]
    Overlay,
    #[choice("SCREEN")]
    Screen,
    #[choice("SRC")]
    Src,
    #[choice("SRC_ATOP")]
    SrcAtop,
    #[choice("SRC_IN")]
    SrcIn,
    #[choice("SRC_OUT")]
    SrcOut,
    #[choice("SRC_OVER")]
    SrcOver,
    #[choice("XOR")]
    Xor,
}

/// Composes two pictures with transparency. Colours are premultiplied: what is clear is black.
#[derive(Inputs)]
#[node(category = "image")]
pub struct PorterDuffImageComposite {
    /// The picture above.
    source: Arc<Image>,
    /// How solid it is, pixel by pixel; of another size it is resized like the picture.
    source_alpha: Arc<Mask>,
    /// The picture below, which gives the size.
    destination: Arc<Image>,
    /// How solid it is.
    destination_alpha: Arc<Mask>,
    /// What the two become.
    #[input(default = "DST")]
    mode: Mode,
}

impl Node for PorterDuffImageComposite {
    type Output = (Image, Mask);

    fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
        let Image { height, width, .. } = *self.destination;
        let source = scale(&self.source, height, width, Method::Bicubic, true);
        let (above, below) =
            (fitted(&self.source_alpha, height, width), fitted(&self.destination_alpha, height, width));
        let frames = source.frames.min(self.destination.frames).min(above.frames).min(below.frames);
        let mut rgb = Vec::with_capacity(frames * height * width * 3);
        let mut alpha = Vec::with_capacity(frames * height * width);
        for frame in 0..frames {
            let alphas = above.frame(frame).iter().zip(below.frame(frame));
            let colors =
                source.frame(frame).chunks_exact(3).zip(self.destination.frame(frame).chunks_exact(3));
            for ((sa, da), (s, d)) in alphas.zip(colors) {
                rgb.extend(s.iter().zip(d).map(|(s, d)| self.mode.color(*s, *sa, *d, *da)));
                alpha.push(self.mode.alpha(*sa, *da));
            }
        }
        Ok((Image::new(frames, height, width, rgb), Mask::new(frames, height, width, alpha)))
    }
}

/// Bicubic, cropped around its centre.
fn fitted(mask: &Mask, height: usize, width: usize) -> Mask {
    if (mask.height, mask.width) == (height, width) {
        return mask.clone();
    }
    let (part, from) = of_aspect(&mask.values, mask.shape(), height, width);
    Mask::new(mask.frames, height, width, resize(&part, from, height, width, Method::Bicubic))
}

impl Mode {
    fn alpha(self, s: f32, d: f32) -> f32 {
        match self {
            Self::Add => (s + d).clamp(0.0, 1.0),
            Self::Clear => 0.0,
            Self::Darken | Self::Lighten | Self::Overlay | Self::Screen => s + d - s * d,
            Self::Dst | Self::SrcAtop => d,
            Self::Src | Self::DstAtop => s,
            Self::DstIn | Self::SrcIn | Self::Multiply => s * d,
            Self::DstOut => (1.0 - s) * d,
            Self::SrcOut => (1.0 - d) * s,
            Self::DstOver => d + (1.0 - d) * s,
            Self::SrcOver => s + (1.0 - s) * d,
            Self::Xor => (1.0 - d) * s + (1.0 - s) * d,
        }
    }

    fn color(self, s: f32, sa: f32, d: f32, da: f32) -> f32 {
        match self {
            Self::Add => (s + d).clamp(0.0, 1.0),
            Self::Clear => 0.0,
            Self::Darken => (1.0 - da) * s + (1.0 - sa) * d + s.min(d),
            Self::Lighten => (1.0 - da) * s + (1.0 - sa) * d + s.max(d),
            Self::Dst => d,
            Self::DstAtop => sa * d + (1.0 - da) * s,
            Self::DstIn => d * sa,
            Self::DstOut => (1.0 - sa) * d,
            Self::DstOver => d + (1.0 - da) * s,
            Self::Multiply => s * d,
            Self::Overlay if 2.0 * d < da => 2.0 * s * d,
            Self::Overlay => sa * da - 2.0 * (da - s) * (sa - d),
            Self::Screen => s + d - s * d,
            Self::Src => s,
            Self::SrcAtop => da * s + (1.0 - sa) * d,
            Self::SrcIn => s * da,
            Self::SrcOut => (1.0 - da) * s,
            Self::SrcOver => s + (1.0 - sa) * d,
            Self::Xor => (1.0 - da) * s + (1.0 - sa) * d,
        }
    }
}
