//! Runs a plan: scheduling, the result cache, events, cancellation.
//!
//! [`Engine::run`] is the whole of it. The calling thread coordinates; host nodes run on rayon, device nodes on one thread
//! of their own. No tensor type appears here.

pub mod cache;
pub mod clock;
mod coordinator;
pub mod event;
mod guard;
mod lanes;
mod order;
pub mod run;

pub use cache::ResultCache;
pub use clock::Clock;
pub use event::{Event, What};
pub use run::{Engine, Failure, Outputs, Results, RunError};
