//! Query strings: every parameter known, given once, and checked; pages of lists with cursors bound to their list.

use axum::extract::FromRequestParts;
use http::request::Parts;
use postroom_storage::api::{Page, PageRequest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::auth::Caller;
use crate::app::Shared;
use crate::cursor::Binding;
use crate::problem::fields::{FieldProblem, explain};
use crate::problem::{Answer, Code, Problem};

/// The longest page, and the one when nothing is said.
const LIMIT_MAX: usize = 250;
const LIMIT_DEFAULT: usize = 50;

/// Parameters of a query string. `T` takes texts: what they mean is checked by whoever knows.
pub(crate) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Answer<Self> {
        read(pairs(parts)?).map(Self)
    }
}

/// The query string of a list: a page, and filters.
pub(crate) struct Paged<T = Nothing> {
    pub filter: T,
    pub page: PageRequest,
    state: Shared,
    binding: Binding,
}

/// What every list takes.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only for the document: Paged reads these two itself")]
pub(crate) struct PageParams {
    /// How many at most.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<u16>,
    /// `next_cursor` of the page before, as it is. Good only for the same list and filters.
    cursor: Option<String>,
}

/// A list without filters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

impl<T: DeserializeOwned> FromRequestParts<Shared> for Paged<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Answer<Self> {
        let mut pairs = pairs(parts)?;
        let limit = pairs.remove("limit").map_or(Ok(LIMIT_DEFAULT), |text| limit(text.as_str().unwrap_or_default()))?;
        let cursor = pairs.remove("cursor");
        let organization = parts.extensions.get::<Caller>().and_then(Caller::organization);
        let binding = Binding::new(parts.uri.path(), organization, &pairs);
        let after = cursor
            .map(|text| state.cursors.open(&binding, text.as_str().unwrap_or_default()))
            .transpose()
            .map_err(|()| Problem::invalid_cursor())?;
        Ok(Self { filter: read(pairs)?, page: PageRequest { limit, after }, state: state.clone(), binding })
    }
}

/// One page of a list, newest first.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct List<T> {
    /// The page.
    pub data: Vec<T>,
    /// Give it as `cursor` to get the next page; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// A page that was found, on its way out.
pub(crate) struct Seal {
    state: Shared,
    binding: Binding,
}

impl<T> Paged<T> {
    /// Takes the question apart from what is needed for the answer.
    pub fn split(self) -> (T, PageRequest, Seal) {
        (self.filter, self.page, Seal { state: self.state, binding: self.binding })
    }
}

impl Seal {
    /// The answer.
    pub fn list<Row, View>(&self, found: Page<Row>, view: impl FnMut(Row) -> View) -> axum::Json<List<View>> {
        let next_cursor = found.next.map(|position| self.state.cursors.seal(&self.binding, &position));
        axum::Json(List { data: found.data.into_iter().map(view).collect(), next_cursor })
    }
}

/// The parameters, each once, without their order.
fn pairs(parts: &Parts) -> Answer<Map<String, Value>> {
    let query = parts.uri.query().unwrap_or_default();
    let mut pairs = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if value.contains(char::REPLACEMENT_CHARACTER) || name.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Problem::new(Code::InvalidRequest, "the query is not percent-encoded UTF-8"));
        }
        if pairs.insert(name.to_string(), Value::String(value.into_owned())).is_some() {
            return Err(vec![FieldProblem::new(name, "duplicate_field", "this parameter is given twice")].into());
        }
    }
    Ok(pairs)
}

fn read<T: DeserializeOwned>(pairs: Map<String, Value>) -> Answer<T> {
    serde_path_to_error::deserialize(Value::Object(pairs)).map_err(
        |error: serde_path_to_error::Error<serde_json::Error>| {
            Problem::invalid(vec![explain(&error.path().to_string(), &error.inner().to_string())])
        },
    )
}

fn limit(text: &str) -> Answer<usize> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<usize>() {
        Ok(limit) if digits && (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(vec![FieldProblem::new("limit", "out_of_range", "a whole number from 1 to 250")].into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_plain_number_from_1_to_250() {
        for (text, expected) in [("1", 1), ("250", 250), ("050", 50)] {
            assert_eq!(limit(text).unwrap(), expected);
        }
        for bad in ["0", "251", "-1", "+1", "1e3", "", " 1", "1.0", "1000000000", "99999999999999999999999"] {
            assert_eq!(limit(bad).unwrap_err().code(), Code::ValidationFailed, "{bad}");
        }
    }
}
