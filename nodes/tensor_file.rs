//! Small safetensors files that nodes write.

use serde_json::{Map, Value, json};

/// A file of f32 tensors with texts in its header.
pub(crate) fn encode(metadata: Value, tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let mut end = 0;
    for (name, shape, values) in tensors {
        let start = end;
        end += values.len() * 4;
        let info = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), info);
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(tensors.iter().flat_map(|(_, _, values)| *values).flat_map(|value| value.to_le_bytes()));
    bytes
}
