//! What travels along an edge.

use std::{any::Any, fmt, sync::Arc};

use crate::Hash;

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

/// A type that travels along an edge.
pub trait Port: Send + Sync + 'static {
    /// The socket's type, in ComfyUI's word: `IMAGE`, `LATENT`, ….
    const TYPE: &'static str;

    /// The memory this value holds on to.
    fn bytes(&self) -> Bytes;

    /// A digest of the value itself, where that is cheap: consumers of an equal value need not run again.
    fn content(&self) -> Option<Hash> {
        None
    }
}

/// One value on an edge: cheap to clone, never mutated.
#[derive(Clone)]
pub struct Value {
    ty: &'static str,
    any: Arc<dyn Any + Send + Sync>,
    bytes: Bytes,
    id: Hash,
}

impl Value {
    /// Wraps `value`, which output `index` of the node with `key` gave.
    pub fn new<P: Port>(value: P, key: Hash, index: usize) -> Self {
        let id = value
            .content()
            .unwrap_or_else(|| Hash::builder().part(key.as_bytes()).part(index.to_le_bytes()).finish());
        Self { ty: P::TYPE, bytes: value.bytes(), any: Arc::new(value), id }
    }

    /// The port type, e.g. `IMAGE`.
    pub fn ty(&self) -> &'static str {
        self.ty
    }

    /// The memory held.
    pub fn bytes(&self) -> Bytes {
        self.bytes
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

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.ty, self.id)
    }
}

macro_rules! scalar {
    ($($ty:ty => $name:literal),*) => {$(
        impl Port for $ty {
            const TYPE: &'static str = $name;

            fn bytes(&self) -> Bytes {
                Bytes::host(std::mem::size_of::<Self>())
            }

            fn content(&self) -> Option<Hash> {
                Some(Hash::of(format!("{self:?}").as_bytes()))
            }
        }
    )*};
}
scalar!(i64 => "INT", f64 => "FLOAT", bool => "BOOLEAN", String => "STRING");
