//! Values as bytes, bit for bit, and back.
//!
//! Numbers are little-endian. What is read may come from anybody: a size is believed once the bytes it speaks of are there.

use candle_core::{DType, Device, Tensor};
use flow_diffusion::conditioning::{Area, Cond, Rect, Region, RegionMask, Sizes};
use flow_diffusion::inpaint::NoiseMask;
use flow_graph::Hash;

use super::Mask;

/// The most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// The number types of tensors on wires; their place is how they are written.
const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Collects the bytes of a value.
#[derive(Default)]
pub(super) struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn size(&mut self, size: usize) {
        self.bytes.extend_from_slice(&(size as u64).to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.size(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// `None` is one byte 0, something is 1 and what `write` writes; `write` gives `None` for what cannot be stored.
    pub fn optional<T>(
        &mut self,
        value: Option<T>,
        write: impl FnOnce(&mut Self, T) -> Option<()>,
    ) -> Option<()> {
        self.bytes.push(value.is_some().into());
        value.map_or(Some(()), |value| write(self, value))
    }

    /// Values with their sizes; as many as the sizes say.
    pub fn grid<const N: usize>(&mut self, dims: [usize; N], values: &[f32]) {
        dims.into_iter().for_each(|dim| self.size(dim));
        self.floats(values);
    }

    pub fn mask(&mut self, mask: &Mask) {
        self.grid([mask.frames, mask.height, mask.width], &mask.values);
    }

    /// A tensor of any device; `None` when its numbers are of another type than wires carry.
    pub fn tensor(&mut self, tensor: &Tensor) -> Option<()> {
        let dtype = DTYPES.iter().position(|dtype| *dtype == tensor.dtype())?;
        // 16-bit numbers are exact in f32.
        let wide = tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.to_dtype(DType::F32));
        let values = wide.and_then(|wide| wide.flatten_all()?.to_vec1::<f32>()).ok()?;
        self.bytes.extend_from_slice(&[dtype as u8, tensor.rank() as u8]);
        tensor.dims().iter().for_each(|dim| self.size(*dim));
        self.floats(&values);
        Some(())
    }

    /// One prompt; `None` when it has a ControlNet, which is a handle, or a picture, which is quicker made than read.
    pub fn cond(&mut self, cond: &Cond) -> Option<()> {
        let Cond {
            context,
            pooled,
            sizes,
            aesthetic_score,
            concat,
            controls,
            control_to_uncond,
            start_percent,
            end_percent,
            region,
        } = cond;
        if !controls.is_empty() || concat.is_some() {
            return None;
        }
        self.tensor(context)?;
        self.optional(pooled.as_ref(), |writer, pooled| writer.tensor(pooled))?;
        self.optional(*sizes, |writer, sizes| {
            let Sizes { height, width, crop_top, crop_left, target_height, target_width } = sizes;
            for size in [height, width, crop_top, crop_left, target_height, target_width] {
                writer.bytes.extend_from_slice(&size.to_le_bytes());
            }
            Some(())
        })?;
        self.bytes.push((*control_to_uncond).into());
        self.bytes.extend_from_slice(&start_percent.to_le_bytes());
        self.bytes.extend_from_slice(&end_percent.to_le_bytes());
        self.optional(*aesthetic_score, |writer, score| {
            writer.bytes.extend_from_slice(&score.to_le_bytes());
            Some(())
        })?;
        self.region(region)
    }

    fn region(&mut self, Region { area, strength, mask }: &Region) -> Option<()> {
        self.optional(*area, |writer, area| {
            match area {
                Area::Cells(Rect { top, left, height, width }) => {
                    writer.bytes.push(0);
                    [top, left, height, width].into_iter().for_each(|side| writer.size(side));
                }
                Area::Shares { top, left, height, width } => {
                    writer.bytes.push(1);
                    [top, left, height, width].into_iter().for_each(|side| writer.float(side));
                }
            }
            Some(())
        })?;
        self.float(*strength);
        self.optional(mask.as_ref(), |writer, RegionMask { mask, strength, bounds }| {
            let (dims, values) = mask.parts();
            writer.grid(dims, values);
            writer.float(*strength);
            writer.bytes.push((*bounds).into());
            Some(())
        })
    }

    pub fn float(&mut self, float: f64) {
        self.bytes.extend_from_slice(&float.to_le_bytes());
    }

    fn floats(&mut self, values: &[f32]) {
        self.bytes.reserve(values.len() * 4);
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
}

/// What is left to read of a value; every method gives `None` where it does not go on as it should.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn size(&mut self) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).ok()
    }

    pub fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        let len = self.size()?;
        std::str::from_utf8(self.take(len)?).ok()
    }

    pub fn hash(&mut self) -> Option<Hash> {
        self.array().map(Hash::from_bytes)
    }

    pub fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    pub fn grid<const N: usize>(&mut self) -> Option<([usize; N], Vec<f32>)> {
        let mut dims = [0; N];
        for dim in &mut dims {
            *dim = self.size()?;
        }
        let values = self.floats(&dims)?;
        Some((dims, values))
    }

    pub fn mask(&mut self) -> Option<Mask> {
        let ([frames, height, width], values) = self.grid()?;
        Some(Mask::new(frames, height, width, values))
    }

    pub fn tensor(&mut self, device: &Device) -> Option<Tensor> {
        let [dtype, rank] = self.array()?;
        let dtype = *DTYPES.get(usize::from(dtype))?;
        let rank = usize::from(rank);
        if rank > MAX_RANK {
            return None;
        }
        let dims = (0..rank).map(|_| self.size()).collect::<Option<Vec<_>>>()?;
        let values = self.floats(&dims)?;
        let wide = Tensor::from_vec(values, dims, &Device::Cpu);
        wide.and_then(|wide| wide.to_dtype(dtype)?.to_device(device)).ok()
    }

    pub fn cond(&mut self, device: &Device) -> Option<Cond> {
        Some(Cond {
            context: self.tensor(device)?,
            pooled: self.optional(|reader| reader.tensor(device))?,
            sizes: self.optional(|reader| {
                let mut size = || reader.number();
                Some(Sizes {
                    height: size()?,
                    width: size()?,
                    crop_top: size()?,
                    crop_left: size()?,
                    target_height: size()?,
                    target_width: size()?,
                })
            })?,
            concat: None,
            controls: Vec::new(),
            control_to_uncond: self.flag()?,
            start_percent: self.float()?,
            end_percent: self.float()?,
            aesthetic_score: self.optional(|reader| reader.array().map(f32::from_le_bytes))?,
            region: self.region()?,
        })
    }

    fn region(&mut self) -> Option<Region> {
        let area = self.optional(|reader| match reader.array()? {
            [0] => Some(Area::Cells(Rect {
                top: reader.size()?,
                left: reader.size()?,
                height: reader.size()?,
                width: reader.size()?,
            })),
            [1] => Some(Area::Shares {
                top: reader.float()?,
                left: reader.float()?,
                height: reader.float()?,
                width: reader.float()?,
            }),
            _ => None,
        })?;
        let strength = self.float()?;
        let mask = self.optional(|reader| {
            let ([frames, height, width], values) = reader.grid()?;
            let mask = NoiseMask::new(frames, height, width, values.into()).ok()?;
            Some(RegionMask { mask, strength: reader.float()?, bounds: reader.flag()? })
        })?;
        Some(Region { area, strength, mask })
    }

    pub fn float(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    /// Nothing may follow.
    pub fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// As many numbers as the sizes say; there is no value without any.
    fn floats(&mut self, dims: &[usize]) -> Option<Vec<f32>> {
        let count = dims.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim))?;
        let bytes = self.take(count.checked_mul(4).filter(|len| *len > 0)?)?;
        let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes"));
        Some(bytes.chunks_exact(4).map(float).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flow_diffusion::{Runtime, conditioning};
    use flow_graph::{Context, Port};

    use super::*;
    use crate::ports::{Conditioning, Image, Latent, MAX_DRAWS};

    fn cx() -> Context {
        Context::new(Arc::default()).with_resource(Arc::new(Runtime::cpu()))
    }

    fn tensor(dtype: DType, dims: &[usize]) -> Tensor {
        let count: usize = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 - 3.0) / 7.0).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).and_then(|tensor| tensor.to_dtype(dtype)).unwrap()
    }

    fn again<P: Port>(value: &P) -> P {
        P::load(&value.store(&cx()).expect("it can be stored"), &cx()).expect("it comes back")
    }

    #[test]
    fn pictures_and_masks_come_back_bit_for_bit() {
        let rgb = [0.1, -0.0, f32::MIN_POSITIVE, f32::INFINITY, 1.0 / 3.0, 1e-40];
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let image = again(&Image::new(1, 2, 1, rgb.to_vec()));
        assert_eq!((image.frames, image.height, image.width, bits(&image.rgb)), (1, 2, 1, bits(&rgb)));
        let mask = Mask::new(2, 1, 3, rgb.to_vec());
        assert_eq!((again(&mask).content(), bits(&again(&mask).values)), (mask.content(), bits(&rgb)));
    }

    #[test]
    fn latents_come_back_with_and_without_a_mask() {
        let bare = Latent::new(tensor(DType::F32, &[2, 4, 3, 1]));
        assert_eq!(again(&bare).content(), bare.content());
        let masked = Latent { noise_mask: Some(Arc::new(Mask::none())), ..bare.clone() };
        assert_eq!(again(&masked).content(), masked.content());
        assert_ne!(masked.content(), bare.content());
        let numbered = Latent { batch_index: Some([3, 1].into()), ..masked.clone() };
        assert_eq!(again(&numbered).batch_index.as_deref(), Some(&[3, 1][..]));
        assert_eq!(again(&numbered).content(), numbered.content());
        assert_ne!(numbered.content(), masked.content());
        let far = Latent { batch_index: Some([0, MAX_DRAWS].into()), ..bare };
        assert!(Latent::load(&far.store(&cx()).unwrap(), &cx()).is_none());
    }

    #[test]
    fn prompts_come_back_in_their_number_type() {
        for dtype in DTYPES {
            let mut prompts =
                conditioning::Conditioning::text(tensor(dtype, &[1, 2, 3]), Some(tensor(dtype, &[1, 4])));
            prompts.0.push(prompts.0[0].clone());
            let second = &mut prompts.0[1];
            let sizes =
                Sizes { height: 1, width: 2, crop_top: 3, crop_left: 4, target_height: 5, target_width: 6 };
            (second.pooled, second.sizes, second.end_percent) = (None, Some(sizes), 0.3);
            second.aesthetic_score = Some(6.5);
            let mask = NoiseMask::new(1, 1, 2, vec![0.5, 1.0].into()).unwrap();
            second.region = Region {
                area: Some(Area::Shares { top: 0.1, left: 0.2, height: 0.3, width: 0.4 }),
                strength: 0.5,
                mask: Some(RegionMask { mask, strength: 0.7, bounds: true }),
            };
            prompts.0[0].region.area = Some(Area::Cells(Rect { top: 1, left: 2, height: 3, width: 4 }));
            let wanted = format!("{prompts:?}");
            let back = again(&Conditioning(prompts.clone()));
            assert_eq!(format!("{:?}", back.0), wanted);
            let values = |prompts: &conditioning::Conditioning| {
                let context = prompts.0[0].context.to_dtype(DType::F32).unwrap();
                context.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            assert_eq!((back.0.0[0].context.dtype(), values(&back.0)), (dtype, values(&prompts)));
        }
    }

    #[test]
    fn damaged_bytes_give_none_and_no_panic() {
        let latent = Latent {
            noise_mask: Some(Arc::new(Mask::none())),
            ..Latent::new(tensor(DType::F32, &[1, 4, 1, 1]))
        };
        let whole = latent.store(&cx()).unwrap();
        for len in 0..whole.len() {
            assert!(Latent::load(&whole[..len], &cx()).is_none(), "cut at {len}");
        }
        for (at, lie) in [(0, 9), (1, 200), (2, 0), (2, 255), (9, 255)] {
            let mut damaged = whole.clone();
            damaged[at] = lie;
            assert!(Latent::load(&damaged, &cx()).is_none(), "byte {at} is {lie}");
        }
        let huge = [u64::MAX, u64::MAX, 2, 3].map(u64::to_le_bytes).concat();
        assert!(Image::load(&huge, &cx()).is_none());
        assert!(Conditioning::load(&u64::MAX.to_le_bytes(), &cx()).is_none());
    }
}
