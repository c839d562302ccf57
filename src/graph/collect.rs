//! `collect`: what the items of an `each` gave, joined into one value once all of them have run.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Args, Context, Hash, InputSpec, Lane, NodeDef, NodeError, NodeId, OutputSpec, Port, Socket, Value,
    node::Arg,
};

/// The one input of a node that joins.
pub(crate) const ITEMS: &str = "items";

/// What the items gave so far, by the node that joins it.
#[derive(Clone, Debug, Default)]
pub struct Collected(BTreeMap<NodeId, Vec<(usize, Value)>>);

impl Collected {
    /// Adds what the item of a run gave; runs come in their order.
    pub fn add(&mut self, collect: &NodeId, run: usize, value: Value) {
        self.0.entry(collect.clone()).or_default().push((run, value));
    }

    /// Whether the item of a run gave something to a node.
    pub(crate) fn has(&self, collect: &str, run: usize) -> bool {
        self.0.get(collect).is_some_and(|items| items.iter().any(|(other, _)| *other == run))
    }

    /// What is there for a node.
    pub(crate) fn items(&self, collect: &NodeId) -> Arc<[Value]> {
        self.0.get(collect).into_iter().flatten().map(|(_, value)| value.clone()).collect()
    }
}

/// The node that joins values of one type. It is never named in a file: `{ collect: edges }` stands for it.
pub(crate) fn node<P: Port>() -> NodeDef {
    NodeDef {
        kind: "Collect",
        aliases: &[],
        doc: "Joins what all items of an `each` gave.",
        category: "list",
        version: 1,
        lane: Lane::Host,
        loads: None,
        searches: &[],
        inputs: vec![InputSpec {
            name: ITEMS,
            aliases: &[],
            doc: "What each item gave.",
            socket: Socket::Link(P::TYPE),
            default: None,
            comfy_default: None,
            optional: false,
        }],
        outputs: vec![OutputSpec::of::<P>(P::TYPE.to_ascii_lowercase())],
        infer: |known| Ok(vec![known.facts.get(ITEMS).cloned().unwrap_or_default()]),
        mentions: |_| Vec::new(),
        run: joined::<P>,
    }
}

fn joined<P: Port>(mut args: Args, _cx: &Context, key: Hash) -> Result<Vec<Value>, NodeError> {
    let items: Arc<[Value]> = match args.remove(ITEMS) {
        Some(Arg::Items(items)) => items,
        // One item stands for all where a plan is only looked at.
        Some(Arg::Value(value)) => Arc::new([value]),
        _ => Arc::new([]),
    };
    let items = items.iter().map(Value::get::<P>).collect::<Option<Vec<_>>>();
    let items = items.filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| NodeError::on(ITEMS, "no item gave anything to collect"))?;
    Ok(vec![Value::new(P::join(&items)?, key, 0)])
}
