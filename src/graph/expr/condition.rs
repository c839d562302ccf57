//! The conditions of `when:`.

use super::{ExprError, Parser, number};
use crate::Literal;

/// Whether the condition of a `when:` holds: comparisons, `and`, `or`, `not` over such values and words in quotes; names may
/// have their `$`.
///
/// # Errors
/// Those of [`eval`], and a condition that is neither true nor false.
pub(crate) fn holds(
    text: &str,
    lookup: &mut dyn FnMut(&str) -> Result<Literal, ExprError>,
) -> Result<bool, ExprError> {
    let mut parser = Parser { text, at: 0, depth: 0, lookup };
    let value = parser.any()?;
    parser.space();
    match parser.rest().chars().next() {
        None => truth(&value),
        Some(c) => Err(ExprError {
            hint: Some("conditions know == != < <= > >=, and, or, not, and words in quotes".into()),
            ..parser.unexpected(c)
        }),
    }
}

impl Parser<'_> {
    /// Takes a whole word.
    fn take_word(&mut self, wanted: &str) -> bool {
        self.space();
        let after = self.rest().strip_prefix(wanted);
        let found = after.is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn any(&mut self) -> Result<Literal, ExprError> {
        let mut left = self.all()?;
        while self.take_word("or") {
            let right = self.all()?;
            left = (truth(&left)? | truth(&right)?).into();
        }
        Ok(left)
    }

    fn all(&mut self) -> Result<Literal, ExprError> {
        let mut left = self.negation()?;
        while self.take_word("and") {
            let right = self.negation()?;
            left = (truth(&left)? & truth(&right)?).into();
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Literal, ExprError> {
        if self.take_word("not") {
            let value = self.nested(Self::negation)?;
            return Ok((!truth(&value)?).into());
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Literal, ExprError> {
        let left = self.operand()?;
        self.space();
        let found = ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|op| self.rest().starts_with(op));
        let Some(op) = found else { return Ok(left) };
        self.at += op.len();
        let right = self.operand()?;
        compare(op, &left, &right).map(Literal::Bool)
    }

    /// What may be compared: a condition in parentheses, or a sum.
    fn operand(&mut self) -> Result<Literal, ExprError> {
        self.space();
        let start = self.at;
        if self.take('(') {
            let value = self.nested(Self::any)?;
            if !self.take(')') {
                return Err(ExprError::new("a `(` without its `)`"));
            }
            if matches!(value, Literal::Bool(_)) {
                return Ok(value);
            }
            // Arithmetic after all: `(a + b) * 2 > c`.
            self.at = start;
        }
        self.sum()
    }
}

fn truth(value: &Literal) -> Result<bool, ExprError> {
    match value {
        Literal::Bool(b) => Ok(*b),
        other => Err(ExprError {
            hint: Some("compare it: `$look > 0`, `$mode == \"soft\"`".into()),
            ..ExprError::new(format!("a condition is true or false, `{other}` is {}", other.describe()))
        }),
    }
}

fn compare(op: &str, left: &Literal, right: &Literal) -> Result<bool, ExprError> {
    if let (Ok(a), Ok(b)) = (number(left), number(right)) {
        return Ok(match op {
            "==" => a == b,
            "!=" => a != b,
            "<" => a < b,
            "<=" => a <= b,
            ">" => a > b,
            _ => a >= b,
        });
    }
    match op {
        "==" => Ok(left == right),
        "!=" => Ok(left != right),
        _ => {
            let which = if number(left).is_err() { left } else { right };
            Err(ExprError::new(format!("`{op}` compares numbers, `{which}` is {}", which.describe())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_and_combine() {
        let mut names = |name: &str| match name {
            "look" => Ok(Literal::Float(0.5)),
            "mode" => Ok("soft".into()),
            "on" => Ok(true.into()),
            _ => Err(ExprError::new(format!("no {name}"))),
        };
        let mut value = |text: &str| holds(text, &mut names).map_err(|error| error.message);
        for yes in [
            "$look > 0",
            "look >= 0.5 and not (look > 1)",
            "$mode == \"soft\" or $look > 7",
            "mode != 'hard'",
            "$on",
            "not $on or true",
            "(look + 0.5) * 2 == 2",
            "((look) < (1))",
        ] {
            assert_eq!(value(yes), Ok(true), "{yes}");
        }
        assert_eq!(value("$on and $look == 0"), Ok(false));
        assert_eq!(value("$look"), Err("a condition is true or false, `0.5` is a number".into()));
        assert_eq!(value("$mode > 1"), Err("`>` compares numbers, `soft` is a string".into()));
        assert_eq!(value("$look > 0 maybe"), Err("`m` is not expected in `$look > 0 maybe`".into()));
        assert!(value(&"(".repeat(100_000)).is_err() && value(&"not ".repeat(100_000)).is_err());
    }
}
