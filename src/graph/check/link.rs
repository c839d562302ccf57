//! References: `node`, `node.output`, `$models.alias` and ComfyUI's `["4", 0]`.

use crate::{
    Diagnostic, Literal, NodeDef, OutputSpec, Socket,
    check::{
        draft::{At, Draft, Resolved},
        scope::Found,
    },
    diag::Span,
    near::{list, near},
    spec::ValueKind,
    workflow::{Dialect, Raw},
};

impl Draft<'_> {
    /// What an input that only a node can fill is linked to.
    pub(super) fn link(&mut self, at: At, ty: &'static str) -> Resolved {
        let found = match &at.field.value {
            Raw::Null => return Resolved::Empty,
            Raw::Link { node, output } => self.numbered(at, node, *output),
            Raw::InPlace(id) => self.in_place(at, id, &[ty]),
            Raw::Collect(inner) => self.collect(at, inner, ty),
            Raw::Map => return self.refuse_map(at),
            Raw::Broken => return Resolved::Broken,
            Raw::Literal(Literal::Text(text)) | Raw::Given(text)
                if self.workflow.dialect == Dialect::Flow =>
            {
                match text.strip_prefix('$') {
                    Some(name) => self.dollar(at, ty, name),
                    None => self.reference(at, text, &[ty]),
                }
            }
            Raw::Given(text) => self.reference(at, text, &[ty]),
            Raw::Literal(literal) => {
                let (message, hint) = match literal {
                    Literal::List(_) => (format!("{} takes one link, this is a list", self.name(at)), None),
                    other => {
                        let text = other.to_string();
                        let hint = self
                            .ids
                            .contains_key(text.as_str())
                            .then(|| format!("quote the node's name: \"{text}\""));
                        (
                            format!(
                                "{} wants {ty} from a node, found `{text}`, {}",
                                self.name(at),
                                other.describe()
                            ),
                            hint,
                        )
                    }
                };
                let hint = hint.or_else(|| self.who_gives(at, ty));
                self.report(at, Diagnostic::error("link-expected", message).hint(hint));
                None
            }
        };
        let Some((producer, output)) = found else { return Resolved::Broken };
        self.typed(at, producer, output, &[ty])
    }

    /// `$…` where only a node can be: a model alias, or a node after all.
    fn dollar(&mut self, at: At, ty: &'static str, name: &str) -> Option<(usize, usize)> {
        let (message, hint) = match self.scope.find(name.trim_matches(['{', '}'])) {
            Ok(Found::Model(alias)) => return self.loader(at, ty, alias),
            Ok(Found::Node) => return self.reference(at, name, &[ty]),
            Ok(Found::Broken) => return None,
            Ok(Found::Value(_) | Found::Empty) => {
                let hint = format!("give `${name}` to a node that makes {ty} of it, and link that node");
                (format!("{} wants {ty} from a node, `${name}` is a value", self.name(at)), Some(hint))
            }
            Err(error) => {
                let problem = Diagnostic::error(error.id, error.message).hint(error.hint);
                self.report(at, problem);
                return None;
            }
        };
        self.report(at, Diagnostic::error("link-expected", message).hint(hint));
        None
    }

    /// The node that loads a model alias: one for all its uses.
    fn loader(&mut self, at: At, ty: &'static str, alias: &str) -> Option<(usize, usize)> {
        let id = format!("models.{alias}");
        if let Some(known) = self.ids.get(id.as_str()).copied() {
            return self.one_of(at, known, &[ty]);
        }
        let model = self.workflow.models.get(alias)?;
        let folder = model.folder.value.as_str();
        let def = self.registry.loader(folder).cloned();
        let file = def.iter().flat_map(|def| &def.inputs).find_map(|input| match &input.socket {
            Socket::Value(ValueKind::File { folder }) => Some((input.name, *folder)),
            _ => None,
        });
        let (Some(def), Some((input, folder))) = (def, file) else {
            let problem = Diagnostic::error(
                "no-loader",
                format!("no node loads `{folder}`, which `$models.{alias}` is"),
            );
            self.report(at, problem);
            return None;
        };
        let node = self.push(id.as_str().into(), Some(def.clone()), Some(model.file.span.clone()));
        self.nodes[node].input_spans.push((input, model.file.span.clone()));
        match self.file(At { node, field: at.field }, folder, self.scope.model_file(alias), Some(alias)) {
            Resolved::Constant(constant) => {
                self.nodes[node].args.insert(input, constant);
            }
            _ => self.nodes[node].broken = true,
        }
        self.defaults(node, &def, &[input].into());
        self.one_of(at, node, &[ty])
    }

    /// ComfyUI's link: a node and the number of its output.
    pub(super) fn numbered(&mut self, at: At, node: &str, output: usize) -> Option<(usize, usize)> {
        let Some(producer) = self.ids.get(node).copied() else { return self.unknown_node(at, node) };
        let def = self.nodes[producer].def.clone()?;
        if output < def.outputs.len() {
            return Some((producer, output));
        }
        let message = format!(
            "`{node}` ({}) has no output number {output}, it has {}",
            self.kind(producer),
            def.outputs.len()
        );
        self.report(at, Diagnostic::error("unknown-output", message).hint(self.outputs_of(producer)));
        None
    }

    /// A node written in place, by its whole name: `held.negative` may be an output of `held` as well.
    pub(super) fn in_place(&mut self, at: At, id: &str, wanted: &[&'static str]) -> Option<(usize, usize)> {
        // Absent when it was refused while reading.
        let producer = self.ids.get(id).copied()?;
        self.one_of(at, producer, wanted)
    }

    /// `node.output`, or `node` where one output has a wanted type.
    pub(super) fn reference(
        &mut self,
        at: At,
        text: &str,
        wanted: &[&'static str],
    ) -> Option<(usize, usize)> {
        if let Some((node, output)) = text.rsplit_once('.')
            && let Some(producer) = self.ids.get(node).copied()
        {
            let def = self.nodes[producer].def.clone()?;
            if let Some(index) = def.output(output) {
                return Some((producer, index));
            }
            if !self.ids.contains_key(text) {
                let message = format!("`{node}` ({}) has no output `{output}`", self.kind(producer));
                let hint = self.near_output(producer, node, output);
                self.report(at, Diagnostic::error("unknown-output", message).hint(hint));
                return None;
            }
        }
        match self.ids.get(text).copied() {
            Some(producer) => self.one_of(at, producer, wanted),
            None => self.unknown_node(at, text),
        }
    }

    fn unknown_node(&mut self, at: At, text: &str) -> Option<(usize, usize)> {
        let node = text.rsplit_once('.').map_or(text, |(node, _)| node);
        if self.workflow.refused.contains(text) || self.workflow.refused.contains(node) {
            return None;
        }
        let near = if self.crowded() {
            None
        } else {
            near(node, self.ids.keys().map(|id| &**id)).map(str::to_owned)
        };
        let output = text.strip_prefix(node).unwrap_or_default();
        let hint = match near {
            Some(near) => Some(format!("did you mean `{near}{output}`?")),
            None if self.workflow.inputs.contains_key(text) => {
                Some(format!("`{text}` is an input: write `${text}`"))
            }
            None => None,
        };
        self.report(
            at,
            Diagnostic::error("unknown-reference", format!("there is no node `{node}`")).hint(hint),
        );
        None
    }

    /// The one output of a node that has a wanted type.
    fn one_of(&mut self, at: At, producer: usize, wanted: &[&'static str]) -> Option<(usize, usize)> {
        let def = self.nodes[producer].def.clone()?;
        let fitting: Vec<_> =
            (0..def.outputs.len()).filter(|i| wanted.contains(&def.outputs[*i].ty)).collect();
        let id = self.nodes[producer].id.clone();
        match fitting.as_slice() {
            [one] => return Some((producer, *one)),
            [] if wanted.is_empty() && def.outputs.len() == 1 => return Some((producer, 0)),
            [] => {
                let gives: Vec<_> = def.outputs.iter().map(|output| output.ty).collect();
                let gives = if gives.is_empty() { "nothing".to_owned() } else { gives.join(", ") };
                let wants = wanted.join(" or ");
                let message = if wants.is_empty() {
                    format!("`{id}` gives {gives}; say which")
                } else {
                    format!("{} wants {wants}, `{id}` ({}) gives {gives}", self.name(at), self.kind(producer))
                };
                let hint = wanted
                    .first()
                    .and_then(|ty| self.who_gives(at, ty))
                    .or_else(|| self.outputs_of(producer));
                self.report(at, Diagnostic::error("wrong-link", message).hint(hint));
            }
            several => {
                let names: Vec<_> =
                    several.iter().map(|i| format!("{id}.{}", def.outputs[*i].name)).collect();
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let message = format!(
                    "`{id}` ({}) has several outputs of type {}",
                    self.kind(producer),
                    wanted.join(" or ")
                );
                self.report(
                    at,
                    Diagnostic::error("ambiguous-output", message)
                        .hint(format!("write one of {}", list(&names))),
                );
            }
        }
        None
    }

    /// The link, if its type is a wanted one.
    pub(super) fn typed(
        &mut self,
        at: At,
        producer: usize,
        output: usize,
        wanted: &[&'static str],
    ) -> Resolved {
        let Some(def) = self.nodes[producer].def.clone() else { return Resolved::Broken };
        let OutputSpec { name, ty, .. } = &def.outputs[output];
        if wanted.contains(ty) {
            return Resolved::Link { producer, output };
        }
        let id = self.nodes[producer].id.clone();
        let message = format!("{} wants {}, `{id}.{name}` is {ty}", self.name(at), wanted.join(" or "));
        let fitting: Vec<_> = def.outputs.iter().filter(|output| wanted.contains(&output.ty)).collect();
        let hint = match fitting.as_slice() {
            [] => wanted.first().and_then(|ty| self.who_gives(at, ty)),
            [one] => Some(format!("did you mean `{id}.{}`, or just `{id}`?", one.name)),
            [first, ..] => Some(format!("did you mean `{id}.{}`?", first.name)),
        };
        self.report(at, Diagnostic::error("wrong-link", message).hint(hint));
        Resolved::Broken
    }

    fn who_gives(&self, at: At, ty: &str) -> Option<String> {
        if self.crowded() {
            return None;
        }
        let others = self.nodes.iter().enumerate().filter(|(node, _)| *node != at.node);
        let givers = others.filter_map(|(_, node)| {
            let output = node.def.as_ref()?.outputs.iter().find(|output| output.ty == ty)?;
            Some(format!("{}.{}", node.id, output.name))
        });
        let givers: Vec<_> = givers.take(5).collect();
        if !givers.is_empty() {
            let names: Vec<_> = givers.iter().map(String::as_str).collect();
            return Some(format!("{ty} comes from {}", list(&names)));
        }
        let kinds = self.registry.iter().filter(|def| def.outputs.iter().any(|output| output.ty == ty));
        // One that wants such a thing itself is of no help to somebody who has none.
        let wants = |def: &NodeDef| {
            def.inputs
                .iter()
                .any(|input| input.required() && matches!(input.socket, Socket::Link(wanted) if wanted == ty))
        };
        let (changing, making): (Vec<_>, Vec<_>) = kinds.partition(|def| wants(def));
        let kinds: Vec<_> = making.into_iter().chain(changing).map(|def| def.kind).take(5).collect();
        (!kinds.is_empty()).then(|| format!("add a node that gives {ty}: {}", list(&kinds)))
    }

    fn outputs_of(&self, producer: usize) -> Option<String> {
        let def = self.nodes[producer].def.as_ref()?;
        let names: Vec<_> = def.outputs.iter().map(|output| output.name.as_str()).collect();
        if names.is_empty() {
            return Some(format!("{} is run for its effect and gives nothing", self.kind(producer)));
        }
        Some(format!("its outputs: {}", list(&names)))
    }

    fn near_output(&self, producer: usize, node: &str, output: &str) -> Option<String> {
        let def = self.nodes[producer].def.as_ref()?;
        let near = near(output, def.outputs.iter().map(|output| output.name.as_str()));
        near.map(|near| format!("did you mean `{node}.{near}`?")).or_else(|| self.outputs_of(producer))
    }

    /// Whether `node.output` is to be read as that, and not as the name of a node written in place.
    fn names_output(&self, node: &str, output: &str) -> bool {
        let Some(producer) = self.ids.get(node) else { return false };
        let named = self.nodes[*producer].def.as_ref().is_none_or(|def| def.output(output).is_some());
        named || !self.ids.contains_key(format!("{node}.{output}").as_str())
    }

    /// A reference of `outputs:`, where any type will do.
    pub(super) fn output_reference(&mut self, name: &str, text: &str, span: &Span) -> Option<(usize, usize)> {
        let problem = |id, message: String, hint: Option<String>| {
            Diagnostic::error(id, message).at(span.clone()).hint(hint)
        };
        let (node, output) = match text.rsplit_once('.') {
            Some((node, output)) if self.names_output(node, output) => (node, Some(output)),
            _ => (text, None),
        };
        if self.workflow.refused.contains(node) {
            return None;
        }
        let Some(producer) = self.ids.get(node).copied() else {
            let near = near(node.split('.').next().unwrap_or(node), self.ids.keys().map(|id| &**id));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            self.problems.push(problem(
                "unknown-reference",
                format!("output `{name}`: there is no node `{node}`"),
                hint,
            ));
            return None;
        };
        let def = self.nodes[producer].def.clone()?;
        let index = match output {
            Some(output) => def.output(output),
            None if def.outputs.len() == 1 => Some(0),
            None => {
                let message = format!(
                    "output `{name}`: `{node}` ({}) has {} outputs",
                    self.kind(producer),
                    def.outputs.len()
                );
                let id = if def.outputs.is_empty() { "unknown-output" } else { "ambiguous-output" };
                self.problems.push(problem(id, message, self.outputs_of(producer)));
                return None;
            }
        };
        if index.is_none() {
            let output = output.unwrap_or_default();
            let message =
                format!("output `{name}`: `{node}` ({}) has no output `{output}`", self.kind(producer));
            self.problems.push(problem("unknown-output", message, self.near_output(producer, node, output)));
        }
        index.map(|index| (producer, index))
    }
}
