//! Results on disk: what another process finds, and what damage does.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use flow_engine::DiskCache;
use flow_graph::{Context, Plan};

use crate::stubs::{graph::*, large::*, nodes::*, *};

const PLENTY: u64 = 1 << 20;

fn drawing(number: i64) -> Graph {
    Graph::default()
        .node::<Open, _>("open", [("what", 7.into())])
        .node::<Number, _>("number", [("value", number.into())])
        .node::<Tens, _>("tens", [("a", of("number"))])
        .node::<Draw, _>("draw", [("handle", of("open")), ("seed", of("tens"))])
        .node::<Measure, _>("size", [("made", of("draw"))])
        .node::<Save, _>("save", [("a", of("size"))])
}

fn again(folder: &Path, plan: &Plan) -> Told {
    run(&process(folder, PLENTY), plan)
}

/// The files of a folder and its sub-folders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn another_process_runs_sinks_only_and_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plan = drawing(31).plan(["save"]);
    assert_eq!(again(folder.path(), &plan).ran().len(), 6);
    insta::assert_snapshot!(again(folder.path(), &plan).text(), @r"
    cached size
    cached number
    cached tens
    cached open
    cached draw
    started save
    saved save 14.txt
    finished save 5ms 0
    ");
}

#[test]
fn hits_and_misses_of_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let runs: [(&str, i64, &[&str]); 5] = [
        ("all is new", 31, &["draw", "number", "open", "save", "size", "tens"]),
        ("an equal result stops the change", 38, &["number", "save", "tens"]),
        ("a new seed needs the handle again", 41, &["draw", "number", "open", "save", "size", "tens"]),
        ("back", 31, &["save"]),
        ("both are kept", 41, &["save"]),
    ];
    for (what, number, ran) in runs {
        assert_eq!(again(folder.path(), &drawing(number).plan(["save"])).ran(), ran, "{what}");
    }
}

#[test]
fn values_are_read_only_where_something_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    again(folder.path(), &drawing(31).plan(["save"]));
    let more = drawing(31).node::<Join, _>("more", [("made", of("draw")), ("a", 1.into())]);
    let told = again(folder.path(), &more.plan(["more"]));
    assert_eq!((told.ran(), told.number(0)), (vec!["more"], 15));
    assert_eq!(told.nodes("cached"), ["draw", "number", "open", "tens"]);
}

#[test]
fn a_damaged_entry_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let plan = drawing(31).plan(["size"]);
    again(folder.path(), &plan);
    let entries = files(folder.path());
    assert_eq!(entries.len(), 4, "the handle leaves nothing");
    for path in entries {
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            for bytes in [&damaged, &whole[..at].to_vec()] {
                fs::write(&path, bytes).unwrap();
                assert_eq!(again(folder.path(), &plan).number(0), 14, "byte {at} of {}", path.display());
                let _ = fs::write(&path, &whole);
            }
        }
    }
}

#[test]
fn damage_found_late_wants_what_was_not_needed_before() {
    let folder = tempfile::tempdir().unwrap();
    let plan = drawing(31).plan(["draw"]);
    again(folder.path(), &plan);
    let text = b"7 with seed 30";
    for path in files(folder.path()) {
        let mut bytes = fs::read(&path).unwrap();
        if bytes.ends_with(text) {
            *bytes.last_mut().unwrap() = b'1';
            fs::write(&path, bytes).unwrap();
        }
    }
    let told = again(folder.path(), &plan);
    assert_eq!((told.ran(), told.nodes("cached")), (vec!["draw", "open"], vec!["number", "tens"]));
    assert!(again(folder.path(), &plan).ran().is_empty());
}

#[test]
fn of_what_took_no_time_only_the_identity_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let quick = || {
        let disk = Arc::new(DiskCache::new(folder.path(), PLENTY));
        let Stage { engine, cx } = engine(PLENTY);
        Stage { engine: engine.with_disk(disk), cx }
    };
    let plan = Graph::default()
        .node::<Number, _>("number", [("value", 3.into())])
        .node::<Add, _>("sum", [("a", of("number"))])
        .node::<Save, _>("save", [("a", of("sum"))])
        .plan(["save"]);
    run(&quick(), &plan);
    assert_eq!(run(&quick(), &plan).ran(), ["number", "save", "sum"]);
    // Known identities are enough for keys: a look ahead resolves all of them.
    let stage = quick();
    let ahead = stage.engine.forecast(&plan, &stage.cx);
    assert!(plan.order().iter().all(|job| ahead.trace.key(*job).is_some()));
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let make = |from: i64| {
        Graph::default().node::<Make, _>("make", [("from", from.into()), ("size", 100.into())]).plan(["make"])
    };
    again(folder.path(), &make(1));
    let first = files(folder.path());
    again(folder.path(), &make(2));
    let (hour, size) = (Duration::from_secs(3600), fs::metadata(&first[0]).unwrap().len());
    for path in files(folder.path()) {
        let age = if path == first[0] { 3 * hour } else { hour };
        fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }
    assert!(again(folder.path(), &make(1)).ran().is_empty(), "the older one is used");
    run(&process(folder.path(), 2 * size), &make(3));
    assert_eq!(files(folder.path()).len(), 2);
    assert!(again(folder.path(), &make(1)).ran().is_empty());
    assert_eq!(again(folder.path(), &make(2)).ran(), ["make"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_once_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "not a folder").unwrap();
    let disk = Arc::new(DiskCache::new(file.join("results"), PLENTY));
    let Stage { engine, cx } = engine(PLENTY);
    let stage = Stage { engine: engine.with_disk(disk.clone()), cx };
    assert_eq!(run(&stage, &drawing(31).plan(["size"])).number(0), 14);
    assert!(disk.take_trouble().is_some_and(|told| told.starts_with("results cannot be kept in `")));
    assert_eq!(run(&stage, &drawing(41).plan(["size"])).number(0), 14);
    assert_eq!(disk.take_trouble(), None);
}

#[test]
fn several_processes_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for process in 0..8 {
            let path = folder.path();
            scope.spawn(move || {
                for number in 0..20 {
                    let plan = drawing((number + process) % 5 * 10).plan(["size"]);
                    assert!(again(path, &plan).number(0) >= 13);
                }
            });
        }
    });
    let disk = DiskCache::new(folder.path(), PLENTY);
    assert_eq!((disk.verify(), disk.survey().entries), (Vec::new(), files(folder.path()).len()));
}

#[test]
fn only_what_is_ours_is_checked_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    again(folder.path(), &drawing(31).plan(["size"]));
    let entries = files(folder.path());
    let shard = entries[0].parent().unwrap().to_owned();
    let foreign = [folder.path().join("notes.txt"), shard.join("notes.txt"), shard.join("ab")];
    foreign.iter().for_each(|path| fs::write(path, "mine").unwrap());
    fs::write(&entries[1], "damaged").unwrap();
    let disk = DiskCache::new(folder.path(), PLENTY);
    assert_eq!(disk.survey().entries, 4);
    assert_eq!(disk.verify(), [entries[1].clone()]);
    assert_eq!(disk.survey().entries, 3);
    disk.clear().unwrap();
    let mut left = files(folder.path());
    left.sort();
    let mut wanted = foreign.to_vec();
    wanted.sort();
    assert_eq!(left, wanted);
}

#[test]
fn another_device_has_results_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let plan = drawing(31).plan(["save"]);
    let on = |salt: &str| {
        let Stage { engine, .. } = process(folder.path(), PLENTY);
        run(&Stage { engine: engine.with_salt(salt), cx: Context::new(Arc::default()) }, &plan).ran().len()
    };
    assert_eq!(["cpu f32", "gpu f16", "cpu f32"].map(on), [6, 4, 1]);
}
