//! The credential of a request: one bearer token, or the session's cookie.

use http::{HeaderMap, HeaderValue, Method, header};

use crate::problem::{Answer, Code, Problem};
use crate::sign_in::Site;

/// What a request shows of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential<'a> {
    /// `Authorization: Bearer`: an API key, a session token or the admin token.
    Bearer(&'a str),
    /// The session token that a browser keeps.
    Cookie(&'a str),
}

/// The credential of a request. A bearer token counts before a cookie: whoever sends one knows what it wants to be.
///
/// # Errors
/// 401 without one and with one that is not written as it must be; 403 for a write that a cookie would authorize though
/// no page of this server made it.
pub(crate) fn credential<'a>(site: &Site, method: &Method, headers: &'a HeaderMap) -> Answer<Credential<'a>> {
    if headers.contains_key(header::AUTHORIZATION) {
        return bearer(headers).map(Credential::Bearer);
    }
    let token = site.token_of(headers).map_err(|_| invalid())?;
    let token = token.ok_or_else(|| challenge(Problem::of(Code::CredentialsMissing), ""))?;
    site.check_write(method, headers)?;
    Ok(Credential::Cookie(token))
}

/// The token of exactly one `Authorization: Bearer <token>`.
fn bearer(headers: &HeaderMap) -> Answer<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let one = all.next().filter(|_| all.next().is_none()).and_then(|one| one.to_str().ok());
    let (scheme, token) = one.and_then(|text| text.split_once(' ')).ok_or_else(invalid)?;
    let plain = !token.is_empty() && token.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    if scheme.eq_ignore_ascii_case("bearer") && plain { Ok(token) } else { Err(invalid()) }
}

/// The credential is none of ours, or not any more.
pub(crate) fn invalid() -> Problem {
    challenge(Problem::of(Code::CredentialsInvalid), ", error=\"invalid_token\"")
}

fn challenge(problem: Problem, error: &str) -> Problem {
    let value = HeaderValue::try_from(format!("Bearer realm=\"postroom\"{error}"));
    problem.header(header::WWW_AUTHENTICATE, value.unwrap_or(HeaderValue::from_static("Bearer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &[(&'static str, &str)], method: &Method) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let found = credential(&Site::new("http://a.test"), method, &headers);
        found.map(|found| format!("{found:?}")).map_err(|problem| problem.code())
    }

    #[test]
    fn a_credential_is_read_from_one_header_written_in_one_way() {
        let read = |values: &[&'static str]| {
            let all: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            read(&all, &Method::GET)
        };
        assert_eq!(read(&["Bearer abc"]).as_deref(), Ok("Bearer(\"abc\")"));
        assert_eq!(read(&["bearer abc"]).as_deref(), Ok("Bearer(\"abc\")"));
        assert_eq!(read(&[]), Err(Code::CredentialsMissing));
        for bad in [
            &["Bearer abc", "Bearer abc"][..],
            &["Bearer  abc"],
            &["Bearer\tabc"],
            &["Bearer abc def"],
            &["Bearer"],
            &["Bearer "],
            &["Basic abc"],
            &["abc"],
            &[""],
        ] {
            assert_eq!(read(bad), Err(Code::CredentialsInvalid), "{bad:?}");
        }
    }

    #[test]
    fn a_cookie_counts_without_a_bearer_and_not_for_writes_from_elsewhere() {
        let cookie = ("cookie", "postroom_session=abc");
        assert_eq!(read(&[cookie], &Method::GET).as_deref(), Ok("Cookie(\"abc\")"));
        assert_eq!(read(&[cookie], &Method::POST), Err(Code::CrossSiteRequest));
        assert_eq!(read(&[cookie, ("origin", "http://a.test")], &Method::DELETE).as_deref(), Ok("Cookie(\"abc\")"));
        assert_eq!(read(&[cookie, ("authorization", "Bearer x")], &Method::POST).as_deref(), Ok("Bearer(\"x\")"));
        assert_eq!(read(&[cookie, ("authorization", "Basic x")], &Method::GET), Err(Code::CredentialsInvalid));
        assert_eq!(read(&[cookie, cookie], &Method::GET), Err(Code::CredentialsInvalid));
    }
}
