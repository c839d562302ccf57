use std::{fs, path::Path, sync::Arc};

use candle_core::{Device, Tensor};
use flow_graph::context::{CancelToken, Provenance, Report};
use flow_nodes::ports::{Image, Latent, Mask};
use image::{DynamicImage, ImageEncoder, Rgb, RgbImage};

use crate::{Call, context, fixture, load, node, repository, values};

fn load_at(path: &Path) -> Call {
    node("LoadImage").file("image", path)
}

/// The first bytes of a PNG that claims to be `width × height`.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
    drop(writer);
    bytes
}

#[test]
fn a_picture_that_claims_to_be_huge_is_refused_before_memory_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.png");
    fs::write(&path, png_header(50_000, 60_000)).unwrap();
    let error = load_at(&path).run().unwrap_err();
    assert_eq!(error.input, Some("image"));
    let text = error.to_string();
    assert!(text.contains("50000×60000 is 3000 megapixels, more than the 134 allowed"), "{text}");
}

#[test]
fn damaged_files_are_errors_on_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(repository("models/tiny-sd/reference/canny_input.png")).unwrap();
    let mut jpeg = Vec::new();
    write_turned(image::codecs::jpeg::JpegEncoder::new(&mut jpeg), 1);
    let cases = [
        ("empty.png", Vec::new()),
        ("header.png", whole[..40].to_vec()),
        ("half.png", whole[..whole.len() / 2].to_vec()),
        ("half.jpg", jpeg[..jpeg.len() / 4].to_vec()),
        ("text.png", b"not a picture".to_vec()),
        ("riff.webp", b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff".to_vec()),
    ];
    for (name, bytes) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = load_at(&path).run().err().unwrap_or_else(|| panic!("{name} was read"));
        assert_eq!(error.input, Some("image"), "{name}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// A 3 × 2 picture, white in the top left corner and black elsewhere.
fn corner() -> DynamicImage {
    DynamicImage::ImageRgb8(RgbImage::from_fn(3, 2, |x, y| Rgb([255 * u8::from((x, y) == (0, 0)); 3])))
}

/// Encodes with an EXIF block that holds nothing but an orientation.
fn write_turned(mut encoder: impl ImageEncoder, orientation: u8) {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    encoder.set_exif_metadata(exif).unwrap();
    corner().write_with_encoder(encoder).unwrap();
}

#[test]
fn pictures_are_turned_as_their_camera_was() {
    let folder = tempfile::tempdir().unwrap();
    // Orientation, then where the first stored pixel goes (x, y) and the size (width, height).
    let cases = [(1, (0, 0), (3, 2)), (3, (2, 1), (3, 2)), (6, (1, 0), (2, 3)), (8, (0, 2), (2, 3))];
    for (orientation, (x, y), size) in cases {
        for format in ["png", "jpg", "webp"] {
            let mut bytes = Vec::new();
            match format {
                "png" => write_turned(image::codecs::png::PngEncoder::new(&mut bytes), orientation),
                "jpg" => write_turned(
                    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100),
                    orientation,
                ),
                _ => write_turned(image::codecs::webp::WebPEncoder::new_lossless(&mut bytes), orientation),
            }
            let path = folder.path().join(format!("{orientation}.{format}"));
            fs::write(&path, bytes).unwrap();
            let image = load_at(&path).image();
            assert_eq!((image.width, image.height), size, "{format} {orientation}");
            assert!(image.rgb[(y * image.width + x) * 3] > 0.9, "{format} {orientation}: {:?}", image.rgb);
        }
    }
}

#[test]
fn transparency_becomes_the_mask_and_leaves_the_colours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alpha.png");
    image::RgbaImage::from_pixel(2, 1, image::Rgba([255, 0, 51, 51])).save(&path).unwrap();
    let values = load_at(&path).run().unwrap();
    let (image, mask) = (values[0].get::<Image>().unwrap(), values[1].get::<Mask>().unwrap());
    assert_eq!(&image.rgb[..3], [1.0, 0.0, 0.2]);
    assert_eq!((mask.width, mask.height, mask.values[0]), (2, 1, 1.0 - 0.2));
    let mask = |channel: &str| {
        let call = node("LoadImageMask").file("image", &path).set("channel", channel);
        call.run().unwrap()[0].get::<Mask>().unwrap()
    };
    assert_eq!([mask("alpha"), mask("red"), mask("blue")].map(|mask| mask.values[1]), [1.0 - 0.2, 1.0, 0.2]);

    let opaque = load_at(&repository("models/tiny-sd/reference/canny_input.png")).run().unwrap();
    assert_eq!(*opaque[1].get::<Mask>().unwrap(), Mask::none());
}

#[test]
fn sixteen_bit_grey_and_palette_pictures_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep.png");
    image::ImageBuffer::<image::Luma<u16>, _>::from_raw(1, 1, vec![257 * 100 + 7])
        .unwrap()
        .save(&path)
        .unwrap();
    let deep = load_at(&path).image();
    assert_eq!(deep.rgb[..], [25707.0 / 65535.0; 3]);

    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::One);
    encoder.set_palette(vec![255, 0, 0, 0, 0, 255]);
    encoder.set_trns(vec![255, 0]);
    encoder.write_header().unwrap().write_image_data(&[0b0100_0000]).unwrap();
    let path = folder.path().join("palette.png");
    fs::write(&path, bytes).unwrap();
    let values = load_at(&path).run().unwrap();
    assert_eq!(values[0].get::<Image>().unwrap().rgb[..], [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!(values[1].get::<Mask>().unwrap().values[..], [0.0, 1.0]);
}

fn white() -> Image {
    // Values between two bytes are cut, not rounded.
    Image::new(1, 2, 2, vec![0.999; 12])
}

#[test]
fn saved_pictures_are_numbered_truncated_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let saved = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = saved.clone();
    let report = Arc::new(move |report| {
        if let Report::Saved(path) = report {
            log.lock().unwrap().push(path);
        }
    });
    let provenance = Provenance {
        name: "cat".into(),
        workflow: "flow: 1 # 垫图".into(),
        prompt: "{}".into(),
        made: String::new(),
    };
    let cx = context(folder.path()).with_provenance(Arc::new(provenance));
    let cx = cx.for_node(CancelToken::default(), report);
    for _ in 0..2 {
        let two = Image::new(2, 1, 1, vec![0.999; 6]);
        node("SaveImage").link("images", two).run_in(&cx).unwrap();
    }
    let names: Vec<_> = (1..=4).map(|i| folder.path().join(format!("out/cat_{i:05}_.png"))).collect();
    assert_eq!(*saved.lock().unwrap(), names);
    assert_eq!(load_at(&names[3]).image().rgb[0], 254.0 / 255.0);

    let reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(&names[0]).unwrap()));
    let reader = reader.read_info().unwrap();
    let info = reader.info();
    let prompt = &info.uncompressed_latin1_text[0];
    assert_eq!((prompt.keyword.as_str(), prompt.text.as_str()), ("prompt", "{}"));
    assert_eq!(info.utf8_text[0].keyword, "flow");
    assert_eq!(info.utf8_text[0].get_text().unwrap(), "flow: 1 # 垫图");
}

#[test]
fn a_named_picture_replaces_itself_and_never_leaves_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let save =
        |path: &str| node("SaveImage").link("images", white()).set("path", path).run_in(&context(&out));
    save("a/b-0.5.png").unwrap();
    save("a/b-0.5.png").unwrap();
    assert_eq!(fs::read_dir(out.join("a")).unwrap().count(), 1, "no second and no temporary file");
    for path in ["../b.png", "/tmp/b.png", "a/../../b.png", "..\\b.png"] {
        let error = save(path).unwrap_err();
        assert_eq!(error.input, Some("path"), "{path}");
        assert!(error.to_string().contains("leads out of the output folder"), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn previews_of_equal_pictures_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let cx = context(folder.path());
    let pictures = Image::new(2, 1, 1, vec![0.5; 6]);
    node("PreviewImage").link("images", pictures).run_in(&cx).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("preview")).unwrap().count(), 1);
}

#[test]
fn a_latent_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("resize/latent.safetensors")["src"].clone();
    let saved = node("SaveLatent").link("samples", Latent::new(source.clone()));
    saved.run_in(&context(folder.path())).unwrap();
    let path = folder.path().join("latents/flow_00001_.latent");
    let loaded = node("LoadLatent").file("latent", &path).run().unwrap();
    let loaded = loaded[0].get::<Latent>().unwrap();
    assert_eq!(loaded.samples.dims(), source.dims());
    assert_eq!(values(&loaded.samples), values(&source));
}

#[test]
fn an_old_latent_file_is_unscaled_and_a_wrong_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, shape: &[usize]| {
        let tensor = Tensor::full(0.18215f32, shape, &Device::Cpu).unwrap();
        let path = folder.path().join("old.latent");
        tensor.save_safetensors(name, &path).unwrap();
        node("LoadLatent").file("latent", path).run()
    };
    let old = write("latent_tensor", &[1, 4, 1, 1]).unwrap()[0].get::<Latent>().unwrap();
    assert!(values(&old.samples).iter().all(|value| (value - 1.0).abs() < 1e-6));
    let error = write("weight", &[1, 4, 1, 1]).unwrap_err().to_string();
    assert!(error.ends_with("has no `latent_tensor`"), "{error}");
    let error = write("latent_tensor", &[4, 1, 1]).unwrap_err().to_string();
    assert!(error.ends_with("holds a tensor of shape [4, 1, 1], expected [N, C, H, W]"), "{error}");
}

#[test]
fn a_picture_survives_saving_and_loading() {
    let folder = tempfile::tempdir().unwrap();
    let image = load("models/tiny-sd/reference/canny_input.png");
    let call = node("SaveImage").link("images", image.clone()).set("path", "same");
    call.run_in(&context(folder.path())).unwrap();
    assert_eq!(load_at(&folder.path().join("same.png")).image(), image);
}
