use flow_diffusion::schedule::curves;
use flow_graph::{Choice, Context, Inputs, Node, NodeError};

use crate::{ports::Sigmas, sigmas::checked};

/// Families with known best levels.
#[derive(Choice, Clone, Copy, PartialEq, Eq)]
pub enum ModelType {
    /// Stable Diffusion 1.x.
    #[choice("SD1")]
    Sd1,
    /// SDXL.
    #[choice("SDXL")]
    Sdxl,
    /// Stable Video Diffusion.
    #[choice("SVD")]
    Svd,
}

impl ModelType {
    /// The published levels of ten steps.
    fn levels(self) -> &'static [f64; 11] {
        match self {
            Self::Sd1 => &[
                14.6146412293,
                6.4745760956,
                3.8636745985,
                2.6946151520,
                1.8841921177,
                1.3943805092,
                0.9642583904,
                0.6523686016,
                0.3977456272,
                0.1515232662,
                0.0291671582,
            ],
            Self::Sdxl => &[
                14.6146412293,
                6.3184485287,
                3.7681790315,
                2.1811480769,
                1.3405244945,
                0.8620721141,
                0.5550693289,
                0.3798540708,
                0.2332364134,
                0.1114188177,
                0.0291671582,
            ],
            Self::Svd => &[700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002],
        }
    }
}

/// The noise levels found best for a family of models (Sabour et al. 2024): ten steps, other numbers between them.
#[derive(Inputs)]
#[node(category = "sampling/schedulers")]
pub struct AlignYourStepsScheduler {
    /// The family.
    #[input(default = "SD1")]
    model_type: ModelType,
    /// How many steps the whole schedule has.
    #[input(default = 10, range = 1usize..=10000usize)]
    steps: usize,
    /// The share of the steps that is taken: its end.
    #[input(default = 1.0, range = 0.0..=1.0)]
    denoise: f64,
}

impl Node for AlignYourStepsScheduler {
    type Output = Sigmas;

    fn run(self, _cx: &Context) -> Result<Sigmas, NodeError> {
        let taken = (self.steps as f64 * self.denoise).round_ties_even() as usize;
        checked(curves::align_your_steps(self.model_type.levels(), self.steps, taken), "steps")
    }
}
