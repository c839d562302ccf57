//! The store of loaded weights: what is in use stays, what is not goes when room is needed.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use candle_core::{DType, Device, DeviceLocation};

use crate::header::Header;
use crate::overlay::Overlay;
use crate::size::Size;
use crate::{Error, Result};

/// What identifies loaded weights: a file as it was, the part of it, and the form it is held in.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
    part: String,
    dtype: DType,
    device: DeviceLocation,
    overlay: Overlay,
}

impl Recipe {
    /// The recipe of the `part` (`unet`, `vae`, …) of a file, in this dtype, on this device.
    pub fn new(header: &Header, part: impl Into<String>, dtype: DType, device: &Device) -> Self {
        Self {
            path: header.path.clone(),
            length: header.length,
            modified: header.modified,
            part: part.into(),
            dtype,
            device: device.location(),
            overlay: Overlay::default(),
        }
    }

    /// The same weights with these changes.
    #[must_use]
    pub fn with(self, overlay: &Overlay) -> Self {
        Self { overlay: overlay.clone(), ..self }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "{} of `{file}` in {:?}", self.part, self.dtype)?;
        match self.overlay.len() {
            0 => Ok(()),
            1 => f.write_str(", changed once"),
            n => write!(f, ", changed {n} times"),
        }
    }
}

/// What else lies in the memory that the weights are in: results of earlier nodes.
pub struct Others {
    /// The bytes they hold now.
    pub used: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Drops those that no running node needs.
    pub evict: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Others").field("used", &(self.used)()).finish_non_exhaustive()
    }
}

/// Loaded weights by recipe, within a budget that they share with [`Others`]. What somebody holds stays; what nobody
/// holds stays until its room is needed, and then goes in the order of last use.
#[derive(Debug)]
pub struct WeightStore {
    budget: u64,
    others: Option<Others>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Least recently used first.
    list: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    recipe: Recipe,
    weights: Arc<dyn Any + Send + Sync>,
    bytes: u64,
}

impl WeightStore {
    /// A store of at most `budget` bytes.
    pub fn new(budget: u64) -> Self {
        Self { budget, others: None, entries: Mutex::default() }
    }

    /// The same store, whose budget is also that of `others`.
    #[must_use]
    pub fn beside(self, others: Others) -> Self {
        Self { others: Some(others), ..self }
    }

    /// The weights of `recipe`. If they are not there, room is made for their `bytes` and `load` makes them; if it runs
    /// out of memory, it is asked again after everything unused has gone.
    ///
    /// # Errors
    /// `Error::OutOfMemory` if they do not fit beside what is in use; else those of `load`.
    pub fn lease<T: Any + Send + Sync>(
        &self,
        recipe: &Recipe,
        bytes: u64,
        load: impl FnMut() -> Result<T>,
    ) -> Result<Arc<T>> {
        if let Some(found) = self.lock().find(recipe) {
            return found
                .downcast()
                .map_err(|_| Error::Mismatch(format!("{recipe:?} was loaded as another type")));
        }
        if !self.make_room(bytes) {
            self.evict_unused();
        }
        if self.free() < bytes {
            return Err(Error::OutOfMemory(format!("the {recipe} needs {}; {self}", Size(bytes))));
        }
        // Not locked while loading: a part may lease another part.
        let weights = self.retried(&format!("the {recipe}"), load)?;
        let weights = Arc::new(weights);
        self.lock().list.push(Entry { recipe: recipe.clone(), weights: weights.clone(), bytes });
        Ok(weights)
    }

    /// Does `work`; if it runs out of memory, drops everything unused and does it once more.
    ///
    /// # Errors
    /// Those of `work`; `Error::OutOfMemory`, with what is in use, if the second attempt runs out of memory too.
    pub fn retried<T>(&self, what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            Err(error) if error.is_out_of_memory() => self.evict_unused(),
            done => return done,
        }
        work().map_err(|error| match error.is_out_of_memory() {
            true => Error::OutOfMemory(format!("{what} does not fit ({error}); {self}")),
            false => error,
        })
    }

    /// Drops unused weights, least recently used first, until `bytes` more fit into the budget; says whether they do.
    pub fn make_room(&self, bytes: u64) -> bool {
        let others = self.others();
        let mut entries = self.lock();
        while self.budget.saturating_sub(others).saturating_sub(entries.bytes()) < bytes {
            if !entries.drop_one() {
                return false;
            }
        }
        true
    }

    /// Drops everything nobody holds, weights and results.
    pub fn evict_unused(&self) {
        while self.lock().drop_one() {}
        if let Some(others) = &self.others {
            (others.evict)();
        }
    }

    /// Bytes of all weights held.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    /// What may lie in this memory, weights and [`Others`] together.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// What of the budget nobody uses.
    pub fn free(&self) -> u64 {
        self.budget.saturating_sub(self.others()).saturating_sub(self.bytes())
    }

    fn others(&self) -> u64 {
        self.others.as_ref().map_or(0, |others| (others.used)())
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic elsewhere leaves the list whole: every change is one push or one remove.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// "of 8.0 GiB for models and results, 1.7 GiB are in use by models (unet of …) and 12 MiB by results".
impl fmt::Display for WeightStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.budget == u64::MAX {
            f.write_str("without a limit for models and results, ")?;
        } else {
            write!(f, "of the {} for models and results, ", Size(self.budget))?;
        }
        let entries = self.lock();
        write!(f, "{} are in use by models", Size(entries.bytes()))?;
        for (i, entry) in entries.list.iter().enumerate() {
            write!(f, "{}{}, {}", if i == 0 { " (" } else { "; " }, entry.recipe, Size(entry.bytes))?;
        }
        f.write_str(if entries.list.is_empty() { "" } else { ")" })?;
        write!(f, " and {} by results", Size(self.others()))
    }
}

impl Entries {
    fn find(&mut self, recipe: &Recipe) -> Option<Arc<dyn Any + Send + Sync>> {
        let at = self.list.iter().position(|e| e.recipe == *recipe)?;
        let entry = self.list.remove(at);
        let weights = entry.weights.clone();
        self.list.push(entry);
        Some(weights)
    }

    fn bytes(&self) -> u64 {
        self.list.iter().map(|e| e.bytes).sum()
    }

    /// Drops the least recently used of those that nobody holds, if there is one.
    fn drop_one(&mut self) -> bool {
        let unused = self.list.iter().position(|e| Arc::strong_count(&e.weights) == 1);
        unused.map(|at| self.list.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests;
