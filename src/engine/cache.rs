//! Results of earlier runs, by key: what makes a second run short.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use flow_graph::{Bytes, Hash, NodeId, Value};

/// Entries that no run has used for this many runs go.
const KEEP_RUNS: u64 = 10;

/// Results in memory, within budgets of bytes of main and of device memory.
///
/// A run *holds* an entry from the moment it meets it until no later node needs it; held entries never go. Of the
/// others the one used longest ago goes first.
#[derive(Debug)]
pub struct ResultCache {
    budget: Bytes,
    used: Bytes,
    run: u64,
    tick: u64,
    entries: HashMap<Hash, Entry>,
    /// What several entries may hold, by address: how many hold it, and how much it is.
    storages: HashMap<usize, (usize, Bytes)>,
    /// Entries that nobody holds, by the moment they were let go.
    idle: BTreeMap<u64, Hash>,
    /// Removed by [`ResultCache::evict_idle`] and not told of yet.
    untold: Vec<Evicted>,
}

#[derive(Debug)]
struct Entry {
    values: Arc<[Value]>,
    /// What it would be alone; storages shared with other entries included.
    bytes: Bytes,
    owner: Owner,
    last_run: u64,
    holds: u32,
    /// Its place in `idle` while `holds` is zero.
    idle_since: u64,
}

/// The node that made a result, for the event that tells of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node's id when it ran.
    pub node: NodeId,
    /// Its type.
    pub kind: &'static str,
}

/// A result that left the cache.
#[derive(Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Whose result it was.
    pub owner: Owner,
    /// The memory that nobody holds any more.
    pub bytes: Bytes,
}

impl ResultCache {
    /// An empty cache that keeps idle results while all together hold at most `budget` of either memory; without any
    /// main memory it keeps nothing.
    pub fn new(budget: Bytes) -> Self {
        Self {
            budget,
            used: Bytes::default(),
            run: 0,
            tick: 0,
            entries: HashMap::new(),
            storages: HashMap::new(),
            idle: BTreeMap::new(),
            untold: Vec::new(),
        }
    }

    /// The memory all results hold now.
    pub fn used(&self) -> Bytes {
        self.used
    }

    /// Begins a run: entries met from now on count as used by it.
    pub fn begin_run(&mut self) {
        self.run += 1;
    }

    /// The values of a key, held until [`ResultCache::release`].
    pub fn hold(&mut self, key: &Hash) -> Option<Arc<[Value]>> {
        let entry = self.entries.get_mut(key)?;
        if entry.holds == 0 {
            self.idle.remove(&entry.idle_since);
        }
        entry.holds += 1;
        entry.last_run = self.run;
        Some(entry.values.clone())
    }

    /// Adds the values of a key, held until [`ResultCache::release`]; says whether they are kept at all, which a cache
    /// without a budget does not do.
    pub fn insert(&mut self, key: Hash, values: Arc<[Value]>, owner: Owner) -> bool {
        // Twins of one run, or two runs of one engine, bring the same key.
        if self.budget.host == 0 || self.hold(&key).is_some() {
            return self.budget.host > 0;
        }
        let bytes = total(&values);
        self.used = self.used + own(&values) + self.take(&values);
        let entry = Entry { values, bytes, owner, last_run: self.run, holds: 1, idle_since: 0 };
        self.entries.insert(key, entry);
        true
    }

    /// Lets go of a key that this run needs no more.
    pub fn release(&mut self, key: &Hash) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.holds = entry.holds.saturating_sub(1);
        if entry.holds == 0 {
            self.tick += 1;
            entry.idle_since = self.tick;
            self.idle.insert(self.tick, *key);
        }
    }

    /// While over a budget, removes the idle entry used longest ago of those that it helps to remove.
    pub fn next_over_budget(&mut self) -> Option<Evicted> {
        if let Some(gone) = self.untold.pop() {
            return Some(gone);
        }
        let host = self.used.host > self.budget.host;
        let device = self.used.device > self.budget.device;
        if !host && !device {
            return None;
        }
        let helps = |bytes: Bytes| host && bytes.host > 0 || device && bytes.device > 0;
        let helpful = |(_, key): &(&u64, &Hash)| self.entries.get(key).is_some_and(|e| helps(e.bytes));
        let (tick, key) = self.idle.iter().find(helpful).map(|(tick, key)| (*tick, *key))?;
        self.idle.remove(&tick);
        self.remove(&key)
    }

    /// Removes everything that nobody holds; the next [`ResultCache::next_over_budget`] tell of it.
    pub fn evict_idle(&mut self) {
        for key in std::mem::take(&mut self.idle).into_values() {
            let gone = self.remove(&key);
            self.untold.extend(gone);
        }
    }

    /// Removes what the last runs did not use; call it when a run ends.
    pub fn expire(&mut self) -> Vec<Evicted> {
        // `idle` is in order of use, so what is too old is at its front.
        let mut gone = Vec::new();
        while let Some((tick, key)) = self.idle.first_key_value().map(|(tick, key)| (*tick, *key))
            && self.entries.get(&key).is_none_or(|entry| entry.last_run + KEEP_RUNS <= self.run)
        {
            self.idle.remove(&tick);
            gone.extend(self.remove(&key));
        }
        gone
    }

    fn remove(&mut self, key: &Hash) -> Option<Evicted> {
        let entry = self.entries.remove(key)?;
        let bytes = own(&entry.values) + self.give(&entry.values);
        self.used = self.used - bytes;
        Some(Evicted { owner: entry.owner, bytes })
    }

    /// Notes what the values of a new entry hold; gives how much of it nobody held before.
    fn take(&mut self, values: &[Value]) -> Bytes {
        let mut added = Bytes::default();
        for shared in values.iter().flat_map(Value::shared) {
            let (holders, _) = self.storages.entry(shared.address).or_insert((0, shared.bytes));
            *holders += 1;
            if *holders == 1 {
                added = added + shared.bytes;
            }
        }
        added
    }

    /// Forgets what the values of an entry held; gives how much of it nobody holds now.
    fn give(&mut self, values: &[Value]) -> Bytes {
        let mut freed = Bytes::default();
        for shared in values.iter().flat_map(Value::shared) {
            let Some((holders, bytes)) = self.storages.get_mut(&shared.address) else { continue };
            *holders -= 1;
            if *holders == 0 {
                freed = freed + *bytes;
                self.storages.remove(&shared.address);
            }
        }
        freed
    }
}

/// The memory that several values hold each by itself.
fn own(values: &[Value]) -> Bytes {
    values.iter().fold(Bytes::default(), |sum, value| sum + value.own_bytes())
}

/// The memory that several values hold.
pub(crate) fn total(values: &[Value]) -> Bytes {
    values.iter().fold(Bytes::default(), |sum, value| sum + value.bytes())
}
