//! The rules of the domain seen from outside the crate.

mod official;
mod providers;
mod support;
