//! `/v1/providers`: the catalogue of who signs how, with a guide for each.

use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use postroom_domain::provider::guide::Guided;
use postroom_domain::provider::{self, Description, Provider};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::extract::Query;
use crate::problem::{Answer, Code, Problem};

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
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

// The types below are for the document only: what is written are the domain's own description and guide.

/// How a provider signs, and what its source needs.
#[derive(Serialize, ToSchema)]
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

/// A provider with its guide.
#[derive(Serialize, ToSchema)]
struct GuidedProvider {
    #[serde(flatten)]
    provider: ProviderJson,
    guide: ProviderGuide,
}

/// How to set a provider up. Texts are for people; code in them is Markdown.
#[derive(Serialize, ToSchema)]
struct ProviderGuide {
    /// Where the source's URL is pasted.
    url: String,
    /// Which secret, and where it stands.
    secret: String,
    /// Which events to choose.
    events: String,
    /// What the provider counts as success, within which time, and what it does otherwise.
    delivery: String,
    /// What this server answers.
    answers: Vec<String>,
    /// What is easily got wrong.
    notes: Vec<String>,
    /// Commands that try it.
    commands: Vec<String>,
    /// What of this was not checked at the provider itself.
    unverified: Vec<String>,
    /// Pages of the provider that it was checked against.
    references: Vec<String>,
}

/// An option of a source.
#[derive(Serialize, ToSchema)]
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

/// The path's `{name}`.
struct Named(&'static Provider);

impl FromRequestParts<Shared> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Answer<Self> {
        let missing = || Problem::of(Code::ProviderNotFound);
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| missing())?;
        let name = params.iter().find_map(|(name, text)| (name == "name").then_some(text));
        name.and_then(provider::find).map(Self).ok_or_else(missing)
    }
}

/// One provider, with a guide: where to paste the URL, which secret, what it expects, how to try it.
#[utoipa::path(get, path = "/v1/providers/{name}", tag = "sources",
    params(("name" = String, Path, description = "Its name in the catalogue", example = "stripe")),
    responses((status = 200, body = GuidedProvider)))]
async fn get(Named(provider): Named) -> Json<Guided> {
    Json(provider.guided())
}
