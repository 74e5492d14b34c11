//! Versions of what is read and changed: `ETag` and `If-Match`, RFC 9110.

use std::convert::Infallible;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header;
use http::request::Parts;
use serde::Serialize;

use crate::app::Shared;
use crate::problem::{Answer, Code, Problem};

/// A body, and which version of it this is.
pub(crate) struct Tagged<T> {
    pub version: i64,
    pub body: T,
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        ([(header::ETAG, tag(self.version))], Json(self.body)).into_response()
    }
}

fn tag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The versions that the caller is willing to change. `None` is any.
pub(crate) struct IfMatch(Option<Vec<String>>);

impl IfMatch {
    /// Refuses a version that the caller has not seen.
    pub fn check(&self, version: i64) -> Answer<()> {
        let tag = tag(version);
        match &self.0 {
            Some(tags) if !tags.iter().any(|one| *one == tag || one == "*") => {
                Err(Problem::of(Code::PreconditionFailed))
            }
            _ => Ok(()),
        }
    }
}

impl FromRequestParts<Shared> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Infallible> {
        let mut lines = parts.headers.get_all(header::IF_MATCH).iter().peekable();
        // A tag of somebody else may hold a comma: its pieces are not tags of ours, and it is not one either. What cannot
        // be read is a condition too, one that nothing fulfils.
        let is_given = lines.peek().is_some();
        let tags = lines.flat_map(|line| line.to_str().unwrap_or_default().split(',').map(|tag| tag.trim().to_owned()));
        let tags = tags.collect();
        Ok(Self(is_given.then_some(tags)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_for_the_versions_it_names() {
        let given = |tags: &[&str]| IfMatch(Some(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        assert!(IfMatch(None).check(7).is_ok());
        for good in [&["\"7\""][..], &["*"], &["\"6\"", "\"7\""]] {
            assert!(given(good).check(7).is_ok(), "{good:?}");
        }
        for bad in [&[""][..], &["7"], &["\"77\""], &["W/\"7\""], &["\"6\"", "\"8\""]] {
            assert_eq!(given(bad).check(7).unwrap_err().code(), Code::PreconditionFailed, "{bad:?}");
        }
    }
}
