//! Where a request came from: what is written down beside what it did.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{Extensions, HeaderValue};
use postroom_storage::scope::Origin;

use crate::client::ClientAddress;

/// The id of the request, in the extensions of every request: by it one request is found in every log.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub HeaderValue);

/// The origin of a request.
pub(crate) struct CameFrom(pub Origin);

/// The origin of the request with these extensions.
pub(crate) fn origin(extensions: &Extensions) -> Origin {
    let address = extensions.get::<ClientAddress>().map(|client| client.0);
    let id = extensions.get::<RequestId>().and_then(|RequestId(id)| id.to_str().ok());
    Origin { address, request: id.map(Arc::from) }
}

impl<S: Sync> FromRequestParts<S> for CameFrom {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(origin(&parts.extensions)))
    }
}
