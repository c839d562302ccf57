use super::*;
use crate::fixture;
use crate::header::Header;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(fixture::path(&format!("pickle/{name}"))).unwrap()
}

/// Compares a file with what it is known to hold, by bytes.
fn agree(name: &str, below: &str, but: &[&str]) {
    let (bytes, expected) = (file(name), fixture::path("pickle/expected.safetensors"));
    let header = Header::read(expected.as_ref()).unwrap();
    let values = std::fs::read(expected).unwrap();
    let views = tensors(&bytes).unwrap();
    let wanted: Vec<_> = header.with_prefix(below).map(|(name, _)| &name[below.len()..]).collect();
    let wanted: Vec<_> = wanted.into_iter().filter(|name| !but.contains(name)).collect();
    assert_eq!(views.keys().collect::<Vec<_>>(), wanted);
    for name in wanted {
        let (view, info) = (&views[name], &header.tensors[&format!("{below}{name}")]);
        assert_eq!((view.dtype, &view.shape), (info.dtype, &info.shape), "{name}");
        let slice = |range: &Range<u64>| range.start as usize..range.end as usize;
        if view.is_contiguous() {
            assert_eq!(bytes[slice(&view.range)], values[slice(&info.range)], "{name}");
        }
    }
}

#[test]
fn what_pytorch_writes_is_read() {
    agree("zip.pt", "zip/", &[]);
    agree("legacy.pt", "zip/", &["fp8"]);
}

#[test]
fn a_checkpoint_of_training_gives_its_state_dict() {
    agree("checkpoint.ckpt", "checkpoint/", &[]);
}

#[test]
fn tensors_out_of_order_need_to_be_written_anew() {
    agree("transposed.pt", "transposed/", &[]);
    let message = infos(tensors(&file("transposed.pt")).unwrap()).unwrap_err();
    assert_eq!(message, "tensor `a` is not stored in order; write the file anew with `flow convert`");
}

#[test]
fn all_loaders_read_pytorchs_files() {
    for name in ["zip.pt", "legacy.pt"] {
        let header = Header::read(fixture::path(&format!("pickle/{name}")).as_ref()).unwrap();
        assert_eq!(header.shape("nested.deeper.bf16"), Some(&[2, 2][..]));
        let device = candle_core::Device::Cpu;
        let open =
            |header| crate::state_dict(header, str::to_owned, candle_core::DType::F32, &device).unwrap();
        let known = Header::read(fixture::path("pickle/expected.safetensors").as_ref()).unwrap();
        let (dict, expected) = (open(&header), open(&known));
        for name in ["f32", "nested.f16", "nested.deeper.bf16", "view", "tied.b", "parameter"] {
            let found = dict.get_unchecked(name).unwrap();
            let expected = expected.get_unchecked(&format!("zip/{name}")).unwrap();
            assert_eq!(fixture::values(&found), fixture::values(&expected));
        }
    }
}

#[test]
fn no_beginning_of_a_file_and_no_changed_byte_makes_a_panic() {
    for name in ["zip.pt", "legacy.pt", "checkpoint.ckpt"] {
        let whole = file(name);
        for end in 0..whole.len() {
            assert!(tensors(&whole[..end]).is_err(), "{name} cut at {end}");
        }
        for at in 0..whole.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                for view in tensors(&bytes).unwrap_or_default().values() {
                    assert!(view.range.start <= view.range.end && view.range.end <= bytes.len() as u64);
                }
            }
        }
    }
}

/// A zip with these entries, none compressed.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let sizes = [(bytes.len() as u32).to_le_bytes(); 2].concat();
        let name_length = (name.len() as u16).to_le_bytes();
        let place = (file.len() as u32).to_le_bytes();
        file.extend(
            [&b"PK\x03\x04"[..], &[0; 14], &sizes, &name_length, &[0; 2], name.as_bytes(), bytes].concat(),
        );
        list.extend([&b"PK\x01\x02"[..], &[0; 16], &sizes, &name_length, &[0; 12], &place].concat());
        list.extend(name.as_bytes());
    }
    let (count, start) = ((entries.len() as u16).to_le_bytes(), (file.len() as u32).to_le_bytes());
    let size = (list.len() as u32).to_le_bytes();
    file.extend(list);
    file.extend([&b"PK\x05\x06"[..], &[0; 4], &count, &count, &size, &start, &[0; 2]].concat());
    file
}

/// What is said of a pickle in an archive with one storage of four numbers.
fn refusal(pickle: &[u8]) -> String {
    tensors(&zip(&[("x/data.pkl", pickle), ("x/data/0", &[0; 16])])).unwrap_err()
}

fn text(text: &str) -> Vec<u8> {
    [&[b'X'][..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn int(number: i32) -> Vec<u8> {
    [&[b'J'][..], &number.to_le_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [&b"("[..], &items.concat(), b"t"].concat()
}

fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

fn numbers(numbers: &[i32]) -> Vec<u8> {
    tuple(&numbers.iter().map(|n| int(*n)).collect::<Vec<_>>())
}

/// A view of the storage of four numbers.
fn view(offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let storage = tuple(&[text("storage"), global("torch", "FloatStorage"), text("0"), text("cpu"), int(4)]);
    let storage = [storage, b"Q".to_vec()].concat();
    let arguments = tuple(&[storage, int(offset), numbers(shape), numbers(strides)]);
    [global("torch._utils", "_rebuild_tensor_v2"), arguments, b"R".to_vec()].concat()
}

/// A pickle of `{"w": value}`.
fn dict(value: Vec<u8>) -> Vec<u8> {
    [&b"\x80\x02}"[..], &text("w"), &value, b"s."].concat()
}

#[test]
fn what_the_tests_write_is_a_file_of_pytorch() {
    let bytes = zip(&[("x/data.pkl", &dict(view(1, &[3], &[1]))), ("x/data/0", &[0; 16])]);
    let found = tensors(&bytes).unwrap();
    assert_eq!((found["w"].dtype, found["w"].shape.clone()), (Dtype::F32, vec![3]));
}

#[test]
fn whatever_would_run_is_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_wrapper_subclass"),
        ("numpy.testing._private.utils", "runstring"),
        ("collections", "OrderedDict.__init__"),
        ("pytorch_lightningx", "anything"),
    ] {
        let named = format!("it would have `{module}.{name}` called, which state dicts have no need of");
        let call = [global(module, name), tuple(&[text("echo hello")]), b"R.".to_vec()].concat();
        assert!(refusal(&call).starts_with(&named), "{}", refusal(&call));
        let short = |text: &str| [&[0x8c, text.len() as u8][..], text.as_bytes()].concat();
        let stacked = [&b"\x80\x04"[..], &short(module), &short(name), b"\x93)\x81."].concat();
        assert!(refusal(&stacked).starts_with(&named), "{}", refusal(&stacked));
    }
}

#[test]
fn nothing_but_the_known_can_be_called() {
    let says_no_function = |callee: Vec<u8>| refusal(&[callee, tuple(&[]), b"R.".to_vec()].concat());
    assert_eq!(says_no_function(text("os.system")), "its pickle calls something that is no function");
    assert_eq!(
        says_no_function(global("torch", "float32")),
        "its pickle calls something that is no function"
    );
    for opcode in [b'i', b'o', b'P', 0x82, 0x83, 0x84, b'I', b'S', b'\n'] {
        let message = refusal(&[&b"("[..], &[opcode], b"os\nsystem\n."].concat());
        assert!(message.contains(&format!("the opcode {opcode:#04x}")), "{message}");
    }
}

#[test]
fn tensors_outside_of_their_storage_are_refused() {
    let outside = "tensor `w`: it goes beyond its storage";
    for value in [
        view(1, &[4], &[1]),
        view(0, &[5], &[1]),
        view(i32::MAX, &[1], &[1]),
        view(0, &[2, 2], &[4, 1]),
        view(0, &[i32::MAX, i32::MAX, i32::MAX, i32::MAX], &[0, 0, 0, 0]),
        view(0, &[i32::MAX; 8], &[i32::MAX; 8]),
    ] {
        assert_eq!(refusal(&dict(value)), outside);
    }
    assert_eq!(refusal(&dict(view(0, &[-1], &[1]))), "-1 is no size");
    assert_eq!(refusal(&dict(view(0, &[1], &[-1]))), "-1 is no size");
    assert!(refusal(&dict(view(0, &[1], &[1, 1]))).contains("1 dimensions"));
    assert!(refusal(&dict(view(0, &[1; 9], &[1; 9]))).contains("9 dimensions"));
}

#[test]
fn a_storage_must_be_in_the_archive_and_whole() {
    let pickle = dict(view(0, &[4], &[1]));
    let say = |entries: &[(&str, &[u8])]| tensors(&zip(entries)).unwrap_err();
    assert!(say(&[("x/data.pkl", &pickle)]).contains("no entry `x/data/0`"));
    let message = say(&[("x/data.pkl", &pickle), ("x/data/0", &[0; 15])]);
    assert!(message.contains("has 15 bytes, expected 16"), "{message}");
    let message = say(&[("x/data.pkl", &pickle), ("x/byteorder", b"big"), ("x/data/0", &[0; 16])]);
    assert!(message.contains("big-endian"), "{message}");
    assert!(say(&[("x/other.txt", b"")]).contains("zip without `data.pkl`"));
}

#[test]
fn nesting_and_circles_cost_nothing() {
    // Tuples in tuples, lists never closed, a million marks, more values than any checkpoint has.
    let nested = [&b"N"[..], &vec![0x85; 900_000], b"."].concat();
    assert!(refusal(&nested).contains("no tensors"));
    assert!(refusal(&[&vec![b']'; 2_000_000][..], b"."].concat()).contains("more than 1000000 values"));
    assert!(refusal(&[&vec![b'('; 1_000_000][..], b"."].concat()).contains("damaged"));
    // A dictionary in itself, under two names.
    let circle = [&b"}q\x00"[..], &text("a"), b"h\x00s", &text("b"), b"h\x00s."].concat();
    assert_eq!(refusal(&circle), "its dictionaries are nested deeper than 6");
    // A dictionary of many entries in many others.
    let many: Vec<u8> = (0..60_000).flat_map(|i| [int(i), b"Ns".to_vec()].concat()).collect();
    let all: Vec<u8> = (0..60_000).flat_map(|i| [int(i), b"h\x00s".to_vec()].concat()).collect();
    let shared = [&b"}q\x00"[..], &many, b"0}", &all, b"."].concat();
    assert!(refusal(&shared).contains("more than"), "{}", refusal(&shared));
    // One long list made a dictionary again and again.
    let pairs: Vec<u8> = (0..50_000).flat_map(|_| [&b"NN\x86a"[..]].concat()).collect();
    let again: Vec<u8> = (0..1000).flat_map(|_| b"h\x01h\x00\x85R0".to_vec()).collect();
    let made =
        [&b"]q\x00"[..], &pairs, &global("collections", "OrderedDict"), b"q\x01", &again, b"."].concat();
    assert!(refusal(&made).contains("more than 1000000 values"), "{}", refusal(&made));
}

#[test]
fn lengths_that_lie_are_damage() {
    let damaged = "its pickle is damaged or cut off; download it again";
    for pickle in [
        &b"X\xff\xff\xff\xff."[..],
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x8b\xff\xff\xff\x7f.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"h\x07.",
        b"j\xff\xff\xff\xff.",
        b".",
        b"0.",
        b"a.",
        b"t.",
        b"N(0.",
        b"N(2.",
        b"\x87.",
        b"(NNNd.",
        b"}(Nu.",
        b"NNs.",
        b"NR.",
        b"NNR.",
        b"NQ.",
        b"c",
        b"cno newline",
        b"\x93.",
        b"",
    ] {
        assert_eq!(refusal(pickle), damaged, "{pickle:?}");
    }
    let put = refusal(b"Nr\xff\xff\xff\xff.");
    assert!(put.contains("no tensors"), "{put}");
    assert!(refusal(&dict(text("x"))).contains("no tensors"));
    let long = "x".repeat(600);
    let named = [&b"}"[..], &text(&long), &view(0, &[1], &[1]), b"s."].concat();
    assert!(refusal(&named).contains("a name of 600 bytes"));
}

#[test]
fn an_archive_that_lies_is_refused() {
    let pickle = dict(view(0, &[4], &[1]));
    let good = zip(&[("x/data.pkl", &pickle), ("x/data/0", &[0; 16])]);
    assert!(tensors(&good).is_ok());
    let damaged = "its archive is damaged or cut off; download it again";
    let end = good.len() - 22;
    let list = u32::from_le_bytes(good[end + 16..end + 20].try_into().unwrap()) as usize;
    let second = list + 46 + "x/data.pkl".len();
    let change = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        tensors(&file).unwrap_err()
    };
    // Compressed: method, or a size that is another one unpacked (a bomb).
    assert!(change(second + 10, &[8, 0]).contains("`x/data/0` is compressed"));
    assert!(change(second + 24, &[0xff, 0xff, 0xff, 0x7f]).contains("is compressed"));
    assert!(change(second + 8, &[1, 0]).contains("is encrypted"));
    // Beyond the file, in another entry, at no header, under the same name.
    assert_eq!(change(second + 20, &[0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f]), damaged);
    assert_eq!(change(second + 42, &[0xff, 0xff, 0xff, 0x7f]), damaged);
    assert!(change(second + 42, &[0, 0, 0, 0]).contains("overlap"));
    assert_eq!(change(second + 42, &[1, 0, 0, 0]), damaged);
    // More entries than there are, zip64 without its record.
    assert_eq!(change(end + 10, &[3, 0]), damaged);
    assert_eq!(change(end + 10, &[0xff, 0xff]), damaged);
    assert_eq!(change(end + 16, &[0xff, 0xff, 0xff, 0xff]), damaged);
    assert_eq!(change(end + 16, &[0xff, 0xff, 0xff, 0x7f]), damaged);
    let twice = zip(&[("x/data.pkl", &pickle), ("x/data.pkl", &pickle)]);
    assert!(tensors(&twice).unwrap_err().contains("there twice"));
}

#[test]
fn a_pickle_of_something_else_says_so() {
    assert_eq!(tensors(b"\x80\x02}.").unwrap_err(), "this is a pickle, but not one of PyTorch");
    assert!(tensors(b"\x80\x02cos\nsystem\n.").unwrap_err().contains("`os.system`"));
}

#[test]
fn the_length_of_a_safetensors_header_is_no_pickle() {
    assert!(!is_meant(&[0x80, 2, 0, 0, 0, 0, 0, 0]));
    assert!(is_meant(b"\x80\x02\x8a\x0al\xfc\x9cF"));
    assert!(is_meant(b"PK\x03\x04...."));
}
