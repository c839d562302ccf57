//! ComfyUI's own node classes: which inputs each has, in which order. Its editor's files hold values by position only.

use std::{collections::HashMap, sync::LazyLock};

/// One class.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) inputs: Vec<Input>,
}

/// One input of a class.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: &'static str,
    /// Only a link fills it; the others are widgets with a value.
    pub(crate) link: bool,
    /// It may stay empty.
    pub(crate) optional: bool,
}

static CLASSES: LazyLock<HashMap<&'static str, Class>> = LazyLock::new(|| {
    let lines = include_str!("classes.txt").lines().filter(|line| !line.starts_with('#'));
    let class = |line: &'static str| {
        let (name, inputs) = line.split_once(':')?;
        let inputs = inputs.split_whitespace().map(|input| Input {
            name: input.trim_start_matches('>').trim_end_matches('?'),
            link: input.starts_with('>'),
            optional: input.ends_with('?'),
        });
        Some((name, Class { inputs: inputs.collect() }))
    };
    lines.filter_map(class).collect()
});

static UNSUPPORTED: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let lines = include_str!("unsupported.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(": ")).collect()
});

/// The names of ComfyUI's classes that are known, in no order.
pub fn names() -> impl Iterator<Item = &'static str> {
    CLASSES.keys().copied()
}

/// The inputs of a class that is known, in ComfyUI's order.
pub fn inputs(class: &str) -> Option<Vec<&'static str>> {
    Some(CLASSES.get(class)?.inputs.iter().map(|input| input.name).collect())
}

/// Why no node stands for a class of ComfyUI, where that is not for want of time.
pub fn unsupported(class: &str) -> Option<&'static str> {
    UNSUPPORTED.get(class).copied()
}

/// What to do about a node type that there is not: why a class of ComfyUI is none here.
pub(crate) fn hint(class: &str) -> Option<String> {
    match unsupported(class) {
        Some(why) => Some(why.to_owned()),
        None => Class::of(class).map(|_| "this class of ComfyUI's has no node here yet".to_owned()),
    }
}

impl Class {
    /// A class by its name.
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        CLASSES.get(name)
    }

    /// An input by its name.
    pub(crate) fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// The names of the values in an editor's file, in order.
    pub(crate) fn widgets(&self) -> impl Iterator<Item = &'static str> {
        self.inputs.iter().filter(|input| !input.link).map(|input| input.name)
    }
}

/// The class as it is called today: old files have a blank behind a name, and classes that another one replaced.
pub(crate) fn today(name: &str) -> &str {
    match name.trim() {
        // Its second input, a configuration, is read from the file itself.
        "CheckpointLoader" => "CheckpointLoaderSimple",
        name => name,
    }
}

/// A value as its class takes it today: the first IP-Adapter node called its plain weighting `original`.
pub(crate) fn value_today<'a>(class: &str, input: &str, word: &'a str) -> &'a str {
    match (class, input, word) {
        ("IPAdapterApply", "weight_type", "original") => "linear",
        (.., word) => word,
    }
}
