//! `/v1`: one file for each resource, with its router, its handlers and its wire types.
//!
//! What goes over the wire is written down here and nowhere else: domain types have no wire format of their own. Requests
//! refuse unknown fields, because a typing slip must not be silence.

mod api_keys;
mod audit_logs;
mod deliveries;
mod endpoint_input;
mod endpoints;
mod events;
mod organizations;
mod payload;
mod providers;
mod publish;
mod rejections;
mod sources;
pub(crate) mod stream;
mod tenants;
mod users;

use utoipa_axum::router::OpenApiRouter;

use crate::app::Shared;

/// The routes under `/v1` with their description.
pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(tenants::router())
        .merge(organizations::router())
        .merge(providers::router())
        .merge(sources::router())
        .merge(endpoints::router())
        .merge(publish::router())
        .merge(events::router())
        .merge(rejections::router())
        .merge(deliveries::router())
        .merge(api_keys::router())
        .merge(users::router())
        .merge(audit_logs::router())
        .merge(stream::router())
}
