//! Where a link comes from: past reroutes and bypassed nodes, through the borders of sub-graphs.

use super::{
    sheet::{Mode, Node, Role, Sheets},
    widgets,
};
use crate::tree::Tree;

/// What stands at the beginning of a link.
pub(super) enum Found<'t> {
    /// An output of a node that runs.
    Output { node: usize, output: usize },
    /// A value, of a primitive node or of a sub-graph's input.
    Value(&'t Tree),
    /// A node that has been switched off.
    Off,
    /// Nothing.
    Nothing,
}

/// The next step on the way to the beginning.
enum Step<'t> {
    There(Found<'t>),
    /// On to another link, on this sheet.
    Link(usize, Option<i64>),
}

impl<'t> Sheets<'t> {
    /// Follows a link of a sheet to where it begins; `ty` is the type its end wants.
    pub(super) fn follow(&self, sheet: usize, link: i64, ty: &str) -> Found<'t> {
        let (mut sheet, mut link) = (sheet, link);
        // A way without a circle takes each link once.
        let mut left = self.sheets.iter().map(|sheet| sheet.links.len()).sum::<usize>();
        loop {
            match self.step(sheet, link, ty) {
                Step::There(found) => return found,
                Step::Link(_, None) => return Found::Nothing,
                Step::Link(..) if left == 0 => return Found::Nothing,
                Step::Link(on, Some(next)) => (sheet, link) = (on, next),
            }
            left -= 1;
        }
    }

    fn step(&self, sheet: usize, link: i64, ty: &str) -> Step<'t> {
        let here = &self.sheets[sheet];
        let Some(start) = here.links.get(&link) else { return Step::There(Found::Nothing) };
        if Self::is_input_border(start) {
            return self.outwards(sheet, start.slot);
        }
        let Some(number) = here.by_id.get(&start.from).copied() else { return Step::There(Found::Nothing) };
        let node = &self.nodes[number];
        match (node.mode, node.role) {
            (Mode::Muted, _) => Step::There(Found::Off),
            (_, Role::Reroute) => Step::Link(sheet, node.inputs.first().and_then(|slot| slot.link)),
            (Mode::Bypassed, _) => Step::Link(sheet, past(node, start.slot, ty)),
            (_, Role::Primitive) => match node.inputs.iter().find_map(|slot| slot.link) {
                Some(link) => Step::Link(sheet, Some(link)),
                None => Step::There(widgets::of_primitive(node).map_or(Found::Nothing, Found::Value)),
            },
            (_, Role::Subgraph(inside)) => {
                Step::Link(inside, self.sheets[inside].outputs.get(&start.slot).copied())
            }
            (_, Role::Note) => Step::There(Found::Nothing),
            (_, Role::Plain) => Step::There(Found::Output { node: number, output: start.slot }),
        }
    }

    /// From the input border of a sub-graph to what the node outside has there.
    fn outwards(&self, sheet: usize, slot: usize) -> Step<'t> {
        let here = &self.sheets[sheet];
        let Some(outside) = here.outside.map(|node| &self.nodes[node]) else {
            return Step::There(Found::Nothing);
        };
        let name = here.inputs.get(slot);
        let by_name = outside.inputs.iter().find(|input| name.is_some_and(|name| input.name == *name));
        let Some(input) = by_name.or_else(|| outside.inputs.get(slot)) else {
            return Step::There(Found::Nothing);
        };
        match input.link {
            Some(link) => Step::Link(outside.sheet, Some(link)),
            None if here.group => Step::There(Found::Nothing),
            None => Step::There(widgets::of_subgraph(outside, input).map_or(Found::Nothing, Found::Value)),
        }
    }
}

/// The link past a bypassed node: into its input of the same type, the one opposite first.
fn past(node: &Node, slot: usize, ty: &str) -> Option<i64> {
    let ty = node.outputs.get(slot).copied().filter(|own| *own != "*").unwrap_or(ty);
    let opposite = node.inputs.get(slot);
    let fits = opposite.into_iter().chain(&node.inputs).find(|input| input.ty == ty);
    fits.and_then(|input| input.link)
}
