//! Pixels of a row that are sums of pixels of another.

use std::ops::Range;

use super::Places;
#[cfg(target_arch = "x86_64")]
use super::{pairs::Pairs, permuted::Permuted};
use crate::resize::Axis;

/// How the pixels of a row are made of those of another.
pub(super) struct Pick<'a> {
    pub(super) columns: &'a Axis,
    /// Values of a pixel.
    pub(super) channels: usize,
    /// Values of a row of the source, and of the result.
    pub(super) line: usize,
    pub(super) length: usize,
    /// The most taps that a pixel has; at the sides some have fewer.
    pub(super) taps: usize,
    form: Form,
}

/// By which instructions.
enum Form {
    #[cfg(target_arch = "x86_64")]
    Avx512(Permuted<16>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Permuted<8>),
    #[cfg(target_arch = "x86_64")]
    Pairs(Pairs),
    Plain,
}

impl<'a> Pick<'a> {
    pub(super) fn new(columns: &'a Axis, width: usize, channels: usize) -> Self {
        let (line, length, taps) = (width * channels, columns.places() * channels, columns.most());
        let mut pick = Self { columns, channels, line, length, taps, form: Form::Plain };
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::{avx2, avx512};
            let sixteen = || avx512::has_f32().then(|| Permuted::<16>::of(&pick)).flatten().map(Form::Avx512);
            let eight = || avx2::has_f32().then(|| Permuted::<8>::of(&pick)).flatten().map(Form::Avx2);
            let pairs = || avx2::has_f32().then(|| Form::Pairs(Pairs::of(&pick)));
            pick.form = sixteen().or_else(eight).or_else(pairs).unwrap_or(Form::Plain);
        }
        pick
    }

    /// Writes a row of the result, of a row of the source.
    pub(super) fn row(&self, row: &[f32], out: &mut Places) {
        assert_eq!((row.len(), out.len()), (self.line, self.length), "values of the rows");
        match &self.form {
            #[cfg(target_arch = "x86_64")]
            Form::Avx512(permuted) => permuted.row(self, row, out),
            #[cfg(target_arch = "x86_64")]
            Form::Avx2(permuted) => permuted.row(self, row, out),
            #[cfg(target_arch = "x86_64")]
            Form::Pairs(pairs) => {
                let done = pairs.row(row, out);
                // Vectors have written on the pixels around them, which therefore come last.
                self.plain(0..done.start, row, out);
                self.plain(done.end..self.columns.places(), row, out);
            }
            Form::Plain => self.plain(0..self.columns.places(), row, out),
        }
    }

    /// Some pixels of a row, on any processor.
    pub(super) fn plain(&self, pixels: Range<usize>, row: &[f32], out: &mut Places) {
        for place in pixels {
            let pixel = &mut out[place * self.channels..][..self.channels];
            for (channel, to) in pixel.iter_mut().enumerate() {
                let taps = self.columns.taps(place).iter();
                to.write(taps.fold(0.0, |sum, (x, weight)| sum + row[x * self.channels + channel] * weight));
            }
        }
    }

    /// What a tap of a pixel weighs; nothing where it has fewer.
    pub(super) fn weight(&self, place: usize, tap: usize) -> f32 {
        self.columns.taps(place).get(tap).map_or(0.0, |(_, weight)| *weight)
    }

    /// Where in a row of the source the first tap of a pixel begins.
    pub(super) fn first(&self, place: usize) -> usize {
        self.columns.taps(place)[0].0 * self.channels
    }

    /// Whether the taps of a pixel are neighbours.
    pub(super) fn is_together(&self, place: usize) -> bool {
        self.columns.taps(place).windows(2).all(|pair| pair[1].0 == pair[0].0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ops::cpu::resample::tests::written, resize::Kernel};

    /// All forms this processor has.
    fn forms(pick: &Pick) -> Vec<Form> {
        let mut forms = vec![Form::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::super::{avx2, avx512};
            forms.extend(avx2::has_f32().then(|| Form::Pairs(Pairs::of(pick))));
            forms.extend(avx2::has_f32().then(|| Permuted::<8>::of(pick)).flatten().map(Form::Avx2));
            forms.extend(avx512::has_f32().then(|| Permuted::<16>::of(pick)).flatten().map(Form::Avx512));
        }
        forms
    }

    #[test]
    fn vectors_give_what_the_plain_form_does() {
        let mut most = 0;
        for kernel in [Kernel::Nearest, Kernel::Linear, Kernel::Area, Kernel::Covered, Kernel::Cubic] {
            for (width, to) in
                [(3, 20), (10, 10), (64, 200), (64, 48), (65, 47), (100, 37), (200, 9), (30, 8), (300, 299)]
            {
                for channels in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17] {
                    let columns = Axis::new(kernel, width, to);
                    let mut pick = Pick::new(&columns, width, channels);
                    let forms = forms(&pick);
                    most = most.max(forms.len());
                    let row: Vec<f32> = (0..pick.line).map(|i| (i * 31 % 97) as f32 / 7.0).collect();
                    let mut plain = vec![f32::NAN; pick.length];
                    pick.plain(0..to, &row, written(&mut plain));
                    for form in forms {
                        pick.form = form;
                        let mut fast = vec![f32::NAN; pick.length];
                        pick.row(&row, written(&mut fast));
                        assert_eq!(fast, plain, "{kernel:?}, {width} to {to}, {channels} channels");
                    }
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::super::{avx2, avx512};
            assert_eq!(most, 1 + 2 * usize::from(avx2::has_f32()) + usize::from(avx512::has_f32()));
        }
    }
}
