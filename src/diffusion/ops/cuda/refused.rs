//! What a library of the device did not take, for whoever runs a model to tell: what is done instead is slower.

use std::cell::RefCell;
use std::collections::BTreeSet;

#[derive(Default)]
struct Refused {
    /// The libraries of which it has been told.
    libraries: BTreeSet<&'static str>,
    untold: Vec<String>,
}

thread_local! {
    /// A run has one thread for its device.
    static REFUSED: RefCell<Refused> = RefCell::default();
}

/// Notes that a library did not take something; of each, the first time.
pub(super) fn refused(library: &'static str, note: impl FnOnce() -> String) {
    REFUSED.with_borrow_mut(|refused| {
        if refused.libraries.insert(library) {
            refused.untold.push(note());
        }
    });
}

/// What was noted on this thread since this was last called.
pub(in crate::ops) fn take() -> Vec<String> {
    REFUSED.with_borrow_mut(|refused| std::mem::take(&mut refused.untold))
}
