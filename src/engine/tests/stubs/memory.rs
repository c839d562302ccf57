//! Values that lie in a memory of choice.

use flow_graph::{Bytes, Context, Inputs, Node, NodeError, Port};

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
