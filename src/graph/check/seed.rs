//! `seed_mode:`: what the seed of a node is in this run.

use crate::{
    Constant, Diagnostic, Literal, NodeDef, Socket,
    check::{draft::Draft, settings::drawn},
    spec::ValueKind,
    workflow::SeedMode,
};

/// What seeds are called.
pub(crate) const SEEDS: [&str; 2] = ["seed", "noise_seed"];

/// The seed of a node type, with the least and the greatest one it takes.
pub(crate) fn seed_of(def: &NodeDef) -> Option<(&'static str, i128, i128)> {
    def.inputs.iter().find_map(|input| match input.socket {
        Socket::Value(ValueKind::Int { min, max }) if SEEDS.contains(&input.name) => {
            Some((input.name, min, max))
        }
        _ => None,
    })
}

impl Draft<'_> {
    /// Sets the seeds of nodes with a `seed_mode`.
    pub(super) fn seeds(&mut self) {
        let workflow = self.workflow;
        for (node, (id, raw)) in workflow.nodes.iter().enumerate() {
            let (Some(mode), Some(def)) = (&raw.seed_mode, self.nodes[node].def.clone()) else { continue };
            let wrong = |name, message: String, hint: &str| {
                Diagnostic::error(name, message).at(mode.span.clone()).hint(hint.to_owned()).node(&**id)
            };
            let Some((input, min, max)) = seed_of(&def) else {
                let message = format!("{} has no seed for a `seed_mode`", raw.kind.value);
                self.problems.push(wrong("unknown-input", message, "remove it"));
                self.nodes[node].broken = true;
                continue;
            };
            if self.nodes[node].links.iter().any(|link| link.input == input) {
                let message =
                    format!("`{id}.{input}` is linked: its `seed_mode` has no number to begin with");
                self.problems.push(wrong("literal-expected", message, "write a number, or `$seed`"));
                self.nodes[node].broken = true;
                continue;
            }
            // What is set from outside is what is wanted in this run.
            let set = self.scope.settings.fields.get(id).map_or(&[][..], Vec::as_slice);
            if set.iter().any(|field| def.input(&field.name).is_some_and(|spec| spec.name == input)) {
                continue;
            }
            let Some(Constant::Literal(Literal::Int(written))) = self.nodes[node].args.get(input) else {
                continue;
            };
            let step = i128::from(workflow.step);
            let seed = match mode.value {
                SeedMode::Fixed => continue,
                SeedMode::Increment => written + step,
                SeedMode::Decrement => written - step,
                SeedMode::Random => i128::from(drawn(workflow.entropy, &format!("{id}.{input}"))),
            };
            let seed = min + (seed - min).rem_euclid(max - min + 1);
            if mode.value == SeedMode::Random {
                self.drawn.extend(u64::try_from(seed).map(|seed| (id.clone(), seed)));
            }
            self.nodes[node].args.insert(input, Constant::Literal(Literal::Int(seed)));
        }
    }
}
