//! `collect`: what the items of an `each` gave, joined into one value once all of them have run.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Args, Context, Hash, InputSpec, Lane, NodeDef, NodeError, NodeId, OutputSpec, Port, Socket, Value,
    node::Arg,
};

/// The one input of a node that joins.
pub(crate) const ITEMS: &str = "items";

/// What one item gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The item for a person: `photos/a.png`.
    pub item: Arc<str>,
    /// The identity of the value.
    pub id: Hash,
    /// The value; absent where a plan is only looked at.
    pub value: Option<Value>,
}

/// What one item gave, for [`Port::join`].
#[derive(Clone, Debug)]
pub struct Joined<P> {
    /// The item for a person: `photos/a.png`.
    pub item: Arc<str>,
    /// The value.
    pub value: Arc<P>,
}

/// What the items gave so far, by the node that joins it.
#[derive(Clone, Debug, Default)]
pub struct Collected(BTreeMap<NodeId, Vec<(usize, Given)>>);

impl Collected {
    /// Adds what the item of a run gave; runs come in their order.
    pub fn add(&mut self, collect: &NodeId, run: usize, given: Given) {
        self.0.entry(collect.clone()).or_default().push((run, given));
    }

    /// Whether the item of a run gave something to a node.
    pub(crate) fn has(&self, collect: &str, run: usize) -> bool {
        self.0.get(collect).is_some_and(|items| items.iter().any(|(other, _)| *other == run))
    }

    /// What is there for a node.
    pub(crate) fn items(&self, collect: &NodeId) -> Arc<[Given]> {
        self.0.get(collect).into_iter().flatten().map(|(_, given)| given.clone()).collect()
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
    let items: Arc<[Given]> = match args.remove(ITEMS) {
        Some(Arg::Items(items)) => items,
        _ => Arc::new([]),
    };
    let joined =
        |given: &Given| Some(Joined { item: given.item.clone(), value: given.value.as_ref()?.get()? });
    let items = items.iter().map(joined).collect::<Option<Vec<Joined<P>>>>();
    let items = items.filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| NodeError::on(ITEMS, "no item gave anything to collect"))?;
    Ok(vec![Value::new(P::join(&items)?, key, 0)])
}
