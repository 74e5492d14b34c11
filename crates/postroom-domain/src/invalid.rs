//! Why an input value is refused, in a form that the API, the CLI and the settings can all show.

use std::fmt;

/// One refused value. `code` is stable and for programs, `detail` says to a person what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Stable, `snake_case`, for example `too_long`.
    pub code: &'static str,
    /// One plain sentence without a full stop, for example `at most 128 characters`.
    pub detail: String,
}

impl Invalid {
    /// A refusal.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Invalid {}
