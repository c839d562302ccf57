use super::*;

type Result<T> = std::result::Result<T, Error>;

fn picture(channels: usize, height: usize, width: usize) -> Tensor {
    let values = Tensor::arange(0f32, (channels * height * width) as f32, &Device::Cpu).unwrap();
    values.affine(0.37, 0.1).unwrap().sin().unwrap().reshape((1, channels, height, width)).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A function that depends on where a tile ends: every value less the tile's mean, `factor` times as large.
fn grown(tile: &Tensor, factor: usize) -> Result<Tensor> {
    let (_, _, height, width) = tile.dims4()?;
    let mean = tile.mean_all()?.to_scalar::<f32>()?;
    Ok(tile.upsample_nearest2d(height * factor, width * factor)?.affine(1.0, -f64::from(mean))?)
}

/// ComfyUI's `tiled_scale` of one tiling, told place by place: each place is the mean of the tiles that hold it, weighted by
/// how far it is from their edges.
fn blended(input: &Tensor, cut: Cut, factor: usize) -> Vec<f64> {
    let (_, channels, height, width) = input.dims4().unwrap();
    let starts = |length: usize, tile: usize| -> Vec<usize> {
        if length <= tile { vec![0] } else { (0..length - cut.overlap).step_by(tile - cut.overlap).collect() }
    };
    let alone = height <= cut.height && width <= cut.width;
    let feather = if alone { 0 } else { cut.overlap * factor };
    let weight = |at: usize, length: usize| {
        if feather >= length {
            return 1.0;
        }
        let from_start = ((at + 1) as f64 / feather as f64).min(1.0);
        let from_end = ((length - at) as f64 / feather as f64).min(1.0);
        from_start * from_end
    };
    let mut tiles = vec![];
    for top in starts(height, cut.height) {
        for left in starts(width, cut.width) {
            let (rows, columns) = (cut.height.min(height - top), cut.width.min(width - left));
            let tile = input.narrow(2, top, rows).unwrap().narrow(3, left, columns).unwrap();
            tiles.push((
                top * factor,
                left * factor,
                rows * factor,
                columns * factor,
                values(&grown(&tile, factor).unwrap()),
            ));
        }
    }
    let mut result = vec![];
    for channel in 0..channels {
        for y in 0..height * factor {
            for x in 0..width * factor {
                let (mut sum, mut weights) = (0.0, 0.0);
                for (top, left, rows, columns, tile) in &tiles {
                    if y < *top || x < *left || y >= top + rows || x >= left + columns {
                        continue;
                    }
                    let weight = weight(y - top, *rows) * weight(x - left, *columns);
                    sum += weight * f64::from(tile[(channel * rows + y - top) * columns + x - left]);
                    weights += weight;
                }
                result.push(sum / weights);
            }
        }
    }
    result
}

fn never(_: usize, _: usize) -> Result<()> {
    Ok(())
}

#[test]
fn tiles_are_blended_as_comfyui_blends_them() {
    for (height, width) in [(40, 56), (17, 64), (33, 9), (8, 8)] {
        let input = picture(2, height, width);
        let cuts = Cut::three(Tiling { tile: 128, overlap: 32 }, 8);
        assert_eq!(cuts[2], Cut { height: 16, width: 16, overlap: 4 });
        let found = values(&tiled(&input, &cuts, Scale::Up(2), |tile| grown(tile, 2), never).unwrap());
        let expected = cuts.map(|cut| blended(&input, cut, 2));
        assert_eq!(found.len(), expected[0].len());
        for (i, found) in found.iter().enumerate() {
            let mean = (expected[0][i] + expected[1][i] + expected[2][i]) / 3.0;
            assert!((f64::from(*found) - mean).abs() < 1e-5, "{height}x{width} at {i}: {found} for {mean}");
        }
    }
}

#[test]
fn a_function_of_single_places_passes_through_tiles_unchanged() {
    let input = picture(3, 64, 96);
    let cuts = [Cut { height: 32, width: 32, overlap: 8 }, Cut { height: 64, width: 16, overlap: 8 }];
    let halved = |tile: &Tensor| -> Result<Tensor> {
        let (_, _, height, width) = tile.dims4()?;
        Ok(tile.upsample_nearest2d(height / 8, width / 8)?.affine(2.0, 1.0)?)
    };
    let found = tiled(&input, &cuts, Scale::Down(8), halved, never).unwrap();
    assert_eq!(found.dims(), [1, 3, 8, 12]);
    let expected = values(&halved(&input).unwrap());
    assert!(values(&found).iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-5));
}

#[test]
fn every_tile_is_told_and_the_work_stops_where_it_is_asked_to() {
    let input = picture(1, 40, 40);
    let cuts = Cut::three(Tiling { tile: 128, overlap: 32 }, 8);
    let mut told = vec![];
    tiled(
        &input,
        &cuts,
        Scale::Up(1),
        |tile| Ok(tile.clone()),
        |done, total| {
            told.push((done, total));
            Ok::<_, Error>(())
        },
    )
    .unwrap();
    let total = count(&cuts, 40, 40);
    assert_eq!(told, (1..=total).map(|done| (done, total)).collect::<Vec<_>>());
    let stop = |done: usize, _: usize| if done == 2 { Err(Error::Mismatch("stop".into())) } else { Ok(()) };
    assert!(tiled(&input, &cuts, Scale::Up(1), |tile| Ok(tile.clone()), stop).is_err());
}

#[test]
fn no_tiling_leaves_tiles_that_do_not_advance() {
    for (tile, overlap) in [(64, 0), (64, 4096), (512, 512), (8, 8), (4096, 64)] {
        for cut in Cut::three(Tiling { tile, overlap }, 8) {
            assert!(cut.overlap < cut.height && cut.overlap < cut.width, "{tile} {overlap}: {cut:?}");
        }
    }
}
