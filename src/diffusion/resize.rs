//! Resizing with the same numbers as torch's `interpolate` without antialiasing (pixel centres aligned), and ComfyUI's `bislerp`.

use candle_core::{DType, Device, Tensor};

use crate::bislerp::bislerp;
use crate::{Error, Result, ops};

/// How a row or column of the result is made of those there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The nearest one (`nearest-exact`).
    Nearest,
    /// Between the two nearest.
    Linear,
    /// The mean of those covered, wholly or in part.
    Area,
    /// The mean of those covered, each by how much of it is (OpenCV's `INTER_AREA` where a picture becomes smaller).
    Covered,
    /// Between four (a = -0.75).
    Cubic,
}

/// What the places of an axis of a result are made of.
#[derive(Debug, Clone)]
pub struct Axis {
    taps: Vec<(usize, f32)>,
    /// Where the taps of each place end.
    ends: Vec<usize>,
}

impl Axis {
    /// An axis of `from` places that is to have `to`; neither is 0.
    pub fn new(kernel: Kernel, from: usize, to: usize) -> Self {
        let mut axis = Self { taps: Vec::with_capacity(to * 2), ends: Vec::with_capacity(to) };
        for i in 0..to {
            match kernel {
                Kernel::Nearest => axis.taps.push(nearest(from, to, i)),
                Kernel::Linear => axis.taps.extend(linear(from, to, i)),
                Kernel::Area => axis.taps.extend(area(from, to, i)),
                Kernel::Covered => axis.taps.extend(covered(from, to, i)),
                Kernel::Cubic => axis.taps.extend(cubic(from, to, i)),
            }
            axis.ends.push(axis.taps.len());
        }
        axis
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.ends.len()
    }

    /// Places of the source and their weights, neighbours in order, for one of the result.
    pub fn taps(&self, place: usize) -> &[(usize, f32)] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.taps[start..self.ends[place]]
    }

    /// The most taps that a place has.
    pub fn most(&self) -> usize {
        (0..self.places()).map(|place| self.taps(place).len()).max().unwrap_or(0)
    }
}

/// torch's `nearest_neighbor_exact_compute_source_index`, in f32.
fn nearest(from: usize, to: usize, i: usize) -> (usize, f32) {
    let at = ((i as f32 + 0.5) * (from as f32 / to as f32)).floor();
    ((at as usize).min(from - 1), 1.0)
}

fn area(from: usize, to: usize, i: usize) -> impl Iterator<Item = (usize, f32)> {
    let (start, end) = (i * from / to, ((i + 1) * from).div_ceil(to));
    (start..end).map(move |j| (j, 1.0 / (end - start) as f32))
}

/// OpenCV's `computeResizeAreaTab`: shares below a thousandth of a place are left out.
fn covered(from: usize, to: usize, i: usize) -> impl Iterator<Item = (usize, f32)> {
    let scale = from as f64 / to as f64;
    let (start, end) = (i as f64 * scale, (i + 1) as f64 * scale);
    let whole = scale.min(from as f64 - start);
    let share = move |j: usize| (end.min((j + 1) as f64) - start.max(j as f64)).min(whole);
    let places = start as usize..(end.ceil() as usize).min(from);
    places.filter(move |j| share(*j) > 1e-3).map(move |j| (j, (share(j) / whole) as f32))
}

/// torch's `area_pixel_compute_source_index`, align_corners false.
fn source(from: usize, to: usize, i: usize) -> f32 {
    (from as f32 / to as f32) * (i as f32 + 0.5) - 0.5
}

fn linear(from: usize, to: usize, i: usize) -> [(usize, f32); 2] {
    let at = source(from, to, i).max(0.0);
    let low = (at as usize).min(from - 1);
    let part = (at - low as f32).clamp(0.0, 1.0);
    [(low, 1.0 - part), ((low + 1).min(from - 1), part)]
}

fn cubic(from: usize, to: usize, i: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let at = source(from, to, i);
    let low = at.floor();
    let part = at - low;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)];
    let clamped = |offset: i64| (low as i64 + offset).clamp(0, from as i64 - 1) as usize;
    std::array::from_fn(|tap| (clamped(tap as i64 - 1), weights[tap]))
}

/// How feature maps are resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Each axis by a kernel.
    Axes(Kernel),
    /// Between the four nearest places, as directions: they are turned, their lengths mixed.
    Bislerp,
}

impl Method {
    /// All of them by ComfyUI's names.
    pub const NAMES: &[(&str, Self)] = &[
        ("bicubic", Self::Axes(Kernel::Cubic)),
        ("nearest-exact", Self::Axes(Kernel::Nearest)),
        ("bilinear", Self::Axes(Kernel::Linear)),
        ("area", Self::Axes(Kernel::Area)),
        ("bislerp", Self::Bislerp),
    ];
}

/// Most rows or columns of a feature map: those of a picture of 16384 pixels.
const MOST: usize = 2048;

/// A map `[B, H, W, C]` as `[B, height, width, C]`, computed in f32.
///
/// # Errors
/// If a side is 0 or larger than that of the largest picture, and those of the device.
pub fn resize(x: &Tensor, height: usize, width: usize, method: Method) -> Result<Tensor> {
    let (batch, rows, columns, channels) = x.dims4()?;
    if height.min(width) == 0 || height.max(width) > MOST {
        return Err(Error::Mismatch(format!(
            "a feature map of {columns}x{rows} cannot become one of {width}x{height}: a side is 1 to {MOST}"
        )));
    }
    let wide = x.to_dtype(DType::F32)?;
    let resized = match method {
        Method::Axes(kernel) => {
            let across = along(&wide.reshape((batch * rows, columns, channels))?, kernel, width)?;
            let down = along(&across.reshape((batch, rows, width * channels))?, kernel, height)?;
            down.reshape((batch, height, width, channels))?
        }
        Method::Bislerp => {
            let values = ops::to_nchw(&wide)?.flatten_all()?.to_vec1::<f32>()?;
            let turned = bislerp(&values, [batch, channels, rows, columns], (height, width))?;
            ops::to_nhwc(&turned.to_device(x.device())?)?
        }
    };
    Ok(resized.to_dtype(x.dtype())?)
}

/// The middle axis of `[B, N, C]` resized.
fn along(x: &Tensor, kernel: Kernel, to: usize) -> Result<Tensor> {
    let from = x.dim(1)?;
    let mut weights = vec![0f32; to * from];
    let axis = Axis::new(kernel, from, to);
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        axis.taps(i).iter().for_each(|(place, weight)| row[*place] += weight);
    }
    let weights = Tensor::from_vec(weights, (1, to, from), &Device::Cpu)?.to_device(x.device())?;
    Ok(weights.broadcast_matmul(&x.contiguous()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_resized_axis_by_axis() {
        let x = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((1, 2, 3, 1)).unwrap();
        let to = |height, width, kernel| {
            let resized = resize(&x, height, width, Method::Axes(kernel)).unwrap();
            resized.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(to(1, 3, Kernel::Area), [1.5, 2.5, 3.5]);
        assert_eq!(to(2, 1, Kernel::Linear), [1.0, 4.0]);
        // A third of a place is left of the one in the middle, and as much right of it.
        let thirds = to(2, 2, Kernel::Covered).into_iter().map(|value| (3.0 * value).round());
        assert_eq!(thirds.collect::<Vec<_>>(), [1.0, 5.0, 10.0, 14.0]);
        assert_eq!(to(4, 3, Kernel::Nearest)[3..9], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!(resize(&x, 0, 1, Method::Bislerp).is_err());
        assert!(resize(&x, 1, 4096, Method::Bislerp).is_err());
    }
}
