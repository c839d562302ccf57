//! Graphs compared without the names of their nodes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// API JSON as a set of nodes: each its class, its values and, for a link, the node behind it.
pub fn graph(api: &str) -> BTreeSet<String> {
    let api: Value = serde_json::from_str(api).expect("JSON");
    api.as_object().expect("nodes").keys().map(|id| whole(&api, id).to_string()).collect()
}

fn whole(api: &Value, id: &str) -> Value {
    let node = &api[id];
    let inputs = node["inputs"].as_object().expect("inputs").iter().map(|(name, value)| {
        let value = match value.as_array() {
            Some(link) => json!([whole(api, link[0].as_str().expect("an id")), link[1]]),
            None => value.clone(),
        };
        (name.clone(), value)
    });
    json!([node["class_type"], inputs.collect::<BTreeMap<_, _>>()])
}
