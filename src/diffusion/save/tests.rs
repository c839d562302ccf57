use super::*;
use crate::fixture;

#[test]
fn a_file_of_pytorch_becomes_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    for (name, prefix) in
        [("zip.pt", "zip/"), ("checkpoint.ckpt", "checkpoint/"), ("transposed.pt", "transposed/")]
    {
        let to = folder.path().join(name).with_extension("safetensors");
        let mut told = Vec::new();
        let from = fixture::path(&format!("pickle/{name}"));
        let count = convert(from.as_ref(), &to, |done, all| told.push((done, all))).unwrap();
        assert_eq!((told.len(), told.last()), (count, Some(&(count, count))));
        let header = Header::read(&to).unwrap();
        assert_eq!(header.metadata["format"], "pt");
        let reference = Header::read(fixture::path("pickle/expected.safetensors").as_ref()).unwrap();
        assert_eq!(header.tensors.len(), reference.with_prefix(prefix).count());
        let (written, known) = (std::fs::read(&to).unwrap(), std::fs::read(&reference.path).unwrap());
        let slice = |range: &std::ops::Range<u64>| range.start as usize..range.end as usize;
        for (name, info) in &header.tensors {
            let other = &reference.tensors[&format!("{prefix}{name}")];
            assert_eq!((info.dtype, &info.shape), (other.dtype, &other.shape));
            assert_eq!(written[slice(&info.range)], known[slice(&other.range)], "{name}");
        }
    }
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 3, "only the files themselves: {names:?}");
}

#[test]
fn what_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("x.safetensors");
    let short = Entry {
        name: "a".into(),
        dtype: Dtype::F32,
        shape: vec![2],
        numbers: Box::new(|| Ok(vec![0; 4].into())),
    };
    let message = save(&to, &BTreeMap::new(), vec![short]).unwrap_err().to_string();
    assert_eq!(message, "tensor `a` has 4 bytes, expected 8");
    let already = convert(fixture::path("pickle/expected.safetensors").as_ref(), &to, |_, _| ()).unwrap_err();
    assert!(already.to_string().ends_with("this is a safetensors file already"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
