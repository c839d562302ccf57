//! A graph as an SVG picture.

use std::fmt::Write as _;

use crate::{
    drawing::{Drawing, escaped},
    layout::{HEIGHT, Layout, Point},
};

/// Pixels a letter takes at the size of a node's title.
const LETTER: f64 = 8.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;text-anchor:middle;fill:#1f2933}\
.kind{font-size:11px;fill:#616e7c}.type{font-size:9px;paint-order:stroke;stroke:#fff;stroke-width:3px}\
rect{fill:#f5f7fa;stroke:#9aa5b1}.sink{fill:#e3f8ff;stroke:#40c3f7;stroke-width:2}path{fill:none;stroke-width:2}";

/// Draws a graph from left to right, each link in the colour of its port type.
pub fn svg(drawing: &Drawing) -> String {
    let width = |i: usize| {
        let node = &drawing.nodes[i];
        node.id.chars().count().max(node.kind.chars().count()).max(6) as f64 * LETTER + 20.0
    };
    let layout = Layout::new(drawing, width);
    let (w, h) = (layout.size.0.ceil(), layout.size.1.ceil());
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\">\n\
         <style>{STYLE}</style>\n<rect width=\"{w}\" height=\"{h}\" style=\"fill:#fff;stroke:none\"/>\n"
    );
    for (link, points) in drawing.links.iter().zip(&layout.links) {
        let _ = writeln!(text, "<path d=\"{}\" stroke=\"{}\"/>", curve(points), colour(link.ty));
    }
    for (link, points) in drawing.links.iter().zip(&layout.links) {
        // Beside the consumer: links of one source fan out from one point, so that is where they are apart.
        if let [.., (x0, y0), (x1, y1)] = points[..] {
            let (x, y) = (x0 + (x1 - x0) * 0.68, y0 + (y1 - y0) * 0.82);
            let fill = colour(link.ty);
            let _ = writeln!(
                text,
                "<text class=\"type\" x=\"{x:.1}\" y=\"{:.1}\" style=\"fill:{fill}\">{}</text>",
                y - 3.0,
                link.ty
            );
        }
    }
    for ((node, (x, y)), width) in drawing.nodes.iter().zip(&layout.nodes).zip(&layout.widths) {
        let class = if node.sink { " class=\"sink\"" } else { "" };
        let (left, top) = (x - width / 2.0, y - HEIGHT / 2.0);
        let _ = writeln!(
            text,
            "<rect{class} x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width}\" height=\"{HEIGHT}\" rx=\"6\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n<text class=\"kind\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            y - 3.0,
            escaped(&node.id),
            y + 14.0,
            node.kind
        );
    }
    text.push_str("</svg>\n");
    text
}

/// A smooth line: level where it leaves a point and where it reaches the next.
fn curve(points: &[Point]) -> String {
    let mut path = String::new();
    let Some((x, y)) = points.first() else { return path };
    let _ = write!(path, "M{x:.1} {y:.1}");
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let middle = (x0 + x1) / 2.0;
        let _ = write!(path, "C{middle:.1} {y0:.1} {middle:.1} {y1:.1} {x1:.1} {y1:.1}");
    }
    path
}

/// The colour people know a port type by.
fn colour(ty: &str) -> &'static str {
    match ty {
        "MODEL" => "#8e6fd1",
        "CLIP" => "#c9a400",
        "VAE" => "#e35d5d",
        "CONDITIONING" => "#e08a1e",
        "LATENT" => "#d05bca",
        "IMAGE" => "#3d8fdb",
        "MASK" => "#4ba04f",
        "CONTROL_NET" => "#2aa87e",
        "CLIP_VISION" | "CLIP_VISION_OUTPUT" => "#7a8fb8",
        "IPADAPTER" => "#b0588a",
        _ => "#7b8794",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::{Arrow, Shape};

    #[test]
    fn ids_are_escaped_and_every_node_and_link_is_drawn() {
        let shape = |id: &str, sink| Shape { id: id.to_owned(), kind: "Stub", sink };
        let drawing = Drawing {
            nodes: vec![shape("a<b>", false), shape("save", true)],
            links: vec![Arrow { from: 0, to: 1, ty: "IMAGE" }],
        };
        let text = svg(&drawing);
        assert!(text.contains("a&lt;b&gt;") && !text.contains("a<b>"), "{text}");
        assert_eq!((text.matches("<path").count(), text.matches("rx=\"6\"").count()), (1, 2));
        assert!(text.contains("class=\"sink\"") && text.contains(">IMAGE</text>"));
    }
}
