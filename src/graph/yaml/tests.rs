use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Option<Tree>, Diagnostics) {
    let source = Arc::new(Source { name: "a.yaml".into(), text: text.into() });
    let mut problems = Diagnostics::default();
    (parse(&source, &mut problems), problems)
}

fn ids(text: &str) -> Vec<&'static str> {
    read(text).1.0.iter().map(|problem| problem.id).collect()
}

/// Every value's path and the text at its place.
fn places(tree: &Tree, text: &str, path: &str, out: &mut Vec<(String, String)>) {
    out.push((path.to_owned(), text[tree.range.clone()].to_owned()));
    match &tree.value {
        Shape::List(items) => {
            for (i, item) in items.iter().enumerate() {
                places(item, text, &format!("{path}/{i}"), out);
            }
        }
        Shape::Map(entries) => {
            for entry in entries {
                places(&entry.value, text, &format!("{path}/{}", entry.key), out);
            }
        }
        Shape::Null | Shape::Scalar(_) => {}
    }
}

fn placed(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    places(&read(text).0.unwrap(), text, "", &mut out);
    out
}

#[test]
fn every_value_knows_its_place() {
    let text = "a: 1\nblock:\n  - 'two words'\n  - { x: é, y: [3, 4] }\ntext: |\n  line\n  more\n\nlast: ~\nempty:\n";
    let found = placed(text);
    let at = |path: &str| found.iter().find(|(p, _)| p == path).unwrap().1.as_str();
    assert_eq!(at("/a"), "1");
    assert_eq!(at("/block/0"), "'two words'");
    assert_eq!(at("/block/1"), "{ x: é, y: [3, 4] }");
    assert_eq!(at("/block/1/x"), "é");
    assert_eq!(at("/block/1/y"), "[3, 4]");
    assert_eq!(at("/block/1/y/1"), "4");
    assert!(at("/text").ends_with("more"), "{:?}", at("/text"));
    assert_eq!(at("/last"), "~");
    assert_eq!(at("/empty"), "empty");
}

#[test]
fn scalars_are_yaml_1_2() {
    let value = |text: &str| match read(&format!("a: {text}")).0.unwrap().get("a").unwrap().value.clone() {
        Shape::Scalar(literal) => literal,
        other => panic!("{other:?}"),
    };
    assert_eq!(value("no"), "no".into());
    assert_eq!(value("yes"), "yes".into());
    assert_eq!(value("on"), "on".into());
    assert_eq!(value("true"), true.into());
    assert_eq!(value("18446744073709551615"), u64::MAX.into());
    assert_eq!(value("-5"), (-5).into());
    assert_eq!(value("1e3"), 1000.0.into());
    assert_eq!(value("\"5\""), "5".into());
    assert_eq!(value("2024-01-01"), "2024-01-01".into());
    assert_eq!(value("12:30"), "12:30".into());
}

#[test]
fn numbers_beyond_all_types_are_numbers_and_hide_nothing() {
    let text = "a: 99999999999999999999999 # x\nb: [-0xFFFFFFFFFFFFFFFFFFFF, 1e999, '1e999']\nc: &c 18446744073709551616\nd: *c\ne: 7\n";
    let (tree, problems) = read(text);
    assert!(problems.0.is_empty(), "{problems:?}");
    let tree = tree.unwrap();
    let value = |key: &str| tree.get(key).unwrap().literal().unwrap();
    assert_eq!(value("a"), Literal::Int(99999999999999999999999));
    assert_eq!(
        value("b"),
        Literal::List(vec![
            Literal::Int(-0xFFFF_FFFF_FFFF_FFFF_FFFF),
            Literal::Float(f64::INFINITY),
            "1e999".into()
        ])
    );
    assert_eq!((value("c"), value("d")), (Literal::Int(1 << 64), Literal::Int(1 << 64)));
    assert_eq!(value("e"), 7.into());
    let digits = "9".repeat(400);
    assert_eq!(scalar(&digits), Literal::Float(f64::INFINITY));
    assert_eq!(scalar("-1e999"), Literal::Float(f64::NEG_INFINITY));
    assert_eq!(scalar("340282366920938463463374607431768211455"), Literal::Float(u128::MAX as f64));
    for text in ["inf", "infinity", "nan", "0x", "1e", "007", "e999", "--1", "18446744073709551615"] {
        assert_eq!(spans::too_large(text), None, "{text}");
    }
    let (_, problems) = read("99999999999999999999999: 1");
    assert_eq!(problems.0[0].hint.as_deref(), Some("quote it: \"99999999999999999999999\""));
}

#[test]
fn a_number_may_have_any_length() {
    let text = format!("a: {}", "9".repeat(100_000));
    assert_eq!(ids(&text), [""; 0]);
    assert_eq!(read(&text).0.and_then(|tree| tree.get("a")?.literal()), Some(Literal::Float(f64::INFINITY)));
}

#[test]
fn a_tab_is_pointed_at() {
    for (text, place) in [
        ("a:\n  b:\n\tc: 1\n", 8),
        ("a:\n  b: 1\n  \tc: 2\n", 12),
        ("\ta: 1\nb: 2\n", 0),
        ("x:\n  a: { b: 1,\n\tc: 2 }\n", 16),
        ("a:\n  -\tb: 1\n    c: 2\n", 6),
        ("a: 1\n\tb: 2\n", 5),
        ("a:\t1\n", 2),
    ] {
        let problem = read(text).1.0.into_iter().next().unwrap_or_else(|| panic!("{text:?} is read"));
        assert_eq!(problem.message, "this is not YAML: a tab stands where only spaces may", "{text:?}");
        assert_eq!(problem.span.map(|span| span.range), Some(place..place + 1), "{text:?}");
        assert_eq!(problem.hint.as_deref(), Some("use spaces"));
    }
    // A tab in a text is none of a later mistake's business.
    for text in ["a: |\n  if x:\n\n  \ty\nb: c: d\n", "a: |\n  x\n  \ty\nb: c: d\n"] {
        let problem = &read(text).1.0[0];
        assert!(problem.id == "syntax" && !problem.message.contains("a tab stands"), "{text:?}: {problem:?}");
    }
    assert_eq!(ids("a:\n  b:\t{ c: 1 }\n"), [""; 0]);
    let other = &read("a: [\n  \t1\nb: 2\n").1.0[0];
    assert!(other.id == "syntax", "{other:?}");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let list = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{list}]\n"));
    }
    assert_eq!(ids(&laughs), ["too-big"]);
    let ladder: String = (1..200).map(|i| format!("b{i}: &b{i} [*b{}]\n", i - 1)).collect();
    assert_eq!(ids(&format!("b0: &b0 x\n{ladder}")), ["too-deep"]);
    assert!(matches!(ids(&"[".repeat(1_000_000)).as_slice(), ["too-deep" | "syntax"]));
    assert!(matches!(ids(&"- ".repeat(100_000)).as_slice(), ["too-deep" | "syntax"]));
    assert_eq!(ids(&"x".repeat(MAX_BYTES + 1)), ["too-big"]);
    assert_eq!(ids("a: &a [1, *a]"), ["yaml-feature"]);
}

#[test]
fn a_value_from_the_command_line_is_one_scalar() {
    assert_eq!(scalar("5"), 5.into());
    assert_eq!(scalar("0.5"), 0.5.into());
    assert_eq!(scalar("true"), true.into());
    assert_eq!(scalar("a: b"), "a: b".into());
    assert_eq!(scalar("[1]"), "[1]".into());
    assert_eq!(scalar("- a"), "- a".into());
    assert_eq!(
        list("[1, 'a, b', [c]]"),
        Some(vec![1.into(), "a, b".into(), Literal::List(vec!["c".into()])])
    );
    for text in ["a, b", "[a].png", "[a, {b: c}]", "[~]"] {
        assert_eq!(list(text), None, "{text}");
    }
    assert_eq!(scalar("*x"), "*x".into());
    assert_eq!(scalar(""), "".into());
}

/// Data in the shapes a workflow has.
fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zé垫😀 .:#'\"\\n\\[{$-]{0,12}".prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-zé]{1,6}", inner, 0..5).prop_map(|map| Value::Mapping(
                map.into_iter().map(|(key, value)| (Value::from(key), value)).collect()
            )),
        ]
    })
}

/// The shape of a value: paths of everything in it.
fn shape(value: &Value, path: &str, out: &mut Vec<String>) {
    out.push(path.to_owned());
    match value {
        Value::Sequence(items) => {
            for (i, item) in items.iter().enumerate() {
                shape(item, &format!("{path}/{i}"), out);
            }
        }
        Value::Mapping(entries) => {
            for (key, value) in entries {
                shape(value, &format!("{path}/{}", key.as_str().unwrap()), out);
            }
        }
        _ => {}
    }
}

/// The shape of the places; keys are read back from the text, so that a place off by one is another path.
fn shape_of_spans(spans: &Spans, value: &Value, text: &str, path: &str, out: &mut Vec<String>) {
    out.push(path.to_owned());
    for (i, (key, child)) in spans.children.iter().enumerate() {
        let (name, below) = match value {
            Value::Mapping(entries) => (text[key.clone()].to_owned(), entries.get(&text[key.clone()])),
            Value::Sequence(items) => (i.to_string(), items.get(i)),
            _ => (String::new(), None),
        };
        shape_of_spans(child, below.unwrap_or(&Value::Null), text, &format!("{path}/{name}"), out);
    }
}

proptest! {
    #[test]
    fn places_and_values_have_the_same_paths(value in data()) {
        let text = serde_yaml::to_string(&value).unwrap();
        let spans = spans::spans(&text).unwrap().root.unwrap_or_default();
        let (mut values, mut found) = (Vec::new(), Vec::new());
        shape(&value, "", &mut values);
        shape_of_spans(&spans, &value, &text, "", &mut found);
        prop_assert_eq!(values, found, "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"'&*!|>%@`#?\\-a1é \\n\\t\\r~$.<]{0,60}") {
        let (tree, problems) = read(&text);
        prop_assert!(tree.is_some() || problems.has_errors(), "{:?}", problems);
        for problem in &problems.0 {
            problem.render(false);
        }
    }

    #[test]
    fn any_unicode_is_read_or_refused(text in "\\PC{0,40}(\n\\PC{0,20}){0,3}") {
        let (tree, problems) = read(&text);
        prop_assert!(tree.is_some() || problems.has_errors());
    }
}
