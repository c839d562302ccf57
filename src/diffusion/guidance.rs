//! Guidance: how the guesses for several prompts become one.

use candle_core::{D, Tensor};

use crate::Result;
use crate::conditioning::Conditioning;

/// The prompts of a sampling and how they are weighed.
#[derive(Debug, Clone)]
pub enum Guider {
    /// One prompt, followed as it is.
    Basic {
        /// What the picture shows.
        positive: Conditioning,
    },
    /// Classifier-free guidance (Ho & Salimans 2022).
    Cfg {
        /// What the picture shows.
        positive: Conditioning,
        /// What it does not.
        negative: Conditioning,
        /// How strongly the one is followed against the other; at 1 the negative is not looked at.
        cfg: f64,
    },
    /// Guidance by two prompts.
    Dual {
        /// The first prompt, followed against the second.
        first: Conditioning,
        /// The second prompt, followed against the negative one.
        second: Conditioning,
        /// What the picture does not show.
        negative: Conditioning,
        /// How strongly the first is followed.
        cfg_conds: f64,
        /// How strongly the second is.
        cfg_cond2_negative: f64,
        /// Whether the guided guess of both prompts is itself guided against the negative one; else both guidances are
        /// added (as in Brooks et al. 2023, InstructPix2Pix).
        nested: bool,
    },
    /// Guidance that takes from the negative prompt only what is not in the positive one (Armandpour et al. 2023,
    /// Perp-Neg).
    PerpNeg {
        /// What the picture shows.
        positive: Conditioning,
        /// What it does not.
        negative: Conditioning,
        /// An empty prompt, which both are measured from.
        empty: Conditioning,
        /// How strongly the prompts are followed.
        cfg: f64,
        /// The share of the negative one.
        neg_scale: f64,
    },
}

/// What a prompt is to a [`Guider`]; its place in arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Positive,
    Middle,
    Empty,
    Negative,
}

impl Role {
    pub const COUNT: usize = 4;
}

/// How a model wants guesses for a positive and a negative prompt joined, and what else is done to them.
#[derive(Debug, Clone, Default)]
pub struct Guidance {
    /// How they are joined.
    pub rule: CfgRule,
    /// Scale of perturbed-attention guidance (Ahn et al. 2024), away from what the model guesses when its middle does not
    /// look around; 0 for none.
    pub perturbed_attention: f64,
    /// Self-attention guidance, if any.
    pub self_attention: Option<SelfAttention>,
}

/// Guidance away from the guess for a picture blurred where the model looks most (Hong et al. 2023).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelfAttention {
    /// How strongly.
    pub scale: f64,
    /// Deviation of the blur, in cells of the latent.
    pub blur_sigma: f64,
}

/// How the guesses for a positive and a negative prompt are joined.
#[derive(Debug, Clone, Default)]
pub enum CfgRule {
    /// In proportion.
    #[default]
    Plain,
    /// As strong as the positive one alone (Lin et al. 2023, section 3.4), by a share; on velocities.
    Rescaled(f64),
    /// As [`Guider::PerpNeg`], with its empty prompt and the share of the negative one.
    PerpNeg(Conditioning, f64),
}

impl Guider {
    /// The prompts, in ComfyUI's order.
    pub(crate) fn prompts(&self, rule: &CfgRule) -> Vec<(Role, Conditioning)> {
        let mut prompts = match self {
            Self::Basic { positive } => vec![(Role::Positive, positive)],
            Self::Cfg { positive, negative, .. } => {
                vec![(Role::Positive, positive), (Role::Negative, negative)]
            }
            Self::Dual { first, second, negative, .. } => {
                vec![(Role::Positive, first), (Role::Middle, second), (Role::Negative, negative)]
            }
            Self::PerpNeg { positive, empty, negative, .. } => {
                vec![(Role::Positive, positive), (Role::Empty, empty), (Role::Negative, negative)]
            }
        };
        if let (CfgRule::PerpNeg(empty, _), Self::Cfg { .. }) = (rule, self) {
            prompts.push((Role::Empty, empty));
        }
        prompts.into_iter().map(|(role, prompt)| (role, prompt.clone())).collect()
    }

    /// Whether the prompts of a role change nothing and are not run.
    pub(crate) fn skips(&self, role: Role, rule: &CfgRule) -> bool {
        match self {
            Self::Basic { .. } => false,
            Self::Cfg { cfg, .. } => match (role, rule) {
                (Role::Negative, CfgRule::PerpNeg(_, neg_scale)) => *neg_scale == 0.0,
                (Role::Negative, _) => is_one(*cfg),
                _ => false,
            },
            Self::Dual { nested: true, .. } => false,
            Self::Dual { cfg_conds, cfg_cond2_negative, .. } => match role {
                Role::Negative => is_one(*cfg_cond2_negative),
                Role::Middle => is_one(*cfg_cond2_negative) && is_one(*cfg_conds),
                _ => false,
            },
            Self::PerpNeg { cfg, neg_scale, .. } => match role {
                Role::Negative => *neg_scale == 0.0,
                Role::Empty => *neg_scale == 0.0 && is_one(*cfg),
                _ => false,
            },
        }
    }
}

fn is_one(cfg: f64) -> bool {
    (cfg - 1.0).abs() <= 1e-9
}

/// `from + (to - from) * scale`.
pub(crate) fn guided(from: &Tensor, to: &Tensor, scale: f64) -> Result<Tensor> {
    Ok((from + ((to - from)? * scale)?)?)
}

/// Guidance with the deviation of each picture's velocity brought back to that of the prompt's.
pub(crate) fn rescaled(
    x: &Tensor,
    sigma: f64,
    [cond, uncond]: [&Tensor; 2],
    cfg: f64,
    share: f64,
) -> Result<Tensor> {
    let variance = sigma * sigma + 1.0;
    let alone = (x / variance)?;
    let velocity = |denoised: &Tensor| -> Result<Tensor> {
        Ok(((&alone - (x - (x - denoised)?)?)? * (variance.sqrt() / sigma))?)
    };
    let (cond, uncond) = (velocity(cond)?, velocity(uncond)?);
    let plain = guided(&uncond, &cond, cfg)?;
    let rescaled = plain.broadcast_mul(&(deviation(&cond)? / deviation(&plain)?)?)?;
    let mixed = ((rescaled * share)? + (plain * (1.0 - share))?)?;
    Ok((alone - (mixed * (sigma / variance.sqrt()))?)?)
}

/// The standard deviation of each picture, `[B, 1, 1, 1]`.
fn deviation(x: &Tensor) -> Result<Tensor> {
    let flat = x.flatten_from(1)?;
    Ok(flat.var_keepdim(D::Minus1)?.sqrt()?.unsqueeze(2)?.unsqueeze(3)?)
}

/// Guidance from `empty` that leaves out what the negative guess shares with the positive one.
pub(crate) fn perp_neg(
    [positive, negative, empty]: [&Tensor; 3],
    cfg: f64,
    neg_scale: f64,
) -> Result<Tensor> {
    let (pos, neg) = ((positive - empty)?, (negative - empty)?);
    // A positive prompt that is the empty one has no direction.
    let along = ((&neg * &pos)?.sum_all()? / pos.sqr()?.sum_all()?.affine(1.0, 1e-37)?)?;
    let perpendicular = (neg - pos.broadcast_mul(&along)?)?;
    Ok((empty + ((pos - (perpendicular * neg_scale)?)? * cfg)?)?)
}
