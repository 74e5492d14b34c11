//! Files of the repository that are made from the code, held current by tests.

use std::path::Path;

/// Fails when a committed file is not what the code makes, after writing it anew: look at the difference and commit it.
pub(crate) fn assert_current(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if found != expected {
        std::fs::write(&path, expected).unwrap();
        panic!("{file} was not current and has been written anew: look at the difference and commit it");
    }
}
