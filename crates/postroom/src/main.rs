//! Postroom: a webhook gateway in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    postroom::main()
}
