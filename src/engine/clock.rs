//! Time, handed in: tests stop it.

use std::{sync::Arc, time::Duration, time::Instant};

/// Where the engine reads how late it is.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// The machine's monotonic clock, counted from now.
    pub fn monotonic() -> Self {
        let start = Instant::now();
        Self::new(move || start.elapsed())
    }

    /// A clock of one's own: `now` gives the time since any fixed moment.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time since the clock's fixed moment.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::monotonic()
    }
}
