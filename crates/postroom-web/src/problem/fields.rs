//! Refused fields, and how an error of the JSON or query reader becomes one.

use postroom_domain::Invalid;
use serde::Serialize;

/// One refused field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldProblem {
    /// The path of the field, for example `headers.x-team` or `retry_schedule[2]`.
    #[schema(example = "url")]
    pub field: String,
    /// Stable, for programs.
    #[schema(example = "invalid_url")]
    pub code: &'static str,
    /// What would be right, for people.
    #[schema(example = "an absolute URL that begins with https:// or http://")]
    pub detail: String,
}

impl FieldProblem {
    /// A refused field.
    pub fn new(field: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { field: field.into(), code, detail: detail.into() }
    }

    /// A value that the domain refused.
    pub fn invalid(field: impl Into<String>, invalid: Invalid) -> Self {
        Self::new(field, invalid.code, invalid.detail)
    }
}

/// What was wrong, while more fields are looked at: a caller should learn of everything at once.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldProblem>);

impl Errors {
    /// The value if it is good; notes what is wrong if not.
    pub fn take<T>(&mut self, field: &str, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|invalid| self.0.push(FieldProblem::invalid(field, invalid))).ok()
    }

    pub fn push(&mut self, field: impl Into<String>, code: &'static str, detail: impl Into<String>) {
        self.0.push(FieldProblem::new(field, code, detail));
    }

    /// Goes on if nothing was wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, super::Problem> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(super::Problem::invalid(self.0)),
        }
    }

    /// Goes on with a value that is only made when nothing was wrong.
    pub fn check(self) -> Result<(), super::Problem> {
        self.finish(Some(()))
    }
}

/// A data error of serde as a refused field. The value itself is never repeated: it may be a secret.
pub(crate) fn explain(path: &str, message: &str) -> FieldProblem {
    let message = message.split(" at line ").next().unwrap_or(message);
    let quoted = || message.split('`').nth(1).unwrap_or_default().to_owned();
    let parent = |name: String| match path.rsplit_once('.') {
        _ if path == "." || path.is_empty() => name,
        Some((parent, last)) if last == name => format!("{parent}.{name}"),
        _ if path == name => name,
        _ => format!("{path}.{name}"),
    };
    let expected = message.rsplit_once("expected ").map(|(_, expected)| plain(expected));
    if message.starts_with("unknown field") {
        let known = expected.filter(|known| !known.is_empty());
        let detail = known.map_or("no such field".to_owned(), |known| format!("no such field; expected {known}"));
        FieldProblem::new(parent(quoted()), "unknown_field", detail)
    } else if message.starts_with("missing field") {
        FieldProblem::new(parent(quoted()), "required", "this field has to be given")
    } else if message.starts_with("duplicate field") {
        FieldProblem::new(parent(quoted()), "duplicate_field", "this field is given twice")
    } else if message.starts_with("unknown variant") {
        let detail = expected.map_or("not a known value".to_owned(), |known| format!("expected {known}"));
        FieldProblem::new(path, "unknown_value", detail)
    } else {
        let detail = expected.map_or_else(|| "not of the expected type".to_owned(), |what| format!("expected {what}"));
        FieldProblem::new(if path == "." { "body" } else { path }, "invalid_type", detail)
    }
}

/// serde's words for types, in the words of JSON.
fn plain(expected: &str) -> String {
    match expected {
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "string" | "a borrowed string" => "a text".to_owned(),
        "i64" | "i32" | "u8" | "u16" | "u32" | "u64" => "a whole number that is not negative".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.replace('`', ""),
    }
}
