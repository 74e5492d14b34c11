//! The options of a source: which a provider knows, what they must look like.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Invalid;

/// One refused field of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The option's name, or `provider` or `secret`.
    pub field: String,
    /// What is wrong with it.
    pub invalid: Invalid,
}

impl FieldError {
    pub(crate) fn new(field: &str, code: &'static str, detail: impl Into<String>) -> Self {
        Self { field: field.to_owned(), invalid: Invalid::new(code, detail) }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.invalid)
    }
}

/// One option that a provider knows.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OptionSpec {
    /// Its name in a source's `options`.
    pub name: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// What it does, in one sentence, with its default.
    pub description: &'static str,
    /// What it looks like.
    #[serde(flatten)]
    pub kind: OptionKind,
}

/// What an option's value looks like.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OptionKind {
    /// A text of 1 to 512 bytes without control characters.
    Text,
    /// A text of several lines, at most 16 KiB.
    Document,
    /// A whole number.
    Integer {
        /// The least.
        minimum: u64,
        /// The greatest.
        maximum: u64,
    },
    /// One of these words.
    OneOf {
        /// The words.
        values: &'static [&'static str],
    },
}

/// The longest text of an option, in bytes; also of a URL.
const MAX_TEXT_BYTES: usize = 2048;

/// The longest text of several lines: a few certificates.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024;

impl OptionSpec {
    pub(crate) const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, required: false, description, kind: OptionKind::Text }
    }

    pub(crate) const fn document(name: &'static str, description: &'static str) -> Self {
        Self { name, required: false, description, kind: OptionKind::Document }
    }

    pub(crate) const fn one_of(name: &'static str, values: &'static [&'static str], description: &'static str) -> Self {
        Self { name, required: false, description, kind: OptionKind::OneOf { values } }
    }

    pub(crate) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The value that a text on a command line means for this option: a number where one is expected.
    #[must_use]
    pub fn value_of_text(&self, text: &str) -> Value {
        match self.kind {
            OptionKind::Integer { .. } => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
            OptionKind::Text | OptionKind::Document | OptionKind::OneOf { .. } => Value::from(text),
        }
    }

    fn check(&self, value: &Value) -> Result<(), Invalid> {
        match self.kind {
            OptionKind::Text => match value.as_str() {
                Some("") => Err(Invalid::new("required", "leave it out, or give a text")),
                Some(text) if text.len() > MAX_TEXT_BYTES => {
                    Err(Invalid::new("too_long", format!("at most {MAX_TEXT_BYTES} bytes")))
                }
                Some(text) if text.chars().any(char::is_control) => {
                    Err(Invalid::new("invalid_character", "no control characters"))
                }
                Some(_) => Ok(()),
                None => Err(Invalid::new("invalid_type", "a text")),
            },
            OptionKind::Document => match value.as_str() {
                Some(text) if text.trim().is_empty() => Err(Invalid::new("required", "leave it out, or give a text")),
                Some(text) if text.len() > MAX_DOCUMENT_BYTES => {
                    Err(Invalid::new("too_long", format!("at most {MAX_DOCUMENT_BYTES} bytes")))
                }
                Some(_) => Ok(()),
                None => Err(Invalid::new("invalid_type", "a text")),
            },
            OptionKind::Integer { minimum, maximum } => match value.as_u64() {
                Some(number) if (minimum..=maximum).contains(&number) => Ok(()),
                _ => Err(Invalid::new("out_of_range", format!("a whole number from {minimum} to {maximum}"))),
            },
            OptionKind::OneOf { values } => match value.as_str() {
                Some(text) if values.contains(&text) => Ok(()),
                _ => Err(Invalid::new("unknown_value", format!("one of {}", values.join(", ")))),
            },
        }
    }
}

/// A source's options after [`Options::read`] found nothing wrong with each of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options<'a>(&'a Map<String, Value>);

impl<'a> Options<'a> {
    /// Checks every option against those that are known; all that is wrong is told at once.
    pub fn read(known: &[OptionSpec], given: &'a Map<String, Value>) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        for (name, value) in given {
            match known.iter().find(|spec| spec.name == name) {
                None => errors.push(FieldError::new(name, "unknown_option", unknown(known))),
                Some(spec) => {
                    errors.extend(spec.check(value).err().map(|invalid| FieldError { field: name.clone(), invalid }))
                }
            }
        }
        let missing = known.iter().filter(|spec| spec.required && !given.contains_key(spec.name));
        errors.extend(missing.map(|spec| FieldError::new(spec.name, "required", spec.description)));
        if errors.is_empty() { Ok(Self(given)) } else { Err(errors) }
    }

    /// The text of an option.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// The number of an option, if it fits.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.0.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
    }
}

fn unknown(known: &[OptionSpec]) -> String {
    if known.is_empty() {
        return "this provider has no options".to_owned();
    }
    let names: Vec<&str> = known.iter().map(|spec| spec.name).collect();
    format!("no such option; this provider has {}", names.join(", "))
}
