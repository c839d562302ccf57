//! What travels along an edge.

use std::{any::Any, fmt, sync::Arc};

use crate::{Context, Hash, NodeError, collect::Joined};

/// How much memory a value holds, for the cache budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Bytes of main memory.
    pub host: u64,
    /// Bytes of device memory.
    pub device: u64,
}

impl Bytes {
    /// A value that lives in main memory only.
    pub fn host(host: usize) -> Self {
        Self { host: host as u64, device: 0 }
    }
}

impl std::ops::Add for Bytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { host: self.host + other.host, device: self.device + other.device }
    }
}

impl std::ops::Sub for Bytes {
    type Output = Self;

    /// What is left of it; never less than nothing.
    fn sub(self, other: Self) -> Self {
        let (host, device) = (self.host.saturating_sub(other.host), self.device.saturating_sub(other.device));
        Self { host, device }
    }
}

/// A storage that several values may hold, such as the keys and values that an adapter gave to a model and to all models
/// made of that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Where it lies: what tells it from others while somebody holds it.
    pub address: usize,
    /// How much memory it is.
    pub bytes: Bytes,
}

/// A type that travels along an edge.
pub trait Port: Send + Sync + 'static {
    /// The socket's type, in ComfyUI's word: `IMAGE`, `LATENT`, ….
    const TYPE: &'static str;

    /// Whether [`Port::content`] may say something: then what a consumer computes is known only once the value is.
    const CONTENT: bool = false;

    /// Whether [`Port::store`] may say something: then a result outlives the process.
    const STORED: bool = false;

    /// Whether [`Port::join`] makes one value of several.
    const JOINED: bool = false;

    /// The memory this value holds on to by itself.
    fn bytes(&self) -> Bytes;

    /// What it holds on to together with other values.
    fn shared(&self) -> Vec<Shared> {
        Vec::new()
    }

    /// Several values as one, in their order: what `collect` gives of the items of an `each`.
    ///
    /// # Errors
    /// When they do not fit together or are too many to hold, on `items`; always, for a type that does not say [`Port::JOINED`].
    fn join(items: &[Joined<Self>]) -> Result<Self, NodeError>
    where
        Self: Sized,
    {
        let _ = items;
        Err(NodeError::new(format!("{} cannot be collected", Self::TYPE)))
    }

    /// A digest of the value itself, where that is cheap: consumers of an equal value need not run again.
    fn content(&self) -> Option<Hash> {
        None
    }

    /// The value as bytes that [`Port::load`] understands, without loss. `None` where it is cheaper to make anew: weights,
    /// and handles that only point at files.
    fn store(&self, cx: &Context) -> Option<Vec<u8>> {
        let _ = cx;
        None
    }

    /// The value of such bytes; `None` when they are no value of this type. They come from a file anybody may have
    /// written, so no number in them is to be believed before it is checked.
    fn load(bytes: &[u8], cx: &Context) -> Option<Self>
    where
        Self: Sized,
    {
        let _ = (bytes, cx);
        None
    }
}

/// One value on an edge: cheap to clone, never mutated.
#[derive(Clone)]
pub struct Value {
    ty: &'static str,
    any: Arc<dyn Any + Send + Sync>,
    bytes: Bytes,
    shared: Arc<[Shared]>,
    id: Hash,
    store: fn(&(dyn Any + Send + Sync), &Context) -> Option<Vec<u8>>,
}

impl Value {
    /// Wraps `value`, which output `index` of the node with `key` gave.
    pub fn new<P: Port>(value: P, key: Hash, index: usize) -> Self {
        let id = value.content().unwrap_or_else(|| Self::made_by(&key, index));
        Self::known(value, id)
    }

    /// Wraps a value whose identity is known from when it was made.
    pub fn known<P: Port>(value: P, id: Hash) -> Self {
        let store = |any: &(dyn Any + Send + Sync), cx: &Context| any.downcast_ref::<P>()?.store(cx);
        let (bytes, shared) = (value.bytes(), value.shared().into());
        Self { ty: P::TYPE, bytes, shared, any: Arc::new(value), id, store }
    }

    /// The identity of a value without content of its own: how it was made, output `index` of the node with `key`.
    pub fn made_by(key: &Hash, index: usize) -> Hash {
        Hash::builder().part(key.as_bytes()).part((index as u64).to_le_bytes()).finish()
    }

    /// See [`Port::store`].
    pub fn store(&self, cx: &Context) -> Option<Vec<u8>> {
        (self.store)(&*self.any, cx)
    }

    /// The port type, e.g. `IMAGE`.
    pub fn ty(&self) -> &'static str {
        self.ty
    }

    /// The memory held, with what is held together with others.
    pub fn bytes(&self) -> Bytes {
        self.shared.iter().fold(self.bytes, |sum, shared| sum + shared.bytes)
    }

    /// The memory held by this value alone.
    pub fn own_bytes(&self) -> Bytes {
        self.bytes
    }

    /// The memory held together with other values.
    pub fn shared(&self) -> &[Shared] {
        &self.shared
    }

    /// The identity that enters the keys of consumers.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// The value as its type, or `None` when it is another one.
    pub fn get<P: Port>(&self) -> Option<Arc<P>> {
        self.any.clone().downcast().ok()
    }
}

/// Values are one when their identities are.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        (self.ty, self.id) == (other.ty, other.id)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.ty, self.id)
    }
}

/// A scalar: its identity and its bytes are those of its text, which for numbers is exact.
macro_rules! scalar {
    ($($ty:ty => $name:literal),*) => {$(
        impl Port for $ty {
            const TYPE: &'static str = $name;
            const CONTENT: bool = true;
            const STORED: bool = true;

            fn bytes(&self) -> Bytes {
                Bytes::host(std::mem::size_of::<Self>())
            }

            fn content(&self) -> Option<Hash> {
                Some(Hash::of(format!("{self:?}").as_bytes()))
            }

            fn store(&self, _cx: &Context) -> Option<Vec<u8>> {
                Some(self.to_string().into_bytes())
            }

            fn load(bytes: &[u8], _cx: &Context) -> Option<Self> {
                std::str::from_utf8(bytes).ok()?.parse().ok()
            }
        }
    )*};
}
scalar!(i64 => "INT", f64 => "FLOAT", bool => "BOOLEAN", String => "STRING");

#[cfg(test)]
mod tests {
    use super::*;

    fn again<P: Port>(value: P) -> Option<P> {
        let cx = Context::new(Arc::default());
        P::load(&value.store(&cx)?, &cx)
    }

    #[test]
    fn scalars_come_back_as_they_were() {
        for number in [0.0, -0.0, 0.1, 1e-300, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY] {
            assert_eq!(again(number).map(f64::to_bits), Some(number.to_bits()));
        }
        assert_eq!((again(i64::MIN), again(true)), (Some(i64::MIN), Some(true)));
        assert_eq!(again(" ä\n".to_owned()).as_deref(), Some(" ä\n"));
    }

    #[test]
    fn bytes_that_are_no_such_scalar_give_none() {
        let cx = Context::new(Arc::default());
        assert_eq!((i64::load(b"1.5", &cx), bool::load(b"", &cx)), (None, None));
        assert_eq!(String::load(&[0xff], &cx), None);
    }
}
