//! The prompts of a sampling, placed on its latent: ComfyUI's `process_conds`.

use crate::Result;
use crate::conditioning::{Cond, Conditioning, Rect};
use crate::guidance::Role;

/// A prompt and the part of the latent it is shown, which may reach beyond it.
#[derive(Clone)]
pub(super) struct Placed {
    pub cond: Cond,
    pub crop: Option<Rect>,
}

/// The prompts of each role. One shown a part of the latent has a counterpart of every other role that is shown the same
/// part, and ControlNets are lent.
pub(super) fn place(
    prompts: Vec<(Role, Conditioning)>,
    latent: (usize, usize),
) -> Result<Vec<(Role, Vec<Placed>)>> {
    let mut roles = Vec::new();
    for (role, conditioning) in prompts {
        let place = |cond: Cond| Ok(Placed { crop: cond.region.crop(latent)?, cond });
        roles.push((role, conditioning.0.into_iter().map(place).collect::<Result<Vec<_>>>()?));
    }
    for i in 0..roles.len() {
        for prompt in roles[i].1.clone() {
            let others = roles.iter_mut().enumerate().filter(|(k, _)| *k != i);
            others.for_each(|(_, (_, others))| others.extend(counterpart(others, &prompt)));
        }
    }
    if let Some((_, positive)) = roles.iter().find(|(role, _)| *role == Role::Positive).cloned() {
        let others = roles.iter_mut().filter(|(role, _)| *role != Role::Positive);
        others.for_each(|(_, others)| lend_controls(&positive, others));
    }
    Ok(roles)
}

/// What `prompt`, shown a part of the latent, misses among `others`: the text of the smallest of them around that part,
/// everything else as it has it.
fn counterpart(others: &[Placed], prompt: &Placed) -> Option<Placed> {
    let area = prompt.crop?;
    let mut smallest: Option<&Placed> = None;
    for other in others {
        let better = match (other.crop, smallest.map(|s| s.crop)) {
            (None, found) => found.is_none(),
            (Some(crop), _) if !area.inside(&crop) => false,
            (Some(crop), Some(Some(found))) => found.cells() > crop.cells(),
            (Some(_), _) => true,
        };
        if better {
            smallest = Some(other);
        }
    }
    let smallest = smallest.filter(|s| s.crop != Some(area))?;
    let Cond { context, pooled, sizes, aesthetic_score, concat, .. } = smallest.cond.clone();
    let cond = Cond { context, pooled, sizes, aesthetic_score, concat, ..prompt.cond.clone() };
    Some(Placed { cond, crop: prompt.crop })
}

/// Gives the prompts on the whole picture the ControlNets the positive ones lend, unless they have their own.
fn lend_controls(positive: &[Placed], others: &mut [Placed]) {
    let mut others: Vec<&mut Placed> = others.iter_mut().filter(|p| p.crop.is_none()).collect();
    if others.is_empty() || others.iter().any(|p| !p.cond.controls.is_empty()) {
        return;
    }
    let count = others.len();
    let lends = |p: &&Placed| p.crop.is_none() && p.cond.control_to_uncond && !p.cond.controls.is_empty();
    for (i, lender) in positive.iter().filter(lends).enumerate() {
        others[i % count].cond.controls = lender.cond.controls.clone();
    }
}
