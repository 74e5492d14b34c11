//! The server from outside: real sockets, the real router, the real embedded engine in a temporary directory.

mod api;
mod ingest;
mod support;
