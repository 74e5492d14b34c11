//! The binary's own parts: settings, keys, wiring, commands. A library only so that tests can start a server inside
//! their own process.
//!
//! This crate alone reads the environment, the wall clock and signals.

#![allow(clippy::disallowed_methods, reason = "this is the crate that asks the machine, so that the others need not")]

mod bench;
mod cli;
pub mod config;
mod database;
mod demo;
mod fetcher;
pub mod keys;
pub mod logging;
mod mail;
pub mod process;
pub mod run;
mod samples;
pub mod telemetry;
mod threads;

pub use cli::main;
pub use run::run;
