//! Ids in paths. Text that is not an id of the expected kind is 404, like an id that never was.

use std::marker::PhantomData;
use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use postroom_domain::{ApiKeyId, DeliveryId, EndpointId, EventId, OrganizationId, RejectionId, SourceId, UserId};

use crate::app::Shared;
use crate::problem::{Answer, Code, Problem};

/// The path's `{id}`.
pub(crate) struct Id<T, Kind = T>(pub T, pub PhantomData<Kind>);

/// A delivery that is looked for among the dead letters.
pub(crate) struct DeadLetter;

/// Which problem it is when there is no such thing.
pub(crate) trait Missing {
    const CODE: Code;
}

macro_rules! missing {
    ($($kind:ty => $code:ident,)*) => {
        $(impl Missing for $kind { const CODE: Code = Code::$code; })*
    };
}

missing! {
    ApiKeyId => ApiKeyNotFound,
    DeliveryId => DeliveryNotFound,
    DeadLetter => DeadLetterNotFound,
    EndpointId => EndpointNotFound,
    EventId => EventNotFound,
    OrganizationId => OrganizationNotFound,
    RejectionId => RejectionNotFound,
    SourceId => SourceNotFound,
    UserId => UserNotFound,
}

impl<T, Kind> FromRequestParts<Shared> for Id<T, Kind>
where
    T: FromStr + Send,
    Kind: Missing + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Answer<Self> {
        let missing = || Problem::of(Kind::CODE);
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| missing())?;
        let text = params.iter().find_map(|(name, text)| (name == "id").then_some(text));
        let id = text.and_then(|text| text.parse().ok()).ok_or_else(missing)?;
        Ok(Self(id, PhantomData))
    }
}
