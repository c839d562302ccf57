//! A pipeline in diffusers' layout: a folder with `model_index.json` and a folder for each part.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::clip::ClipSource;
use crate::model::{Model, Prediction};
use crate::vae::VaeSource;
use crate::{Error, Result};

/// The largest of its JSON files read, in bytes.
const MAX_JSON: u64 = 1_000_000;

/// What makes a folder a pipeline.
pub const INDEX: &str = "model_index.json";

/// A folder that holds a pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    folder: PathBuf,
}

impl Pipeline {
    /// Looks at a folder.
    ///
    /// # Errors
    /// If it has no `model_index.json`.
    pub fn open(folder: &Path) -> Result<Self> {
        match folder.join(INDEX).is_file() {
            true => Ok(Self { folder: folder.to_owned() }),
            false => Err(Error::file(
                folder,
                format!("this folder has no `{INDEX}`, expected a diffusers pipeline"),
            )),
        }
    }

    /// Its UNet, with the prediction that its scheduler's configuration says.
    ///
    /// # Errors
    /// If there is none, or as [`Model::open`].
    pub fn model(&self) -> Result<Model> {
        let model = Model::open(&self.weights("unet", "diffusion_pytorch_model")?)?;
        let scheduler = self.json("scheduler/scheduler_config.json")?;
        let said = scheduler.as_ref().and_then(|s| s.get("prediction_type")).and_then(Value::as_str);
        Ok(match said {
            Some("v_prediction") => Model { prediction: Prediction::V, ..model },
            Some("epsilon") => Model { prediction: Prediction::Epsilon, ..model },
            _ => model,
        })
    }

    /// Its text encoder, or SDXL's two.
    ///
    /// # Errors
    /// If there is none, or as [`ClipSource::open`].
    pub fn clip(&self) -> Result<ClipSource> {
        let second = self.folder.join("text_encoder_2").is_dir();
        let first = self.folder.join("text_encoder").is_dir();
        let file = |part| self.weights(part, "model");
        match (first, second) {
            (true, true) => ClipSource::pair(&file("text_encoder")?, &file("text_encoder_2")?),
            // SDXL's refiner has only the second.
            (false, true) => ClipSource::open(&file("text_encoder_2")?),
            _ => ClipSource::open(&file("text_encoder")?),
        }
    }

    /// Its autoencoder.
    ///
    /// # Errors
    /// If there is none, or as [`VaeSource::open`].
    pub fn vae(&self) -> Result<VaeSource> {
        VaeSource::open(&self.weights("vae", "diffusion_pytorch_model")?)
    }

    /// The weight file of a part, or the index of several: safetensors before PyTorch's, full precision before half.
    fn weights(&self, part: &str, stem: &str) -> Result<PathBuf> {
        let folder = self.folder.join(part);
        let old = if stem == "model" { "pytorch_model" } else { stem };
        let names = [
            format!("{stem}.safetensors"),
            format!("{stem}.safetensors.index.json"),
            format!("{stem}.fp16.safetensors"),
            format!("{stem}.safetensors.index.fp16.json"),
            format!("{old}.bin"),
            format!("{old}.fp16.bin"),
        ];
        if let Some(name) = names.iter().find(|name| folder.join(name).is_file()) {
            return Ok(folder.join(name));
        }
        Err(Error::file(folder, format!("there is no `{}` in it", names[0])))
    }

    fn json(&self, name: &str) -> Result<Option<Value>> {
        let path = self.folder.join(name);
        let Ok(file) = File::open(&path) else { return Ok(None) };
        let value = serde_json::from_reader(file.take(MAX_JSON));
        value.map(Some).map_err(|e| Error::file(&path, format!("not JSON: {e}")))
    }
}
