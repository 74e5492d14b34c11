//! Drives the built binary from outside: arguments, files, signals, HTTP.
//!
//! Tests run in parallel, on free ports and in temporary directories, and wait for conditions with a deadline.

mod bench;
mod cli;
mod config;
mod data;
mod demo;
mod readme;
mod serve;
mod support;
mod tidy;
