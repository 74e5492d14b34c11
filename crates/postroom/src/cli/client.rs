//! The HTTP client of the commands that talk to a server: `POSTROOM_URL` and `POSTROOM_API_KEY`.
//!
//! Every failure becomes one sentence that says what to do. It follows no redirects and reads no proxy settings.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use postroom_domain::Secret;
use serde_json::Value;
use url::Url;

use super::output::plain;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a server may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Which server, and who asks.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// The server's address
    #[arg(long, env = "POSTROOM_URL", default_value = "http://127.0.0.1:8080", value_name = "URL", global = true)]
    pub url: String,
    /// The organization to act for, by slug or id; only needed with the admin token
    #[arg(long, value_name = "SLUG", global = true)]
    pub organization: Option<String>,
}

/// Plain HTTP/1.1, or with TLS: no redirects, no proxies.
pub type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for anywhere.
#[must_use]
pub fn http() -> Http {
    let tls = hyper_rustls::HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
    hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build(tls)
}

/// The innermost cause of a failed request.
#[must_use]
pub fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let cause = std::iter::successors(std::error::Error::source(error), |cause| cause.source()).last();
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

/// A connection to a server's API.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    base: Url,
    headers: HeaderMap,
}

impl Client {
    /// A client with the key of the environment: `POSTROOM_API_KEY`, or the file that `POSTROOM_API_KEY_FILE` names.
    ///
    /// # Errors
    /// When no key is given, or the URL is not one.
    pub fn from_environment(server: &ServerArgs) -> anyhow::Result<Self> {
        let key = match (std::env::var("POSTROOM_API_KEY"), std::env::var_os("POSTROOM_API_KEY_FILE")) {
            (Ok(key), _) if !key.trim().is_empty() => Secret::from(key.trim()),
            (_, Some(path)) => {
                let text = std::fs::read_to_string(&path).with_context(|| {
                    format!("the file of POSTROOM_API_KEY_FILE, {}, cannot be read", path.display())
                })?;
                Secret::from(text.trim())
            }
            _ => bail!(
                "no API key: set POSTROOM_API_KEY (make one with `postroom apikey create --organization SLUG --name NAME`)"
            ),
        };
        Self::new(&server.url, &key, server.organization.as_deref())
    }

    /// A client for a server, with a key or the admin token, and with the latter the organization to act for.
    ///
    /// # Errors
    /// When one of them cannot be sent.
    pub fn new(url: &str, key: &Secret, organization: Option<&str>) -> anyhow::Result<Self> {
        let mut client = Self::anonymous(url)?;
        let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", key.expose()].concat())
            .context("the API key contains characters that no API key has")?;
        bearer.set_sensitive(true);
        client.headers.insert(AUTHORIZATION, bearer);
        if let Some(organization) = organization {
            let value = HeaderValue::from_str(organization).context("an organization is a slug such as acme-corp")?;
            client.headers.insert(HeaderName::from_static("postroom-organization"), value);
        }
        Ok(client)
    }

    /// A client without credentials, as third parties are.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn anonymous(url: &str) -> anyhow::Result<Self> {
        let base = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let base =
            base.with_context(|| format!("{:?} is not a server's address such as http://127.0.0.1:8080", plain(url)))?;
        Ok(Self { http: http(), base, headers: HeaderMap::new() })
    }

    /// The server's address, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `GET`, as JSON.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json(Method::GET, path, None).await
    }

    /// `POST` of JSON, or of nothing.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.json(Method::POST, path, body.map(|body| Bytes::from(body.to_string()))).await
    }

    /// Any method with a body that is JSON already.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn json(&self, method: Method, path: &str, body: Option<Bytes>) -> anyhow::Result<Value> {
        let (status, body) = self.exchange(method, path, HeaderMap::new(), body).await?;
        if !status.is_success() {
            return Err(Refused::of(status, &body).into());
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("{} did not answer with JSON: is it a Postroom server?", self.base()))
    }

    /// A webhook, as third parties send them. An empty answer is what some of them expect.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn send_signed(&self, path: &str, headers: HeaderMap, body: Bytes) -> anyhow::Result<Value> {
        let (status, answer) = self.exchange(Method::POST, path, headers, Some(body)).await?;
        if status.is_success() {
            Ok(serde_json::from_slice(&answer).unwrap_or_default())
        } else {
            Err(Refused::of(status, &answer).into())
        }
    }

    /// One request and its whole answer, whatever its status.
    ///
    /// # Errors
    /// When the server cannot be reached or does not answer in time.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = self.request(method, path, headers, body)?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow!("the answer of {} broke off: {error}", self.base()))?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| anyhow!("{} did not answer within 30 seconds", self.base()))?
    }

    /// Opens a stream of server-sent events that resumes after `last_id`.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn stream(&self, path: &str, last_id: Option<&str>) -> anyhow::Result<Response<Incoming>> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_id {
            headers.insert(HeaderName::from_static("last-event-id"), HeaderValue::from_str(id)?);
        }
        let request = self.request(Method::GET, path, headers, None)?;
        let response = self.http.request(request).await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Err(Refused::of(status, &body.map(|body| body.to_bytes()).unwrap_or_default()).into())
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base()));
        if let Some(map) = request.headers_mut() {
            map.extend(self.headers.clone());
            if body.is_some() {
                map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            map.extend(headers);
        }
        request.body(Full::new(body.unwrap_or_default())).context("the request cannot be written")
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> anyhow::Error {
        let cause = cause(error);
        anyhow!("no server answers at {} ({cause}): start one with `postroom serve`, or set POSTROOM_URL", self.base())
    }
}

/// The server said no.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// HTTP status.
    pub status: StatusCode,
    /// The stable code of the problem; empty when the answer was none of ours.
    pub code: String,
    text: String,
}

impl Refused {
    /// Whether the server could not take this now but may in a moment. A used-up monthly limit is not that.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
            || (self.status == StatusCode::TOO_MANY_REQUESTS && self.code != "webhook_limit_reached")
    }

    fn of(status: StatusCode, body: &[u8]) -> Self {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or_default().to_owned();
        let mut text = plain(problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or_default());
        for error in problem["errors"].as_array().into_iter().flatten() {
            let part = |key: &str| plain(error[key].as_str().unwrap_or_default());
            let one = format!("{}: {}", part("field"), part("detail"));
            if !text.contains(&one) {
                text.push_str(&format!("; {one}"));
            }
        }
        if text.is_empty() {
            text = format!("the server answered {status}");
        } else {
            text.push_str(&format!(" ({}, {})", status.as_u16(), plain(&code)));
        }
        match code.as_str() {
            "credentials_invalid" => text.push_str("; check POSTROOM_API_KEY"),
            "organization_required" => text.push_str("; here with --organization"),
            _ => {}
        }
        Self { status, code, text }
    }
}

/// A piece of a URL's path or query, escaped.
#[must_use]
pub fn escape(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_one_sentence() {
        let body = br#"{"title":"t","detail":"the request is not valid","code":"validation_failed",
            "errors":[{"field":"url","code":"invalid_url","detail":"no spaces"}]}"#;
        let refused = Refused::of(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(refused.to_string(), "the request is not valid; url: no spaces (422, validation_failed)");
        assert_eq!(refused.code, "validation_failed");
        let nowhere = Refused::of(StatusCode::BAD_REQUEST, br#"{"detail":"name one","code":"organization_required"}"#);
        assert_eq!(nowhere.to_string(), "name one (400, organization_required); here with --organization");
        assert_eq!(Refused::of(StatusCode::BAD_GATEWAY, b"<html>").to_string(), "the server answered 502 Bad Gateway");
    }

    #[test]
    fn what_is_not_a_server_s_address_is_said_before_anything_is_sent() {
        for url in ["", "localhost:8080", "ftp://x", "http://"] {
            let error = Client::new(url, &Secret::from("k"), None).unwrap_err().to_string();
            assert!(error.contains("is not a server's address such as http://127.0.0.1:8080"), "{url}: {error}");
        }
        let debug = format!("{:?}", Client::new("http://127.0.0.1:1", &Secret::from("prk_secret"), None).unwrap());
        assert!(!debug.contains("prk_secret"));
    }
}
