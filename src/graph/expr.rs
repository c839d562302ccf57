//! `$name`, `${width * 2}` and text with such places in it: the arithmetic a workflow may do before it runs.
//!
//! Declarative on purpose: numbers, names, `+ - * /`, `min`, `max`, parentheses, nothing else.

mod condition;
mod rename;

pub(crate) use condition::holds;
pub(crate) use rename::{renamed, written};

use std::ops::Range;

use crate::Literal;

/// Parentheses within parentheses.
const DEPTH: usize = 32;

/// What a string in the file means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Template<'a> {
    /// Text as it is, `$$` already one dollar.
    Text(String),
    /// `$name`: the value itself, whatever its type, or a node's output.
    Name(&'a str),
    /// `${…}` and nothing around it: the value keeps its type.
    Expr(&'a str),
    /// Text with `${…}` in it: a string.
    Mixed(Vec<Piece<'a>>),
}

/// A part of a mixed text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece<'a> {
    /// Text.
    Text(String),
    /// The inside of one `${…}`.
    Expr(&'a str),
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExprError {
    pub(crate) id: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl ExprError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { id: "expression", message: message.into(), hint: None }
    }
}

/// Splits a string of the file.
///
/// # Errors
/// On a `${` without its `}`.
pub(crate) fn template(text: &str) -> Result<Template<'_>, ExprError> {
    if !text.contains('$') {
        return Ok(Template::Text(text.to_owned()));
    }
    if let Some(name) = text.strip_prefix('$').filter(|name| is_path(name)) {
        return Ok(Template::Name(name));
    }
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(inside) = after.strip_prefix('{') {
            let end = inside.find('}').ok_or_else(|| ExprError {
                hint: Some("close it with `}`, or write `$$` for a dollar".into()),
                ..ExprError::new("`${` without a closing `}`")
            })?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Expr(&inside[..end]));
            rest = &inside[end + 1..];
        } else {
            plain.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    plain.push_str(rest);
    if pieces.is_empty() {
        return Ok(Template::Text(plain));
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    match pieces.as_slice() {
        [Piece::Expr(inside)] => Ok(Template::Expr(inside)),
        _ => Ok(Template::Mixed(pieces)),
    }
}

/// Whether `name` is a name or names joined by dots, as after a `$`.
fn is_path(name: &str) -> bool {
    name.split('.').enumerate().all(|(i, part)| {
        let mut letters = part.chars();
        let first =
            letters.next().is_some_and(|c| c.is_alphabetic() || c == '_' || (i > 0 && c.is_alphanumeric()));
        first && letters.all(|c| c.is_alphanumeric() || c == '_' || c == '-')
    })
}

/// The value of what stands in `${…}`; `lookup` gives the value of a name.
///
/// # Errors
/// On anything but the grammar above, division by zero, overflow, and what `lookup` refuses.
pub(crate) fn eval(
    text: &str,
    lookup: &mut dyn FnMut(&str) -> Result<Literal, ExprError>,
) -> Result<Literal, ExprError> {
    let mut parser = Parser { text, at: 0, depth: 0, lookup };
    let value = parser.sum()?;
    parser.space();
    match parser.rest().chars().next() {
        None => Ok(value),
        Some(c) => Err(parser.unexpected(c)),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    lookup: &'a mut dyn FnMut(&str) -> Result<Literal, ExprError>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, wanted: char) -> bool {
        self.space();
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn unexpected(&self, c: char) -> ExprError {
        ExprError {
            hint: Some("expressions know numbers, names, + - * /, min(…), max(…) and parentheses".into()),
            ..ExprError::new(format!("`{c}` is not expected in `{}`", self.text.trim()))
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Literal, ExprError> {
        let inside = &self.rest()[1..];
        let end = inside.find(quote).ok_or_else(|| ExprError::new(format!("a {quote} without its end")))?;
        self.at += end + 2;
        Ok(inside[..end].into())
    }

    fn sum(&mut self) -> Result<Literal, ExprError> {
        let mut left = self.product()?;
        loop {
            let op = if self.take('+') {
                '+'
            } else if self.take('-') {
                '-'
            } else {
                return Ok(left);
            };
            left = apply(op, &left, &self.product()?)?;
        }
    }

    fn product(&mut self) -> Result<Literal, ExprError> {
        let mut left = self.atom()?;
        loop {
            let op = if self.take('*') {
                '*'
            } else if self.take('/') {
                '/'
            } else {
                return Ok(left);
            };
            left = apply(op, &left, &self.atom()?)?;
        }
    }

    fn nested<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T, ExprError>) -> Result<T, ExprError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(ExprError::new(format!("an expression nests deeper than {DEPTH}")));
        }
        let value = inside(self);
        self.depth -= 1;
        value
    }

    fn atom(&mut self) -> Result<Literal, ExprError> {
        self.space();
        let Some(c) = self.rest().chars().next() else {
            return Err(ExprError::new(format!("`${{{}}}` ends where a value is expected", self.text)));
        };
        match c {
            '-' => {
                self.at += 1;
                let value = self.nested(Self::atom)?;
                apply('-', &Literal::Int(0), &value)
            }
            '(' => {
                self.at += 1;
                let value = self.nested(Self::sum)?;
                if self.take(')') { Ok(value) } else { Err(ExprError::new("a `(` without its `)`")) }
            }
            '0'..='9' | '.' => self.number(),
            '\'' | '"' => self.quoted(c),
            '$' => {
                self.at += 1;
                self.name()
            }
            c if c.is_alphabetic() || c == '_' => self.name(),
            c => Err(self.unexpected(c)),
        }
    }

    fn word(&mut self, part_of: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !part_of(c)).unwrap_or(rest.len());
        let range: Range<usize> = self.at..self.at + len;
        self.at = range.end;
        &self.text[range]
    }

    fn number(&mut self) -> Result<Literal, ExprError> {
        let digits = self.word(|c| c.is_ascii_digit() || c == '.');
        let whole = digits.parse().map(Literal::Int);
        whole
            .or_else(|_| digits.parse().map(Literal::Float))
            .map_err(|_| ExprError::new(format!("`{digits}` is no number")))
    }

    fn name(&mut self) -> Result<Literal, ExprError> {
        let name = self.word(|c| c.is_alphanumeric() || c == '_' || c == '.');
        match name {
            "true" => return Ok(true.into()),
            "false" => return Ok(false.into()),
            _ => {}
        }
        if !self.take('(') {
            return (self.lookup)(name);
        }
        let pick: fn(f64, f64) -> bool = match name {
            "min" => |a, b| a < b,
            "max" => |a, b| a > b,
            _ => {
                let hint = Some("there are `min` and `max`".into());
                return Err(ExprError { hint, ..ExprError::new(format!("unknown function `{name}`")) });
            }
        };
        let mut best = self.nested(Self::sum)?;
        let mut score = number(&best)?;
        while self.take(',') {
            let other = self.nested(Self::sum)?;
            let value = number(&other)?;
            if pick(value, score) {
                (best, score) = (other, value);
            }
        }
        if self.take(')') { Ok(best) } else { Err(ExprError::new(format!("`{name}(` without its `)`"))) }
    }
}

fn number(value: &Literal) -> Result<f64, ExprError> {
    match value {
        Literal::Int(i) => Ok(*i as f64),
        Literal::Float(x) => Ok(*x),
        other => Err(ExprError::new(format!("arithmetic takes numbers, `{other}` is {}", other.describe()))),
    }
}

fn apply(op: char, left: &Literal, right: &Literal) -> Result<Literal, ExprError> {
    if let (Literal::Int(a), Literal::Int(b)) = (left, right) {
        let exact = match op {
            '+' => a.checked_add(*b),
            '-' => a.checked_sub(*b),
            '*' => a.checked_mul(*b),
            _ if *b == 0 => return Err(ExprError::new(format!("`{a} / 0` divides by zero"))),
            _ if a % b == 0 => a.checked_div(*b),
            _ => return Ok(Literal::Float(*a as f64 / *b as f64)),
        };
        return exact.map(Literal::Int).ok_or_else(|| ExprError::new("a number grows too big"));
    }
    let (a, b) = (number(left)?, number(right)?);
    let value = match op {
        '+' => a + b,
        '-' => a - b,
        '*' => a * b,
        _ if b == 0.0 => return Err(ExprError::new(format!("`{a} / {b}` divides by zero"))),
        _ => a / b,
    };
    if value.is_finite() { Ok(Literal::Float(value)) } else { Err(ExprError::new("a number grows too big")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Literal, String> {
        let mut names = |name: &str| match name {
            "width" => Ok(Literal::Int(512)),
            "look" => Ok(Literal::Float(0.5)),
            "flow.name" => Ok("shot".into()),
            _ => Err(ExprError::new(format!("no {name}"))),
        };
        eval(text, &mut names).map_err(|error| error.message)
    }

    #[test]
    fn whole_numbers_stay_whole_and_precedence_is_the_usual_one() {
        assert_eq!(value("1 + 2 * 3 - 4 / 2"), Ok(Literal::Int(5)));
        assert_eq!(value("(1 + 2) * -3"), Ok(Literal::Int(-9)));
        assert_eq!(value("width / 3"), Ok(Literal::Float(512.0 / 3.0)));
        assert_eq!(value("max(width, 768, 2) / 8"), Ok(Literal::Int(96)));
        assert_eq!(value("min(look, 1) * 2"), Ok(Literal::Float(1.0)));
        assert_eq!(value(" flow.name "), Ok("shot".into()));
    }

    #[test]
    fn what_has_no_value_says_why() {
        for (text, message) in [
            ("1 / 0", "`1 / 0` divides by zero"),
            ("look / (1 - 1)", "`0.5 / 0` divides by zero"),
            ("1 +", "`${1 +}` ends where a value is expected"),
            ("", "`${}` ends where a value is expected"),
            ("1 2", "`2` is not expected in `1 2`"),
            ("a == 1", "no a"),
            ("1 == 1", "`=` is not expected in `1 == 1`"),
            ("(1", "a `(` without its `)`"),
            ("sqrt(2)", "unknown function `sqrt`"),
            ("flow.name + 1", "arithmetic takes numbers, `shot` is a string"),
            ("1.2.3", "`1.2.3` is no number"),
        ] {
            assert_eq!(value(text), Err(message.to_owned()), "{text}");
        }
        assert!(value(&"(".repeat(100_000)).is_err());
        assert!(value(&"-".repeat(100_000)).is_err());
        assert_eq!(value(&["1000000000"; 10].join("*")), Err("a number grows too big".into()));
    }

    #[test]
    fn strings_split_into_text_names_and_expressions() {
        assert_eq!(template("plain"), Ok(Template::Text("plain".into())));
        assert_eq!(template("$prompt"), Ok(Template::Name("prompt")));
        assert_eq!(template("$models.base-1"), Ok(Template::Name("models.base-1")));
        assert_eq!(template("$5 for $$1"), Ok(Template::Text("$5 for $1".into())));
        assert_eq!(template("${seed + 1}"), Ok(Template::Expr("seed + 1")));
        let mixed =
            vec![Piece::Text("out/".into()), Piece::Expr("a"), Piece::Expr("b"), Piece::Text("$.png".into())];
        assert_eq!(template("out/${a}${b}$$.png"), Ok(Template::Mixed(mixed)));
        assert!(template("${open").is_err());
    }
}
