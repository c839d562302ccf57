use std::collections::BTreeSet;

#[test]
fn every_node_is_documented_and_called_once() {
    let registry = flow_nodes::registry();
    let mut names = BTreeSet::new();
    for def in registry.iter() {
        assert!(!def.doc.is_empty() && !def.category.is_empty(), "{}", def.kind);
        for name in def.aliases.iter().chain([&def.kind]) {
            assert!(names.insert(*name), "two nodes are called `{name}`");
        }
        let mut inputs = BTreeSet::new();
        for input in &def.inputs {
            assert!(!input.doc.is_empty(), "{}.{}", def.kind, input.name);
            for name in input.aliases.iter().chain([&input.name]) {
                assert!(inputs.insert(*name), "two inputs of {} are called `{name}`", def.kind);
            }
        }
    }
}

#[test]
fn every_default_is_a_value_its_input_takes() {
    use flow_graph::{Literal, Socket, spec::ValueKind};
    for def in flow_nodes::registry().iter() {
        for input in &def.inputs {
            let Socket::Value(kind) = &input.socket else { continue };
            for default in input.default.iter().chain(&input.comfy_default) {
                let fits = match (kind, default) {
                    (ValueKind::Bool, Literal::Bool(_)) | (ValueKind::Text, Literal::Text(_)) => true,
                    (ValueKind::Int { min, max }, Literal::Int(i)) => (min..=max).contains(&i),
                    (ValueKind::Float { min, max }, Literal::Float(x)) => (min..=max).contains(&x),
                    (ValueKind::Choice(words), Literal::Text(word)) => words.contains(&word.as_str()),
                    _ => false,
                };
                assert!(fits, "{}.{} = {default}", def.kind, input.name);
            }
        }
    }
}
