//! Every file of `suite/` has its problems written beside them: `# error: [id] part of the message`.
//!
//! `# set: x=v`, `# sweep: x=1,2` and `# wanted: name` are what the command line would add; a problem that is in no line of the file is
//! written `# error elsewhere: [id] …`; files of `suite/parts` lie beside each. The whole text a user sees is a snapshot.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod stubs;

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use flow_graph::{
    Diagnostics, Files, Overrides, Workflow,
    diag::{IDS, Source},
    sweep::Asked,
};

fn suite() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite");
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries
        .filter(|path| path.is_file())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    cases.sort();
    cases
}

fn problems(name: &str, text: &str) -> Diagnostics {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for file in [
        "models/checkpoints/base.safetensors",
        "models/checkpoints/xl.safetensors",
        "models/clip_vision/eye.safetensors",
        "in/cup.png",
        "in/cup2.png",
        "secret.png",
        "secret.yaml",
    ] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    let files = Arc::new(Files::new(vec![root.join("in")], vec![root.join("models")], root.join("out")));
    for part in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/parts")).unwrap() {
        let path = part.unwrap().path();
        fs::copy(&path, root.join("in").join(path.file_name().unwrap())).unwrap();
    }
    // What stands beside others has a place on disk; of the rest only the name is of interest.
    let beside = text.contains("\nextends: ") || text.contains("\nimport:") || text.contains("\nsubgraphs:");
    let place =
        if beside { root.join("in").join(name).to_string_lossy().into_owned() } else { name.to_owned() };
    let registry = stubs::registry();
    let (workflow, _) = Workflow::open(&place, text, &files, &registry);
    let directive = |word: &str| {
        let start = format!("# {word}: ");
        text.lines().filter_map(move |line| Some(line.strip_prefix(&start)?.to_owned())).collect::<Vec<_>>()
    };
    let pair = |text: String| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
    let overrides = Overrides {
        set: directive("set").into_iter().map(pair).collect(),
        env: directive("env").into_iter().map(pair).collect(),
        params: directive("params").into_iter().map(|text| ("given.yaml".to_owned(), text)).collect(),
    };
    // A check repeats what reading found, so that it is all there is to show.
    let asked = Asked { sweeps: directive("sweep"), grid: None, turn: 0 };
    let wanted = directive("wanted");
    let checked = workflow.sweep(&asked, &overrides, &files).and_then(|sweep| {
        sweep.check(&registry, &files, &overrides, &wanted).map(|checked| checked.warnings().clone())
    });
    let mut problems = checked.unwrap_or_else(|problems| problems);
    // Where the test ran is nobody's business.
    let shown = root.display().to_string();
    for problem in &mut problems.0 {
        problem.hint = problem.hint.take().map(|hint| hint.replace(&shown, "<root>"));
        problem.message = problem.message.replace(&shown, "<root>");
        for span in problem.span.iter_mut().chain(problem.labels.iter_mut().map(|(span, _)| span)) {
            let Source { name, text } = &*span.source;
            let name = name.replace(&format!("{shown}/in/"), "");
            span.source = Arc::new(Source { name, text: text.clone() });
        }
    }
    problems
}

/// Line (0: elsewhere), severity, id and part of the message.
fn expected(text: &str) -> Vec<(usize, String, String, String)> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for severity in ["error", "warning"] {
            for (mark, place) in
                [(format!("# {severity}: ["), number + 1), (format!("# {severity} elsewhere: ["), 0)]
            {
                for part in line.split(&mark).skip(1) {
                    let (id, rest) = part.split_once("] ").unwrap();
                    let message = rest.split(" # ").next().unwrap().trim();
                    all.push((place, severity.to_owned(), id.to_owned(), message.to_owned()));
                }
            }
        }
    }
    all
}

#[test]
fn every_file_has_the_problems_written_in_it_and_no_others() {
    let mut wrong = Vec::new();
    for (name, text) in suite() {
        let mut left = expected(&text);
        for problem in problems(&name, &text).0 {
            let line = problem
                .span
                .as_ref()
                .filter(|span| span.source.name == name)
                .map_or(0, |span| span.line_column().0);
            let found = left.iter().position(|(place, severity, id, message)| {
                *place == line
                    && severity == problem.severity.name()
                    && id == problem.id
                    && problem.message.contains(message)
            });
            match found {
                Some(found) => drop(left.remove(found)),
                None => wrong.push(format!(
                    "{name}:{line}: unexpected {}: [{}] {}",
                    problem.severity.name(),
                    problem.id,
                    problem.message
                )),
            }
        }
        wrong.extend(
            left.into_iter().map(|(line, severity, id, message)| {
                format!("{name}:{line}: no {severity}: [{id}] {message}")
            }),
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_a_user_sees_of_each_problem() {
    for (name, text) in suite() {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name.clone(), problems(&name, &text).render(false)));
    }
}

#[test]
fn every_id_is_documented_and_has_a_case() {
    let listed: BTreeSet<_> = IDS.iter().map(|(id, _)| *id).collect();
    assert_eq!(listed.len(), IDS.len(), "an id is listed twice");
    assert!(IDS.is_sorted_by_key(|(id, _)| *id));
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md")).unwrap();
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")).collect();
    let wanted: Vec<_> = IDS.iter().map(|(id, means)| (*id, format!("{means} |"))).collect();
    assert_eq!(
        rows,
        wanted.iter().map(|(id, means)| (*id, means.as_str())).collect::<Vec<_>>(),
        "docs/errors.md is another list"
    );
    let seen: BTreeSet<_> =
        suite().iter().flat_map(|(_, text)| expected(text)).map(|(_, _, id, _)| id).collect();
    // A node that fails while it runs, texts that are no YAML file, and what hangs on folders, have tests of their own.
    let elsewhere = [
        "ignored-input",
        "items-to-be",
        "left-out",
        "node-failed",
        "not-in-comfyui",
        "stale-lock",
        "too-big",
        "ui-format",
        "unwritable",
        "wrong-hash",
    ];
    let missing: Vec<_> =
        listed.iter().filter(|id| !seen.contains(**id) && !elsewhere.contains(id)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    let unknown: Vec<_> = seen.iter().filter(|id| !listed.contains(id.as_str())).collect();
    assert!(unknown.is_empty(), "not listed: {unknown:?}");
}

#[test]
fn json_says_the_same_for_machines() {
    let problems = problems("w.yaml", "flow: 1\nnodes:\n  a: { type: KSamplr }\n");
    let json = problems.to_json();
    let expected = serde_json::json!([{
        "id": "unknown-node", "severity": "error", "message": "unknown node type `KSamplr`",
        "hint": "did you mean `KSampler`?", "node": "a",
        "file": "w.yaml", "line": 3, "column": 14, "end_line": 3, "end_column": 21,
    }]);
    assert_eq!(json, expected);
    assert_eq!(problems.summary(), "1 error");
}
