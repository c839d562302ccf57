//! How large latents are and where prompts lie on them, as far as it is known before anything runs.

use flow_graph::{
    Facts, Known, NodeError,
    facts::{HEIGHT, WIDTH},
};

use crate::model_file::passed_on;

/// Pixels of the picture to a cell of the latent.
const CELL: usize = 8;

/// Pixels left of the area of a prompt, of several the most.
const AREA_X: &str = "area_x";
/// Pixels above the area of a prompt, of several the most.
const AREA_Y: &str = "area_y";
/// What is left of the area of a prompt as a share of the picture, in billionths; of several the most.
const SHARE_X: &str = "area_share_x";
/// What is above it, likewise.
const SHARE_Y: &str = "area_share_y";

/// Where the area of a prompt begins, as far as checks can tell.
pub(crate) enum Begin {
    /// Pixels from the left and from the top.
    Pixels(usize, usize),
    /// Shares of the picture's width and height, 0..1.
    Shares(f64, f64),
    /// It has none, or where is not known.
    Unknown,
}

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

/// What is known of a picture or mask of the same size as the one in an input.
pub(crate) fn same_size(known: &Known, input: &str) -> Vec<Facts> {
    let size = known.facts(input).and_then(Facts::size);
    size.map(|(width, height)| Facts::none().sized(width, height)).into_iter().collect()
}

/// What is known of a picture that is the one in `input`, its width and height made others.
pub(crate) fn resized(
    known: &Known,
    input: &str,
    sides: impl FnOnce(usize, usize) -> Option<(usize, usize)>,
) -> Vec<Facts> {
    let size = known.facts(input).and_then(Facts::size).and_then(|(width, height)| sides(width, height));
    size.map(|(width, height)| Facts::none().sized(width, height)).into_iter().collect()
}

/// Refuses, before anything runs, a place that lies outside of the picture or mask in `input`.
///
/// # Errors
/// On `x` or `y`.
pub(crate) fn inside(known: &Known, input: &str, place: (usize, usize)) -> Result<(), NodeError> {
    match outside(known, input, place).next() {
        Some((place, message, hint)) => Err(NodeError::on(place, message).hint(hint)),
        None => Ok(()),
    }
}

/// Says of a part that is cut out of the picture in `input` that it begins outside; its last row or column is taken, as in ComfyUI.
pub(crate) fn cut_inside(known: &Known, input: &str, place: (usize, usize)) {
    for (place, message, hint) in outside(known, input, place) {
        let last = if place == "x" { "column" } else { "row" };
        known.warn_with(place, format!("{message}: only its last {last} is taken"), hint);
    }
}

/// Says of what is laid on the picture or mask in `input` that nothing of it is seen there.
pub(crate) fn laid_inside(known: &Known, input: &str, place: (usize, usize)) {
    for (place, message, hint) in outside(known, input, place) {
        known.warn_with(place, format!("{message}: nothing of `source` is seen"), hint);
    }
}

fn outside(
    known: &Known,
    input: &str,
    (x, y): (usize, usize),
) -> impl Iterator<Item = (&'static str, String, String)> {
    let sides = known.facts(input).and_then(Facts::size).into_iter().flat_map(move |size| {
        [("x", x, size.0, size), ("y", y, size.1, size)].into_iter().filter(|(_, at, side, _)| at >= side)
    });
    sides.map(move |(place, at, side, (width, height))| {
        let message = format!("{at} lies outside of `{input}`, which is {width}×{height}");
        (place, message, format!("less than {side}"))
    })
}

/// A number of pixels that an input holds, if it is known before anything runs.
pub(crate) fn pixels(known: &Known, input: &str) -> Option<usize> {
    known.number(input).map(|number| number as usize)
}

/// What is known of a latent that pictures are encoded into; what is cut away of them is told.
///
/// # Errors
/// On the input, when a side is too short for a latent.
pub(crate) fn encoded(known: &Known, input: &'static str) -> Result<Facts, NodeError> {
    let facts = passed_on(known, "vae");
    let Some((width, height)) = known.facts(input).and_then(Facts::size) else { return Ok(facts) };
    let (cut_width, cut_height) = (width / CELL * CELL, height / CELL * CELL);
    if cut_width == 0 || cut_height == 0 {
        return Err(too_small(input, (width, height), CELL));
    }
    if (cut_width, cut_height) != (width, height) {
        let nearest = |side: usize| (side + CELL / 2) / CELL * CELL;
        let message = format!(
            "a picture of {width}×{height} is cut to {cut_width}×{cut_height} around its centre: sides are multiples of {CELL}"
        );
        let hint = format!(
            "to keep all of it bring it to {}×{} before, with ImageScale",
            nearest(width),
            nearest(height)
        );
        known.warn_with(input, message, hint);
    }
    Ok(sized(facts, Some(width), Some(height)))
}

/// Says that a picture has a side too short for a latent.
pub(crate) fn too_small(input: &'static str, (width, height): (usize, usize), cell: usize) -> NodeError {
    let message =
        format!("a picture of {width}×{height} is too small to encode; each side needs {cell} pixels");
    NodeError::on(input, message).hint("enlarge it before, with ImageScale")
}

/// Facts of a prompt whose area begins at a place.
pub(crate) fn placed(facts: Facts, begin: Begin) -> Facts {
    let facts = [AREA_X, AREA_Y, SHARE_X, SHARE_Y].into_iter().fold(facts, |facts, name| facts.without(name));
    let billionths = |share: f64| (share * 1e9).round() as i64;
    match begin {
        Begin::Pixels(x, y) => facts.int(AREA_X, x / CELL * CELL).int(AREA_Y, y / CELL * CELL),
        Begin::Shares(x, y) => facts.int(SHARE_X, billionths(x)).int(SHARE_Y, billionths(y)),
        Begin::Unknown => facts,
    }
}

/// Facts of prompts that are followed together: those of the first, with the areas of all.
pub(crate) fn joined(known: &Known, first: &str, others: &[&str]) -> Facts {
    let most = |name| {
        let inputs = [first].into_iter().chain(others.iter().copied());
        inputs.filter_map(|input| known.facts(input)?.get_int(name)).max()
    };
    [AREA_X, AREA_Y, SHARE_X, SHARE_Y].into_iter().fold(passed_on(known, first), |facts, name| {
        match most(name) {
            Some(value) => facts.int(name, value),
            None => facts,
        }
    })
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
        let in_pixels = |name| prompt.get_int(name).unwrap_or(0);
        // As the sampler rounds them.
        let by_share = |name, length: i64| {
            let cells = length as f64 / CELL as f64;
            (in_pixels(name) as f64 / 1e9 * cells).round_ties_even() as i64 * CELL as i64
        };
        let (shown_x, shown_y) = (by_share(SHARE_X, width), by_share(SHARE_Y, height));
        for (x, y, hint) in [
            (
                in_pixels(AREA_X),
                in_pixels(AREA_Y),
                "areas are in pixels of the picture that the latent stands for",
            ),
            (shown_x, shown_y, "shares are rounded to 8 pixels of the picture that the latent stands for"),
        ] {
            if x >= width || y >= height {
                let message = format!(
                    "an area of this prompt begins at x {x}, y {y}, outside the picture of {width}×{height}"
                );
                return Err(NodeError::on(input, message).hint(hint));
            }
        }
    }
    Ok(())
}
