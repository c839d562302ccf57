//! Runs a plan: keys, results in memory and on disk, scheduling, events, cancellation.
//!
//! [`Engine::run`] is the whole of it; [`Engine::forecast`] says what it would do. The calling thread coordinates; host nodes run on
//! rayon, device nodes on one thread of their own. No tensor type appears here.

pub mod cache;
pub mod clock;
mod coordinator;
pub mod disk;
mod entry;
pub mod event;
mod guard;
mod lanes;
mod order;
mod resolve;
pub mod run;
pub mod trace;

pub use cache::ResultCache;
pub use clock::Clock;
pub use disk::DiskCache;
pub use event::{Event, What};
pub use lanes::start_threads;
pub use run::{Engine, Failure, Outputs, Results, RunError};
pub use trace::{Fate, Forecast, Trace};

/// Part of every key: raised when nodes of the same version compute other numbers, as new kernels may.
pub const NUMERICS: u32 = 5;
