//! `flow graph`: a drawing of what would run.

use anyhow::Result;
use flow_graph::Plan;

use crate::{
    Ending,
    drawing::{Arrow, Drawing, Shape},
    load::{Load, show},
    output,
    svg::svg,
};

/// Draws the graph of a workflow, with the type of each link
#[derive(Debug, clap::Args)]
pub struct Graph {
    #[command(flatten)]
    load: Load,
    /// Only what these nodes or outputs need
    #[arg(value_name = "NODE")]
    wanted: Vec<String>,
    /// Language of the drawing
    #[arg(long, value_enum, default_value = "dot")]
    format: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// Graphviz
    Dot,
    /// Mermaid, as Markdown pages show it
    Mermaid,
    /// A picture for a browser
    Svg,
}

impl Graph {
    /// Prints the drawing.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn run(&self) -> Result<Ending> {
        let plan = match self.load.load(None, &self.wanted)? {
            Ok(plan) => plan,
            Err(problems) => {
                show(&problems);
                return Ok(Ending::Refused);
            }
        };
        let drawing = drawing(&plan);
        output::print(&match self.format {
            Format::Dot => drawing.dot(),
            Format::Mermaid => drawing.mermaid(),
            Format::Svg => svg(&drawing),
        })?;
        Ok(Ending::Done)
    }
}

fn drawing(plan: &Plan) -> Drawing {
    let mut place = vec![0; plan.graph().node_count()];
    let mut nodes = Vec::with_capacity(place.len());
    let mut links = Vec::new();
    for &job in plan.order() {
        place[job.index()] = nodes.len();
        for (source, link) in plan.inputs(job) {
            let ty = plan.job(source).def.outputs[link.from_output].ty;
            links.push(Arrow { from: place[source.index()], to: nodes.len(), ty });
        }
        let node = plan.job(job);
        nodes.push(Shape { id: node.id.to_string(), kind: node.def.kind, sink: node.def.is_sink() });
    }
    Drawing { nodes, links }
}
