//! What is neither received nor the API: `/`, health, metrics, the API's document and its page, the pages of problems.

mod docs;
pub(crate) mod html;

use axum::Router;
use axum::extract::{RawPathParams, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::app::Shared;
use crate::problem::{Answer, Code, Problem};

/// For whoever runs the process: there in every role.
pub(crate) fn health() -> Router<Shared> {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/metrics", get(metrics))
}

/// For callers: there where they come.
pub(crate) fn documents() -> Router<Shared> {
    Router::new()
        .route("/", get(index))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs::page))
        .route("/problems", get(problems))
        .route("/problems/{code}", get(problem))
}

/// What this is, for whoever opens the address.
async fn index(State(state): State<Shared>) -> Response {
    axum::Json(json!({
        "name": "postroom",
        "version": state.app.version,
        "description": "Webhook gateway: receives, records and delivers webhooks.",
        "docs": format!("{}/docs", state.app.public_url),
        "openapi": format!("{}/openapi.json", state.app.public_url),
    }))
    .into_response()
}

/// The process runs. Asks nobody.
async fn livez() -> Response {
    axum::Json(json!({"status": "ok"})).into_response()
}

/// Whether new work should come here: not while stopping, and not while the storage does not answer.
async fn readyz(State(state): State<Shared>) -> Answer<Response> {
    if state.app.stop.is_cancelled() {
        return Err(Problem::new(Code::NotReady, "the server is stopping"));
    }
    match state.app.storage.platform.health().await {
        Ok(()) => Ok(axum::Json(json!({"status": "ready"})).into_response()),
        Err(error) => {
            tracing::warn!(error = %error, "not ready: the storage does not answer");
            Err(Problem::new(Code::NotReady, "the storage does not answer"))
        }
    }
}

const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Figures for Prometheus. Those that storage computes are asked for at most here.
async fn metrics(State(state): State<Shared>) -> Response {
    match state.app.storage.platform.gauges().await {
        Ok(gauges) => {
            for gauge in gauges {
                let labels: Vec<_> =
                    gauge.labels.into_iter().map(|(key, value)| metrics::Label::new(key, value)).collect();
                metrics::gauge!(gauge.name, labels).set(gauge.value);
            }
        }
        Err(error) => tracing::warn!(error = %error, "the figures of the storage are missing from /metrics"),
    }
    ([(header::CONTENT_TYPE, PROMETHEUS)], (state.app.render_metrics)()).into_response()
}

async fn openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], crate::openapi::json()).into_response()
}

async fn problems() -> Response {
    html::page("Problems", &html::problems())
}

/// The page that a problem's `type` names: for people, or as JSON for programs that ask for it.
async fn problem(params: RawPathParams, headers: HeaderMap) -> Answer<Response> {
    let name = params.iter().next().map(|(_, value)| value).unwrap_or_default();
    let code = Code::parse(name).ok_or_else(|| Problem::of(Code::RouteNotFound))?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("json") {
        let status = code.status().as_u16();
        let document = json!({
            "code": code.as_str(), "status": status, "title": code.title(), "what_to_do": code.advice(),
        });
        return Ok(axum::Json(document).into_response());
    }
    Ok(html::page(code.title(), &html::problem(code)))
}

pub(crate) async fn not_found() -> Problem {
    Problem::of(Code::RouteNotFound)
}

/// The router adds `Allow` to what this answers.
pub(crate) async fn wrong_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    Problem::of(Code::MethodNotAllowed).into_response()
}

/// `OPTIONS` is answered, every other method refused, both with what is allowed.
pub(crate) fn method_not_allowed(method: &Method, allow: String) -> Answer<Response> {
    let allow = HeaderValue::try_from(allow).unwrap_or(HeaderValue::from_static("OPTIONS"));
    if method == Method::OPTIONS {
        return Ok((StatusCode::NO_CONTENT, [(header::ALLOW, allow)]).into_response());
    }
    Err(Problem::of(Code::MethodNotAllowed).header(header::ALLOW, allow))
}
