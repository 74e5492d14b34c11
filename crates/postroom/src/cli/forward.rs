//! Hands a webhook to a program on this computer and waits for its answer.
//!
//! Every outcome is one to tell, none is an error: a program that is not running yet must not end a session. Redirects are
//! not followed, and only as much of an answer is read as keeps the connection usable.

use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use url::Url;

use super::client::{Http, cause, http};
use super::output::plain;

/// How much of an answer is read; a longer one is cut off with its connection.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const AGENT: &str = concat!("Postroom/", env!("CARGO_PKG_VERSION"), " (listen)");

/// A program's address.
#[derive(Debug)]
pub struct Forwarder {
    http: Http,
    url: Url,
    uri: Uri,
    timeout: Duration,
}

/// What came of one webhook.
#[derive(Debug)]
pub struct Forwarded {
    /// The answer's status.
    pub status: Option<StatusCode>,
    /// Why there is no answer.
    pub error: Option<String>,
    /// From the first byte sent to the answer's end.
    pub duration: Duration,
}

impl Forwarded {
    /// It was not forwarded.
    pub fn failed(error: &str) -> Self {
        Self { status: None, error: Some(error.to_owned()), duration: Duration::ZERO }
    }
}

impl Forwarder {
    /// A program at a URL; `localhost:3000/x` and `3000/x` will do.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(given: &str, timeout: Duration) -> anyhow::Result<Self> {
        let url = address(given)?;
        let uri = url.as_str().parse()?;
        Ok(Self { http: http(), url, uri, timeout })
    }

    /// Where the program is.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Sends one webhook and waits for the answer.
    pub async fn forward(&self, headers: HeaderMap, body: Bytes) -> Forwarded {
        let began = Instant::now();
        let outcome = tokio::time::timeout(self.timeout, self.exchange(headers, body)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {} seconds", self.timeout.as_secs())));
        let duration = began.elapsed();
        match outcome {
            Ok(status) => Forwarded { status: Some(status), error: None, duration },
            Err(error) => Forwarded { status: None, error: Some(error), duration },
        }
    }

    async fn exchange(&self, headers: HeaderMap, body: Bytes) -> Result<StatusCode, String> {
        let mut request = Request::post(self.uri.clone()).body(Full::new(body)).map_err(|error| error.to_string())?;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        request.headers_mut().extend(headers);
        let response = self.http.request(request).await.map_err(|error| {
            let hint = if error.is_connect() { "; is the program running?" } else { "" };
            format!("{}{hint}", cause(&error))
        })?;
        let status = response.status();
        // Read to its end so that the connection can be used again. What it says, the program itself can tell.
        let _ = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(status)
    }
}

fn address(given: &str) -> anyhow::Result<Url> {
    let first = given.split(['/', '?']).next().unwrap_or_default();
    let whole = if given.contains("://") {
        given.to_owned()
    } else if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("http://localhost:{given}")
    } else {
        format!("http://{given}")
    };
    let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host() && !first.is_empty();
    let url = Url::parse(&whole).ok().filter(is_web);
    match url {
        Some(url) if url.username().is_empty() && url.password().is_none() => Ok(url),
        Some(_) => bail!("--forward-to takes an address without user and password"),
        None => bail!("--forward-to {:?} is not an address such as http://localhost:3000/webhook", plain(given)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_short() {
        for (given, expected) in [
            ("http://localhost:3000/webhook?x=1", Some("http://localhost:3000/webhook?x=1")),
            ("https://dev.example", Some("https://dev.example/")),
            ("localhost:3000/webhook", Some("http://localhost:3000/webhook")),
            ("127.0.0.1:3000", Some("http://127.0.0.1:3000/")),
            ("3000", Some("http://localhost:3000/")),
            ("3000/a/b", Some("http://localhost:3000/a/b")),
            ("", None),
            ("/webhook", None),
            ("ftp://localhost", None),
            ("http://user:secret@localhost/", None),
            ("99999", None),
        ] {
            let found = address(given);
            assert_eq!(found.as_ref().ok().map(Url::as_str), expected, "{given}");
            assert!(!format!("{found:?}").contains("secret"));
        }
    }
}
