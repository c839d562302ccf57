use super::*;
use crate::save::save;
use crate::{fixture, made};

#[test]
fn text_encoders_of_every_family_are_written_as_they_were_read() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.safetensors"), folder.path().join("to.safetensors"));
    for section in ["sdxl", "refiner", "sd2"] {
        let heads = if section == "refiner" { 3 } else { 2 };
        let config = format!(
            r#"{{"text": {{"num_attention_heads": {heads}}}, "text_2": {{"num_attention_heads": 3}}}}"#
        );
        made::write(&from, &fixture::key_list("clip_towers/keys.tsv", section), &config);
        save(&to, &BTreeMap::new(), text(&ClipSource::open(&from).unwrap()).unwrap()).unwrap();
        let [known, written] = [&from, &to].map(|path| Header::read(path).unwrap());
        let [theirs, ours] = [&from, &to].map(|path| std::fs::read(path).unwrap());
        let slice = |range: &std::ops::Range<u64>| range.start as usize..range.end as usize;
        for (name, info) in &known.tensors {
            let Some(found) = written.tensors.get(name) else {
                assert!(name.ends_with("logit_scale") || name.ends_with("position_ids"), "{section}: {name}");
                continue;
            };
            assert_eq!((found.dtype, &found.shape), (info.dtype, &info.shape), "{section}: {name}");
            assert_eq!(ours[slice(&found.range)], theirs[slice(&info.range)], "{section}: {name}");
        }
        assert!(written.tensors.keys().all(|name| known.tensors.contains_key(name)));
    }
}
