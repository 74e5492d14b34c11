//! The rules of the domain seen from outside the crate.

mod batches;
mod custom;
mod explained;
mod guides;
mod handshakes;
mod identity;
mod keys_and_codes;
mod official;
mod properties;
mod providers;
mod schemes;
mod sdks;
mod special;
mod support;
