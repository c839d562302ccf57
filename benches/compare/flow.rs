//! Flow's side of the comparison with other programs: one part of a pipeline, run when it is told to.
//!
//! `run.py` beside this file starts it: `compare PART SIDE PRECISION CHECKPOINT`. It says when it is ready and how long
//! loading took; each line on standard input makes it run once and answer with the time. `DEVICE=cuda` has it compute on the first
//! card, and `FLOW_CUDA_GRAPHS=1` record the UNet's calls there.

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
    conditioning::Conditioning,
    control::ControlSource,
    denoise::Guided,
    guidance::Guider,
    ip_adapter::{ImageEmbeds, IpAdapterSource, IpOptions, apply},
    model::Model,
    noise::{Noise, Rng, TorchRng},
    samplers::{self, SamplerSpec},
    sampling::{Moment, Sampling, Settings},
    schedule,
    vae::VaeSource,
};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../../src/cli/allocator.rs"]
mod allocator;

/// A part made ready: each call runs it once.
type Part = Box<dyn FnMut() -> Result<Tensor>>;

/// Steps of a whole picture, and how strongly it follows its text.
const STEPS: usize = 20;
const CFG: f64 = 7.0;

fn main() -> Result<()> {
    allocator::keep();
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // `cargo test` runs benches too, to see that they compile.
    let [part, side, precision, checkpoint, rest @ ..] = &arguments[..] else { return Ok(()) };
    let dtype = match &precision[..] {
        "f32" => DType::F32,
        "f16" => DType::F16,
        _ => DType::BF16,
    };
    let device = match env::var("DEVICE").as_deref() {
        Ok("cuda") => Device::new_cuda(0)?,
        _ => Device::Cpu,
    };
    let graphs = env::var("FLOW_CUDA_GRAPHS").is_ok_and(|value| value == "1");
    let runtime = Runtime::new(device, dtype, u64::MAX).with_int8(precision == "int8").with_graphs(graphs);
    let runtime = Arc::new(runtime);
    let start = Instant::now();
    let mut run = open(part, side.parse()?, &runtime, Path::new(checkpoint))?;
    runtime.device.synchronize()?;
    say(&json!({ "ready": start.elapsed().as_secs_f64() }))?;
    for line in stdin().lock().lines() {
        line?;
        let (wall, cpu) = (Instant::now(), processor_seconds());
        let result = run()?;
        // A device is done when it says so.
        runtime.device.synchronize()?;
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
    let random = |seed, shape: &[usize]| TorchRng::new(seed).randn_tensor(shape, &rt.device);
    let (latent, rt) = (side / 8, rt.clone());
    Ok(match part {
        // As a sampling calls it: then its calls are recorded.
        "unet" if rt.graphs => {
            // What lives as long as the process needs no owner.
            let model: &Model = Box::leak(Box::new(Model::open(file)?));
            let config = &model.unet.config;
            let text = |seed| -> Result<Conditioning> {
                let pooled = config.is_xl().then(|| random(seed + 2, &[1, 1280])).transpose()?;
                Ok(Conditioning::text(random(seed, &[1, 77, config.context_dim])?, pooled))
            };
            let guider = Guider::Cfg { positive: text(2)?, negative: text(3)?, cfg: CFG };
            let mut guided =
                Guided::new(&rt, model, Box::leak(Box::new(guider)), (1, 4, latent, latent), false)?;
            let (x, at) = (random(1, &[1, 4, latent, latent])?, Moment { index: 0, total: 1, sigma: 2.0 });
            Box::new(move || Ok(guided.guess(&x, at)?.guided))
        }
        "unet" => {
            let model = Model::open(file)?;
            let (unet, config) = (model.unet.load(&rt)?, &model.unet.config);
            let (x, context) =
                (random(1, &[2, 4, latent, latent])?, random(2, &[2, 77, config.context_dim])?);
            let y = config.add_dim.map(|width| random(5, &[2, width])).transpose()?;
            let (patches, step) = (Patches::default().for_a_run(), Step::single(1.0, 2));
            Box::new(move || Ok(unet.forward(&x, 500.0, &context, y.as_ref(), None, &patches, &step)?))
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
        // Two texts, 20 steps of Euler's method with guidance, and the decoder.
        "picture" => {
            let (clip, vae) = (ClipSource::open(file)?, VaeSource::open(file)?);
            let model = Model::open(file)?;
            model.unet.load(&rt)?;
            let kind = samplers::find("euler").context("Euler's method")?;
            let sampler = SamplerSpec::Named(kind);
            let sigmas = schedule::sigmas(&model.schedule, "normal", STEPS, 1.0, false)?;
            let nothing = Tensor::zeros((1, 4, latent, latent), DType::F32, &rt.device)?;
            Box::new(move || {
                let text = |text| -> Result<_> {
                    let encoded = clip.encode(&rt, text)?;
                    Ok(Conditioning::text(encoded.context, encoded.pooled))
                };
                let positive = text("a kettle on a marble table, morning light")?;
                let guider = Guider::Cfg { positive, negative: text("")?, cfg: CFG };
                let mut guided = Guided::new(&rt, &model, &guider, nothing.dims4()?, false)?;
                let settings = Settings {
                    sampler: &sampler,
                    sigmas: &sigmas,
                    noise: Noise { rng: Rng::TorchCpu, seed: 1 },
                    add_noise: true,
                    numbers: None,
                    schedule: &model.schedule,
                    latent_scale: model.latent.scale,
                };
                let guess = Box::new(move |x: &Tensor, at| guided.guess(x, at));
                let mut sampling = Sampling::new(guess, &settings, &nothing, None)?;
                sampling.by_ref().try_for_each(|step| step.map(drop))?;
                Ok(vae.load(&rt)?.decode(&sampling.finish()?.0, &|| true)?)
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
