//! What a node is: a struct whose fields are its inputs, and `run`.

use std::{any::Any, collections::BTreeMap, error::Error, fmt, sync::Arc};

use crate::{
    Cancelled, Context, Facts, File, Hash, InputSpec, Known, Lane, Literal, OutputSpec, Port, Value,
    collect::Given,
    spec::{Socket, ValueKind},
};

/// A node: its fields are the inputs, [`Node::run`] is the work.
pub trait Node: Inputs + Send + 'static {
    /// A [`Port`], a tuple of ports, or `()` for a sink: a node run for its effect.
    type Output: Outputs;

    /// Computes the outputs.
    ///
    /// # Errors
    /// [`NodeError::on`] an input that is wrong, any error of the work, or [`Cancelled`].
    fn run(self, cx: &Context) -> Result<Self::Output, NodeError>;

    /// The model files that a literal text names (`embedding:x` in a prompt). The check refuses a name without a file; the
    /// file's content is part of the node's key, and [`Files::find`](crate::Files::find) gives it to `run`.
    fn mentions(text: &str) -> Vec<Mention> {
        let _ = text;
        Vec::new()
    }

    /// What can be said of the outputs before anything runs, one [`Facts`] per output, from literals, file headers and
    /// what is known of the linked values. Called by every check: it must be quick and read no weights.
    ///
    /// # Errors
    /// [`NodeError::on`] an input that cannot work with the others.
    fn infer(known: &Known) -> Result<Vec<Facts>, NodeError> {
        let _ = known;
        Ok(Vec::new())
    }
}

/// A model file that a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// The model folder it is in.
    pub folder: &'static str,
    /// Its name there.
    pub name: String,
}

/// What `#[derive(Inputs)]` writes: the declaration of a node and how its fields are filled.
pub trait Inputs: Sized {
    /// The node's name in a workflow.
    const KIND: &'static str;
    /// The struct's documentation.
    const DOC: &'static str;
    /// Where it is listed.
    const CATEGORY: &'static str;
    /// Raised when the same inputs give another result.
    const VERSION: u32;
    /// Where it runs.
    const LANE: Lane;
    /// Other names it goes by: ComfyUI's class names.
    const ALIASES: &'static [&'static str];
    /// The model folder whose aliases (`models:`) this node loads, if any.
    const LOADS: Option<&'static str>;
    /// The model folders whose files decide what it gives; their listings are part of its key.
    const SEARCHES: &'static [&'static str];
    /// Names of the outputs; empty: the port types in lower case.
    const OUTPUT_NAMES: &'static [&'static str];

    /// The inputs, in the order of the fields.
    fn specs() -> Vec<InputSpec>;

    /// Fills the fields.
    ///
    /// # Errors
    /// When an argument is missing or of another type, which a checked plan rules out.
    fn take(args: &mut Args) -> Result<Self, NodeError>;
}

/// One argument of a node about to run.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A linked value.
    Value(Value),
    /// A literal.
    Literal(Literal),
    /// A file that was found.
    File(File),
    /// What the items of an `each` gave, for the node that joins them.
    Items(Arc<[Given]>),
}

/// The arguments of one run, by input name.
#[derive(Clone, Debug, Default)]
pub struct Args(BTreeMap<&'static str, Arg>);

impl Args {
    /// Sets one argument.
    pub fn set(&mut self, input: &'static str, arg: Arg) {
        self.0.insert(input, arg);
    }

    /// Takes one argument as it is.
    pub(crate) fn remove(&mut self, input: &'static str) -> Option<Arg> {
        self.0.remove(input)
    }

    /// Takes one argument as a field.
    ///
    /// # Errors
    /// When it is missing or of another type.
    pub fn take<F: Field>(&mut self, input: &'static str) -> Result<F, NodeError> {
        F::from_arg(self.0.remove(input))
            .ok_or_else(|| NodeError::on(input, format!("`{input}` is missing or of another type")))
    }
}

/// A type a node's field may have.
pub trait Field: Sized {
    /// The field may stay empty.
    const OPTIONAL: bool = false;

    /// What the input takes, before `range`, `choices` and `folder` of the field narrow it.
    fn socket() -> Socket;

    /// The field's value; `None` when the argument does not fit.
    fn from_arg(arg: Option<Arg>) -> Option<Self>;
}

impl<P: Port> Field for Arc<P> {
    fn socket() -> Socket {
        Socket::Link(P::TYPE)
    }

    fn from_arg(arg: Option<Arg>) -> Option<Self> {
        match arg? {
            Arg::Value(value) => value.get(),
            Arg::Literal(_) | Arg::File(_) | Arg::Items(_) => None,
        }
    }
}

impl<F: Field> Field for Option<F> {
    const OPTIONAL: bool = true;

    fn socket() -> Socket {
        F::socket()
    }

    fn from_arg(arg: Option<Arg>) -> Option<Self> {
        match arg {
            None => Some(None),
            some => F::from_arg(some).map(Some),
        }
    }
}

impl Field for File {
    fn socket() -> Socket {
        Socket::Value(ValueKind::File { folder: "input" })
    }

    fn from_arg(arg: Option<Arg>) -> Option<Self> {
        match arg? {
            Arg::File(file) => Some(file),
            Arg::Value(_) | Arg::Literal(_) | Arg::Items(_) => None,
        }
    }
}

impl Field for bool {
    fn socket() -> Socket {
        Socket::Value(ValueKind::Bool)
    }

    fn from_arg(arg: Option<Arg>) -> Option<Self> {
        match arg? {
            Arg::Literal(Literal::Bool(b)) => Some(b),
            Arg::Value(value) => value.get::<bool>().map(|b| *b),
            _ => None,
        }
    }
}

impl Field for String {
    fn socket() -> Socket {
        Socket::Value(ValueKind::Text)
    }

    fn from_arg(arg: Option<Arg>) -> Option<Self> {
        match arg? {
            Arg::Literal(Literal::Text(s)) => Some(s),
            Arg::Value(value) => value.get::<String>().map(|s| (*s).clone()),
            _ => None,
        }
    }
}

macro_rules! int_field {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn socket() -> Socket {
                Socket::Value(ValueKind::Int { min: <$ty>::MIN as i128, max: <$ty>::MAX as i128 })
            }

            fn from_arg(arg: Option<Arg>) -> Option<Self> {
                match arg? {
                    Arg::Literal(Literal::Int(i)) => i.try_into().ok(),
                    Arg::Value(value) => (*value.get::<i64>()?).try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}
int_field!(u8, u32, i32, i64, u64, usize);

macro_rules! float_field {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn socket() -> Socket {
                Socket::Value(ValueKind::Float { min: f64::NEG_INFINITY, max: f64::INFINITY })
            }

            fn from_arg(arg: Option<Arg>) -> Option<Self> {
                match arg? {
                    Arg::Literal(Literal::Int(i)) => Some(i as $ty),
                    Arg::Literal(Literal::Float(x)) => Some(x as $ty),
                    Arg::Value(value) => match value.get::<f64>() {
                        Some(x) => Some(*x as $ty),
                        None => value.get::<i64>().map(|i| *i as $ty),
                    },
                    _ => None,
                }
            }
        }
    )*};
}
float_field!(f32, f64);

/// What a node may return.
pub trait Outputs {
    /// One spec per output; `names` as declared, or the port types in lower case.
    fn specs(names: &[&'static str]) -> Vec<OutputSpec>;

    /// The values, identified by the node's key.
    fn into_values(self, key: Hash) -> Vec<Value>;
}

impl<P: Port> Outputs for P {
    fn specs(names: &[&'static str]) -> Vec<OutputSpec> {
        vec![output::<P>(names, 0)]
    }

    fn into_values(self, key: Hash) -> Vec<Value> {
        vec![Value::new(self, key, 0)]
    }
}

impl Outputs for () {
    fn specs(_names: &[&'static str]) -> Vec<OutputSpec> {
        Vec::new()
    }

    fn into_values(self, _key: Hash) -> Vec<Value> {
        Vec::new()
    }
}

macro_rules! tuple_outputs {
    ($($ty:ident $i:tt),*) => {
        impl<$($ty: Port),*> Outputs for ($($ty,)*) {
            fn specs(names: &[&'static str]) -> Vec<OutputSpec> {
                vec![$(output::<$ty>(names, $i)),*]
            }

            fn into_values(self, key: Hash) -> Vec<Value> {
                vec![$(Value::new(self.$i, key, $i)),*]
            }
        }
    };
}
tuple_outputs!(A 0, B 1);
tuple_outputs!(A 0, B 1, C 2);

fn output<P: Port>(names: &[&'static str], index: usize) -> OutputSpec {
    // ComfyUI's convention: an unnamed output is called by its type; in our files in lower case.
    let name = names.get(index).map_or_else(|| P::TYPE.to_ascii_lowercase(), |name| (*name).to_owned());
    OutputSpec::of::<P>(name)
}

/// Why a node did not give its outputs.
///
/// Like `anyhow::Error` it takes any error by `?` and is none itself; [`NodeError::on`] names the input at fault, so that
/// the message can point at the line of the file.
pub struct NodeError {
    /// The input at fault, if one is.
    pub input: Option<&'static str>,
    /// What to do about it.
    pub hint: Option<String>,
    kind: Kind,
}

enum Kind {
    Message(String),
    Source(Box<dyn Error + Send + Sync>),
    Cancelled,
}

impl NodeError {
    /// A failure that no single input explains.
    pub fn new(message: impl Into<String>) -> Self {
        Self { input: None, hint: None, kind: Kind::Message(message.into()) }
    }

    /// A failure caused by one input.
    pub fn on(input: &'static str, message: impl Into<String>) -> Self {
        Self { input: Some(input), ..Self::new(message) }
    }

    /// Names the input at fault in another error.
    pub fn at(mut self, input: &'static str) -> Self {
        self.input = Some(input);
        self
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the run was asked to stop, which is no failure.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.kind, Kind::Cancelled)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for NodeError {
    fn from(error: E) -> Self {
        let cancelled = (&error as &dyn Any).is::<Cancelled>();
        let kind = if cancelled { Kind::Cancelled } else { Kind::Source(Box::new(error)) };
        Self { input: None, hint: None, kind }
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Message(message) => f.write_str(message),
            Kind::Cancelled => Cancelled.fmt(f),
            Kind::Source(error) => {
                error.fmt(f)?;
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeError({}{self})", self.input.map(|name| format!("on `{name}`: ")).unwrap_or_default())
    }
}
