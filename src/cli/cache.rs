//! `flow cache`: what is kept between runs.

pub mod folder;
pub mod record;

use anyhow::{Context as _, Result};
use serde_json::json;

use self::folder::Folder;
use crate::{Ending, output};

/// Shows, checks or empties the folder where results are kept between runs
#[derive(Debug, clap::Args)]
pub struct Cache {
    #[command(subcommand)]
    action: Action,
    /// One JSON document on stdout instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Action {
    /// Where the folder is and how much is in it
    Info,
    /// Removes all results kept, and nothing else that may be in the folder
    Clear,
    /// Reads every result and removes the damaged ones
    Verify,
}

impl Cache {
    /// Does it and tells.
    ///
    /// # Errors
    /// When the size of the cache is set to something that is none, or results cannot be removed.
    pub fn run(&self) -> Result<Ending> {
        let Some(folder) = Folder::from_env()? else {
            return self.tell(json!({ "folder": null }), "the cache is turned off (FLOW_CACHE)");
        };
        let disk = folder.results();
        let shown = folder.path.display();
        let before = disk.survey();
        match self.action {
            Action::Info => self.tell(
                json!({
                    "folder": folder.path,
                    "results": before.entries,
                    "bytes": before.bytes,
                    "limit": folder.limit,
                }),
                &format!(
                    "{shown}: {} results, {} of {}",
                    before.entries,
                    size(before.bytes),
                    size(folder.limit)
                ),
            ),
            Action::Clear => {
                disk.clear().with_context(|| format!("cannot empty `{shown}`"))?;
                record::clear(&folder).with_context(|| format!("cannot empty `{shown}`"))?;
                self.tell(
                    json!({ "folder": folder.path, "removed": before.entries, "bytes": before.bytes }),
                    &format!("{shown}: {} results removed, {}", before.entries, size(before.bytes)),
                )
            }
            Action::Verify => {
                let damaged = disk.verify();
                let text = format!("{shown}: {} results read, {} damaged", before.entries, damaged.len());
                let lines = damaged.iter().map(|path| format!("\nremoved {}", path.display()));
                self.tell(
                    json!({ "folder": folder.path, "results": before.entries, "damaged": damaged }),
                    &(text + &lines.collect::<String>()),
                )
            }
        }
    }

    fn tell(&self, json: serde_json::Value, text: &str) -> Result<Ending> {
        output::print(&if self.json { format!("{json:#}\n") } else { format!("{text}\n") })?;
        Ok(Ending::Done)
    }
}

/// A number of bytes as a person reads it.
fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..units.len() - 1).find(|power| bytes >> (10 * (power + 1)) == 0).unwrap_or(4);
    let scaled = bytes as f64 / f64::from(1u32 << 10).powi(power as i32);
    if power == 0 { format!("{bytes} bytes") } else { format!("{scaled:.1} {}", units[power]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1023, 1536, 8 << 30, 5 << 40].map(size);
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1.5 KiB", "8.0 GiB", "5.0 TiB"]);
    }
}
