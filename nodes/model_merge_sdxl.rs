use std::sync::Arc;

use flow_diffusion::overlay::{Named, Shares};
use flow_graph::{Context, Facts, Inputs, Known, Node, NodeError};

use crate::{
    model_file::{check_merge, passed_on},
    ports::Model,
};

/// Mixes two models of SDXL, with a share for each block of the UNet.
///
/// The way down makes what is in the picture, the way up how it looks. Nothing is written: the mixture is computed when it is
/// first used.
#[derive(Inputs)]
#[node(category = "model merging", lane = "device")]
pub struct ModelMergeSDXL {
    /// The first model.
    model1: Arc<Model>,
    /// The second model.
    model2: Arc<Model>,
    /// How much of the first model is in what embeds the time: 1 is the first alone, 0 the second alone.
    #[input(default = 1.0, range = 0.0..=1.0, alias("time_embed."))]
    time_embed: f64,
    /// The same in what embeds pooled text and sizes.
    #[input(default = 1.0, range = 0.0..=1.0, alias("label_emb."))]
    label_emb: f64,
    /// The same in block 0 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.0"))]
    input_blocks_0: f64,
    /// The same in block 1 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.1"))]
    input_blocks_1: f64,
    /// The same in block 2 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.2"))]
    input_blocks_2: f64,
    /// The same in block 3 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.3"))]
    input_blocks_3: f64,
    /// The same in block 4 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.4"))]
    input_blocks_4: f64,
    /// The same in block 5 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.5"))]
    input_blocks_5: f64,
    /// The same in block 6 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.6"))]
    input_blocks_6: f64,
    /// The same in block 7 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.7"))]
    input_blocks_7: f64,
    /// The same in block 8 on the way down.
    #[input(default = 1.0, range = 0.0..=1.0, alias("input_blocks.8"))]
    input_blocks_8: f64,
    /// The same in part 0 of the middle.
    #[input(default = 1.0, range = 0.0..=1.0, alias("middle_block.0"))]
    middle_block_0: f64,
    /// The same in part 1 of the middle.
    #[input(default = 1.0, range = 0.0..=1.0, alias("middle_block.1"))]
    middle_block_1: f64,
    /// The same in part 2 of the middle.
    #[input(default = 1.0, range = 0.0..=1.0, alias("middle_block.2"))]
    middle_block_2: f64,
    /// The same in block 0 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.0"))]
    output_blocks_0: f64,
    /// The same in block 1 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.1"))]
    output_blocks_1: f64,
    /// The same in block 2 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.2"))]
    output_blocks_2: f64,
    /// The same in block 3 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.3"))]
    output_blocks_3: f64,
    /// The same in block 4 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.4"))]
    output_blocks_4: f64,
    /// The same in block 5 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.5"))]
    output_blocks_5: f64,
    /// The same in block 6 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.6"))]
    output_blocks_6: f64,
    /// The same in block 7 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.7"))]
    output_blocks_7: f64,
    /// The same in block 8 on the way up.
    #[input(default = 1.0, range = 0.0..=1.0, alias("output_blocks.8"))]
    output_blocks_8: f64,
    /// The same in the end, where noise is made.
    #[input(default = 1.0, range = 0.0..=1.0, alias("out."))]
    out: f64,
}

impl Node for ModelMergeSDXL {
    type Output = Model;

    fn run(self, _cx: &Context) -> Result<Model, NodeError> {
        let config = &self.model1.unet.config;
        if config.skip_channels().len() != 9 {
            let error = NodeError::on("model1", "this is no SDXL, whose UNet has nine blocks on each way");
            return Err(error.hint("ModelMergeBlocks mixes models of all families"));
        }
        let shares = Named::new(
            config,
            [
                ("time_embed.", self.time_embed),
                ("label_emb.", self.label_emb),
                ("input_blocks.0", self.input_blocks_0),
                ("input_blocks.1", self.input_blocks_1),
                ("input_blocks.2", self.input_blocks_2),
                ("input_blocks.3", self.input_blocks_3),
                ("input_blocks.4", self.input_blocks_4),
                ("input_blocks.5", self.input_blocks_5),
                ("input_blocks.6", self.input_blocks_6),
                ("input_blocks.7", self.input_blocks_7),
                ("input_blocks.8", self.input_blocks_8),
                ("middle_block.0", self.middle_block_0),
                ("middle_block.1", self.middle_block_1),
                ("middle_block.2", self.middle_block_2),
                ("output_blocks.0", self.output_blocks_0),
                ("output_blocks.1", self.output_blocks_1),
                ("output_blocks.2", self.output_blocks_2),
                ("output_blocks.3", self.output_blocks_3),
                ("output_blocks.4", self.output_blocks_4),
                ("output_blocks.5", self.output_blocks_5),
                ("output_blocks.6", self.output_blocks_6),
                ("output_blocks.7", self.output_blocks_7),
                ("output_blocks.8", self.output_blocks_8),
                ("out.", self.out),
            ],
        );
        let merged = self.model1.blended(&self.model2, Shares::Named(shares));
        merged.map(Model).map_err(|error| NodeError::from(error).at("model2"))
    }

    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        check_merge(known)?;
        Ok(vec![passed_on(known, "model1")])
    }
}
