//! Many runs in one process leave its memory where it was.
#![cfg(target_os = "linux")]

use std::{fs, path::PathBuf, sync::Arc};

use candle_core::{DType, Device};
use flow_diffusion::Runtime;
use flow_engine::Engine;
use flow_graph::{CancelToken, Context, Files, Overrides, Workflow, check};

// The program's own: what it keeps of freed memory is part of the question.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        after.push(resident());
    }
    let settled = |runs: std::ops::Range<usize>| {
        let mut resident = after[runs].to_vec();
        resident.sort_unstable();
        resident[resident.len() / 2]
    };
    // The allocator gives memory back now and then: the middle of many runs is what stays.
    let (early, late) = (settled(10..90), settled(120..200));
    println!("resident after 1, about 50, about 160 runs: {}, {early}, {late} bytes", after[0]);
    assert!(
        late as f64 <= early as f64 * 1.02,
        "{early} bytes after about 50 runs, {late} after about 160: {after:?}"
    );
}
