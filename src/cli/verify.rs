//! `flow verify`: a picture made again from the workflow it carries, and compared.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use flow_engine::{Clock, Event, RunError, What};
use flow_graph::{Collected, Diagnostics, Files};
use flow_nodes::picture::decode::decode;
use serde_json::json;

use crate::{
    Ending, interrupt,
    load::{Load, Opened, show},
    output,
    results::results,
    session::{Compute, Session},
    sheet::Sheets,
    sweep::collect,
};

/// Makes a picture again from the workflow it carries and compares the pixels; ends with 1 when they differ
#[derive(Debug, clap::Args)]
pub struct Verify {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    compute: Compute,
    /// The comparison as JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Runs the workflow into a temporary folder and compares.
    ///
    /// # Errors
    /// When a file cannot be read, the workflow writes no picture, or the device cannot be used.
    pub fn run(&self) -> Result<Ending> {
        let shown = self.load.file.display();
        let cancel = interrupt::token()?;
        let folder = tempfile::Builder::new().prefix("flow-verify-").tempdir()?;
        let Opened { files, registry, overrides, sweep } = self.load.open(Some(folder.path()))?;
        let checked = sweep.and_then(|sweep| sweep.check(&registry, &files, &overrides, &[]));
        let pinned = match &checked {
            Ok(checked) => self.load.pinned(checked.whole())?.map(|_| ()),
            Err(_) => Ok(()),
        };
        let checked = match pinned.and(checked) {
            Ok(checked) => checked,
            Err(problems) => {
                show(&problems);
                return Ok(Ending::Refused);
            }
        };
        show(checked.warnings());
        let wanted = Pixels::read(&self.load.file)?;
        // A result that was kept says nothing of the one that would be made.
        let session = Session::new(&self.compute.like(&self.load.file).uncached(), Clock::monotonic())?;
        let mut saved: Vec<PathBuf> = Vec::new();
        let mut collected = Collected::default();
        let mut sheets = Sheets::new(checked.sweep());
        // Apart from what the workflow writes, which may have the same name.
        let apart = tempfile::Builder::new().prefix("flow-verify-").tempdir()?;
        let beside = Files::new(Vec::new(), Vec::new(), apart.path().to_owned());
        // More than one where the picture was made of all items of a list, or is a sheet of all runs.
        for run in 0..checked.sweep().len() {
            let plan = match checked.plan(run, &collected) {
                Ok(plan) => plan,
                Err(problems) => {
                    show(&problems);
                    return Ok(Ending::Refused);
                }
            };
            let mut on = |event: Event<'_>| {
                if let What::Saved { path } = event.what {
                    saved.push(path.to_owned());
                }
            };
            match session.run(&plan, &files, &cancel, &mut on) {
                Ok(outputs) => {
                    if checked.sweep().is_joined(run) {
                        collected = Collected::default();
                    }
                    collect(checked.sweep(), run, &plan, &outputs, &mut collected);
                    // The picture may be that of a node somebody wanted.
                    let named: Vec<_> = plan.outputs().keys().cloned().collect();
                    let mark = checked.sweep().mark(run);
                    results(&named, &mark, &plan, &outputs, (&session, &beside), &mut on)?;
                    if let Some(path) = checked.sheet_path(run) {
                        sheets.put(run, path, sheets.picture(&plan, &outputs));
                    }
                }
                Err(RunError::Cancelled) => return Ok(Ending::Stopped),
                Err(RunError::Failed { failures, .. }) => {
                    let failed = failures.iter().map(|failure| plan.diagnose(failure.job, &failure.error));
                    show(&Diagnostics(failed.collect()));
                    return Ok(Ending::Failed);
                }
            }
        }
        saved.extend(sheets.write(&checked, &session)?.into_iter().map(|(_, path)| path));
        saved.retain(|path| path.extension().is_some_and(|ending| ending == "png"));
        let mut made = saved
            .iter()
            .map(|path| Ok(wanted.difference(&Pixels::read(path)?)))
            .collect::<Result<Vec<_>>>()?;
        // A workflow may write several pictures; this one is the one most like it.
        made.sort_by(|a, b| a.rank().total_cmp(&b.rank()));
        let Some(difference) = made.first() else { bail!("the workflow in `{shown}` writes no picture") };
        let said = match self.json {
            true => format!("{:#}\n", difference.to_json()),
            false => format!("{shown}: {}\n", difference.describe(&wanted)),
        };
        output::print(&said)?;
        Ok(if matches!(difference, Difference::None) { Ending::Done } else { Ending::Failed })
    }
}

/// A picture in 8 bits a channel.
struct Pixels {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// In what two pictures differ.
enum Difference {
    None,
    Size {
        width: usize,
        height: usize,
    },
    /// The greatest difference of a channel, its mean square, and the share of channels that differ at all.
    Values {
        greatest: u8,
        square: f64,
        share: f64,
    },
}

impl Pixels {
    fn read(path: &Path) -> Result<Self> {
        let image = decode(path).map_err(|error| anyhow!("{error}"))?.image;
        let rgb = image.rgb.iter().map(|value| (value * 255.0).round() as u8).collect();
        Ok(Self { width: image.width, height: image.height, rgb })
    }

    fn difference(&self, other: &Self) -> Difference {
        if (self.width, self.height) != (other.width, other.height) {
            return Difference::Size { width: other.width, height: other.height };
        }
        let apart = || self.rgb.iter().zip(&other.rgb).map(|(a, b)| a.abs_diff(*b));
        let greatest = apart().max().unwrap_or(0);
        if greatest == 0 {
            return Difference::None;
        }
        let all = self.rgb.len() as f64;
        let square = apart().map(|by| f64::from(by) * f64::from(by)).sum::<f64>() / all;
        Difference::Values { greatest, square, share: apart().filter(|by| *by > 0).count() as f64 / all }
    }
}

impl Difference {
    fn rank(&self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Values { square, .. } => *square,
            Self::Size { .. } => f64::INFINITY,
        }
    }

    /// Peak signal to noise ratio in dB.
    fn psnr(square: f64) -> f64 {
        10.0 * (255.0 * 255.0 / square).log10()
    }

    fn describe(&self, wanted: &Pixels) -> String {
        let Pixels { width, height, .. } = wanted;
        match self {
            Self::None => format!("equal, {width}×{height}"),
            Self::Size { width: w, height: h } => {
                format!("differs: it is {width}×{height}, made again {w}×{h}")
            }
            Self::Values { greatest, square, share } => format!(
                "differs: by up to {greatest} of 255, PSNR {:.1} dB, {:.2} % of the values",
                Self::psnr(*square),
                share * 100.0
            ),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::None => json!({ "equal": true }),
            Self::Size { width, height } => {
                json!({ "equal": false, "made": { "width": width, "height": height } })
            }
            Self::Values { greatest, square, share } => {
                json!({ "equal": false, "greatest": greatest, "psnr": Self::psnr(*square), "share": share })
            }
        }
    }
}
