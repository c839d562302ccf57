//! `cache:` and `seed_mode:` of a node.

/// What is kept of a node's results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// In memory, and on disk where that is worth it.
    #[default]
    Disk,
    /// In memory only: nothing of it outlives the process.
    Memory,
    /// Nothing; it runs in every run that needs it or what it feeds.
    Off,
}

impl CacheMode {
    /// All, by their words.
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("disk", Self::Disk), ("memory", Self::Memory), ("off", Self::Off)];
}

/// What the seed of a node is in one of many runs: ComfyUI's `control_after_generate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeedMode {
    /// As written.
    Fixed,
    /// One more in each run.
    Increment,
    /// One less in each run.
    Decrement,
    /// Drawn.
    Random,
}

impl SeedMode {
    /// All, by their words.
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("fixed", Self::Fixed),
        ("increment", Self::Increment),
        ("decrement", Self::Decrement),
        ("random", Self::Random),
    ];

    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }
}
