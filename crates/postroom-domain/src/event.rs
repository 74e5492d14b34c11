//! An event: one accepted, recorded, immutable fact.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// What kind of fact an event is, for example `order.paid`: 1 to 128 of letters, digits, `_`, `-`, `:`, `/` and `.`,
/// with no empty part between dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EventType(String);

impl EventType {
    /// The longest event type, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Accepts an event type as a caller wrote it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("required", "give an event type such as order.paid"));
        }
        if text.len() > Self::MAX_BYTES {
            return Err(Invalid::new("too_long", "at most 128 characters"));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':' | b'/' | b'.');
        if !text.bytes().all(allowed) || text.split('.').any(str::is_empty) {
            return Err(Invalid::new(
                "invalid_event_type",
                "letters, digits, _ - : / and single dots between words, such as order.paid",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The nearest valid event type to what a provider wrote: it is not ours to refuse a provider's name.
    #[must_use]
    pub fn from_provider(text: &str) -> Self {
        if let Ok(valid) = Self::parse(text) {
            return valid;
        }
        let clean: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '/' | '.') { c } else { '_' })
            .take(Self::MAX_BYTES)
            .collect();
        let words: Vec<&str> = clean.split('.').filter(|word| !word.is_empty()).collect();
        if words.is_empty() { Self("unknown".to_owned()) } else { Self(words.join(".")) }
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which event types an endpoint wants: one type, or a word and all below it (`order.*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EventTypePattern {
    /// Exactly this type.
    Exact(String),
    /// Every type that begins with this word and a dot.
    Below(String),
}

impl EventTypePattern {
    /// Accepts a pattern as a caller wrote it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text.strip_suffix(".*") {
            Some(word) => EventType::parse(word).map(|word| Self::Below(word.0)),
            None => EventType::parse(text).map(|exact| Self::Exact(exact.0)),
        }
        .map_err(|invalid| match invalid.code {
            "invalid_event_type" => Invalid::new(
                "invalid_event_type",
                "an event type such as order.paid, or a word and all below it: order.*",
            ),
            _ => invalid,
        })
    }

    /// Whether this pattern wants events of a type.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == event_type,
            Self::Below(word) => event_type.strip_prefix(word.as_str()).is_some_and(|rest| rest.starts_with('.')),
        }
    }
}

impl TryFrom<String> for EventTypePattern {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<EventTypePattern> for String {
    fn from(pattern: EventTypePattern) -> Self {
        match pattern {
            EventTypePattern::Exact(exact) => exact,
            EventTypePattern::Below(word) => format!("{word}.*"),
        }
    }
}

/// Which way an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A third party sent it to a source.
    Inbound,
    /// The organization's own code sent it.
    Outbound,
}

/// The sender's own id of an event, by which a repetition is recognised: 1 to 255 visible ASCII characters or any
/// other text without control characters, compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ExternalId(String);

impl ExternalId {
    /// Accepts an id.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("required", "leave id out, or give 1 to 255 characters"));
        }
        if text.len() > 255 {
            return Err(Invalid::new("too_long", "at most 255 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(Invalid::new("invalid_character", "no control characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_words_between_single_dots() {
        for good in ["a", "order.paid", "push", "v1.billing/x:y_z-1"] {
            assert_eq!(EventType::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "a..b", "a.", "../x", "a b", "a\n", "é", "*", "a.*", &"x".repeat(129)] {
            assert!(EventType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_providers_name_is_made_to_fit() {
        assert_eq!(EventType::from_provider("orders/create").as_str(), "orders/create");
        assert_eq!(EventType::from_provider("a..b c").as_str(), "a.b_c");
        assert_eq!(EventType::from_provider("...").as_str(), "unknown");
        assert!(EventType::parse(EventType::from_provider(&"é".repeat(500)).as_str()).is_ok());
    }

    #[test]
    fn a_pattern_is_a_type_or_everything_below_a_word() {
        let below = EventTypePattern::parse("order.*").unwrap();
        assert!(below.matches("order.paid") && below.matches("order.item.added"));
        assert!(!below.matches("order") && !below.matches("orders.paid"));
        assert!(EventTypePattern::parse("order.paid").unwrap().matches("order.paid"));
        for bad in ["*", ".*", "a.*.b", "a*"] {
            assert!(EventTypePattern::parse(bad).is_err(), "{bad}");
        }
    }
}
