use std::collections::BTreeMap;
use std::ops::Range;

use super::machine::{self, Machine};
use super::{Storage, View, collect, zip};

/// The tensors of a zip: `…/data.pkl` says what they are, `…/data/<key>` are their numbers.
pub(super) fn tensors(file: &[u8]) -> Result<BTreeMap<String, View>, String> {
    let entries = zip::entries(file)?;
    let pickle = entries.iter().find_map(|(name, range)| {
        let folder = name.strip_suffix("data.pkl")?;
        (folder.is_empty() || folder.ends_with('/')).then_some((folder, range))
    });
    let (folder, pickle) =
        pickle.ok_or("this is a zip without `data.pkl`, expected a file of PyTorch; unpack it first")?;
    if entries.get(&*format!("{folder}byteorder")).is_some_and(|range| &file[range.clone()] == b"big") {
        return Err("its numbers are big-endian; save it on the machine it will be used on".into());
    }
    let mut machine = Machine::new(&file[pickle.clone()]);
    let root = machine.run()?;
    collect(&machine, root, |storage| bytes(&entries, folder, storage))
}

/// Where the numbers of a storage are.
fn bytes(
    entries: &BTreeMap<&str, Range<usize>>,
    folder: &str,
    storage: &Storage,
) -> Result<Range<u64>, String> {
    let name = format!("{folder}data/{}", storage.key);
    let range = entries.get(&*name).ok_or_else(|| format!("its archive has no entry `{name}`"))?;
    let needed = machine::size(storage)?;
    if range.len() as u64 != needed {
        return Err(format!("the entry `{name}` has {} bytes, expected {needed}", range.len()));
    }
    Ok(range.start as u64..range.end as u64)
}
