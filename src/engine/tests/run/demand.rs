//! What runs because somebody needs it, and what does not because nobody does.

use std::sync::{Arc, Barrier};

use flow_engine::{Fate, RunError};
use flow_graph::{Context, Job, Link, NodeDef, Plan};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::stubs::{graph::*, large::*, nodes::*, *};

const PLENTY: u64 = 1 << 20;

/// open → draw → size; tens of a number decides the seed.
fn drawing(number: i64) -> Plan {
    Graph::default()
        .node::<Open, _>("open", [("what", 7.into())])
        .node::<Number, _>("number", [("value", number.into())])
        .node::<Tens, _>("tens", [("a", of("number"))])
        .node::<Draw, _>("draw", [("handle", of("open")), ("seed", of("tens"))])
        .node::<Measure, _>("size", [("made", of("draw"))])
        .plan(["size"])
}

#[test]
fn only_named_targets_and_what_they_need_run_targets_among_them_too() {
    let graph = || {
        Graph::default()
            .node::<Number, _>("one", [("value", 1.into())])
            .node::<Add, _>("two", [("a", of("one")), ("b", 1.into())])
            .node::<Add, _>("three", [("a", of("two")), ("b", 1.into())])
            .node::<Save, _>("saved", [("a", of("two"))])
            .node::<Save, _>("other", [("a", of("one"))])
    };
    let stage = engine(PLENTY);
    assert_eq!(run(&stage, &graph().plan(["saved"])).ran(), ["one", "saved", "two"]);
    let told = run(&stage, &graph().plan(["three", "two", "other"]));
    assert_eq!((told.ran(), told.number(0), told.number(1)), (vec!["other", "three"], 3, 2));
    assert!(run(&stage, &graph().plan([])).events.is_empty());
}

#[test]
fn links_in_a_circle_are_no_plan() {
    let mut graph = DiGraph::new();
    let add = Arc::new(NodeDef::of::<Add>());
    let [a, b] = ["a", "b"].map(|id| graph.add_node(Job::new(id, add.clone(), [].into())));
    for (from, to) in [(a, b), (b, a)] {
        graph.add_edge(from, to, Link { from_output: 0, input: "a" });
    }
    assert!(Plan::assemble(graph, vec![a]).is_none());
}

#[test]
fn an_error_while_another_node_runs_does_not_stop_it() {
    let cx = Context::new(Arc::default()).with_resource(Arc::new(Barrier::new(2)));
    let plan = Graph::default()
        .node::<MeetAndFail, _>("fails", [])
        .node::<MeetOnDevice, _>("runs", [("a", 4.into())])
        .node::<Add, _>("after", [("a", of("runs")), ("b", 1.into())])
        .node::<Add, _>("never", [("a", of("fails"))])
        .plan(["never", "after"]);
    let told = run(&with_context(cx, PLENTY), &plan);
    assert_eq!((told.nodes("failed"), told.ran()), (vec!["fails"], vec!["after", "fails", "runs"]));
    let Err(RunError::Failed { outputs, .. }) = told.result else { panic!("{:?}", told.result) };
    assert_eq!(*outputs.targets[0].1[0].get::<i64>().unwrap(), 5);
}

/// The consumer's key is known only after the host node has run. That the device node is needed is clear before, so the two
/// overlap; otherwise this waits for ever.
#[test]
fn what_was_never_computed_does_not_wait_for_all_keys() {
    for budget in [0, PLENTY] {
        let cx = Context::new(Arc::default()).with_resource(Arc::new(Barrier::new(2)));
        let plan = Graph::default()
            .node::<Meet, _>("number", [("a", 2.into())])
            .node::<MeetAndMake, _>("made", [("from", 123.into())])
            .node::<Join, _>("join", [("made", of("made")), ("a", of("number"))])
            .plan(["join"]);
        assert_eq!(run(&with_context(cx, budget), &plan).number(0), 5);
    }
}

#[test]
fn every_job_is_told_once() {
    let stage = engine(PLENTY);
    for (number, ran, cached) in [(31, 5, 0), (31, 0, 5), (38, 2, 3), (41, 4, 1), (31, 0, 5)] {
        let told = run(&stage, &drawing(number));
        assert_eq!(
            (told.ran().len(), told.nodes("cached").len()),
            (ran, cached),
            "{number}: {}",
            told.text()
        );
    }
}

#[test]
fn a_look_ahead_says_what_would_run_and_runs_nothing() {
    let stage = engine(PLENTY);
    let fates = |number: i64| {
        let plan = drawing(number);
        let ahead = stage.engine.forecast(&plan, &stage.cx);
        let name = |job: &NodeIndex| plan.job(*job).id.to_string();
        let line = |job: &NodeIndex| match &ahead.fates[job.index()] {
            Fate::After(jobs) => format!("{} after {}", name(job), jobs.iter().map(name).collect::<String>()),
            Fate::Run { .. } => format!("{} Run", name(job)),
            fate => format!("{} {fate:?}", name(job)),
        };
        let mut lines: Vec<_> = plan.order().iter().map(line).collect();
        lines.sort();
        lines.join(", ")
    };
    assert_eq!(fates(31), "draw after number, number Run, open Run, size after number, tens after number");
    run(&stage, &drawing(31));
    assert_eq!(fates(31), "draw Found, number Found, open Found, size Found, tens Found");
    assert_eq!(fates(41), "draw after number, number Run, open Found, size after number, tens after number");
}

#[test]
fn a_look_ahead_at_a_large_graph_needs_no_recursion() {
    const MANY: usize = 100_000;
    let stage = engine(u64::MAX);
    let plan = chain(MANY);
    let after = |fate: &&Fate| matches!(fate, Fate::After(jobs) if jobs.len() == 1);
    let ahead = stage.engine.forecast(&plan, &stage.cx);
    assert_eq!(ahead.fates.iter().filter(after).count(), MANY);
}
