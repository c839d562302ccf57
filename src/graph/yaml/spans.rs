//! Where everything in a YAML text is, from parser events; and every limit, before the text becomes data.
//!
//! Places are for labels only: the values come from serde_yaml.

use std::{
    collections::{HashMap, HashSet},
    num::IntErrorKind,
    ops::Range,
    sync::Arc,
};

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::{
    Diagnostic, Literal,
    diag::{Source, Span},
    tree::{MAX_DEPTH, Spans},
};

/// Values a document may hold.
const MAX_VALUES: usize = 16_000_000;

/// Values that aliases may add to a document.
const MAX_ALIASED: usize = 100_000;

/// One thing wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) id: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<&'static str>,
    pub(crate) range: Range<usize>,
    /// An earlier place that matters, and why.
    pub(crate) first: Option<(Range<usize>, &'static str)>,
}

impl Fault {
    /// The problem, in a text.
    pub(super) fn diagnostic(self, source: &Arc<Source>) -> Diagnostic {
        let at = |range| Span { source: source.clone(), range };
        let problem = Diagnostic::error(self.id, self.message).at(at(self.range));
        let problem = problem.hint(self.hint.map(str::to_owned));
        match self.first {
            Some((range, why)) => problem.label(at(range), why),
            None => problem,
        }
    }
}

fn fault(id: &'static str, message: impl Into<String>, range: Range<usize>) -> Fault {
    Fault { id, message: message.into(), hint: None, range, first: None }
}

/// The places of a text's one document.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Absent in an empty text.
    pub(crate) root: Option<Spans>,
    /// Numbers that serde_yaml has no type for, by where they begin, or an alias of one does.
    pub(crate) large: HashMap<usize, Literal>,
    /// Where such numbers are written.
    pub(crate) written: Vec<Range<usize>>,
}

/// The places of a text's one document.
///
/// # Errors
/// All duplicate keys, or the first thing that stops the parser.
pub(crate) fn spans(text: &str) -> Result<Places, Vec<Fault>> {
    let barred = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    if let Some((at, sign)) = text.char_indices().find(|(_, c)| barred(*c)) {
        // By its number: nothing is to be seen of it.
        let message = format!("this is not YAML: it has no place for the character U+{:04X}", sign as u32);
        return Err(vec![fault("syntax", message, at..at + sign.len_utf8())]);
    }
    let mut reader = Reader::new(text);
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let at = reader.index.byte(error.marker().index());
            let other =
                || fault("syntax", format!("this is not YAML: {}", error.info()), at..reader.next_char(at));
            vec![tab_near(text, at, error.info().contains("tab")).unwrap_or_else(other)]
        })?;
        let range = reader.index.byte(span.start.index())..reader.index.byte(span.end.index());
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                let mut more = fault("documents", "a second document begins here; a workflow is one", range);
                more.hint = Some("remove the `---`, or split the file");
                return Err(vec![more]);
            }
        }
        reader.event(event, range).map_err(|stop| vec![stop])?;
    }
    if reader.faults.is_empty() { Ok(reader.places) } else { Err(reader.faults) }
}

/// The tab that stops a parser at or near `at`: one that indents the line or the one before, one beside it or, where it is
/// `known` to be a tab, the next one.
pub(super) fn tab_near(text: &str, at: usize, known: bool) -> Option<Fault> {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let before = text[..line.saturating_sub(1)].rfind('\n').map_or(0, |end| end + 1);
    let indents = |line: usize| {
        let indent = text[line..].find(|c| c != ' ' && c != '\t').map_or(text.len(), |end| line + end);
        text[line..indent].find('\t').map(|tab| line + tab)
    };
    let next = || text[at..].find('\t').map(|tab| at + tab).filter(|tab| known || *tab == at);
    let last = || text[..at].ends_with('\t').then(|| at - 1);
    // On the line before a tab may be fine, as in a text: it is to blame if without it the parser comes further.
    let comes_further = |tab: &usize| {
        let without = text[..*tab].to_owned() + &text[*tab + 1..];
        let error = serde_yaml::from_str::<serde_yaml::Value>(&without).err();
        error.is_none_or(|error| error.location().is_some_and(|place| place.index() >= at))
    };
    let earlier = || indents(before).filter(comes_further);
    let tab = indents(line).or_else(last).or_else(next).or_else(earlier)?;
    let mut wrong = fault("syntax", "this is not YAML: a tab stands where only spaces may", tab..tab + 1);
    wrong.hint = Some("use spaces");
    Some(wrong)
}

struct Frame {
    spans: Spans,
    anchor: usize,
    /// Keys seen and where; absent in a list.
    keys: Option<HashMap<String, Range<usize>>>,
    /// A key waiting for its value.
    key: Option<Range<usize>>,
}

/// An anchored value, complete.
struct Anchored {
    spans: Spans,
    values: usize,
    height: usize,
}

struct Reader<'s> {
    text: &'s str,
    index: CharIndex<'s>,
    frames: Vec<Frame>,
    open: HashSet<usize>,
    anchors: HashMap<usize, Anchored>,
    places: Places,
    values: usize,
    aliased: usize,
    faults: Vec<Fault>,
}

impl<'s> Reader<'s> {
    fn new(text: &'s str) -> Self {
        Self {
            text,
            index: CharIndex::new(text),
            frames: Vec::new(),
            open: HashSet::new(),
            anchors: HashMap::new(),
            places: Places::default(),
            values: 0,
            aliased: 0,
            faults: Vec::new(),
        }
    }

    fn next_char(&self, at: usize) -> usize {
        self.text[at..].chars().next().map_or(at, |c| at + c.len_utf8())
    }

    fn event(&mut self, event: Event<'_>, range: Range<usize>) -> Result<(), Fault> {
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                self.no_tag(tag.is_some(), &range)?;
                let range = self.trimmed(range);
                if let Some(large) = too_large(&value).filter(|_| style == ScalarStyle::Plain) {
                    self.places.large.insert(range.start, large);
                    // Without an anchor before it.
                    self.places.written.push(range.end - value.len()..range.end);
                }
                if self.awaits_key() {
                    self.key(&value, range)
                } else {
                    self.value(Spans { range, children: Vec::new() }, anchor)
                }
            }
            Event::SequenceStart(anchor, tag) => self.open(anchor, tag.is_some(), range, false),
            Event::MappingStart(anchor, tag) => self.open(anchor, tag.is_some(), range, true),
            Event::SequenceEnd | Event::MappingEnd => self.close(range),
            Event::Alias(anchor) => self.alias(anchor, range),
            _ => Ok(()),
        }
    }

    fn no_tag(&self, tagged: bool, range: &Range<usize>) -> Result<(), Fault> {
        if !tagged {
            return Ok(());
        }
        let mut tag = fault("yaml-feature", "tags (`!…`) mean nothing in a workflow", range.clone());
        tag.hint = Some("remove the tag; quote a value that must be a string");
        Err(tag)
    }

    fn awaits_key(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.keys.is_some() && frame.key.is_none())
    }

    fn not_a_key(&self, range: Range<usize>) -> Fault {
        let mut key = fault("yaml-feature", "a key is a string", range);
        key.hint = Some("write a name before the `:`");
        key
    }

    fn key(&mut self, name: &str, range: Range<usize>) -> Result<(), Fault> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let Some(keys) = &mut frame.keys else { return Ok(()) };
        if let Some(first) = keys.insert(name.to_owned(), range.clone()) {
            let mut again = fault("duplicate-key", format!("`{name}` is here twice"), range.clone());
            again.hint = Some("keep one of them");
            again.first = Some((first, "first here"));
            self.faults.push(again);
        }
        frame.key = Some(range);
        Ok(())
    }

    fn open(&mut self, anchor: usize, tagged: bool, range: Range<usize>, map: bool) -> Result<(), Fault> {
        self.no_tag(tagged, &range)?;
        if self.awaits_key() {
            return Err(self.not_a_key(range));
        }
        self.deep_enough(self.frames.len() + 1, &range)?;
        if anchor != 0 {
            self.open.insert(anchor);
        }
        let spans = Spans { range, children: Vec::new() };
        self.frames.push(Frame { spans, anchor, keys: map.then(HashMap::new), key: None });
        Ok(())
    }

    fn close(&mut self, range: Range<usize>) -> Result<(), Fault> {
        let Some(mut frame) = self.frames.pop() else { return Ok(()) };
        let start = frame.spans.range.start;
        let last = frame.spans.children.last().map_or(start, |(_, child)| child.range.end);
        // A block ends where the next thing begins, so its last value is its end; brackets end themselves.
        let bracketed =
            self.text[start..].starts_with(['{', '[']) && self.text[range.start..].starts_with(['}', ']']);
        frame.spans.range.end = if bracketed { range.start + 1 } else { last };
        self.open.remove(&frame.anchor);
        self.value(frame.spans, frame.anchor)
    }

    fn deep_enough(&self, depth: usize, range: &Range<usize>) -> Result<(), Fault> {
        if depth <= MAX_DEPTH {
            return Ok(());
        }
        Err(fault("too-deep", format!("this nests deeper than {MAX_DEPTH} levels"), range.clone()))
    }

    fn alias(&mut self, anchor: usize, range: Range<usize>) -> Result<(), Fault> {
        if self.awaits_key() {
            return Err(self.not_a_key(range));
        }
        let Some(known) = self.anchors.get(&anchor) else {
            let message = if self.open.contains(&anchor) {
                "an alias inside its own anchor"
            } else {
                "an alias to nothing"
            };
            return Err(fault("yaml-feature", message, range));
        };
        let (values, height) = (known.values, known.height);
        self.deep_enough(self.frames.len() + height, &range)?;
        self.aliased += values;
        if self.aliased > MAX_ALIASED {
            let message = format!("aliases (`*…`) repeat more than {MAX_ALIASED} values");
            return Err(fault("too-big", message, range));
        }
        // The alias is what a message should point at, for everything inside it.
        let mut spans = known.spans.clone();
        let large = self.places.large.get(&spans.range.start).filter(|_| spans.children.is_empty()).cloned();
        self.places.large.extend(large.map(|large| (range.start, large)));
        spans.range = range;
        self.value(spans, 0)
    }

    fn value(&mut self, spans: Spans, anchor: usize) -> Result<(), Fault> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(fault("too-big", format!("more than {MAX_VALUES} values"), spans.range));
        }
        if anchor != 0 {
            let (values, height) = measure(&spans);
            self.anchors.insert(anchor, Anchored { spans: spans.clone(), values, height });
        }
        match self.frames.last_mut() {
            None => self.places.root = Some(spans),
            Some(frame) => {
                let key = frame.key.take().unwrap_or_else(|| spans.range.clone());
                frame.spans.children.push((key, spans));
            }
        }
        Ok(())
    }

    /// A block scalar runs to the next token; everything else ends where it ends, so trimming is safe for both.
    fn trimmed(&self, range: Range<usize>) -> Range<usize> {
        let inside = &self.text[range.clone()];
        range.start..range.start + inside.trim_end().len()
    }
}

/// The number that a plain scalar is, where serde_yaml has no type for it: a whole number beyond 64 bits, which stops it without
/// a reason, or one beyond all floats, which it takes for a text.
pub(super) fn too_large(text: &str) -> Option<Literal> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let infinite = if sign.is_empty() { f64::INFINITY } else { f64::NEG_INFINITY };
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    // Not the words that Rust takes for numbers too; and `007` is none.
    if radix == 10 && !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let float = || Some(Literal::Float(infinite)).filter(|_| radix == 10 && text.parse() == Ok(infinite));
    if digits.starts_with(['-', '+']) || (radix == 10 && digits.starts_with('0')) {
        return float();
    }
    match u128::from_str_radix(digits, radix) {
        Ok(large) => {
            let whole = i128::from_str_radix(&format!("{sign}{digits}"), radix);
            match whole {
                Ok(whole) if whole > i128::from(u64::MAX) || whole < i128::from(i64::MIN) => {
                    Some(Literal::Int(whole))
                }
                Ok(_) => None,
                Err(_) => Some(Literal::Float(if sign.is_empty() { large as f64 } else { -(large as f64) })),
            }
        }
        // Decimal digits beyond those are a float to serde_yaml, up to the largest.
        Err(error) if *error.kind() == IntErrorKind::PosOverflow && radix != 10 => {
            Some(Literal::Float(infinite))
        }
        Err(_) => float(),
    }
}

/// Values in a tree, and its levels.
fn measure(spans: &Spans) -> (usize, usize) {
    let below = spans.children.iter().map(|(_, child)| measure(child));
    let (values, height) = below.fold((0, 0), |(values, height), (v, h)| (values + v, height.max(h)));
    (values + 1, height + usize::from(!spans.children.is_empty()))
}

/// Character numbers, as the parser counts, to byte offsets.
struct CharIndex<'s> {
    text: &'s str,
    /// Byte offset of every 64th character; empty for ASCII, where both are one.
    marks: Vec<u32>,
}

impl<'s> CharIndex<'s> {
    const EVERY: usize = 64;

    fn new(text: &'s str) -> Self {
        let marks = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().step_by(Self::EVERY).map(|(at, _)| at as u32).collect()
        };
        Self { text, marks }
    }

    fn byte(&self, chars: usize) -> usize {
        if self.marks.is_empty() {
            return chars.min(self.text.len());
        }
        let Some(mark) = self.marks.get(chars / Self::EVERY) else { return self.text.len() };
        let tail = &self.text[*mark as usize..];
        tail.char_indices().nth(chars % Self::EVERY).map_or(self.text.len(), |(at, _)| *mark as usize + at)
    }
}
