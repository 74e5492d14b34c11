//! Delivers recorded events: lanes, attempts, retries, the one client for everything that goes out.
//!
//! ```text
//! storage's writer --Handoff--> Lanes --turn--> attempt --> settle --> storage's writer
//!                                 ^
//! storage's waiting rows --loader-+
//! ```
//!
//! An event that was recorded is handed over from memory ([`Lanes`] implements [`postroom_storage::Handoff`]); what does
//! not fit there waits in storage and comes back through the loader, as do retries. [`run()`] works until it is told to
//! stop, and then drains. Nothing in memory is the only copy of anything: whatever is not recorded as delivered or dead
//! comes back after a restart.
//!
//! This crate never reads a wall clock, never touches a database, and never listens.

mod attempt;
mod client;
mod lanes;
mod loader;
mod meters;
mod prepared;
mod retry_after;
mod run;
mod work;

pub use client::{Client, ClientError, FetchError, Fetched, Lookup, Posted};
pub use lanes::{LaneLimits, Lanes};
pub use meters::ATTEMPT_DURATION_MAX;
pub use run::{Drained, Settings, run};
