//! JSON bodies: 415, 400 with line and column, or 422 with the path of the field, in this order.

use axum::extract::{FromRequest, Request};
use http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::body::Whole;
use crate::app::Shared;
use crate::problem::fields::explain;
use crate::problem::{Answer, Code, FieldProblem, Problem};

/// A JSON body.
pub(crate) struct Json<T>(pub T);

/// A JSON body whose fields are all optional: nothing at all means `{}`.
pub(crate) struct JsonOrEmpty<T>(pub T);

/// A body that says it is JSON, unread: for what must keep its bytes.
pub(crate) struct JsonBytes(pub Whole);

impl FromRequest<Shared> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Shared) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        let whole = super::body::read(state, &parts.headers, body).await?;
        is_json(&parts.headers, &whole)?;
        Ok(Self(whole))
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Shared) -> Answer<Self> {
        let JsonBytes(whole) = JsonBytes::from_request(request, state).await?;
        read_json(&whole.bytes).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Shared> for JsonOrEmpty<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Shared) -> Answer<Self> {
        let JsonBytes(whole) = JsonBytes::from_request(request, state).await?;
        read_json(if whole.bytes.is_empty() { b"{}" } else { &whole.bytes }).map(Self)
    }
}

/// A body that says it is something else is refused; one that says nothing is taken as JSON.
fn is_json(headers: &HeaderMap, whole: &Whole) -> Answer<()> {
    let said: Vec<_> = headers.get_all(header::CONTENT_TYPE).iter().collect();
    let json = |value: &&http::HeaderValue| {
        let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
            || (essence.len() > 5 && essence[essence.len() - 5..].eq_ignore_ascii_case("+json"))
    };
    match said.as_slice() {
        [] => Ok(()),
        [one] if json(one) => Ok(()),
        _ if whole.bytes.is_empty() => Ok(()),
        _ => Err(Problem::new(Code::UnsupportedMediaType, "send Content-Type: application/json, once")),
    }
}

/// Reads JSON, and explains what is wrong with it. The quick way first: explaining costs a second look.
pub(crate) fn read_json<'de, T: serde::Deserialize<'de>>(bytes: &'de [u8]) -> Answer<T> {
    let error = match serde_json::from_slice::<T>(bytes) {
        // The reader would take a list of values for the fields of an object, in their order.
        Ok(value) if is_object(bytes) => return Ok(value),
        Ok(_) => return Err(not_an_object()),
        Err(error) => error,
    };
    if error.classify() != serde_json::error::Category::Data {
        return Err(syntax(bytes, &error));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    if !is_object(bytes) {
        return Err(not_an_object());
    }
    match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Err(error) => Err(vec![explain(&error.path().to_string(), &error.inner().to_string())].into()),
        // The same bytes were refused a moment ago.
        Ok(_) => Err(syntax(bytes, &error)),
    }
}

fn is_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

fn not_an_object() -> Problem {
    vec![FieldProblem::new("body", "invalid_type", "expected an object")].into()
}

fn syntax(bytes: &[u8], error: &serde_json::Error) -> Problem {
    if bytes.is_empty() {
        return Problem::new(Code::InvalidJson, "the body is empty; send a JSON document");
    }
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    Problem::new(Code::InvalidJson, format!("{what} at line {}, column {}", error.line(), error.column()))
}

/// A field that may be left out but not be `null`, with `#[serde(default)]`: leaving a value as it is has one spelling.
pub(crate) fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}

/// Tells a field that is `null` (`Some(None)`) from one that is not there (`None`), with `#[serde(default)]`.
pub(crate) fn double_option<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}
