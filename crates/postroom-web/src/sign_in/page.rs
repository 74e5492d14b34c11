//! `/sign-in`: the page behind a link. Opening it does nothing, and it knows nothing: what the link carries is in the
//! fragment, which stays in the browser, and only the button sends it.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, header};

use crate::app::Shared;
use crate::pages::html::{self, escape};

const SCRIPT: &str = include_str!("sign-in.js");

pub(crate) fn router() -> Router<Shared> {
    Router::new().route("/sign-in", get(page)).route("/sign-in.js", get(script))
}

async fn page(State(state): State<Shared>) -> Response {
    let here = escape(state.site.origin().unwrap_or("this server"));
    let body = format!(
        "<noscript><p>This page needs JavaScript: it sends what the link carries only when you press its button.</p></noscript>\
         <section id=\"link\" hidden><p>Sign in to Postroom at <strong>{here}</strong> in this browser?</p>\
         <p>If you did not ask for this link, close the page: nothing has happened.</p>\
         <p><button id=\"confirm\" type=\"button\">Sign in</button></p></section>\
         <form id=\"ask\" hidden><p><label for=\"email\">E-mail address</label></p>\
         <p><input id=\"email\" type=\"email\" autocomplete=\"email\" maxlength=\"254\" required>\
         <button id=\"send\" type=\"submit\">Send me a link</button></p></form>\
         <p id=\"said\" role=\"status\"></p>\
         <section id=\"out\" hidden><p><button id=\"leave\" type=\"button\">Sign out</button></p></section>\
         <script src=\"sign-in.js\" defer></script>"
    );
    html::page_with_script("Sign in", &body)
}

async fn script() -> Response {
    let javascript = HeaderValue::from_static("text/javascript; charset=utf-8");
    ([(header::CONTENT_TYPE, javascript)], SCRIPT).into_response()
}
