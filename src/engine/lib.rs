//! Runs a plan: scheduling, the result cache, events, cancellation.
