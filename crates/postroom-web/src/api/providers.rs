//! `/v1/providers`: the catalogue of who signs how.

use axum::Json;
use postroom_domain::provider::{self, Description};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::extract::Query;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Every provider.
#[derive(Serialize, ToSchema)]
struct Catalogue {
    #[schema(value_type = Vec<ProviderJson>)]
    data: Vec<Description>,
    /// Always null: the catalogue is one page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// How a provider signs, and what its source needs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the document: the domain's description is what is written")]
struct ProviderJson {
    /// The name for a source's `provider`.
    #[schema(example = "stripe")]
    name: String,
    #[schema(example = "Stripe")]
    title: String,
    /// `hmac`, `token` or `none`.
    scheme: String,
    /// How a request is proved, in one sentence.
    summary: String,
    /// The headers that carry the signature or token.
    signature_headers: Vec<String>,
    /// Whether a source without a secret refuses everything.
    needs_secret: bool,
    /// How the secret is written.
    secret_form: String,
    /// What the provider calls the secret and where it is found.
    secret_hint: String,
    /// How old a signed time may be, in seconds; null if any age passes.
    #[schema(required = true)]
    tolerance_seconds: Option<u64>,
    /// Whether the public URL is part of what is signed.
    signs_url: bool,
    /// The options of a source.
    options: Vec<ProviderOption>,
    /// The HTTP methods that its source answers.
    methods: Vec<String>,
}

/// An option of a source.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the document: the domain's description is what is written")]
struct ProviderOption {
    name: String,
    required: bool,
    description: String,
    /// `text`, `integer` (with `minimum` and `maximum`) or `one_of` (with `values`).
    r#type: String,
    minimum: Option<u64>,
    maximum: Option<u64>,
    values: Option<Vec<String>>,
}

/// A query without parameters.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// List the providers that sources can have.
#[utoipa::path(get, path = "/v1/providers", tag = "sources", responses((status = 200, body = Catalogue)))]
async fn list(Query(Nothing {}): Query<Nothing>) -> Json<Catalogue> {
    let data = provider::all().iter().map(provider::Provider::describe).collect();
    Json(Catalogue { data, next_cursor: None })
}
