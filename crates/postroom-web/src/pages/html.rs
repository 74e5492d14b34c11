//! The few pages this server renders itself: plain HTML, everything escaped, nothing from elsewhere, and no script but
//! where a page says so, and then in a file of its own.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use http::{HeaderName, HeaderValue, header};

use crate::problem::Code;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#8881}\
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}\
code,pre{font:14px/1.5 ui-monospace,monospace}pre{background:var(--soft);padding:.75rem;overflow:auto}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.35rem .75rem .35rem 0;\
border-bottom:1px solid var(--line)}details{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0;\
padding:.5rem .75rem}summary{cursor:pointer}.method{display:inline-block;min-width:4.5rem;font-weight:600}\
.soft{opacity:.75}nav a{margin-right:1rem}";

/// Allows this one style sheet and nothing else: no script, no frame, no form, no other host.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy(""));

/// Allows files of this server as scripts, too, and that they ask this server.
static SCRIPT_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy("script-src 'self'; connect-src 'self'; "));

fn policy(more: &str) -> HeaderValue {
    let hash = base64::engine::general_purpose::STANDARD.encode(crate::app::sha256(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; {more}style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// A whole page. `body` is HTML; the title is text.
pub(crate) fn page(title: &str, body: &str) -> Response {
    whole(title, body, &POLICY)
}

/// A whole page that runs a script of this server.
pub(crate) fn page_with_script(title: &str, body: &str) -> Response {
    whole(title, body, &SCRIPT_POLICY)
}

fn whole(title: &str, body: &str, policy: &HeaderValue) -> Response {
    let title = escape(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} - Postroom</title><style>{STYLE}</style></head><body>\
         <nav><a href=\"../docs\">API</a><a href=\"../problems\">Problems</a></nav><h1>{title}</h1>{body}</body></html>"
    );
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy.clone()),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, html).into_response()
}

pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}

/// Text with `code` between backticks.
pub(super) fn marked(text: &str) -> String {
    let mut html = String::new();
    for (index, part) in text.split('`').enumerate() {
        let part = escape(part);
        let _ = if index % 2 == 1 { write!(html, "<code>{part}</code>") } else { write!(html, "{part}") };
    }
    html
}

pub(super) fn problem(code: Code) -> String {
    format!("<p><code>{}</code>, status {}</p><p>{}</p>", code.as_str(), code.status().as_u16(), marked(code.advice()))
}

pub(super) fn problems() -> String {
    let mut html = String::from("<table><tr><th>Status</th><th>Code</th><th>Means</th></tr>");
    for code in Code::ALL {
        let _ = write!(
            html,
            "<tr><td>{}</td><td><a href=\"problems/{name}\"><code>{name}</code></a></td><td>{}</td></tr>",
            code.status().as_u16(),
            marked(code.title()),
            name = code.as_str(),
        );
    }
    html + "</table>"
}
