//! Every node with the smallest of everything and the ends of its ranges: it answers or refuses, and never panics.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use flow_diffusion::Runtime;
use flow_graph::{Context, Hash, InputSpec, Lane, Literal, NodeDef, Port, Socket, Value, spec::ValueKind};
use flow_nodes::ports::{Image, Latent, Mask, Sigmas};

use crate::{Call, context, node, repository};

/// Values for links by port type; of what has sizes several, the usual one first.
struct Pool(HashMap<&'static str, Vec<Value>>);

impl Pool {
    fn new(cx: &Context) -> Self {
        let mut pool = Self(HashMap::new());
        let file = |name: &str| repository("models/tiny-sd").join(name);
        for size in [(1, 64, 64), (1, 1, 1), (1, 1, 4), (1, 4, 1), (2, 9, 20), (3, 3, 2)] {
            pool.shapes(size);
        }
        for levels in [vec![9.0, 3.0, 0.0], vec![], vec![1.0], vec![0.0, 0.0], vec![1.0, 5.0, 2.0]] {
            pool.add(link(Sigmas::from(levels)));
        }
        let loads = [
            node("LoadCheckpoint").file("ckpt_name", file("tiny-sd.safetensors")),
            node("LoadControlNet").file("control_net_name", file("tiny-control-canny.safetensors")),
            node("LoadIPAdapter").file("ipadapter_file", file("tiny-ip-adapter.safetensors")),
            node("LoadCLIPVision").file("clip_name", file("tiny-clip-vision.safetensors")),
            node("RandomNoise"),
            node("KSamplerSelect"),
        ];
        loads.into_iter().for_each(|call| pool.made(call, cx));
        for kind in ["CLIPTextEncode", "CLIPVisionEncode", "IPAdapterEncoder", "BasicGuider"] {
            let call = pool.call(&definition(kind));
            pool.made(call.unwrap(), cx);
        }
        pool
    }

    fn shapes(&mut self, (frames, height, width): (usize, usize, usize)) {
        let pixels = frames * height * width;
        let ramp = |count: usize| (0..count).map(|i| i as f32 / count as f32).collect::<Vec<_>>();
        let mask = Mask::new(frames, height, width, ramp(pixels));
        let places =
            Tensor::zeros((frames, 4, height.div_ceil(8), width.div_ceil(8)), DType::F32, &Device::Cpu);
        self.add(link(Image::new(frames, height, width, ramp(pixels * 3))));
        self.add(link(Latent {
            samples: places.unwrap(),
            noise_mask: Some(Arc::new(mask.clone())),
            batch_index: None,
        }));
        self.add(link(mask));
    }

    fn add(&mut self, value: Value) {
        self.0.entry(value.ty()).or_default().push(value);
    }

    fn made(&mut self, call: Call, cx: &Context) {
        call.run_in(cx).unwrap().into_iter().for_each(|value| self.add(value));
    }

    fn longest(&self) -> usize {
        self.0.values().map(Vec::len).max().unwrap()
    }

    fn of(&self, socket: &Socket) -> &[Value] {
        let Socket::Link(ty) = socket else { return &[] };
        self.0.get(ty).map_or(&[], Vec::as_slice)
    }

    /// The node with the usual value on every link; nothing where it wants a file or what the pool lacks.
    fn call(&self, def: &NodeDef) -> Option<Call> {
        let mut call = node(def.kind);
        for input in &def.inputs {
            match &input.socket {
                Socket::Link(_) => match self.of(&input.socket) {
                    [] if input.optional => {}
                    [] => return None,
                    [usual, ..] => call = call.value(input.name, usual),
                },
                Socket::Value(ValueKind::Int { .. }) => match input.name {
                    "steps" => call = call.set("steps", 2),
                    "width" | "height" => call = call.set(input.name, 64),
                    _ => {}
                },
                Socket::Value(ValueKind::Text) if input.default.is_none() => call = call.set(input.name, ""),
                Socket::Value(ValueKind::File { .. }) if input.required() => return None,
                Socket::Value(_) => {}
            }
        }
        Some(call)
    }
}

fn definition(kind: &str) -> Arc<NodeDef> {
    flow_nodes::registry().get(kind).unwrap().clone()
}

fn link<P: Port>(value: P) -> Value {
    Value::new(value, Hash::of(P::TYPE.as_bytes()), 0)
}

/// The ends of a range and the words of a choice.
fn ends(input: &InputSpec) -> Vec<Literal> {
    let Socket::Value(kind) = &input.socket else { return Vec::new() };
    match kind {
        // More costs time and shows nothing else.
        ValueKind::Int { min, .. } if input.name == "steps" => [*min, 3].map(Literal::Int).into(),
        ValueKind::Float { min, .. } if input.name == "megapixels" => [*min, 0.1].map(Literal::Float).into(),
        ValueKind::Bool => [true, false].map(Literal::Bool).into(),
        ValueKind::Int { min, max } => [*min, *max].map(Literal::Int).into(),
        ValueKind::Float { min, max } => [*min, *max].map(Literal::Float).into(),
        ValueKind::Text => {
            ["", ":", "0", "9:9,", "((((", "\u{0}é"].map(|text| Literal::Text(text.into())).into()
        }
        ValueKind::Choice(words) => words.iter().map(|word| Literal::Text((*word).into())).collect(),
        ValueKind::File { .. } => Vec::new(),
    }
}

/// Changes of a call, each for one input or several at once.
type Change = Vec<(&'static str, Set)>;

#[derive(Clone, Debug)]
enum Set {
    Literal(Literal),
    /// The value of this number in the pool.
    Link(usize),
}

/// What to try: the links one by one and the numbers one by one, and both at once all links with each number.
fn changes(def: &NodeDef, pool: &Pool) -> Vec<Change> {
    let (mut every, mut single) = (Vec::new(), Vec::new());
    for number in 0..pool.longest() {
        let linked = def.inputs.iter().filter(|input| number < pool.of(&input.socket).len());
        let all: Change = linked.map(|input| (input.name, Set::Link(number))).collect();
        single.extend(all.iter().map(|change| vec![change.clone()]));
        every.push(all);
    }
    let mut numbers = vec![Change::new(); 3];
    for input in &def.inputs {
        for (which, literal) in ends(input).into_iter().enumerate() {
            if matches!(literal, Literal::Int(_) | Literal::Float(_)) {
                numbers[1 + which].push((input.name, Set::Literal(literal.clone())));
            }
            numbers.push(vec![(input.name, Set::Literal(literal))]);
        }
    }
    if def.lane == Lane::Device {
        // What computes tensors takes longer: no pairs.
        return [single, every, numbers].concat();
    }
    single.extend(every.iter().flat_map(|links| numbers.iter().map(move |end| [&links[..], end].concat())));
    single
}

#[test]
fn no_node_panics_at_the_ends_of_what_it_takes() {
    let out = tempfile::tempdir().unwrap();
    let cx = context(out.path()).with_resource(Arc::new(Runtime::cpu()));
    let pool = Pool::new(&cx);
    let mut panics = Vec::new();
    for def in flow_nodes::registry().iter() {
        let Some(usual) = pool.call(def) else { continue };
        for change in changes(def, &pool) {
            let mut call = Call { kind: usual.kind, args: usual.args.clone() };
            for (input, set) in &change {
                call = match set {
                    Set::Literal(literal) => call.set(input, literal.clone()),
                    Set::Link(number) => {
                        call.value(input, &pool.of(&def.input(input).unwrap().socket)[*number])
                    }
                };
            }
            if catch_unwind(AssertUnwindSafe(|| call.run_in(&cx).map(drop))).is_err() {
                panics.push(format!("{}: {change:?}", def.kind));
            }
        }
    }
    assert!(panics.is_empty(), "{} calls panicked:\n{}", panics.len(), panics.join("\n"));
}
