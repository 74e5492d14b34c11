//! Databases of their own: an organization's data plane in a *cell*, and the router that finds it.
#![expect(dead_code, reason = "the router comes with the next commits")]

pub(crate) mod registry;
