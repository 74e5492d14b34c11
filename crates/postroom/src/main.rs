//! Postroom: a webhook gateway in one binary.

use std::process::ExitCode;

/// An event costs some dozen short-lived allocations on several threads, where the C library's allocator spends a quarter
/// of the server's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    postroom::main()
}
