//! What a run computes, what it does not compute again, and what it tells.

mod stubs;

#[path = "run/demand.rs"]
mod demand;
#[path = "run/disk.rs"]
mod disk;

use std::sync::{Arc, Barrier};

use flow_engine::{Engine, RunError};
use flow_graph::{Bytes, CancelToken, Context, Plan};
use stubs::{graph::*, large::*, memory::*, nodes::*, *};

const PLENTY: u64 = 1 << 20;

/// one → sum ← two, sum → save.
fn sum(one: i64, two: i64) -> Plan {
    Graph::default()
        .node::<Number, _>("one", [("value", one.into())])
        .node::<Number, _>("two", [("value", two.into())])
        .node::<Add, _>("sum", [("a", of("one")), ("b", of("two"))])
        .node::<Save, _>("save", [("a", of("sum"))])
        .plan(["save"])
}

#[test]
fn a_run_tells_what_happens_to_each_node() {
    let plan = Graph::default()
        .node::<Number, _>("one", [("value", 3.into())])
        .node::<Steps, _>("steps", [("steps", of("one"))])
        .node::<Save, _>("save", [("a", of("steps"))])
        .plan(["save"]);
    let engine = engine(PLENTY);
    insta::assert_snapshot!(run(&engine, &plan).text(), @r"
    started one
    finished one 0ns 8
    started steps
    progress steps 1/3
    progress steps 2/3
    progress steps 3/3
    finished steps 0ns 8
    started save
    saved save 3.txt
    finished save 0ns 0
    ");
    insta::assert_snapshot!(run(&engine, &plan).text(), @r"
    cached one
    cached steps
    started save
    saved save 3.txt
    finished save 0ns 0
    ");
}

#[test]
fn the_same_graph_again_runs_its_sinks_only() {
    let engine = engine(PLENTY);
    assert_eq!(run(&engine, &sum(1, 2)).ran(), ["one", "save", "sum", "two"]);
    let again = run(&engine, &sum(1, 2));
    assert_eq!((again.ran(), again.nodes("cached")), (vec!["save"], vec!["one", "sum", "two"]));
    assert_eq!(again.nodes("saved"), ["save"]);
}

#[test]
fn a_changed_literal_reruns_what_comes_after_it() {
    let engine = engine(PLENTY);
    run(&engine, &sum(1, 2));
    let changed = run(&engine, &sum(1, 5));
    assert_eq!((changed.ran(), changed.nodes("cached")), (vec!["save", "sum", "two"], vec!["one"]));
    assert!(changed.text().contains("saved save 6.txt"));
}

#[test]
fn going_back_to_an_earlier_literal_hits() {
    let engine = engine(PLENTY);
    run(&engine, &sum(1, 2));
    run(&engine, &sum(1, 5));
    assert_eq!(run(&engine, &sum(1, 2)).ran(), ["save"]);
}

#[test]
fn names_and_order_of_nodes_do_not_matter() {
    let engine = engine(PLENTY);
    run(&engine, &sum(1, 2));
    let renamed = Graph::default()
        .node::<Number, _>("zwei", [("value", 2.into())])
        .node::<Number, _>("eins", [("value", 1.into())])
        .node::<Add, _>("summe", [("b", of("zwei")), ("a", of("eins"))])
        .plan(["summe"]);
    let told = run(&engine, &renamed);
    assert_eq!((told.ran(), told.number(0)), (vec![], 3));
}

#[test]
fn an_equal_result_stops_the_change() {
    let plan = |number: i64| {
        Graph::default()
            .node::<Number, _>("number", [("value", number.into())])
            .node::<Tens, _>("tens", [("a", of("number"))])
            .node::<Make, _>("make", [("from", of("tens"))])
            .node::<Measure, _>("measure", [("made", of("make"))])
            .plan(["measure"])
    };
    let engine = engine(PLENTY);
    run(&engine, &plan(31));
    let told = run(&engine, &plan(38));
    assert_eq!((told.ran(), told.nodes("cached")), (vec!["number", "tens"], vec!["make", "measure"]));
}

#[test]
fn a_diamond_computes_its_top_once() {
    let plan = Graph::default()
        .node::<Number, _>("top", [("value", 4.into())])
        .node::<Add, _>("left", [("a", of("top")), ("b", 1.into())])
        .node::<Add, _>("right", [("a", of("top")), ("b", 2.into())])
        .node::<Add, _>("bottom", [("a", of("left")), ("b", of("right"))])
        .plan(["bottom"]);
    let told = run(&engine(0), &plan);
    assert_eq!((told.ran(), told.number(0)), (vec!["bottom", "left", "right", "top"], 11));
}

#[test]
fn one_source_may_fill_two_inputs_and_two_sinks() {
    let plan = Graph::default()
        .node::<Divide, _>("divide", [("a", 17.into()), ("by", 5.into())])
        .node::<Add, _>("twice", [("a", of("divide")), ("b", of("divide"))])
        .node::<Save, _>("first", [("a", of("twice"))])
        .node::<Save, _>("second", [("a", Fill::Link("divide", 1))])
        .plan(["first", "second"]);
    let text = run(&engine(0), &plan).text();
    assert!(text.contains("saved first 6.txt") && text.contains("saved second 2.txt"), "{text}");
}

#[test]
fn nodes_that_no_target_needs_do_not_run() {
    let plan = Graph::default()
        .node::<Number, _>("used", [("value", 1.into())])
        .node::<Number, _>("unused", [("value", 2.into())])
        .node::<Add, _>("sum", [("a", of("used"))])
        .node::<Add, _>("other", [("a", of("used")), ("b", of("unused"))])
        .plan(["sum"]);
    assert_eq!(run(&engine(PLENTY), &plan).ran(), ["sum", "used"]);
}

#[test]
fn equal_nodes_run_once() {
    let plan = || {
        Graph::default()
            .node::<Steps, _>("a", [("steps", 2.into())])
            .node::<Steps, _>("b", [("steps", 2.into())])
            .node::<Steps, _>("c", [("steps", 2.into())])
            .node::<Add, _>("sum", [("a", of("a")), ("b", of("b"))])
            .node::<Add, _>("again", [("a", of("sum")), ("b", of("c"))])
            .plan(["again"])
    };
    for engine in [engine(0), engine(PLENTY)] {
        let told = run(&engine, &plan());
        assert_eq!(
            (told.ran().len(), told.nodes("cached").len(), told.number(0)),
            (3, 2, 6),
            "{}",
            told.text()
        );
    }
}

#[test]
fn equal_sinks_all_run() {
    let plan = Graph::default()
        .node::<Save, _>("one", [("a", 1.into())])
        .node::<Save, _>("same", [("a", 1.into())])
        .plan(["one", "same"]);
    assert_eq!(run(&engine(PLENTY), &plan).ran(), ["one", "same"]);
}

#[test]
fn an_error_stops_only_what_needs_it() {
    let plan = |by: i64| {
        Graph::default()
            .node::<Number, _>("number", [("value", 8.into())])
            .node::<Divide, _>("divide", [("a", of("number")), ("by", by.into())])
            .node::<Add, _>("after", [("a", of("divide")), ("b", of("number"))])
            .node::<Save, _>("lost", [("a", of("after"))])
            .node::<Add, _>("other", [("a", of("number")), ("b", 1.into())])
            .node::<Save, _>("kept", [("a", of("other"))])
            .plan(["lost", "kept", "other"])
    };
    let engine = engine(PLENTY);
    let told = run(&engine, &plan(0));
    assert_eq!(told.nodes("failed"), ["divide"]);
    assert_eq!(told.ran(), ["divide", "kept", "number", "other"]);
    let Err(RunError::Failed { failures, outputs }) = told.result else { panic!("{:?}", told.result) };
    assert_eq!((failures.len(), failures[0].error.input), (1, Some("by")));
    assert_eq!(*outputs.targets[1].1[0].get::<i64>().unwrap(), 9);

    // A failure leaves nothing behind, and nothing that went well is lost.
    assert_eq!(run(&engine, &plan(0)).ran(), ["divide", "kept"]);
    assert_eq!(run(&engine, &plan(2)).ran(), ["after", "divide", "kept", "lost"]);
}

#[test]
fn all_failures_are_told() {
    let plan = Graph::default()
        .node::<Divide, _>("a", [("a", 1.into()), ("by", 0.into())])
        .node::<Divide, _>("same", [("a", 1.into()), ("by", 0.into())])
        .node::<Divide, _>("b", [("a", 2.into()), ("by", 0.into())])
        .plan(["a", "same", "b"]);
    let told = run(&engine(PLENTY), &plan);
    assert_eq!((told.nodes("failed"), told.ran().len()), (vec!["a", "b", "same"], 2));
}

#[test]
fn a_panic_is_told_as_a_bug_of_its_node() {
    let plan = |far: bool| {
        Graph::default()
            .node::<Broken, _>("broken", [("a", 3.into()), ("far", far.into())])
            .node::<Number, _>("fine", [("value", 1.into())])
            .plan(["broken", "fine"])
    };
    for (far, text) in [(false, "near 3"), (true, "far 3")] {
        let told = run(&engine(PLENTY), &plan(far));
        let Err(RunError::Failed { failures, .. }) = &told.result else { panic!("{:?}", told.result) };
        let message = failures[0].error.to_string();
        assert!(message.starts_with(&format!("bug in `Broken`, please report: {text} (")), "{message}");
        assert!(message.contains("stubs/nodes.rs:"), "{message}");
        assert_eq!(told.number(0), 1, "the other branch ran");
    }
}

#[test]
fn stopping_in_the_middle_keeps_what_is_done() {
    let cancel = CancelToken::default();
    let cx = Context::new(Arc::default()).with_resource(Arc::new(cancel.clone()));
    let engine = with_context(cx, PLENTY);
    let plan = |stop_at: i64| {
        Graph::default()
            .node::<Number, _>("steps", [("value", 5.into())])
            .node::<Steps, _>("sample", [("steps", of("steps")), ("stop_at", stop_at.into())])
            .node::<Save, _>("save", [("a", of("sample"))])
            .plan(["save"])
    };
    let told = run_with(&engine, &plan(3), &cancel);
    assert!(matches!(told.result, Err(RunError::Cancelled)), "{:?}", told.result);
    insta::assert_snapshot!(told.text(), @r"
    started steps
    finished steps 0ns 8
    started sample
    progress sample 1/5
    progress sample 2/5
    progress sample 3/5
    ");
    assert_eq!(run(&engine, &plan(0)).ran(), ["sample", "save"]);
}

#[test]
fn a_run_stopped_before_it_begins_starts_nothing() {
    let cancel = CancelToken::default();
    cancel.cancel();
    let told = run_with(&engine(PLENTY), &sum(1, 2), &cancel);
    assert!(told.events.is_empty() && matches!(told.result, Err(RunError::Cancelled)));
}

#[test]
fn a_node_that_was_told_to_stop_is_no_failure() {
    let told = run(&engine(PLENTY), &Graph::default().node::<Quits, _>("quits", []).plan(["quits"]));
    assert!(matches!(told.result, Err(RunError::Cancelled)), "{:?}", told.result);
    assert!(told.nodes("failed").is_empty());
}

/// Both nodes wait for each other, so the run ends only if they overlap.
#[test]
fn host_nodes_overlap() {
    let engine = with_context(Context::new(Arc::default()).with_resource(Arc::new(Barrier::new(2))), PLENTY);
    let plan = Graph::default()
        .node::<Meet, _>("a", [("a", 1.into())])
        .node::<Meet, _>("b", [("a", 2.into())])
        .node::<Add, _>("sum", [("a", of("a")), ("b", of("b"))])
        .plan(["sum"]);
    // One of the three threads is the coordinator's here.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| run(&engine, &plan).number(0)), 3);
}

#[test]
fn a_host_node_overlaps_a_device_node() {
    let engine = with_context(Context::new(Arc::default()).with_resource(Arc::new(Barrier::new(2))), PLENTY);
    let plan = Graph::default()
        .node::<Meet, _>("host", [("a", 1.into())])
        .node::<MeetOnDevice, _>("device", [("a", 2.into())])
        .node::<Add, _>("sum", [("a", of("host")), ("b", of("device"))])
        .plan(["sum"]);
    assert_eq!(run(&engine, &plan).number(0), 3);
}

/// In a process of its own, whose threads would need a stack that no machine has.
#[test]
#[cfg(target_os = "linux")]
fn a_device_node_without_a_thread_fails() {
    const INSIDE: &str = "FLOW_TEST_WITHOUT_THREADS";
    if std::env::var_os(INSIDE).is_none() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_device_node_without_a_thread_fails", "--test-threads=1"]);
        let command = command.env(INSIDE, "1").env("RUST_MIN_STACK", (1u64 << 60).to_string());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        return;
    }
    assert!(std::thread::Builder::new().spawn(|| ()).is_err());
    assert!(flow_engine::start_threads().is_err());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).stack_size(1 << 20).build().unwrap();
    let plan = Graph::default()
        .node::<Number, _>("host", [("value", 1.into())])
        .node::<Steps, _>("device", [("steps", of("host"))])
        .plan(["device"]);
    let told = pool.install(|| run(&engine(PLENTY), &plan));
    let Err(RunError::Failed { failures, .. }) = &told.result else { panic!("{:?}", told.result) };
    assert!(failures[0].error.to_string().starts_with("the system starts no thread"), "{failures:?}");
}

#[test]
fn one_device_node_runs_at_a_time_and_branches_are_finished_one_by_one() {
    let plan = Graph::default()
        .node::<Steps, _>("a1", [("steps", 1.into())])
        .node::<Steps, _>("b1", [("steps", 2.into())])
        .node::<Steps, _>("a2", [("steps", of("a1")), ("stop_at", 98.into())])
        .node::<Steps, _>("b2", [("steps", of("b1")), ("stop_at", 99.into())])
        .plan(["a2", "b2"]);
    let told = run(&engine(0), &plan);
    let started: Vec<_> = told.events.iter().filter(|event| event.starts_with("started")).collect();
    assert_eq!(started, ["started a1", "started a2", "started b1", "started b2"]);
}

#[test]
fn results_over_the_budget_go_those_used_longest_ago_first() {
    let make = |from: i64| {
        let graph = Graph::default().node::<Make, _>("make", [("from", from.into()), ("size", 100.into())]);
        graph.plan(["make"])
    };
    let engine = engine(250);
    for from in [1, 2, 1] {
        assert!(run(&engine, &make(from)).nodes("evicted").is_empty());
    }
    assert_eq!(run(&engine, &make(3)).nodes("evicted"), ["make"]);
    assert!(run(&engine, &make(1)).ran().is_empty(), "1 was used after 2");
    assert_eq!(run(&engine, &make(2)).ran(), ["make"]);
}

#[test]
fn results_that_the_run_still_needs_do_not_go() {
    let plan = Graph::default()
        .node::<Make, _>("a", [("from", 1.into()), ("size", 100.into())])
        .node::<Make, _>("b", [("from", 2.into()), ("size", 100.into())])
        .node::<Measure, _>("c", [("made", of("a"))])
        .plan(["a", "b", "c"]);
    let told = run(&engine(150), &plan);
    assert_eq!(told.number(2), 100);
    let kinds: Vec<_> = told.events.iter().map(|event| event.split_whitespace().next().unwrap()).collect();
    assert_eq!(kinds.iter().position(|kind| *kind == "evicted"), Some(kinds.len() - 1), "{}", told.text());
}

#[test]
fn idle_results_go_when_somebody_needs_their_memory_and_the_next_run_tells() {
    let engine = engine(PLENTY);
    run(&engine, &sum(1, 2));
    let kept = engine.engine.kept();
    assert!(kept.used().host > 0);
    kept.evict_idle();
    assert_eq!(kept.used(), Bytes::default());
    let told = run(&engine, &sum(1, 2));
    assert_eq!(
        (told.ran(), told.nodes("evicted")),
        (vec!["one", "save", "sum", "two"], vec!["one", "sum", "two"])
    );
}

#[test]
fn each_memory_has_its_own_budget() {
    let place = |number: i64, host: i64, device: i64| {
        let inputs = [("number", number.into()), ("host", host.into()), ("device", device.into())];
        Graph::default().node::<Place, _>("place", inputs).plan(["place"])
    };
    let engine = Engine::with_budget(Bytes { host: 1000, device: 150 });
    let engine = Stage { engine, cx: Context::new(Arc::default()) };
    for number in 0..5 {
        assert!(run(&engine, &place(number, 100, 0)).nodes("evicted").is_empty());
    }
    assert!(run(&engine, &place(5, 0, 100)).nodes("evicted").is_empty());
    assert_eq!(run(&engine, &place(6, 0, 100)).nodes("evicted"), ["place"]);
    assert!(run(&engine, &place(0, 100, 0)).ran().is_empty(), "what lies in main memory stays");
    assert_eq!(run(&engine, &place(5, 0, 100)).ran(), ["place"]);
}

#[test]
fn a_storage_that_several_results_hold_counts_once() {
    let mut graph = Graph::default().node::<Grab, _>("adapter", [("size", 4_000_000.into())]);
    let mut last = "adapter";
    for (i, id) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let number = i as i64;
        graph = graph.node::<Patch, _>(id, [("handle", of(last)), ("number", number.into())]);
        last = id;
    }
    let stage = engine(1 << 30);
    let told = run(&stage, &graph.plan(["e"]));
    assert_eq!(told.ran().len(), 6);
    let used = stage.engine.kept().used().host;
    assert!((4_000_000..4_001_000).contains(&used), "five patched handles add {} bytes", used - 4_000_000);
    // The storage goes with the last that holds it.
    let one = || Graph::default().node::<Grab, _>("adapter", [("size", 4_000_000.into())]).plan(["adapter"]);
    run(&stage, &one());
    stage.engine.kept().evict_idle();
    assert_eq!(stage.engine.kept().used(), Bytes::default());
}

#[test]
fn results_unused_for_ten_runs_go() {
    let engine = engine(PLENTY);
    run(&engine, &sum(1, 2));
    let other = || Graph::default().node::<Number, _>("other", [("value", 9.into())]).plan(["other"]);
    let told: Vec<_> = (0..10).map(|_| run(&engine, &other())).collect();
    assert!(told[..9].iter().all(|told| told.nodes("evicted").is_empty()));
    assert_eq!(told[9].nodes("evicted"), ["one", "sum", "two"]);
}

#[test]
fn an_unreadable_file_fails_its_node() {
    let file = flow_graph::File { path: "/nowhere/a.png".into(), name: "a.png".to_owned() };
    let plan = Graph::default()
        .node::<Reads, _>("reads", [("file", Fill::File(file))])
        .node::<Number, _>("fine", [("value", 1.into())])
        .plan(["reads", "fine"]);
    let told = run(&engine(PLENTY), &plan);
    assert_eq!((told.nodes("failed"), told.number(0)), (vec!["reads"], 1));
}

#[test]
fn deep_and_wide_graphs_need_no_recursion() {
    const MANY: usize = 100_000;
    let engine = engine(u64::MAX);
    let chain = chain(MANY);
    assert_eq!(run(&engine, &chain).number(0), MANY as i64);
    assert_eq!(run(&engine, &chain).nodes("cached").len(), MANY + 1);
    let (fan, engine) = (fan(MANY), stubs::engine(u64::MAX));
    assert_eq!(run(&engine, &fan).ran().len(), MANY + 1);
    assert_eq!(run(&engine, &fan).nodes("cached").len(), MANY + 1);
}
