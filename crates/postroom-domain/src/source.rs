//! A source: an inbound address with a provider, a verification scheme and secrets.

use serde_json::{Map, Value};

use crate::Invalid;

/// Everything about a source that its owner decides, but for its secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSettings {
    /// Stands in the URL, unique in the organization.
    pub name: String,
    /// The provider's name in the catalogue. Never changes.
    pub provider: String,
    /// Parameters of the provider's scheme, such as the parts of a configurable HMAC; empty for most.
    pub options: Map<String, Value>,
}

/// Accepts a source's name: 1 to 63 lower-case letters, digits and hyphens, as it stands in a URL.
///
/// # Errors
/// What is wrong with it.
pub fn name(text: &str) -> Result<String, Invalid> {
    crate::organization::slug(text).map_err(|invalid| Invalid::new("invalid_name", invalid.detail))
}
