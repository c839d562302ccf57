//! Group nodes, which older files have where newer ones have sub-graphs: the nodes inside are listed under
//! `extra.groupNodes`, without ids and with links by place; what the group node shows of their inputs, outputs and values
//! follows from rules that the editor never writes down.

use std::collections::{HashMap, HashSet};

use super::{
    int_of, list_of,
    sheet::{INPUT_BORDER, Node, Opener, Role, Sheet, Start},
    widgets,
};
use crate::tree::Tree;

/// Which slots inside are joined with which, and what of that the outside sees.
struct Wiring<'t> {
    definition: &'t Tree,
    /// By the node and slot where a link ends: the node and slot where it begins.
    into: HashMap<(usize, usize), (usize, usize)>,
    /// Where links begin.
    from: HashSet<(usize, usize)>,
    /// Outputs that are seen although something inside takes them.
    external: HashSet<(usize, usize)>,
}

/// An input of the group node: its name, and the node and slot inside.
struct Input {
    name: String,
    node: usize,
    slot: usize,
}

impl<'t> Wiring<'t> {
    fn of(definition: &'t Tree) -> Self {
        let number =
            |tree: &Tree, at: usize| usize::try_from(list_of(Some(tree)).get(at).and_then(int_of)?).ok();
        let links = list_of(definition.get("links")).iter().filter_map(|link| {
            Some(((number(link, 2)?, number(link, 3)?), (number(link, 0)?, number(link, 1)?)))
        });
        let into: HashMap<_, _> = links.collect();
        let external = list_of(definition.get("external")).iter();
        let external = external.filter_map(|seen| Some((number(seen, 0)?, number(seen, 1)?))).collect();
        Self { definition, from: into.values().copied().collect(), into, external }
    }

    /// What a person has set for a slot of a node inside: its name, and whether it is seen.
    fn config(&self, node: usize, side: &str, slot: &str) -> (Option<&'t str>, Option<bool>) {
        let all = self.definition.get("config").and_then(|config| config.get(&node.to_string()));
        let own = all.and_then(|own| own.get(side)).and_then(|side| side.get(slot));
        let visible = own.and_then(|own| own.get("visible")).and_then(Tree::literal);
        (own.and_then(|own| own.get("name")).and_then(Tree::text), visible.map(|seen| seen == true.into()))
    }
}

impl<'t> Opener<'t, '_> {
    /// Opens the inside of a group node as a sheet; gives its number.
    pub(super) fn group(&mut self, tree: &'t Tree, prefix: &str, outside: usize, level: usize) -> usize {
        let number = self.sheets.sheets.len();
        let sheet = Sheet { outside: Some(outside), group: true, ..Sheet::default() };
        self.sheets.sheets.push(sheet);
        // The numbers in `sheets.nodes`, by place.
        let mut inside = Vec::new();
        for (place, node) in list_of(tree.get("nodes")).iter().enumerate() {
            if !self.has_room(node) {
                break;
            }
            let before = self.sheets.nodes.len();
            self.node(node, Some(place), prefix, number, level);
            inside.push((before < self.sheets.nodes.len()).then_some(before));
        }
        let wiring = Wiring::of(tree);
        let inputs = self.inputs_of(&wiring, &inside);
        self.connect(number, &wiring, &inside, &inputs);
        // Of a group in a group the outer one says the values first.
        if !self.sheets.sheets[self.sheets.nodes[outside].sheet].group {
            self.values_of(outside, number, &wiring);
        }
        number
    }

    /// Whether the group node shows anything of a node inside.
    fn is_seen(&self, wiring: &Wiring<'_>, place: usize, node: usize) -> bool {
        let (enters, leaves) = (wiring.into.contains_key(&(place, 0)), wiring.from.contains(&(place, 0)));
        match self.sheets.nodes[node].role {
            Role::Note => false,
            Role::Primitive => leaves,
            Role::Reroute => !(enters && leaves) || wiring.external.contains(&(place, 0)),
            Role::Plain | Role::Subgraph(_) => true,
        }
    }

    /// The inputs of the group node: those of all nodes, then those that were values.
    fn inputs_of(&self, wiring: &Wiring<'_>, inside: &[Option<usize>]) -> Vec<Input> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let (mut inputs, mut were_values) = (Vec::new(), Vec::new());
        let nodes = inside.iter().enumerate().filter_map(|(place, node)| Some((place, (*node)?)));
        for (place, number) in nodes.filter(|(place, number)| self.is_seen(wiring, *place, *number)) {
            let node = &self.sheets.nodes[number];
            let mut name_of = |own: &str, title: &str| {
                let (set, visible) = wiring.config(place, "input", own);
                (unique(&mut seen, set.unwrap_or(own), own, title), visible.unwrap_or(true))
            };
            let title = node.title.as_deref().unwrap_or(node.class);
            let as_input: Vec<_> = node.inputs.iter().filter_map(|slot| slot.widget).collect();
            for widget in widgets::names_of(node).into_iter().filter(|name| !as_input.contains(name)) {
                name_of(widget, title);
            }
            for (slot, input) in node.inputs.iter().enumerate() {
                if wiring.into.contains_key(&(place, slot)) {
                    continue;
                }
                if input.widget.is_some() {
                    were_values.push((place, slot, input.name, title));
                } else if let (name, true) = name_of(input.name, title) {
                    inputs.push(Input { name, node: place, slot });
                }
            }
        }
        for (place, slot, own, title) in were_values {
            let set = wiring.config(place, "input", own).0;
            let name = unique(&mut seen, set.unwrap_or(own), own, title);
            inputs.push(Input { name, node: place, slot });
        }
        inputs
    }

    /// Gives the links inside, those through the border included, numbers as a canvas has them.
    fn connect(&mut self, sheet: usize, wiring: &Wiring<'_>, inside: &[Option<usize>], inputs: &[Input]) {
        let mut starts = Vec::new();
        let inner = wiring
            .into
            .iter()
            .map(|(end, (from, slot))| (*end, Start { from: from.to_string(), slot: *slot }));
        let border = inputs.iter().enumerate().map(|(number, input)| {
            ((input.node, input.slot), Start { from: INPUT_BORDER.to_owned(), slot: number })
        });
        // What stands there belongs to the canvas that the group was made on.
        for node in inside.iter().flatten() {
            self.sheets.nodes[*node].inputs.iter_mut().for_each(|input| input.link = None);
        }
        for ((place, slot), start) in inner.chain(border) {
            let node = inside.get(place).copied().flatten();
            if let Some(input) = node.and_then(|node| self.sheets.nodes[node].inputs.get_mut(slot)) {
                input.link = Some(starts.len() as i64);
                starts.push(start);
            }
        }
        let mut outputs = HashMap::new();
        let nodes = inside.iter().enumerate().filter_map(|(place, node)| Some((place, (*node)?)));
        for (place, number) in nodes.filter(|(place, number)| self.is_seen(wiring, *place, *number)) {
            for slot in 0..self.sheets.nodes[number].outputs.len() {
                let taken = wiring.from.contains(&(place, slot)) && !wiring.external.contains(&(place, slot));
                if wiring.config(place, "output", &slot.to_string()).1.unwrap_or(!taken) {
                    outputs.insert(outputs.len(), starts.len() as i64);
                    starts.push(Start { from: place.to_string(), slot });
                }
            }
        }
        let sheet = &mut self.sheets.sheets[sheet];
        sheet.inputs = inputs.iter().map(|input| input.name.clone()).collect();
        sheet.outputs = outputs;
        sheet.links = starts.into_iter().enumerate().map(|(id, start)| (id as i64, start)).collect();
    }

    /// Hands the values of the group node to the nodes inside: it lists theirs one after the other, without those that
    /// have become inputs, which come last or not at all.
    fn values_of(&mut self, outside: usize, sheet: usize, wiring: &Wiring<'t>) {
        let Some(list) = self.sheets.nodes[outside].widgets else { return };
        let list = self.sheets.nodes[outside].given.clone().unwrap_or_else(|| widgets::all(list));
        let mut left = list.iter().copied();
        let mut given = Vec::new();
        let places = 0..list_of(wiring.definition.get("nodes")).len();
        let by_id = &self.sheets.sheets[sheet].by_id;
        let nodes = places.filter_map(|place| Some((place, *by_id.get(&place.to_string())?)));
        for (_, number) in nodes.filter(|(place, number)| self.is_seen(wiring, *place, *number)) {
            let node = &self.sheets.nodes[number];
            let Some(own) = node.widgets else { continue };
            let mut values = widgets::all(own);
            let is_input = |name: &str| node.inputs.iter().any(|slot| slot.widget == Some(name));
            let hidden: HashSet<usize> = match node.role {
                Role::Subgraph(_) => HashSet::new(),
                _ => {
                    let places = widgets::places(&values, &widgets::names_of(node)).into_iter();
                    places.filter(|(name, _)| is_input(name)).flat_map(|(_, place)| place).collect()
                }
            };
            for (_, value) in values.iter_mut().enumerate().filter(|(at, _)| !hidden.contains(at)) {
                let Some(next) = left.next() else { return self.misfit(outside) };
                *value = next;
            }
            given.push((number, values));
        }
        for (number, values) in given {
            self.sheets.nodes[number].given = Some(values);
            let Node { role, class, .. } = self.sheets.nodes[number];
            if let (Role::Subgraph(inside), Some(definition)) = (role, self.grouped(class)) {
                self.values_of(number, inside, &Wiring::of(definition));
            }
        }
    }

    fn misfit(&mut self, outside: usize) {
        let node = &self.sheets.nodes[outside];
        let message = format!("the values of the group node `{}` do not fit the nodes inside", node.id);
        let range = node.range.clone();
        self.refuse(message, &range, "in ComfyUI right-click it, choose Convert To Nodes, and save again");
    }
}

/// A name that no input before it has: with the node's title in front, then with a number too.
fn unique(seen: &mut HashMap<String, usize>, name: &str, own: &str, title: &str) -> String {
    let (mut key, mut unique) = (name.to_owned(), name.to_owned());
    if seen.contains_key(name) {
        key = format!("{title} {own}");
        unique = key.clone();
        if let Some(count) = seen.get(&key) {
            unique = format!("{title} {count} {own}");
        }
    }
    *seen.entry(key).or_insert(1) += 1;
    unique
}
