//! The server from outside: real sockets, the real router, the real embedded engine in a temporary directory.

mod access;
mod bad_api;
mod bad_ingest;
mod connections;
mod deliveries;
mod foreign;
mod http2;
mod idempotency;
mod ingest;
mod lists;
mod logs;
mod pages;
mod resources;
mod stream;
mod support;
