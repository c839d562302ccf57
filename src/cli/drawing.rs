//! A graph as text for other programs to draw: Graphviz' DOT and Mermaid.

use std::fmt::Write as _;

/// What is drawn: nodes and the links between them.
#[derive(Debug, Default)]
pub struct Drawing {
    /// The nodes, any order.
    pub nodes: Vec<Shape>,
    /// The links.
    pub links: Vec<Arrow>,
}

/// One node.
#[derive(Debug)]
pub struct Shape {
    /// Its id in the workflow.
    pub id: String,
    /// Its type.
    pub kind: &'static str,
    /// It is run for its effect.
    pub sink: bool,
}

/// One link, between nodes by number.
#[derive(Debug)]
pub struct Arrow {
    /// The node whose value it carries.
    pub from: usize,
    /// The node that takes it.
    pub to: usize,
    /// The port type.
    pub ty: &'static str,
}

impl Drawing {
    /// Graphviz' language.
    pub fn dot(&self) -> String {
        let mut text = String::from(
            "digraph flow {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n",
        );
        for (i, node) in self.nodes.iter().enumerate() {
            let style = if node.sink { ", style=\"rounded,bold\"" } else { "" };
            let _ =
                writeln!(text, "  n{i} [label={}{style}];", quoted(&format!("{}\n{}", node.id, node.kind)));
        }
        for link in &self.links {
            let _ = writeln!(text, "  n{} -> n{} [label={}];", link.from, link.to, quoted(link.ty));
        }
        text.push_str("}\n");
        text
    }

    /// Mermaid's language, as Markdown pages show it.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (i, node) in self.nodes.iter().enumerate() {
            let (open, close) = if node.sink { ("[/", "/]") } else { ("[", "]") };
            let label = escaped(&node.id);
            let _ = writeln!(text, "  n{i}{open}\"{label}<br/><small>{}</small>\"{close}", node.kind);
        }
        for link in &self.links {
            let _ = writeln!(text, "  n{} -->|{}| n{}", link.from, link.ty, link.to);
        }
        text
    }
}

/// A string of DOT.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Text inside XML and Mermaid.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a → b → d, a → c → d, and a straight to d.
    fn diamond() -> Drawing {
        let shape = |id: &str, sink| Shape { id: id.to_owned(), kind: "Stub", sink };
        let arrow = |from, to| Arrow { from, to, ty: "IMAGE" };
        Drawing {
            nodes: vec![shape("a", false), shape("b", false), shape("c<\"x\">", false), shape("d", true)],
            links: vec![arrow(0, 1), arrow(0, 2), arrow(1, 3), arrow(2, 3), arrow(0, 3)],
        }
    }

    #[test]
    fn dot_names_nodes_types_and_quotes() {
        insta::assert_snapshot!(diamond().dot(), @r#"
        digraph flow {
          rankdir=LR;
          node [shape=box, style=rounded, fontname="sans-serif"];
          n0 [label="a\nStub"];
          n1 [label="b\nStub"];
          n2 [label="c<\"x\">\nStub"];
          n3 [label="d\nStub", style="rounded,bold"];
          n0 -> n1 [label="IMAGE"];
          n0 -> n2 [label="IMAGE"];
          n1 -> n3 [label="IMAGE"];
          n2 -> n3 [label="IMAGE"];
          n0 -> n3 [label="IMAGE"];
        }
        "#);
    }

    #[test]
    fn mermaid_names_nodes_types_and_quotes() {
        insta::assert_snapshot!(diamond().mermaid(), @r#"
        flowchart LR
          n0["a<br/><small>Stub</small>"]
          n1["b<br/><small>Stub</small>"]
          n2["c&lt;&quot;x&quot;&gt;<br/><small>Stub</small>"]
          n3[/"d<br/><small>Stub</small>"/]
          n0 -->|IMAGE| n1
          n0 -->|IMAGE| n2
          n1 -->|IMAGE| n3
          n2 -->|IMAGE| n3
          n0 -->|IMAGE| n3
        "#);
    }
}
