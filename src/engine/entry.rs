//! The format of one result on disk: which outputs a job gave, and their bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `flowres\n` |
//! | 4 | version of this format |
//! | 32 | the job's key |
//! | 4 | how many outputs |
//! | 40 each | an output's identity and how many bytes it has; `u64::MAX`: they are not kept |
//! | 32 | blake3 of the body |
//! | 32 | blake3 of all above: the head can be believed without reading the body |
//! | … | the body: the outputs' bytes, one after the other |
//!
//! Numbers are little-endian. A file is believed only as far as it agrees with its checksums and its length.

use std::{io::Read, ops::Range};

use flow_graph::Hash;

const MAGIC: &[u8; 8] = b"flowres\n";
const FORMAT: u32 = 1;

/// A node has few outputs; more is damage.
const MAX_OUTPUTS: usize = 64;

/// What stands for the length of an output that is not kept.
const ABSENT: u64 = u64::MAX;

const FIXED: usize = 8 + 4 + 32 + 4;
const EACH: usize = 32 + 8;
const SUMS: usize = 32 + 32;

/// What an entry says before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The outputs' identities, and where in the body their bytes are.
    pub outputs: Vec<(Hash, Option<Range<usize>>)>,
    body: Hash,
    body_len: u64,
}

impl Head {
    /// Reads the head of an entry for `key` from a file of `len` bytes, and no byte further. `None`: it is none, or damaged.
    pub(crate) fn read(file: &mut impl Read, len: u64, key: &Hash) -> Option<Self> {
        let mut bytes = vec![0; FIXED];
        file.read_exact(&mut bytes).ok()?;
        let (magic, rest) = bytes.split_at(8);
        let (format, rest) = rest.split_at(4);
        let (own, count) = rest.split_at(32);
        let count = u32::from_le_bytes(count.try_into().ok()?) as usize;
        if magic != MAGIC || format != FORMAT.to_le_bytes() || own != key.as_bytes() || count > MAX_OUTPUTS {
            return None;
        }
        bytes.resize(FIXED + count * EACH + SUMS, 0);
        file.read_exact(&mut bytes[FIXED..]).ok()?;
        let (said, sum) = bytes.split_at(bytes.len() - 32);
        if Hash::of(said).as_bytes() != sum {
            return None;
        }
        let mut outputs = Vec::with_capacity(count);
        let mut end = 0u64;
        for output in said[FIXED..FIXED + count * EACH].chunks_exact(EACH) {
            let size = u64::from_le_bytes(output[32..].try_into().ok()?);
            let range = if size == ABSENT {
                None
            } else {
                let start = end;
                end = end.checked_add(size)?;
                Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
            };
            outputs.push((hash(&output[..32])?, range));
        }
        let body = hash(&said[said.len() - 32..])?;
        (len.checked_sub(bytes.len() as u64) == Some(end)).then_some(Self { outputs, body, body_len: end })
    }

    /// Whether all outputs are in the body.
    pub(crate) fn is_whole(&self) -> bool {
        self.outputs.iter().all(|(_, range)| range.is_some())
    }

    /// Reads the body that follows; `None` when it is damaged. The file was found as long as the head says.
    pub(crate) fn body(&self, file: &mut impl Read) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.body_len).ok()?);
        file.take(self.body_len).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 == self.body_len && Hash::of(&bytes) == self.body).then_some(bytes)
    }
}

/// An entry's bytes, from the outputs' identities and, where they are kept, values.
pub(crate) fn encode(key: &Hash, outputs: &[(Hash, Option<Vec<u8>>)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED + outputs.len() * EACH + SUMS);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&(outputs.len() as u32).to_le_bytes());
    let mut body = Vec::new();
    for (id, value) in outputs {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&value.as_ref().map_or(ABSENT, |value| value.len() as u64).to_le_bytes());
        body.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    bytes.extend_from_slice(Hash::of(&body).as_bytes());
    let sum = Hash::of(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes.append(&mut body);
    bytes
}

fn hash(bytes: &[u8]) -> Option<Hash> {
    Some(Hash::from_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Hash {
        Hash::of(b"key")
    }

    fn sample() -> Vec<u8> {
        let ids = ["a", "b", "c"].map(|name| Hash::of(name.as_bytes()));
        encode(&key(), &[(ids[0], Some(b"hello".to_vec())), (ids[1], None), (ids[2], Some(b"!".to_vec()))])
    }

    /// All outputs of an entry, or `None` when it is damaged.
    fn decoded(bytes: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
        let mut rest = bytes;
        let head = Head::read(&mut rest, bytes.len() as u64, &key())?;
        let body = head.body(&mut rest)?;
        Some(head.outputs.into_iter().map(|(_, range)| Some(body[range?].to_vec())).collect())
    }

    #[test]
    fn an_entry_comes_back() {
        let wanted = vec![Some(b"hello".to_vec()), None, Some(b"!".to_vec())];
        assert_eq!(decoded(&sample()), Some(wanted));
        assert_eq!(decoded(&encode(&key(), &[])), Some(Vec::new()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let whole = sample();
        for byte in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[byte] ^= 1 << bit;
                assert_eq!(decoded(&damaged), None, "bit {bit} of byte {byte}");
            }
            assert_eq!(decoded(&whole[..byte]), None, "cut at {byte}");
        }
        assert_eq!(decoded(&[whole, vec![0]].concat()), None, "a byte too many");
    }

    #[test]
    fn lengths_that_lie_allocate_nothing() {
        for lie in [u64::MAX - 1, 1 << 62, 1 << 40, 6] {
            let mut bytes = sample();
            bytes[FIXED + 32..FIXED + 40].copy_from_slice(&lie.to_le_bytes());
            let end = FIXED + 3 * EACH + 32;
            let sum = Hash::of(&bytes[..end]);
            bytes[end..end + 32].copy_from_slice(sum.as_bytes());
            assert_eq!(decoded(&bytes), None, "{lie}");
        }
    }

    #[test]
    fn another_keys_entry_is_none() {
        let bytes = sample();
        assert_eq!(Head::read(&mut &*bytes, bytes.len() as u64, &Hash::of(b"other")), None);
    }
}
