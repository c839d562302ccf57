//! Values that lie in a memory of choice.

use std::sync::Arc;

use flow_graph::{Bytes, Context, Inputs, Node, NodeError, Port, Shared};

/// A value of so many bytes somewhere.
pub struct Placed(Bytes);

impl Port for Placed {
    const TYPE: &'static str = "PLACED";

    fn bytes(&self) -> Bytes {
        self.0
    }
}

/// Takes memory.
#[derive(Inputs)]
pub struct Place {
    /// Another number, another value.
    #[expect(dead_code, reason = "an input that only tells values apart")]
    number: i64,
    /// Bytes of main memory.
    host: i64,
    /// Bytes of device memory.
    device: i64,
}

impl Node for Place {
    type Output = Placed;

    fn run(self, _cx: &Context) -> Result<Placed, NodeError> {
        let Self { host, device, .. } = self;
        Ok(Placed(Bytes { host: host.unsigned_abs(), device: device.unsigned_abs() }))
    }
}

/// A handle on a storage that others hold too.
pub struct Handle(Arc<Vec<u8>>);

impl Port for Handle {
    const TYPE: &'static str = "HANDLE";

    fn bytes(&self) -> Bytes {
        Bytes::host(16)
    }

    fn shared(&self) -> Vec<Shared> {
        vec![Shared { address: Arc::as_ptr(&self.0) as usize, bytes: Bytes::host(self.0.len()) }]
    }
}

/// Takes a storage of so many bytes.
#[derive(Inputs)]
pub struct Grab {
    /// Bytes of main memory.
    size: i64,
}

impl Node for Grab {
    type Output = Handle;

    fn run(self, _cx: &Context) -> Result<Handle, NodeError> {
        Ok(Handle(Arc::new(vec![0; usize::try_from(self.size)?])))
    }
}

/// Another handle on the same storage.
#[derive(Inputs)]
pub struct Patch {
    /// The handle.
    handle: Arc<Handle>,
    /// Another number, another value.
    #[expect(dead_code, reason = "an input that only tells values apart")]
    number: i64,
}

impl Node for Patch {
    type Output = Handle;

    fn run(self, _cx: &Context) -> Result<Handle, NodeError> {
        Ok(Handle(self.handle.0.clone()))
    }
}
