use std::collections::HashMap;
use std::ops::Range;

use super::{MAX_RANK, Storage, View};
use crate::header::Dtype;

mod globals;

pub(super) use self::globals::Global;

/// The longest pickle read, in bytes; that of SDXL has half a million.
const MAX_PICKLE: usize = 64 << 20;
/// The most things a pickle may make, and items of dictionaries made at once. SDXL's checkpoint makes 60,000.
pub(super) const MAX_VALUES: usize = 1_000_000;
/// The longest name of a storage, in bytes; they are numbers.
const MAX_KEY: usize = 64;

/// A value's number. Values refer to each other by numbers, so nothing is nested in memory, however deep a pickle nests,
/// and a circle is no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(u32);

/// What a pickle may make. Text and bytes stay in the pickle.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number that needs more than 64 bits, little-endian.
    Long(Range<usize>),
    Text(Range<usize>),
    /// Things nothing is read from: fractions, bytes, sets, objects that only training needs.
    Opaque,
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Tensor),
}

/// A tensor, not yet found in the file.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    storage: Storage,
    dtype: Dtype,
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

/// How many bytes a storage has.
pub(super) fn size(storage: &Storage) -> Result<u64, String> {
    storage.elements.checked_mul(storage.dtype.size()).ok_or_else(|| "its storage is too large".to_owned())
}

impl Tensor {
    /// The view of a file that it is, `place` being where the bytes of a storage are.
    pub(super) fn view(
        &self,
        place: &impl Fn(&Storage) -> Result<Range<u64>, String>,
    ) -> Result<View, String> {
        let storage = place(&self.storage)?;
        let outside = || "it goes beyond its storage".to_owned();
        let too_large = |_| format!("its shape {:?} is too large", self.shape);
        let shape = self.shape.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let empty = self.shape.contains(&0);
        let reach = self.shape.iter().zip(&self.strides).try_fold(0u64, |reach, (&dim, &stride)| {
            reach.checked_add(dim.saturating_sub(1).checked_mul(stride)?)
        });
        let elements = if empty { 0 } else { reach.and_then(|r| r.checked_add(1)).ok_or_else(outside)? };
        // Numbers may be shared between indices (a stride of 0), but what they would make must stay possible.
        let whole = self.shape.iter().try_fold(self.dtype.size(), |n, &d| n.checked_mul(d.max(1)));
        whole.filter(|&n| i64::try_from(n).is_ok()).ok_or_else(outside)?;
        let bytes = |n: u64| n.checked_mul(self.dtype.size()).ok_or_else(outside);
        let start = bytes(self.offset)?.checked_add(storage.start).ok_or_else(outside)?;
        let end = start.checked_add(bytes(elements)?).filter(|&end| end <= storage.end);
        let (end, shape) = (end.ok_or_else(outside)?, shape.map_err(too_large)?);
        Ok(View { dtype: self.dtype, shape, strides: self.strides.clone(), range: start..end })
    }
}

/// The stack machine (Python's `pickletools` documents the opcodes).
pub(super) struct Machine<'a> {
    file: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at open brackets.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Items of dictionaries made at once so far.
    items: usize,
}

impl<'a> Machine<'a> {
    /// A machine at the start of a pickle, or of several behind each other.
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self {
            file: &file[..file.len().min(MAX_PICKLE)],
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            items: 0,
        }
    }

    /// A value that was made.
    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    /// A value that is text.
    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(range) => std::str::from_utf8(self.bytes(range)).ok(),
            _ => None,
        }
    }

    /// Bytes of the pickle.
    pub(super) fn bytes(&self, range: &Range<usize>) -> &'a [u8] {
        &self.file[range.clone()]
    }

    /// How far it has read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// All storages that were named.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// Runs one pickle to its end and gives what it made.
    pub(super) fn run(&mut self) -> Result<Id, String> {
        (self.stack, self.marks, self.memo) = (Vec::new(), Vec::new(), HashMap::new());
        loop {
            let opcode = self.take(1)?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.to_mark().map(drop),
            b'2' => self.top().map(|top| self.stack.push(top)),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88)),
            b'J' => {
                let number = self.number(4)?;
                self.push(Value::Int(i64::from(number as u32 as i32)))
            }
            b'K' | b'M' => {
                let number = self.number(if opcode == b'K' { 1 } else { 2 })?;
                self.push(Value::Int(number as i64))
            }
            0x8a | 0x8b => {
                let range = self.counted(if opcode == 0x8a { 1 } else { 4 })?;
                let value = whole(self.bytes(&range)).map_or(Value::Long(range), Value::Int);
                self.push(value)
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Opaque)
            }
            0x8c | b'U' => self.counted(1).and_then(|text| self.push(Value::Text(text))),
            b'X' | b'T' => self.counted(4).and_then(|text| self.push(Value::Text(text))),
            0x8d => self.counted(8).and_then(|text| self.push(Value::Text(text))),
            b'C' => self.counted(1).and_then(|_| self.push(Value::Opaque)),
            b'B' => self.counted(4).and_then(|_| self.push(Value::Opaque)),
            0x8e | 0x96 => self.counted(8).and_then(|_| self.push(Value::Opaque)),
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8f => self.push(Value::Opaque),
            _ => self.build(opcode),
        }
    }

    /// The opcodes that put values together.
    fn build(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            b'l' => self.to_mark().and_then(|items| self.push(Value::List(items))),
            b't' => self.to_mark().and_then(|items| self.push(Value::Tuple(items))),
            b'd' => {
                let items = self.to_mark()?;
                let pairs = pairs(&items)?;
                self.push(Value::Dict(pairs))
            }
            0x85..=0x87 => {
                let at = self.stack.len().checked_sub(usize::from(opcode - 0x84)).ok_or_else(damaged)?;
                self.above_mark(at)?;
                let items = self.stack.split_off(at);
                self.push(Value::Tuple(items))
            }
            b'a' => self.pop().and_then(|item| self.extend(vec![item])),
            b'e' | 0x90 => self.to_mark().and_then(|items| self.extend(items)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend(vec![key, value])
            }
            b'u' => self.to_mark().and_then(|items| self.extend(items)),
            b'q' | b'r' => {
                let slot = self.number(if opcode == b'q' { 1 } else { 4 })? as u32;
                self.remember(slot)
            }
            0x94 => self.remember(self.memo.len() as u32),
            b'h' | b'j' => {
                let slot = self.number(if opcode == b'h' { 1 } else { 4 })? as u32;
                let id = *self.memo.get(&slot).ok_or_else(damaged)?;
                self.stack.push(id);
                Ok(())
            }
            b'c' => {
                let [module, name] = [self.line()?, self.line()?];
                self.global(module, name)
            }
            0x93 => {
                let [name, module] = [self.pop()?, self.pop()?];
                let [Value::Text(name), Value::Text(module)] =
                    [name, module].map(|id| self.value(id).clone())
                else {
                    return Err(damaged());
                };
                self.global(module, name)
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)
            }
            0x92 => {
                let (_, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callee, arguments)
            }
            // The state of an object: of those known here none has any that matters.
            b'b' => self.pop().map(drop),
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(storage))
            }
            other => Err(format!("its pickle uses the opcode {other:#04x}, which no state dict needs")),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).ok_or_else(damaged)?;
        let bytes = self.file.get(self.at..end).ok_or_else(damaged)?;
        self.at = end;
        Ok(bytes)
    }

    fn number(&mut self, count: usize) -> Result<u64, String> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Bytes after their length, itself of `count` bytes.
    fn counted(&mut self, count: usize) -> Result<Range<usize>, String> {
        let length = usize::try_from(self.number(count)?).map_err(|_| damaged())?;
        let start = self.at;
        self.take(length)?;
        Ok(start..self.at)
    }

    fn line(&mut self) -> Result<Range<usize>, String> {
        let rest = &self.file[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or_else(damaged)?;
        let start = self.at;
        self.at += length + 1;
        Ok(start..start + length)
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("its pickle makes more than {MAX_VALUES} values"));
        }
        self.stack.push(Id(self.values.len() as u32));
        self.values.push(value);
        Ok(())
    }

    fn top(&self) -> Result<Id, String> {
        self.above_mark(self.stack.len().wrapping_sub(1))?;
        self.stack.last().copied().ok_or_else(damaged)
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Only a bracket's own opcodes reach below it.
    fn above_mark(&self, at: usize) -> Result<(), String> {
        if self.marks.last().is_some_and(|&mark| at < mark) { Err(damaged()) } else { Ok(()) }
    }

    fn to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or_else(damaged)?;
        if mark > self.stack.len() { Err(damaged()) } else { Ok(self.stack.split_off(mark)) }
    }

    fn remember(&mut self, slot: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    /// Adds items to the list or dictionary on the stack.
    fn extend(&mut self, items: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top.0 as usize] {
            Value::List(list) => list.extend(items),
            Value::Dict(dict) => dict.extend(pairs(&items)?),
            Value::Opaque => {}
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn global(&mut self, module: Range<usize>, name: Range<usize>) -> Result<(), String> {
        let text = |range: &Range<usize>| std::str::from_utf8(self.bytes(range)).map_err(|_| damaged());
        let global = Global::find(text(&module)?, text(&name)?)?;
        self.push(Value::Global(global))
    }

    /// Does what one of the known globals would do; nothing else can be called.
    fn call(&mut self, callee: Id, arguments: Id) -> Result<(), String> {
        let Value::Tuple(arguments) = self.value(arguments) else { return Err(damaged()) };
        let value = match self.value(callee) {
            Value::Global(Global::Dict) => Value::Dict(self.dict(arguments)?),
            Value::Global(Global::Tensor) => Value::Tensor(self.tensor(arguments)?),
            // A parameter is its data; a torch.Size is its tuple.
            Value::Global(Global::First) => {
                let first = *arguments.first().ok_or_else(damaged)?;
                self.stack.push(first);
                return Ok(());
            }
            Value::Global(Global::Inert) | Value::Opaque => Value::Opaque,
            _ => return Err("its pickle calls something that is no function".into()),
        };
        if let Value::Dict(items) = &value {
            self.items += items.len();
        }
        self.push(value)
    }

    /// The dictionary that a list of pairs makes.
    fn dict(&self, arguments: &[Id]) -> Result<Vec<(Id, Id)>, String> {
        let Some(first) = arguments.first() else { return Ok(Vec::new()) };
        let (Value::List(items) | Value::Tuple(items)) = self.value(*first) else { return Err(damaged()) };
        if self.items + items.len() > MAX_VALUES {
            return Err(format!("its pickle makes more than {MAX_VALUES} values"));
        }
        let pair = |id: &Id| match self.value(*id) {
            Value::List(pair) | Value::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err(damaged()),
        };
        items.iter().map(pair).collect()
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, …)`, or `_v3`, whose seventh argument is a number type.
    fn tensor(&self, arguments: &[Id]) -> Result<Tensor, String> {
        let [storage, offset, shape, strides, ..] = arguments else { return Err(damaged()) };
        let Value::Storage(storage) = self.value(*storage).clone() else { return Err(damaged()) };
        let dtype = match arguments.get(6).map(|id| self.value(*id)) {
            Some(Value::Global(Global::Dtype(dtype))) => *dtype,
            _ => storage.dtype,
        };
        let (shape, strides) = (self.numbers(*shape)?, self.numbers(*strides)?);
        if shape.len() != strides.len() || shape.len() > MAX_RANK {
            return Err(format!("a tensor has {} dimensions, expected at most {MAX_RANK}", shape.len()));
        }
        Ok(Tensor { storage, dtype, offset: self.whole(*offset)?, shape, strides })
    }

    /// `('storage', type, key, device, elements)`, with what a view is of, in old files.
    fn storage(&self, id: Id) -> Result<Storage, String> {
        let Value::Tuple(parts) = self.value(id) else { return Err(damaged()) };
        let [kind, ty, key, _, elements, view @ ..] = parts.as_slice() else { return Err(damaged()) };
        let Value::Global(Global::Storage(dtype)) = self.value(*ty) else { return Err(damaged()) };
        let viewed = view.iter().any(|id| !matches!(self.value(*id), Value::None));
        let key = self.text(*key).filter(|key| key.len() <= MAX_KEY).ok_or_else(damaged)?;
        if self.text(*kind) != Some("storage") || viewed {
            return Err(
                "its tensors are stored in a way of before PyTorch 0.4; save it anew with torch.save".into(),
            );
        }
        Ok(Storage { key: key.to_owned(), dtype: *dtype, elements: self.whole(*elements)? })
    }

    fn numbers(&self, id: Id) -> Result<Vec<u64>, String> {
        let (Value::Tuple(items) | Value::List(items)) = self.value(id) else { return Err(damaged()) };
        items.iter().take(MAX_RANK + 1).map(|id| self.whole(*id)).collect()
    }

    fn whole(&self, id: Id) -> Result<u64, String> {
        match self.value(id) {
            Value::Int(number) => u64::try_from(*number).map_err(|_| format!("{number} is no size")),
            _ => Err(damaged()),
        }
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    } else {
        Err(damaged())
    }
}

/// A little-endian whole number with sign, if it fits.
fn whole(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let fill = if bytes.last().is_some_and(|&byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}

fn damaged() -> String {
    "its pickle is damaged or cut off; download it again".to_owned()
}
