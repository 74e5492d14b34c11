//! Everything HTTP that comes in: receiving webhooks at `/in/...`, the API under `/v1`, health, metrics and documents.
//!
//! [`router`] makes the routes of an [`App`]; [`serve`] accepts connections for them. This crate never delivers anything
//! and never sees a database: it speaks to storage through its traits, and what it records is delivered by others.
//!
//! | Module | What is there |
//! |---|---|
//! | [`server`] | the accept loop: deadlines, caps, shutdown |
//! | `client` | where a request comes from |
//! | `observe` | around every request: id, span, figures, panics |
//! | `ingest` | `/in/{organization_slug}/{source_name}` |
//! | `keys` | keys that requests only name: fetched through the binary's client, kept within bounds |
//! | `api` | `/v1`, one file for each resource, each with its own router and wire types |
//! | `sign_in` | `/api/auth`, the page behind a link, session tokens and their cookie |
//! | [`permission`] | who may do what: one table |
//! | [`problem`] | every error answer |
//! | `rates` | how often somebody may ask, sign in, or show a wrong credential |
//! | `pages` | `/`, health, metrics, the API's document and its page, the pages of problems |

mod api;
mod app;
mod client;
#[cfg(test)]
mod committed;
mod cursor;
mod extract;
mod idempotency;
mod ingest;
mod keys;
mod observe;
pub mod openapi;
mod origin;
mod pages;
pub mod permission;
mod places;
pub mod problem;
mod rates;
mod refusals;
pub mod server;
mod sign_in;

use axum::Router;
use axum::middleware::from_fn_with_state;

pub use app::{AdminToken, App, Limits, RenderMetrics, Roles};
pub use keys::{KeyFetcher, NoKey};
pub use rates::Quota;
pub use server::{ServerLimits, serve};
pub use sign_in::SessionKeys;

/// The routes of this process.
pub fn router(app: App) -> Router {
    let roles = app.roles;
    let state = app::State::new(app);
    let mut router = pages::health();
    if roles.receiver || roles.api {
        router = router.merge(pages::documents());
    }
    if roles.receiver {
        router = router.merge(ingest::router());
    }
    if roles.api {
        let (routes, _) = api::router().split_for_parts();
        let idempotent = from_fn_with_state(state.clone(), idempotency::idempotent);
        let limited = from_fn_with_state(state.clone(), rates::limit);
        let authorized = from_fn_with_state(state.clone(), extract::auth::authorize);
        router = router.merge(routes.route_layer(idempotent).route_layer(limited).route_layer(authorized));
        let (signing_in, _) = sign_in::router().split_for_parts();
        router = router.merge(signing_in).merge(sign_in::page::router());
    }
    router
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::wrong_method)
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}
