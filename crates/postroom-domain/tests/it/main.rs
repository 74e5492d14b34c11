//! The rules of the domain seen from outside the crate.

mod official;
mod properties;
mod providers;
mod schemes;
mod support;
