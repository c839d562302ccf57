use std::sync::Arc;

use flow_graph::{Choice, Context, Facts, Inputs, Known, Node, NodeError};

use crate::extent::same_size;
use crate::{
    picture::morphology::{
        Extreme,
        Extreme::{Greatest, Least},
        Square, square,
    },
    ports::Image,
};

/// What is done with the square around each pixel.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The least value in it.
    Erode,
    /// The greatest value in it.
    Dilate,
    /// Erode, then dilate: small light things go.
    Open,
    /// Dilate, then erode: small dark things go.
    Close,
    /// The greatest less the least: borders.
    Gradient,
    /// What closing adds.
    BottomHat,
    /// What opening takes away.
    TopHat,
}

/// Grows or shrinks the light parts of a picture, channel by channel.
#[derive(Inputs)]
#[node(category = "image")]
pub struct Morphology {
    /// The picture.
    image: Arc<Image>,
    /// What is done with the square around each pixel.
    #[input(default = "erode")]
    operation: Operation,
    /// Side of the square in pixels.
    #[input(default = 3, range = 3usize..=999usize)]
    kernel_size: usize,
}

impl Node for Morphology {
    type Output = Image;

    fn run(self, _cx: &Context) -> Result<Image, NodeError> {
        let around = Square::around(self.kernel_size);
        let apply = |image: &Image, extreme: Extreme| {
            image.planes(|plane| square(plane, image.width, around, extreme))
        };
        let image = &self.image;
        let less = |a: &Image, b: &Image| {
            let rgb: Vec<f32> = a.rgb.iter().zip(&*b.rgb).map(|(a, b)| a - b).collect();
            Image::new(a.frames, a.height, a.width, rgb)
        };
        let opened = || apply(&apply(image, Least), Greatest);
        let closed = || apply(&apply(image, Greatest), Least);
        Ok(match self.operation {
            Operation::Erode => apply(image, Least),
            Operation::Dilate => apply(image, Greatest),
            Operation::Open => opened(),
            Operation::Close => closed(),
            Operation::Gradient => less(&apply(image, Greatest), &apply(image, Least)),
            Operation::BottomHat => less(&closed(), image),
            Operation::TopHat => less(image, &opened()),
        })
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        Ok(same_size(known, "image"))
    }
}
