//! Flow's side of the comparison with other programs: one part of a pipeline, run when it is told to.
//!
//! `run.py` beside this file starts it: `compare PART SIDE PRECISION CHECKPOINT`. It says when it is ready and how long
//! loading took; each line on standard input makes it run once and answer with the time.

use std::{
    env, fs,
    io::{BufRead as _, Write as _, stdin, stdout},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Device, Tensor};
use flow_diffusion::{
    Runtime,
    attention::{Patches, Step},
    clip::ClipSource,
    control::ControlSource,
    ip_adapter::{ImageEmbeds, IpAdapterSource, IpOptions, apply},
    model::Model,
    noise::TorchRng,
    vae::VaeSource,
};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../../src/cli/allocator.rs"]
mod allocator;

/// A part made ready: each call runs it once.
type Part = Box<dyn FnMut() -> Result<Tensor>>;

/// Steps of a whole picture.
const STEPS: usize = 20;

fn main() -> Result<()> {
    allocator::keep();
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // `cargo test` runs benches too, to see that they compile.
    let [part, side, precision, checkpoint, rest @ ..] = &arguments[..] else { return Ok(()) };
    let dtype = if precision == "f32" { DType::F32 } else { DType::BF16 };
    let runtime = Runtime::new(Device::Cpu, dtype, u64::MAX).with_int8(precision == "int8");
    let runtime = Arc::new(runtime);
    let start = Instant::now();
    let mut run = open(part, side.parse()?, &runtime, Path::new(checkpoint))?;
    say(&json!({ "ready": start.elapsed().as_secs_f64() }))?;
    for line in stdin().lock().lines() {
        line?;
        let (wall, cpu) = (Instant::now(), processor_seconds());
        let result = run()?;
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), processor_seconds() - cpu);
        if let [file] = rest {
            let result = [("result", result.to_dtype(DType::F32)?)];
            candle_core::safetensors::save(&result.into(), file)?;
        }
        say(&json!({ "wall": wall, "cpu": cpu, "peak": peak() }))?;
    }
    allocator::give_back();
    Ok(())
}

fn open(part: &str, side: usize, rt: &Arc<Runtime>, file: &Path) -> Result<Part> {
    let random = |seed, shape: &[usize]| TorchRng::new(seed).randn_tensor(shape, &Device::Cpu);
    let (latent, rt) = (side / 8, rt.clone());
    Ok(match part {
        "unet" => {
            let unet = Model::open(file)?.unet.load(&rt)?;
            let (x, context) = (random(1, &[2, 4, latent, latent])?, random(2, &[2, 77, 768])?);
            let (patches, step) = (Patches::default().for_a_run(), Step::single(1.0, 2));
            Box::new(move || Ok(unet.forward(&x, 500.0, &context, None, None, &patches, &step)?))
        }
        "vae" => {
            let vae = VaeSource::open(file)?.load(&rt)?;
            let z = random(1, &[1, 4, latent, latent])?;
            Box::new(move || Ok(vae.decode(&z, &|| true)?))
        }
        "clip" => {
            let clip = ClipSource::open(file)?;
            let text = "a kettle on a marble table, morning light, best quality";
            clip.encode(&rt, text)?;
            Box::new(move || Ok(clip.encode(&rt, text)?.context))
        }
        // A step with an IP-Adapter and a ControlNet.
        "held" => {
            let adapter = IpAdapterSource::open(&beside(file, "ipadapter")?)?;
            let embeds = ImageEmbeds::new(random(4, &[1, 1024])?);
            let model = apply(&rt, &Model::open(file)?, &adapter, &embeds, &IpOptions::default())?;
            let unet = model.unet.load(&rt)?;
            let ControlSource::ControlNet(net) = ControlSource::open(&beside(file, "controlnet")?)? else {
                bail!("that is no ControlNet")
            };
            let net = net.load(&rt)?;
            let hint = net.embed_hint(&random(3, &[2, 3, side, side])?, None)?;
            let (x, context) = (random(1, &[2, 4, latent, latent])?, random(2, &[2, 77, 768])?);
            let (patches, step) = (model.patches.for_a_run(), Step::single(1.0, 2));
            Box::new(move || {
                let residuals = net.forward(&x, 500.0, &context, None, &hint, None)?;
                Ok(unet.forward(&x, 500.0, &context, None, Some(&residuals), &patches, &step)?)
            })
        }
        // Two texts, 20 steps with guidance, and the decoder.
        "picture" => {
            let (clip, vae) = (ClipSource::open(file)?, VaeSource::open(file)?);
            let unet = Model::open(file)?.unet.load(&rt)?;
            let (x, step) = (random(1, &[1, 4, latent, latent])?, Step::single(1.0, 2));
            Box::new(move || {
                let texts = ["", "a kettle on a marble table, morning light"];
                let texts = texts.map(|text| Ok(clip.encode(&rt, text)?.context));
                let context = Tensor::cat(&texts.into_iter().collect::<Result<Vec<_>>>()?, 0)?;
                let (mut x, patches) = (x.clone(), Patches::default().for_a_run());
                for i in 0..STEPS {
                    let time = 999.0 - 50.0 * i as f64;
                    let both = Tensor::cat(&[&x, &x], 0)?;
                    let both = unet.forward(&both, time, &context, None, None, &patches, &step)?;
                    let (without, with) = (both.narrow(0, 0, 1)?, both.narrow(0, 1, 1)?);
                    let guess = (&without + ((with - &without)? * 7.0)?)?;
                    x = (x - (guess * 0.05)?)?;
                }
                Ok(vae.load(&rt)?.decode(&x, &|| true)?)
            })
        }
        other => bail!("there is no part `{other}`"),
    })
}

/// The one model in another of the folders that a checkpoint's is among.
fn beside(checkpoint: &Path, folder: &str) -> Result<PathBuf> {
    let models = checkpoint.parent().and_then(Path::parent).context("a checkpoint in a folder of models")?;
    let mut files = fs::read_dir(models.join(folder))?;
    Ok(files.next().with_context(|| format!("a file in `{folder}`"))??.path())
}

fn say(line: &serde_json::Value) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Seconds all threads of this process have computed, as Linux tells.
fn processor_seconds() -> f64 {
    let ticks = || -> Result<f64> {
        let text = fs::read_to_string("/proc/self/stat")?;
        let after = text.rsplit_once(')').context("a name in brackets")?.1;
        let mut numbers = after.split_whitespace().skip(11).map(str::parse::<f64>);
        Ok(numbers.next().context("utime")?? + numbers.next().context("stime")??)
    };
    ticks().unwrap_or(0.0) / 100.0
}

/// Most memory ever resident, in bytes; 0 where Linux does not tell.
fn peak() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    line.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
