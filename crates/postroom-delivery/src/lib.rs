//! Delivers recorded events: the one client for everything that goes out.

mod client;

pub use client::{Client, ClientError, Lookup};
