//! Which nodes of a canvas run: what is on, has what it needs, and leads to a result.

use std::sync::Arc;

use super::{
    Drawn,
    sheet::{Role, Sheets},
    span,
};
use crate::{Diagnostic, diag::Source};

/// Names shown of what is left out.
const SHOWN: usize = 8;

/// Nodes that are left out, and why.
pub(super) struct LeftOut {
    nodes: Vec<usize>,
    why: &'static str,
}

/// Keeps what runs, and says what does not: nodes that need a switched-off one, as ComfyUI leaves them out, and nodes
/// whose results nobody saves or shows, which it does not look at.
pub(super) fn what_runs(sheets: &Sheets, drawn: &mut [Drawn]) -> impl Iterator<Item = LeftOut> + use<> {
    let starved = starve(drawn);
    let is_sink =
        |node: usize| sheets.nodes[node].outputs.is_empty() && sheets.nodes[node].role == Role::Plain;
    let mut stack: Vec<_> = (0..drawn.len()).filter(|node| drawn[*node].kept && is_sink(*node)).collect();
    let mut idle = Vec::new();
    // Without a sink the check has more to say than that nothing is left.
    if !stack.is_empty() {
        let mut needed = vec![false; drawn.len()];
        while let Some(node) = stack.pop() {
            if !std::mem::replace(&mut needed[node], true) {
                stack.extend(drawn[node].needs.iter().map(|need| need.producer));
            }
        }
        idle = (0..drawn.len()).filter(|node| drawn[*node].kept && !needed[*node]).collect();
        for node in &idle {
            drawn[*node].kept = false;
        }
    }
    let needs = LeftOut { nodes: starved, why: "needing a muted one" };
    let idle = LeftOut { nodes: idle, why: "needed by no result" };
    [needs, idle].into_iter().filter(|left_out| !left_out.nodes.is_empty())
}

/// Leaves out what needs a node that is not there; gives what was.
fn starve(drawn: &mut [Drawn]) -> Vec<usize> {
    let mut users: Vec<Vec<(usize, bool)>> = vec![Vec::new(); drawn.len()];
    for (node, own) in drawn.iter().enumerate() {
        for need in &own.needs {
            users[need.producer].push((node, need.optional));
        }
    }
    let mut stack: Vec<_> =
        (0..drawn.len()).filter(|node| drawn[*node].kept && drawn[*node].starved).collect();
    let mut starved = Vec::new();
    while let Some(node) = stack.pop() {
        if std::mem::replace(&mut drawn[node].kept, false) {
            starved.push(node);
            stack.extend(users[node].iter().filter(|(_, optional)| !optional).map(|(user, _)| *user));
        }
    }
    starved.sort_unstable();
    for node in &starved {
        for (user, _) in &users[*node] {
            let own = &mut drawn[*user];
            let gone = own.needs.extract_if(.., |need| need.producer == *node);
            for need in gone {
                own.fields.retain(|field| field.name != need.input);
            }
        }
    }
    starved
}

impl LeftOut {
    /// One warning for all of them, at the first.
    pub(super) fn warning(&self, sheets: &Sheets, source: &Arc<Source>) -> Diagnostic {
        let name = |node: &usize| format!("`{}` ({})", sheets.nodes[*node].id, sheets.nodes[*node].class);
        let shown: Vec<_> = self.nodes.iter().take(SHOWN).map(name).collect();
        let more = self.nodes.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = match self.nodes.len() {
            1 => "1 node is".to_owned(),
            n => format!("{n} nodes are"),
        };
        let first = self.nodes.first().map(|node| span(source, &sheets.nodes[*node].range));
        Diagnostic::warning("left-out", format!("{what} left out, {}: {}{more}", self.why, shown.join(", ")))
            .at(first)
    }
}
