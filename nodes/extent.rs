//! How large latents are and where prompts lie on them, as far as it is known before anything runs.

use flow_graph::{Facts, Known, NodeError};

use crate::model_file::passed_on;

/// Pixels of the picture to a cell of the latent.
const CELL: usize = 8;

/// Width of a latent's picture in pixels.
const WIDTH: &str = "width";
/// Height of a latent's picture in pixels.
const HEIGHT: &str = "height";
/// Pixels left of the area of a prompt, of several the most.
const AREA_X: &str = "area_x";
/// Pixels above the area of a prompt, of several the most.
const AREA_Y: &str = "area_y";

/// Says of sizes and places in pixels that a latent cannot have which ones are taken.
pub(crate) fn warn_of_rest(known: &Known, inputs: &[&'static str]) {
    for input in inputs {
        let Some(pixels) = known.number(input).map(|pixels| pixels as usize) else { continue };
        if pixels % CELL != 0 {
            let taken = pixels / CELL * CELL;
            known.warn(input, format!("{pixels} is no multiple of {CELL}, {taken} is taken for `{input}`"));
        }
    }
}

/// Facts of a latent with the size of the picture it stands for, where that is known.
pub(crate) fn sized(facts: Facts, width: Option<usize>, height: Option<usize>) -> Facts {
    let facts = facts.without(WIDTH).without(HEIGHT);
    match (width, height) {
        (Some(width), Some(height)) => {
            facts.int(WIDTH, width / CELL * CELL).int(HEIGHT, height / CELL * CELL)
        }
        _ => facts,
    }
}

/// Facts of a prompt whose area begins at a place in pixels; `None`: where no check can tell, or all of the picture.
pub(crate) fn placed(facts: Facts, begin: Option<(usize, usize)>) -> Facts {
    let facts = facts.without(AREA_X).without(AREA_Y);
    match begin {
        Some((x, y)) => facts.int(AREA_X, x / CELL * CELL).int(AREA_Y, y / CELL * CELL),
        None => facts,
    }
}

/// Facts of one of two prompts that are followed together: its own, with the areas of both.
pub(crate) fn joined(known: &Known, input: &str, other: &str) -> Facts {
    let facts = passed_on(known, input);
    let most = |name| {
        let of = |input| known.facts(input).and_then(|facts| facts.get_int(name));
        of(input).max(of(other))
    };
    let (x, y) = (most(AREA_X), most(AREA_Y));
    let add = |facts: Facts, name, value: Option<i64>| match value {
        Some(value) => facts.int(name, value),
        None => facts,
    };
    add(add(facts, AREA_X, x), AREA_Y, y)
}

/// Refuses, before anything runs, a prompt for a part of the picture that the latent does not have.
///
/// # Errors
/// On the input of the prompt.
pub(crate) fn check_areas(known: &Known, prompts: &[&'static str], latent: &str) -> Result<(), NodeError> {
    let Some(latent) = known.facts(latent) else { return Ok(()) };
    let (Some(width), Some(height)) = (latent.get_int(WIDTH), latent.get_int(HEIGHT)) else { return Ok(()) };
    for input in prompts {
        let Some(prompt) = known.facts(input) else { continue };
        let (x, y) = (prompt.get_int(AREA_X).unwrap_or(0), prompt.get_int(AREA_Y).unwrap_or(0));
        if x >= width || y >= height {
            let message = format!(
                "an area of this prompt begins at x {x}, y {y}, outside the picture of {width}×{height}"
            );
            return Err(NodeError::on(input, message)
                .hint("areas are in pixels of the picture that the latent stands for"));
        }
    }
    Ok(())
}
