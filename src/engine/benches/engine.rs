//! Nodes per second of the engine itself: trivial nodes, everything to run or everything known.
//!
//! `cargo bench -p flow-engine`. In `tests/run.rs` the same graphs are run for their results.

#[path = "../tests/stubs/large.rs"]
mod large;

use std::sync::Arc;

use divan::{Bencher, counter::ItemsCount};
use flow_engine::Engine;
use flow_graph::{CancelToken, Context, Plan};

const NODES: usize = 100_000;

fn main() {
    divan::main();
}

fn engine() -> Engine {
    Engine::new(u64::MAX)
}

fn run(engine: &Engine, plan: &Plan) {
    let cx = Context::new(Arc::default());
    engine.run(plan, &cx, &CancelToken::default(), &mut |_| ()).expect("additions do not fail");
}

#[divan::bench(args = ["chain", "fan"], sample_count = 5, sample_size = 1)]
fn cold(bencher: Bencher, shape: &str) {
    let plan = plan(shape);
    bencher.counter(ItemsCount::new(NODES)).with_inputs(engine).bench_values(|engine| run(&engine, &plan));
}

#[divan::bench(args = ["chain", "fan"], sample_count = 20, sample_size = 1)]
fn all_known(bencher: Bencher, shape: &str) {
    let (plan, engine) = (plan(shape), engine());
    run(&engine, &plan);
    bencher.counter(ItemsCount::new(NODES)).bench_local(|| run(&engine, &plan));
}

/// What a look ahead takes when everything is known.
#[divan::bench(args = [1_000, 100_000], sample_count = 10, sample_size = 1)]
fn look_ahead(bencher: Bencher, nodes: usize) {
    let (plan, engine, cx) = (large::chain(nodes), engine(), Context::new(Arc::default()));
    run(&engine, &plan);
    bencher.counter(ItemsCount::new(nodes)).bench_local(|| engine.forecast(&plan, &cx));
}

fn plan(shape: &str) -> Plan {
    if shape == "chain" { large::chain(NODES) } else { large::fan(NODES) }
}
