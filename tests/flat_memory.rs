//! Many runs in one process leave its memory where it was.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::{
    alloc::{GlobalAlloc, Layout},
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use candle_core::{DType, Device};
use flow_diffusion::Runtime;
use flow_engine::Engine;
use flow_graph::{CancelToken, Context, Files, Overrides, Workflow, check};

/// The program's own allocator, which counts what is in use.
struct Counting(mimalloc::MiMalloc);

static IN_USE: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the inner allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's contract is the inner allocator's.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { self.0.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting(mimalloc::MiMalloc);

/// Memory of this process that is in main memory, in bytes.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux tells it");
    let pages =
        pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number");
    pages * 4096
}

#[test]
fn two_hundred_runs_with_changing_inputs_leave_memory_flat() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a folder to write to");
    let file = root.join("workflows/product.yaml");
    let text = fs::read_to_string(&file).expect("the example");
    let engine = Engine::new(1 << 30);
    let runtime = Arc::new(Runtime::new(Device::Cpu, DType::F32, 1 << 30));
    let registry = flow_nodes::registry();
    let mut after = Vec::new();
    for run in 0..200 {
        // As a watcher does: the file is read and checked anew, everything else stays.
        let (workflow, _) = Workflow::parse(&file.to_string_lossy(), &text);
        let inputs = vec![root.join("workflows")];
        let files = Arc::new(Files::new(inputs, vec![root.join("models/tiny-sd")], out.path().to_owned()));
        let set = |name: &str, value: String| (name.to_owned(), value);
        let set = vec![
            set("seed", run.to_string()),
            set("prompt", format!("handbag number {run}")),
            set("look", format!("{}", f64::from(run % 7) / 7.0)),
            set("outline", format!("{}", f64::from(run % 5) / 5.0)),
            set("size", if run % 2 == 0 { "64" } else { "96" }.to_owned()),
            set("edges.high", format!("{}", 150 + run % 50)),
            set("sample.steps", "1".to_owned()),
            set("save.path", "flat.png".to_owned()),
        ];
        let plan = check(&workflow, &registry, &files, &Overrides { set, ..Overrides::default() }, &[])
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let cx = Context::new(files).with_resource(runtime.clone());
        engine.run(&plan, &cx, &CancelToken::default(), &mut |_| ()).expect("the example runs");
        after.push((IN_USE.load(Ordering::Relaxed), resident()));
    }
    let (in_use, resident): (Vec<_>, Vec<_>) = after.into_iter().unzip();
    let middle = |of: &[u64]| {
        let mut sorted = of.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    let (early, late) = (middle(&in_use[40..60]), middle(&in_use[180..]));
    println!("in use after 50 runs {early}, after 200 {late} bytes");
    assert!(
        late as f64 <= early as f64 * 1.02,
        "{early} bytes in use after 50 runs, {late} after 200: {in_use:?}"
    );
    // What the allocator keeps of freed memory goes up and down, on a busy machine by more than a tenth; it must not climb.
    let most = |of: &[u64]| of.iter().copied().max().unwrap_or_default();
    let (early, late) = (most(&resident[..100]), most(&resident[100..]));
    println!("resident at most {early}, then {late} bytes");
    assert!(late as f64 <= early as f64 * 1.5, "{early} bytes resident, {late} later: {resident:?}");
}
