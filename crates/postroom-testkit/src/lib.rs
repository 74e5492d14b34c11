//! What tests of several crates stand on: databases of their own on a real PostgreSQL, servers they may kill, faults
//! between the two, the official libraries of webhook providers, and a look-out for secrets in what a server says. Only tests
//! use this crate; it knows nothing about Postroom.
//!
//! Everything here panics when it cannot do what it was asked: a test has nothing better to do with such an error.

pub mod mail;
pub mod postgres;
pub mod sdks;
pub mod secrets;
