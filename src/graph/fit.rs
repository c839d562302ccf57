//! A literal and the input it should fill.

use std::fmt::Display;

use crate::{Diagnostic, Literal, near::did_you_mean, spec::ValueKind, yaml};

/// A whole float below this is an `i128`; above, it is out of every range there is.
const WIDEST: f64 = 1e38;

/// Why a literal does not fill an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    id: &'static str,
    /// Completes "`x` …".
    message: String,
    hint: Option<String>,
}

impl Misfit {
    fn new(id: &'static str, message: String, hint: Option<String>) -> Self {
        Self { id, message, hint }
    }

    /// A word that is not among `words`.
    pub(crate) fn not_in_list(word: &str, words: &[&str]) -> Self {
        Self::new(
            "value-not-in-list",
            format!("has no choice `{word}`"),
            did_you_mean(word, words, "choices"),
        )
    }

    /// A value where only a node can be.
    pub(crate) fn only_a_node(ty: &str) -> Self {
        let hint = "import this workflow and use it as a node, with a link here";
        Self::new("link-expected", format!("takes {ty} from a node, not a value"), Some(hint.to_owned()))
    }

    /// The problem, said of `what`.
    pub(crate) fn diagnostic(self, what: &str) -> Diagnostic {
        Diagnostic::error(self.id, format!("{what} {}", self.message)).hint(self.hint)
    }
}

/// The literal as the input takes it: whole floats become INT, any number FLOAT; nothing else is changed.
///
/// # Errors
/// When it is of another type, out of range, or no choice.
pub(crate) fn fit(kind: &ValueKind, value: Literal) -> Result<Literal, Misfit> {
    match (kind, value) {
        (ValueKind::Bool, value @ Literal::Bool(_)) => Ok(value),
        (ValueKind::Int { min, max }, Literal::Int(i)) => {
            in_range(i, i < *min, i > *max, *min, *max).map(|()| Literal::Int(i))
        }
        (ValueKind::Int { min, max }, Literal::Float(x)) if x.fract() == 0.0 && x.abs() < WIDEST => {
            let whole = fit(kind, Literal::Int(x as i128));
            // Shown as it was written: 1e30, not the float next to it.
            whole.or_else(|misfit| in_range(x, x < *min as f64, x > *max as f64, *min, *max).and(Err(misfit)))
        }
        (ValueKind::Int { min, max }, Literal::Float(x)) if x.is_infinite() => Err(infinite(x, min, max)),
        (ValueKind::Int { min, max }, Literal::Float(x)) if x.abs() >= WIDEST => {
            in_range(x, x < 0.0, x > 0.0, *min, *max).map(|()| Literal::Float(x))
        }
        (ValueKind::Float { min, max }, Literal::Float(x)) if x.is_infinite() => {
            // The range may be open; a number is not.
            let bound = |bound: f64| match bound.clamp(f64::MIN, f64::MAX) {
                bound if bound.abs() > 1e16 => format!("{bound:e}"),
                bound => bound.to_string(),
            };
            Err(infinite(x, bound(*min), bound(*max)))
        }
        (ValueKind::Float { .. }, Literal::Int(i)) => fit(kind, Literal::Float(i as f64)),
        (ValueKind::Float { min, max }, Literal::Float(x)) if x.is_finite() => {
            in_range(x, x < *min, x > *max, *min, *max).map(|()| Literal::Float(x))
        }
        (ValueKind::Text | ValueKind::File { .. }, value @ Literal::Text(_)) => Ok(value),
        (
            ValueKind::Choice(words),
            value @ (Literal::Text(_) | Literal::Int(_) | Literal::Float(_) | Literal::Bool(_)),
        ) => {
            let word = value.to_string();
            if words.contains(&word.as_str()) {
                Ok(word.into())
            } else {
                Err(Misfit::not_in_list(&word, words))
            }
        }
        (kind, value) => Err(wrong_type(kind, &value)),
    }
}

/// Of a number that is larger than any, which is shown where it is written.
fn infinite(x: f64, min: impl Display, max: impl Display) -> Misfit {
    let (id, message) = match x > 0.0 {
        true => ("value-too-big", format!("is too large a number, more than {max}")),
        false => ("value-too-small", format!("is too small a number, less than {min}")),
    };
    Misfit::new(id, message, Some(format!("from {min} to {max}")))
}

fn in_range<T: Display, B: Display>(x: T, low: bool, high: bool, min: B, max: B) -> Result<(), Misfit> {
    if low {
        return Err(Misfit::new(
            "value-too-small",
            format!("is {x}, less than {min}"),
            Some(format!("{min} or more")),
        ));
    }
    if high {
        return Err(Misfit::new(
            "value-too-big",
            format!("is {x}, more than {max}"),
            Some(format!("{max} or less")),
        ));
    }
    Ok(())
}

fn wrong_type(kind: &ValueKind, value: &Literal) -> Misfit {
    let wanted = match kind {
        ValueKind::Bool => "true or false",
        ValueKind::Int { .. } => "a whole number",
        ValueKind::Float { .. } if matches!(value, Literal::Float(_)) => "a finite number",
        ValueKind::Float { .. } => "a number",
        ValueKind::Text => "a string",
        ValueKind::Choice(_) => "one word",
        ValueKind::File { .. } => "the name of a file",
    };
    let hint = match (kind, value) {
        (_, Literal::Text(text)) => match (kind, text.trim()) {
            (ValueKind::Bool, "yes" | "on" | "True") => Some("write `true`".to_owned()),
            (ValueKind::Bool, "no" | "off" | "False") => Some("write `false`".to_owned()),
            (ValueKind::Int { .. } | ValueKind::Float { .. }, text)
                if text.parse().is_ok_and(f64::is_finite) =>
            {
                Some(match yaml::scalar(text) {
                    Literal::Text(_) => format!("write {}", text.parse::<f64>().unwrap_or_default()),
                    number => format!("remove the quotes: {number}"),
                })
            }
            (ValueKind::Int { .. }, "random") => Some(
                "only an input declared as a seed can be: `seed: { type: seed, default: random }`".to_owned(),
            ),
            _ => None,
        },
        (
            ValueKind::Text | ValueKind::File { .. },
            Literal::Bool(_) | Literal::Int(_) | Literal::Float(_),
        ) => Some(format!("quote it: \"{value}\"")),
        _ => None,
    };
    let shown = match value {
        Literal::List(_) => value.describe().to_owned(),
        value => format!("`{}`, {}", clipped(&value.to_string()), value.describe()),
    };
    Misfit::new("wrong-type", format!("wants {wanted}, found {shown}"), hint)
}

fn clipped(text: &str) -> String {
    let mut letters = text.chars();
    let head: String = letters.by_ref().take(40).collect();
    if letters.next().is_some() { head + "…" } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_by_value_and_nothing_else_is_bent() {
        let int = ValueKind::Int { min: 1, max: 100 };
        let float = ValueKind::Float { min: 0.0, max: 1.0 };
        assert_eq!(fit(&int, 20.0.into()), Ok(Literal::Int(20)));
        assert_eq!(fit(&float, 1.into()), Ok(Literal::Float(1.0)));
        let id = |kind: &ValueKind, value: Literal| fit(kind, value).unwrap_err().id;
        assert_eq!(id(&int, 20.5.into()), "wrong-type");
        assert_eq!(id(&int, "20".into()), "wrong-type");
        assert_eq!(id(&int, true.into()), "wrong-type");
        assert_eq!(id(&int, 0.into()), "value-too-small");
        assert_eq!(id(&int, u64::MAX.into()), "value-too-big");
        assert_eq!(
            fit(&ValueKind::Int { min: 0, max: 1 << 64 }, 1e18.into()),
            Ok(Literal::Int(10i128.pow(18)))
        );
        assert_eq!(id(&int, 1e30.into()), "value-too-big");
        assert_eq!(id(&int, f64::MIN.into()), "value-too-small");
        let octal = fit(&int, "007".into()).unwrap_err();
        assert_eq!(octal.hint.as_deref(), Some("write 7"));
        assert_eq!(fit(&int, "20".into()).unwrap_err().hint.as_deref(), Some("remove the quotes: 20"));
        let nan = fit(&float, f64::NAN.into()).unwrap_err();
        assert_eq!((nan.id, &*nan.message), ("wrong-type", "wants a finite number, found `NaN`, a number"));
        assert_eq!(
            id(&ValueKind::Float { min: f64::NEG_INFINITY, max: f64::INFINITY }, f64::INFINITY.into()),
            "value-too-big"
        );
        let infinite = fit(&int, f64::NEG_INFINITY.into()).unwrap_err();
        assert_eq!(
            (infinite.id, &*infinite.message),
            ("value-too-small", "is too small a number, less than 1")
        );
        assert_eq!(infinite.hint.as_deref(), Some("from 1 to 100"));
        assert_eq!(id(&ValueKind::Choice(&["a", "b"]), "c".into()), "value-not-in-list");
        assert_eq!(id(&ValueKind::Text, 5.into()), "wrong-type");
    }
}
