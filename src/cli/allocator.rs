//! The memory allocator: what one operation of a model frees, the next one gets, without asking the system in between.
//!
//! A model step allocates and frees hundreds of buffers of megabytes. Left alone the allocator hands them back to the system
//! within milliseconds and gets pages filled with zeros again: a fifth of a step's time.

#![expect(unsafe_code, reason = "the allocator's settings are functions of its C library")]

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of `mimalloc.h`: milliseconds that freed memory is kept.
const PURGE_DELAY: mi_option_t = 15;
/// Longer than any step takes.
const KEPT: std::ffi::c_long = 60_000;

/// Keeps freed memory for a minute, and takes it in small pages.
pub fn keep() {
    // SAFETY: sets a number that the allocator reads; any number is valid.
    unsafe { mi_option_set(PURGE_DELAY, KEPT) }
    // Large pages make no step faster, as measured, and a virtual machine may have lent its free ones to others: then a model takes
    // three times as long to load, for each is fetched back. Where the system does not know the wish nothing is lost.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// Gives freed memory back to the system now: when a run is over, and before waiting for the next.
pub fn give_back() {
    // SAFETY: has no preconditions.
    unsafe { mi_collect(true) }
}
