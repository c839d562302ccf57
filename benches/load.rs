//! What loading a full-size UNet takes: time, and the most memory that was ever in use.
//!
//!     cargo bench --bench load
//!
//! Writes a file of SD1.5's tensors in f16, all zero, to a temporary folder: 1.7 GB that a file system which knows holes
//! does not store; it is read once, so that the system has it in memory. Memory is what Linux tells of the process; elsewhere
//! only the time is told.

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
    time::Instant,
};

use candle_core::{DType, Device};
use flow_diffusion::{Runtime, Size, model::UNetSource};
use serde_json::{Map, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../src/cli/allocator.rs"]
#[expect(dead_code, reason = "nothing is given back while it loads")]
mod allocator;

fn main() -> anyhow::Result<()> {
    allocator::keep();
    // `cargo test` runs benches too, to see that they compile; 1.7 GB are not for that.
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sd15.safetensors");
    hollow(&path)?;
    io::copy(&mut fs::File::open(&path)?, &mut io::sink())?;
    let source = UNetSource::open(&path)?;
    let runtime = Runtime::new(Device::Cpu, DType::F32, u64::MAX);
    let before = status("VmRSS");
    let start = Instant::now();
    let unet = source.load(&runtime)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("weights in f32        {}", Size(runtime.store.bytes()));
    println!("loaded in             {seconds:.2} s");
    println!("resident before       {}", Size(before));
    println!("resident after        {}", Size(status("VmRSS")));
    println!("resident at the most  {}", Size(status("VmHWM")));
    drop(unet);
    Ok(())
}

/// A safetensors file of the SD1.5 UNet's names and shapes, and no values.
fn hollow(path: &Path) -> anyhow::Result<()> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys/sd15.tsv");
    let text = fs::read_to_string(list)?;
    let (mut end, mut header) = (0, Map::new());
    for line in text.lines().skip(1).take_while(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let shape: Vec<usize> =
            columns[columns.len() - 1].split(',').map(str::parse).collect::<Result<_, _>>()?;
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            columns[0].to_owned(),
            json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] }),
        );
    }
    let mut header = serde_json::to_vec(&header)?;
    // As writers do, so that numbers lie where a processor can read them.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = fs::File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    Ok(file.set_len((8 + header.len() + end) as u64)?)
}

/// A line of `/proc/self/status` in bytes; 0 where there is none.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix("kB"));
    line.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
