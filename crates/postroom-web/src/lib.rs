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
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use hyper::body::Incoming;
use tower_service::Service as _;

pub use app::{AdminToken, App, Limits, RenderMetrics, Roles};
pub use keys::{KeyFetcher, NoKey};
pub use rates::Quota;
pub use server::{ServerLimits, serve};
pub use sign_in::SessionKeys;

/// The routes of a process, for [`serve`]. Cheap to clone.
///
/// What third parties send has a way of its own: it is half of all there is to do, and on the framework's way (a look-up,
/// a boxed future for each layer, a map of what was extracted) more would be spent than on checking the signature.
#[derive(Clone)]
pub struct Routes {
    router: Router,
    /// In a process that receives.
    receiver: Option<app::Shared>,
}

impl Routes {
    /// Answers one request of this peer.
    pub(crate) async fn answer(mut self, peer: client::Peer, mut request: http::Request<Incoming>) -> Response {
        if let Some(state) = &self.receiver
            && ingest::is_for(request.uri().path())
        {
            return ingest::serve(state, request).await;
        }
        request.extensions_mut().insert(peer);
        let Ok(response) = self.router.call(request.map(Body::new)).await;
        response
    }
}

/// The routes of this process.
pub fn router(app: App) -> Routes {
    let roles = app.roles;
    let state = app::State::new(app);
    let mut router = pages::health();
    if roles.receiver || roles.api {
        router = router.merge(pages::documents());
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
    let receiver = roles.receiver.then(|| state.clone());
    let router = router
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::wrong_method)
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state);
    Routes { router, receiver }
}
