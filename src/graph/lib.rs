//! Ports, nodes, the workflow file and its checks: everything about a graph but running it.
//!
//! A text becomes a [`Workflow`] (what the file says, maybe wrong), a workflow becomes a [`Plan`]
//! (what can be run) by [`check`](check::check), and only a plan can be run. No tensor type appears here.

pub mod check;
pub mod collect;
pub mod comfy;
pub mod context;
pub mod convert;
pub mod diag;
mod expr;
pub mod facts;
pub mod files;
mod fit;
mod format;
pub mod hash;
pub mod inputs;
pub mod key;
pub mod literal;
pub mod lock;
mod near;
pub mod node;
pub mod outputs;
pub mod plan;
pub mod port;
mod provenance;
pub mod registry;
pub mod schema;
mod signature;
pub mod spec;
mod stamp;
pub mod sweep;
mod tree;
pub mod workflow;
mod yaml;

pub use check::check;
pub use collect::Collected;
pub use context::{CancelToken, Cancelled, Context, Progress, Report};
pub use diag::{Diagnostic, Diagnostics, Severity};
pub use facts::{Fact, Facts, Known};
pub use files::{File, Files};
pub use flow_macros::{Choice, Inputs};
pub use format::{format, set};
pub use hash::Hash;
pub use inputs::Overrides;
pub use literal::Literal;
pub use near::near;
pub use node::{Args, Inputs, Mention, Node, NodeError, Outputs};
pub use plan::{Constant, Job, Link, NodeId, Plan, PlanOutput};
pub use port::{Bytes, Port, Shared, Value};
pub use registry::{NodeDef, Registry};
pub use schema::schema;
pub use spec::{InputSpec, Lane, OutputSpec, Socket};
pub use stamp::Stamp;
pub use sweep::Sweep;
pub use workflow::{CacheMode, Workflow};

#[cfg(test)]
extern crate self as flow_graph;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{node::Arg, spec::ValueKind};

    struct Picture(u8);

    impl Port for Picture {
        const TYPE: &'static str = "IMAGE";

        fn bytes(&self) -> Bytes {
            Bytes::host(1)
        }
    }

    #[derive(Choice)]
    enum Mode {
        NearestExact,
        #[choice("norm average")]
        NormAverage,
    }

    /// Brightens a picture.
    #[derive(Inputs)]
    #[node(category = "image", alias("ImageBrighten"), outputs("bright", "by"))]
    struct Brighten {
        /// The picture.
        image: Arc<Picture>,
        /// By how much.
        #[input(default = 1, range = 0..=9, alias("by"))]
        amount: u8,
        /// How.
        #[input(default = "norm average")]
        mode: Mode,
        /// A second one.
        mask: Option<Arc<Picture>>,
    }

    impl Node for Brighten {
        type Output = (Picture, i64);

        fn run(self, _cx: &Context) -> Result<Self::Output, NodeError> {
            let extra = u8::from(matches!(self.mode, Mode::NormAverage)) + self.mask.map_or(0, |mask| mask.0);
            Ok((Picture(self.image.0 + self.amount + extra), i64::from(self.amount)))
        }
    }

    #[test]
    fn a_derived_node_declares_itself_and_runs() {
        let mut registry = Registry::new();
        registry.add::<Brighten>();
        let def = registry.get("ImageBrighten").unwrap();
        assert_eq!((def.kind, def.doc, def.category), ("Brighten", "Brightens a picture.", "image"));
        assert_eq!((def.outputs[1].name.as_str(), def.outputs[1].ty), ("by", "INT"));
        assert_eq!(def.input("by").unwrap().socket, Socket::Value(ValueKind::Int { min: 0, max: 9 }));
        assert_eq!(Mode::NAMES, ["nearest_exact", "norm average"]);
        assert_eq!(Mode::NearestExact.name(), "nearest_exact");
        assert!(def.input("image").unwrap().required() && !def.input("mask").unwrap().required());

        let key = Hash::of(b"key");
        let mut args = Args::default();
        args.set("image", Arg::Value(Value::new(Picture(3), key, 0)));
        args.set("amount", Arg::Literal(Literal::Int(2)));
        args.set("mode", Arg::Literal("norm average".into()));
        let cx = Context::new(Arc::default());
        let values = (def.run)(args, &cx, key).unwrap();
        assert_eq!(values[0].get::<Picture>().unwrap().0, 6);
        assert_eq!(*values[1].get::<i64>().unwrap(), 2);
    }
}
