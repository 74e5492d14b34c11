//! What browsers send by themselves: the session's cookie, and which page a request comes from.
//!
//! A browser adds the cookie to requests that other sites make it send. So a cookie authorizes a write only when the
//! browser says that a page of this server made it: `Origin`, which scripts can not set, and `Sec-Fetch-Site` where there
//! is one. No answer allows another site to read it (CORS): there is nothing to allow.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use postroom_domain::{Secret, Timestamp};
use url::Url;

use crate::problem::{Answer, Code, Problem};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// This server as browsers see it.
pub(crate) struct Site {
    /// Scheme, host and port; none when the public URL has no such thing, and then nothing is equal to it.
    origin: Option<String>,
    is_https: bool,
}

impl Site {
    pub fn new(public_url: &str) -> Self {
        let url = Url::parse(public_url).ok().filter(|url| url.origin().is_tuple());
        let is_https = url.as_ref().is_some_and(|url| url.scheme() == "https");
        Self { origin: url.map(|url| url.origin().ascii_serialization()), is_https }
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// `__Host-`: browsers take it only over TLS, for this host alone and for all of it, so no neighbour under the same
    /// domain can plant one. Over plain HTTP they would refuse it.
    pub fn cookie_name(&self) -> &'static str {
        if self.is_https { "__Host-postroom_session" } else { "postroom_session" }
    }

    /// `Set-Cookie` of a new session.
    pub fn cookie(&self, token: &Secret, now: Timestamp, expires_at: Timestamp) -> HeaderValue {
        let seconds = expires_at.since(now).as_secs();
        self.set_cookie(token.expose_str().unwrap_or_default(), seconds)
    }

    /// `Set-Cookie` that takes the session's cookie away.
    pub fn no_cookie(&self) -> HeaderValue {
        self.set_cookie("", 0)
    }

    fn set_cookie(&self, value: &str, seconds: u64) -> HeaderValue {
        let secure = if self.is_https { "; Secure" } else { "" };
        let text = format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}", self.cookie_name());
        let mut header = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        header.set_sensitive(true);
        header
    }

    /// The session's token among the cookies; the problem is for two that contradict each other.
    pub fn token_of<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Ambiguous> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut ours = pairs.filter(|(name, _)| *name == self.cookie_name()).map(|(_, value)| value);
        let first = ours.next();
        if ours.next().is_some() { Err(Ambiguous) } else { Ok(first.filter(|value| !value.is_empty())) }
    }

    /// Refuses a write that a cookie would authorize but no page of this server made.
    pub fn check_write(&self, method: &Method, headers: &HeaderMap) -> Answer<()> {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        let is_named = headers.contains_key(header::ORIGIN);
        if reads || (is_named && self.is_own(headers)) { Ok(()) } else { Err(self.cross_site()) }
    }

    /// Refuses what a page of another server made. What is no browser says nothing about pages, and passes.
    pub fn check_page(&self, headers: &HeaderMap) -> Answer<()> {
        if self.is_own(headers) { Ok(()) } else { Err(self.cross_site()) }
    }

    fn is_own(&self, headers: &HeaderMap) -> bool {
        let each = |name: &HeaderName, good: &dyn Fn(&[u8]) -> bool| {
            headers.get_all(name).iter().all(|value| good(value.as_bytes()))
        };
        let origin = self.origin.as_deref().map(str::as_bytes);
        each(&header::ORIGIN, &|value| Some(value) == origin) && each(&FETCH_SITE, &|value| value == b"same-origin")
    }

    fn cross_site(&self) -> Problem {
        let own = self.origin.as_deref().unwrap_or("the public URL of this server");
        Problem::new(Code::CrossSiteRequest, format!("a browser may do this from pages of {own} only"))
    }
}

/// Two cookies of the session's name: somebody else planted one of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_out_of_reach_of_scripts_other_sites_and_plain_http() {
        let now = Timestamp::ZERO;
        let cookie = |site: &Site| {
            let cookie = site.cookie(&Secret::from("t.o.k"), now, now + Duration::from_secs(60));
            assert!(cookie.is_sensitive(), "it is not printed");
            cookie.to_str().unwrap().to_owned()
        };
        assert_eq!(
            cookie(&Site::new("https://hooks.example")),
            "__Host-postroom_session=t.o.k; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(
            cookie(&Site::new("http://127.0.0.1:8080")),
            "postroom_session=t.o.k; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"
        );
        let gone = Site::new("https://hooks.example").no_cookie();
        assert_eq!(gone, "__Host-postroom_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure");
    }

    #[test]
    fn the_cookie_is_found_among_others_and_two_are_none() {
        let site = Site::new("https://hooks.example");
        let find = |lines: &[&str]| {
            let all: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            site.token_of(&headers(&all)).map(|token| token.map(str::to_owned))
        };
        let found = Ok(Some("abc".to_owned()));
        assert_eq!(find(&["__Host-postroom_session=abc"]), found);
        assert_eq!(find(&["a=b; __Host-postroom_session=abc;c=d", "e=f"]), found);
        for none in
            ["", "a=b", "postroom_session=abc", "__host-postroom_session=abc", "__Host-postroom_session=", ";;="]
        {
            assert_eq!(find(&[none]), Ok(None), "{none}");
        }
        assert_eq!(find(&["__Host-postroom_session=a; __Host-postroom_session=b"]), Err(Ambiguous));
        assert_eq!(find(&["__Host-postroom_session=a", "__Host-postroom_session=a"]), Err(Ambiguous));
    }

    #[test]
    fn a_cookie_authorizes_a_write_only_from_a_page_of_this_server() {
        let site = Site::new("https://hooks.example");
        let write = |all: &[(&'static str, &str)]| site.check_write(&Method::POST, &headers(all)).is_ok();
        let own = ("origin", "https://hooks.example");
        assert!(write(&[own]) && write(&[own, ("sec-fetch-site", "same-origin")]));
        for bad in ["cross-site", "same-site", "none", "", "SAME-ORIGIN"] {
            assert!(!write(&[own, ("sec-fetch-site", bad)]), "{bad}");
        }
        assert!(!write(&[]) && !write(&[("sec-fetch-site", "same-origin")]), "no origin at all");
        for bad in [
            "null",
            "",
            "http://hooks.example",
            "https://hooks.example:8443",
            "https://hooks.example.evil.example",
            "https://evil.example/https://hooks.example",
            "https://hooks.exampl\u{65}\u{301}",
            "https://xhooks.example",
            "https://HOOKS.EXAMPLE",
            "https://hooks.example/",
            "https://hooks.example https://evil.example",
        ] {
            let Ok(value) = HeaderValue::from_bytes(bad.as_bytes()) else { continue };
            let mut headers = HeaderMap::new();
            headers.append("origin", value);
            assert!(site.check_write(&Method::POST, &headers).is_err(), "{bad}");
            assert!(site.check_page(&headers).is_err(), "{bad}");
        }
        assert!(!write(&[own, ("origin", "https://evil.example")]), "two of them");
        assert!(site.check_write(&Method::GET, &headers(&[("origin", "https://evil.example")])).is_ok());
        assert!(site.check_page(&headers(&[])).is_ok(), "a program that is no browser");
        // A public URL that is none has no pages, not even those that a browser calls `null`.
        for odd in ["", "hooks.example", "data:text/html,x"] {
            let nowhere = Site::new(odd);
            assert!(nowhere.check_write(&Method::POST, &headers(&[("origin", "null")])).is_err(), "{odd}");
        }
    }
}
