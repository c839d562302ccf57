//! Nodes that do little, but enough to see whether they ran.

use std::sync::{Arc, Barrier};

use flow_graph::{CancelToken, Cancelled, Context, File, Inputs, Node, NodeError};

/// A text, whose identity is how it was made.
pub struct Made(pub String);

impl flow_graph::Port for Made {
    const TYPE: &'static str = "MADE";
    const STORED: bool = true;

    fn bytes(&self) -> flow_graph::Bytes {
        flow_graph::Bytes::host(self.0.len())
    }

    fn store(&self, _cx: &Context) -> Option<Vec<u8>> {
        Some(self.0.clone().into_bytes())
    }

    fn load(bytes: &[u8], _cx: &Context) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok().map(Self)
    }
}

/// What only points at something, and is never stored.
pub struct Handle(pub i64);

impl flow_graph::Port for Handle {
    const TYPE: &'static str = "HANDLE";

    fn bytes(&self) -> flow_graph::Bytes {
        flow_graph::Bytes::default()
    }
}

/// Opens something.
#[derive(Inputs)]
#[node(lane = "device")]
pub struct Open {
    /// What.
    what: i64,
}

impl Node for Open {
    type Output = Handle;

    fn run(self, _cx: &Context) -> Result<Handle, NodeError> {
        Ok(Handle(self.what))
    }
}

/// Makes something of a handle.
#[derive(Inputs)]
#[node(lane = "device")]
pub struct Draw {
    /// With this.
    handle: Arc<Handle>,
    /// Another seed, another result.
    #[input(default = 0)]
    seed: i64,
}

impl Node for Draw {
    type Output = Made;

    fn run(self, _cx: &Context) -> Result<Made, NodeError> {
        Ok(Made(format!("{} with seed {}", self.handle.0, self.seed)))
    }
}

/// Makes something on the device, once as many of its kind as the barrier wants run at the same time.
#[derive(Inputs)]
#[node(lane = "device")]
pub struct MeetAndMake {
    /// From this.
    from: i64,
}

impl Node for MeetAndMake {
    type Output = Made;

    fn run(self, cx: &Context) -> Result<Made, NodeError> {
        cx.resource::<Barrier>()?.wait();
        Ok(Made(self.from.to_string()))
    }
}

/// Fails, once as many as the barrier wants run at the same time.
#[derive(Inputs)]
pub struct MeetAndFail {}

impl Node for MeetAndFail {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64, NodeError> {
        cx.resource::<Barrier>()?.wait();
        Err(NodeError::new("on purpose"))
    }
}

/// The size of a made thing and a number.
#[derive(Inputs)]
pub struct Join {
    /// The thing.
    made: Arc<Made>,
    /// The number.
    a: i64,
}

impl Node for Join {
    type Output = i64;

    fn run(self, _cx: &Context) -> Result<i64, NodeError> {
        Ok(self.made.0.len() as i64 + self.a)
    }
}

/// Something made from a number.
#[derive(Inputs)]
pub struct Make {
    /// From this.
    from: i64,
    /// So many bytes.
    #[input(default = 1)]
    size: usize,
}

impl Node for Make {
    type Output = Made;

    fn run(self, _cx: &Context) -> Result<Made, NodeError> {
        Ok(Made(format!("{:0width$}", self.from, width = self.size)))
    }
}

/// A number cut to tens: many inputs, one result.
#[derive(Inputs)]
pub struct Tens {
    /// The number.
    a: i64,
}

impl Node for Tens {
    type Output = i64;

    fn run(self, _cx: &Context) -> Result<i64, NodeError> {
        Ok(self.a / 10 * 10)
    }
}

/// Two outputs.
#[derive(Inputs)]
#[node(outputs("quotient", "rest"))]
pub struct Divide {
    /// Divided.
    a: i64,
    /// By this.
    by: i64,
}

impl Node for Divide {
    type Output = (i64, i64);

    fn run(self, _cx: &Context) -> Result<(i64, i64), NodeError> {
        if self.by == 0 {
            return Err(NodeError::on("by", "cannot divide by 0"));
        }
        Ok((self.a / self.by, self.a % self.by))
    }
}

/// Panics, on rayon's threads where `far` is set.
#[derive(Inputs)]
pub struct Broken {
    /// Its input.
    a: i64,
    /// Panic on another thread than the node's own.
    #[input(default = false)]
    far: bool,
}

impl Node for Broken {
    type Output = i64;

    fn run(self, _cx: &Context) -> Result<i64, NodeError> {
        if self.far {
            rayon::join(|| panic!("far {}", self.a), || panic!("far {}", self.a));
        }
        panic!("near {}", self.a)
    }
}

/// Counts steps on the device, and stops the run at one of them.
#[derive(Inputs)]
#[node(lane = "device")]
pub struct Steps {
    /// How many.
    steps: usize,
    /// Ask the run to stop in this step.
    #[input(default = 0)]
    stop_at: usize,
}

impl Node for Steps {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64, NodeError> {
        for step in 1..=self.steps {
            if step == self.stop_at {
                cx.resource::<CancelToken>()?.cancel();
            }
            cx.progress(step, self.steps)?;
        }
        Ok(self.steps as i64)
    }
}

/// Returns once as many of its kind as the barrier wants run at the same time.
#[derive(Inputs)]
pub struct Meet {
    /// Makes one differ from the other.
    a: i64,
}

impl Node for Meet {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64, NodeError> {
        cx.resource::<Barrier>()?.wait();
        Ok(self.a)
    }
}

/// As [`Meet`], on the device.
#[derive(Inputs)]
#[node(lane = "device")]
pub struct MeetOnDevice {
    /// Any number.
    a: i64,
}

impl Node for MeetOnDevice {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64, NodeError> {
        cx.resource::<Barrier>()?.wait();
        Ok(self.a)
    }
}

/// A sink that writes a number where the test reads it.
#[derive(Inputs)]
pub struct Save {
    /// The number.
    a: i64,
}

impl Node for Save {
    type Output = ();

    fn run(self, cx: &Context) -> Result<(), NodeError> {
        cx.check()?;
        cx.saved(format!("{}.txt", self.a));
        Ok(())
    }
}

/// Measures a made thing.
#[derive(Inputs)]
pub struct Measure {
    /// The thing.
    made: Arc<Made>,
}

impl Node for Measure {
    type Output = i64;

    fn run(self, _cx: &Context) -> Result<i64, NodeError> {
        Ok(self.made.0.len() as i64)
    }
}

/// Is told to stop though nobody asked.
#[derive(Inputs)]
pub struct Quits {}

impl Node for Quits {
    type Output = i64;

    fn run(self, _cx: &Context) -> Result<i64, NodeError> {
        Err(Cancelled.into())
    }
}

/// A node with a file.
#[derive(Inputs)]
pub struct Reads {
    /// The file.
    file: File,
}

impl Node for Reads {
    type Output = i64;

    fn run(self, _cx: &Context) -> Result<i64, NodeError> {
        Ok(self.file.name.len() as i64)
    }
}
