//! Values a person writes in a file: numbers, strings, choices.

use std::fmt;

/// A value as written, before it is fitted to an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number; wide enough for u64 seeds and negative weights.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// A string.
    Text(String),
    /// A list of values.
    List(Vec<Literal>),
}

impl Literal {
    /// What a person would call this: `a number`, `a string`, ….
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
        }
    }

    /// Canonical JSON, for keys and metadata: equal values give equal text.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Bool(b) => (*b).into(),
            Self::Int(i) => match (u64::try_from(*i), i64::try_from(*i)) {
                (Ok(u), _) => u.into(),
                (_, Ok(s)) => s.into(),
                _ => i.to_string().into(),
            },
            Self::Float(f) => (*f).into(),
            Self::Text(s) => s.as_str().into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Int(i) => i.fmt(f),
            // Hundreds of zeros say nothing.
            Self::Float(x) if x.abs() >= 1e16 => fmt::LowerExp::fmt(x, f),
            Self::Float(x) => x.fmt(f),
            Self::Text(s) => s.fmt(f),
            Self::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

macro_rules! from {
    ($($ty:ty => $make:expr),* $(,)?) => {$(
        impl From<$ty> for Literal {
            fn from(value: $ty) -> Self {
                let make: fn($ty) -> Literal = $make;
                make(value)
            }
        }
    )*};
}
from! {
    bool => Self::Bool,
    i32 => |v| Self::Int(v.into()),
    i64 => |v| Self::Int(v.into()),
    u32 => |v| Self::Int(v.into()),
    u64 => |v| Self::Int(v.into()),
    usize => |v| Self::Int(v as i128),
    f32 => |v| Self::Float(v.to_string().parse().unwrap_or(f64::from(v))),
    f64 => Self::Float,
    &str => |v| Self::Text(v.to_owned()),
    String => Self::Text,
}
