use std::fs;
use std::io::Write;

use proptest::prelude::*;

use super::*;

/// A file with this header and so many bytes behind it.
fn file(header: &str, data: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(&vec![0; data]).unwrap();
    file.flush().unwrap();
    file
}

/// The message about such a file, without its path.
fn refused(header: &str, data: usize) -> String {
    message(Header::read(file(header, data).path()).unwrap_err())
}

fn message(error: Error) -> String {
    match error {
        Error::File { message, .. } => message,
        other => panic!("{other}"),
    }
}

#[test]
fn a_good_header_gives_shapes_ranges_and_metadata() {
    let text = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"a.w":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}"#;
    let file = file(text, 16);
    let header = Header::read(file.path()).unwrap();
    assert_eq!(header.shape("b"), Some(&[2, 3][..]));
    let start = 8 + text.len() as u64;
    assert_eq!(header.tensors["a.w"].range, start + 12..start + 16);
    assert_eq!(header.metadata["format"], "pt");
    assert!(header.has_prefix("a.") && !header.has_prefix("c"));
    assert_eq!(header.parameters(""), 7);
    assert_eq!(header.config(), None);
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let tensor = |body: &str| format!(r#"{{"w":{{{body}}}}}"#);
    for (header, data, expected) in [
        (
            tensor(r#""dtype":"F16","shape":[1000,1000],"data_offsets":[0,2000000]"#),
            1_200_000,
            "the file is truncated: its header says 2.0 MB of tensors, the file has 1.2 MB; download it again",
        ),
        (
            tensor(r#""dtype":"F16","shape":[2,3],"data_offsets":[0,10]"#),
            12,
            "tensor `w`: f16 [2, 3] needs 12 bytes, the header gives it 10",
        ),
        (
            tensor(r#""dtype":"F4","shape":[2],"data_offsets":[0,1]"#),
            12,
            "tensor `w`: the dtype `F4` is not known; expected F16, BF16, F32 …",
        ),
        (
            tensor(r#""dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]"#),
            0,
            "tensor `w`: its shape [4611686018427387904, 4] is too large",
        ),
        (
            tensor(r#""dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]"#),
            1,
            "tensor `w`: it has 9 dimensions, expected at most 8",
        ),
        (
            tensor(r#""dtype":"U8","shape":[1],"data_offsets":[9,8]"#),
            9,
            "tensor `w`: its bytes end (8) before they start (9)",
        ),
        (
            tensor(r#""dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]"#),
            1,
            "tensor `w`: its shape [1] is too large",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}"#.into(),
            7,
            "the tensors `a` and `b` overlap; the file is damaged",
        ),
        (
            r#"{"__metadata__":{"tiny_sd.config":"{"}}"#.into(),
            0,
            "the metadata `tiny_sd.config` is not JSON: EOF while parsing an object at line 1 column 1",
        ),
    ] {
        assert_eq!(refused(&header, data), expected);
    }
    let twice = r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#;
    assert!(refused(twice, 1).contains("`a` is there twice"));
    assert!(refused(&"[".repeat(10_000), 0).contains("not a safetensors header"));
    assert!(refused(r#"{"a":1}"#, 0).contains("not a safetensors header"));
}

#[test]
fn other_formats_are_named() {
    let message_of = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file.flush().unwrap();
        message(Header::read(file.path()).unwrap_err())
    };
    assert!(message_of(b"PK\x03\x04archive/data.pkl").contains("archive is damaged"));
    assert!(message_of(b"GGUF....").contains("GGUF"));
    assert!(message_of(b"version https://git-lfs").contains("git lfs pull"));
    assert!(message_of(b"<!DOCTYPE html>").contains("web page"));
    assert!(message_of(b"").contains("0 bytes are too few"));
    assert!(message_of(&[0xff; 64]).contains("announce a header of"));
    assert!(message_of(&[100, 0, 0, 0, 0, 0, 0, 0, b'{']).contains("truncated"));
}

#[test]
fn a_folder_and_a_missing_file_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    assert!(message(Header::read(dir.path()).unwrap_err()).contains("folder"));
    assert!(matches!(Header::read(&dir.path().join("x")), Err(Error::Read { .. })));
}

#[test]
fn a_config_beside_a_hugging_face_name_is_read_and_beside_another_name_is_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"norm_num_groups": 8}"#).unwrap();
    for (name, found) in [("diffusion_pytorch_model.fp16.safetensors", true), ("mine.safetensors", false)] {
        let path = dir.path().join(name);
        std::fs::copy(file("{}", 0).path(), &path).unwrap();
        assert_eq!(Header::read(&path).unwrap().config().is_some(), found, "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u64..220) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&length.to_le_bytes()).unwrap();
        file.write_all(&bytes).unwrap();
        file.flush().unwrap();
        let _ = Header::read(file.path());
    }

    #[test]
    fn every_accepted_range_is_inside_the_file(
        entries in proptest::collection::vec((0u64..6, 0u64..6, 0u64..40, 0u64..40), 0..4),
        data in 0usize..60,
    ) {
        let body: Vec<String> = entries
            .iter()
            .enumerate()
            .map(|(i, (a, b, from, to))| {
                format!(r#""t{i}":{{"dtype":"F16","shape":[{a},{b}],"data_offsets":[{from},{to}]}}"#)
            })
            .collect();
        let file = file(&format!("{{{}}}", body.join(",")), data);
        if let Ok(header) = Header::read(file.path()) {
            for info in header.tensors.values() {
                prop_assert!(info.range.end <= header.length);
                prop_assert_eq!(info.elements(), info.shape.iter().product::<usize>() as u64);
            }
        }
    }
}

/// A folder with two shards of one f16 each, `a` and `b`, and this index; its header.
fn shards(index: &str) -> Result<Header> {
    let folder = tempfile::tempdir().unwrap();
    for (name, tensor) in [("one.safetensors", "a"), ("two.safetensors", "b")] {
        let text = format!(r#"{{"{tensor}":{{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}}}"#);
        fs::copy(file(&text, 2).path(), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("model.safetensors.index.json");
    fs::write(&path, index).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"width": 3}"#).unwrap();
    Header::read(&path)
}

#[test]
fn files_that_an_index_joins_are_one() {
    let index = r#"{"metadata":{"total_size":4},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#;
    let header = shards(index).unwrap();
    assert_eq!(header.tensors.len(), 2);
    assert_eq!(header.shards().iter().map(|shard| shard.length).sum::<u64>(), header.length);
    let [a, b] = ["a", "b"].map(|name| header.tensors[name].range.clone());
    assert_eq!(a.end, header.shards()[0].length);
    assert_eq!(b.end, header.length);
    assert_eq!(header.config().unwrap()["width"], 3);
    // What the index does not name is not there.
    let some = shards(r#"{"weight_map":{"b":"two.safetensors"}}"#).unwrap();
    assert_eq!(some.tensors.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn what_is_wrong_with_an_index_is_said() {
    let names = |file: &str| format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#);
    let elsewhere = "expected a safetensors file in the same folder";
    for (index, expected) in [
        (
            names("three.safetensors"),
            "the index names `three.safetensors`, which is not beside it; download that file too",
        ),
        (
            names("two.safetensors"),
            "the index says that `two.safetensors` has the tensor `a`, which it has not",
        ),
        (names("../one.safetensors"), elsewhere),
        (names("/etc/one.safetensors"), elsewhere),
        (names("..\\\\one.safetensors"), elsewhere),
        (names("c:one.safetensors"), elsewhere),
        (names(".."), elsewhere),
        (names("model.safetensors.index.json"), elsewhere),
        (names("one.bin"), elsewhere),
        (names(""), elsewhere),
        ("{}".into(), "not an index of weight files: missing field `weight_map` at line 1 column 2"),
        (r#"{"weight_map":{"a":1}}"#.into(), "not an index of weight files: invalid type: integer `1`"),
        ("[".repeat(100_000), "not an index of weight files"),
    ] {
        let message = message(shards(&index).unwrap_err());
        assert!(message.contains(expected), "{message}");
    }
}
