use std::collections::{BTreeMap, HashMap};

use super::machine::{self, Machine, Value};
use super::{View, collect};

/// What the first of the pickles says: the little-endian bytes of PyTorch's number.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The tensors of a file of before PyTorch 1.6: pickles of a number, a version, the machine's types, the dictionary and
/// the keys of the storages in order; then each storage, its length (64 bits) before it.
pub(super) fn tensors(file: &[u8]) -> Result<BTreeMap<String, View>, String> {
    let other = || "this is a pickle, but not one of PyTorch".to_owned();
    let mut machine = Machine::new(file);
    let magic = machine.run()?;
    if !matches!(machine.value(magic), Value::Long(bytes) if machine.bytes(bytes) == MAGIC) {
        return Err(other());
    }
    let version = machine.run()?;
    if !matches!(machine.value(version), Value::Int(1001)) {
        return Err(other());
    }
    let system = machine.run()?;
    let Value::Dict(system) = machine.value(system) else { return Err(other()) };
    let little = |(key, value): &(_, _)| {
        machine.text(*key) == Some("little_endian") && matches!(machine.value(*value), Value::Bool(false))
    };
    if system.iter().any(little) {
        return Err("its numbers are big-endian; save it on the machine it will be used on".into());
    }
    let root = machine.run()?;
    let keys = machine.run()?;
    let Value::List(keys) = machine.value(keys) else { return Err(other()) };
    let sizes: HashMap<&str, _> = machine.storages().map(|storage| (storage.key.as_str(), storage)).collect();
    let mut places = HashMap::new();
    let mut at = machine.position() as u64;
    for key in keys {
        let key = machine.text(*key).ok_or_else(other)?;
        let storage = sizes.get(key).ok_or_else(|| format!("its storage `{key}` belongs to no tensor"))?;
        let start = at + 8;
        let end = start.checked_add(machine::size(storage)?).filter(|&end| end <= file.len() as u64);
        let end = end.ok_or("the file is truncated: its tensors go beyond its end; download it again")?;
        let length: [u8; 8] = file[at as usize..start as usize].try_into().map_err(|_| other())?;
        if u64::from_le_bytes(length) != storage.elements {
            return Err(format!("its storage `{key}` has another length than its tensors say"));
        }
        places.insert(key, start..end);
        at = end;
    }
    collect(&machine, root, |storage| {
        let missing = || format!("its storage `{}` is missing", storage.key);
        places.get(storage.key.as_str()).cloned().ok_or_else(missing)
    })
}
