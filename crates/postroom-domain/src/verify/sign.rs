//! Signs a request as a provider would, with the very scheme that checks it.

use aws_lc_rs::hmac::Key;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};

use super::candidate::{self, Location};
use super::hmac::{Check, Clock};
use super::template::{Context, Part};
use super::{Request, Scheme, Verifier, form, json, template, time, token};
use crate::provider::scheme::{Field, Pick, Unit};
use crate::provider::{FieldError, Payload};
use crate::{Secret, Timestamp};

/// A request that a source of the provider accepts.
#[derive(Debug, Clone)]
pub struct SignedRequest {
    /// The HTTP method.
    pub method: Method,
    /// The URL it was signed for.
    pub url: String,
    /// Every header, the signature among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// Signs a payload as the provider would for a source with these options and this secret, registered at `url`.
///
/// # Errors
/// What [`Verifier::compile`] says of the options and the secret; `secret` if it is missing; `body` if the scheme
/// signs something that is not in it; `type` or `id` if they can not stand in a header.
pub fn sign(
    provider: &str,
    options: &Map<String, Value>,
    secret: Option<&Secret>,
    payload: &Payload,
    url: &str,
    now: Timestamp,
) -> Result<SignedRequest, Vec<FieldError>> {
    let verifier = Verifier::compile(provider, options, secret.map_or(&[], std::slice::from_ref))?;
    let mut request = SignedRequest {
        method: Method::POST,
        url: url.to_owned(),
        headers: HeaderMap::new(),
        body: payload.body.clone(),
    };
    put_payload(&verifier, payload, &mut request).map_err(|error| vec![error])?;
    match &verifier.scheme {
        Scheme::Open => {}
        Scheme::Hmac { checks, keys, .. } => {
            let key = keys.first().and_then(|keys| keys.first()).ok_or_else(|| no_secret(&verifier))?;
            let url = verifier.public_url.as_deref().unwrap_or(url);
            put_signature(&checks[0], key, url, now, &mut request).map_err(|error| vec![error])?;
        }
        Scheme::Token { check, secrets } => {
            put_token(check, secrets.first().ok_or_else(|| no_secret(&verifier))?, &mut request)
                .map_err(|error| vec![error])?;
        }
    }
    Ok(request)
}

fn no_secret(verifier: &Verifier) -> Vec<FieldError> {
    vec![FieldError::new("secret", "required", format!("give the secret: {}", verifier.provider.secret.hint))]
}

/// The body as this provider wraps it, its media type, and the headers that name the event.
fn put_payload(verifier: &Verifier, payload: &Payload, request: &mut SignedRequest) -> Result<(), FieldError> {
    let mut content_type = payload.content_type.as_str();
    if let [[Field::Form(name, _), ..], ..] = verifier.provider.event_type {
        if json::looks_like_json(&payload.body) {
            request.body = form::encode(name, &payload.body);
        }
        content_type = "application/x-www-form-urlencoded";
    }
    put(request, http::header::CONTENT_TYPE, content_type.as_bytes(), "body")?;
    if let (Some(header), Some(text)) = (header_of(verifier.provider.event_type), &payload.event_type) {
        // Where the type is a header and a word of the body, the word after the dot is in the body.
        let joined = verifier.provider.event_type.first().is_some_and(|group| group.len() > 1);
        let word = if joined { text.split('.').next().unwrap_or(text) } else { text };
        put(request, header, word.as_bytes(), "type")?;
    }
    if let Some(header) = header_of(verifier.provider.event_id) {
        let id = payload.external_id.clone().unwrap_or_else(fresh_id);
        put(request, header, id.as_bytes(), "id")?;
    }
    Ok(())
}

/// The header that the first choice of fields begins with.
fn header_of(pick: Pick<'static>) -> Option<HeaderName> {
    match pick.first()?.first()? {
        Field::Header(name) => template::header_name(name).ok(),
        _ => None,
    }
}

fn fresh_id() -> String {
    format!("msg_{}", hex::encode(Secret::random(12).expose()))
}

fn put_signature(
    check: &Check,
    key: &Key,
    url: &str,
    now: Timestamp,
    request: &mut SignedRequest,
) -> Result<(), FieldError> {
    for part in &check.message {
        if let Part::Header(name) = part
            && !request.headers.contains_key(name)
        {
            put(request, name.clone(), fresh_id().as_bytes(), "id")?;
        }
    }
    if let Location::Json { .. } = &check.location {
        return put_signature_into_body(check, key, now, request);
    }
    let stamp = check.time.as_ref().map(|(_, window)| time::write(window.unit, now)).unwrap_or_default();
    if let Some((Clock::Header(name), _)) = &check.time {
        put(request, name.clone(), stamp.as_bytes(), "timestamp")?;
    }
    let values = check.values(&request.body);
    let context = Context { timestamp: stamp.as_bytes(), url, values: &values };
    let unsigned = Request { method: "POST", url, headers: &request.headers, body: &request.body };
    let missing = || FieldError::new("body", "missing_value", "the body lacks a value that this scheme signs");
    let tag = check.tag(key, &unsigned, &context).ok_or_else(missing)?;
    let signature = candidate::encode(check.encoding, tag.as_ref());
    let (header, value) = match &check.location {
        Location::Plain { header, prefix } => (header.clone(), format!("{prefix}{signature}")),
        Location::Pairs { header, separator, label, time_label, trim } => {
            let joint = format!("{}{}", char::from(*separator), if *trim { " " } else { "" });
            let time = time_label.as_ref().map(|label| format!("{label}={stamp}{joint}")).unwrap_or_default();
            (header.clone(), format!("{time}{label}={signature}"))
        }
        Location::List { header, label, .. } => (header.clone(), format!("{label}{signature}")),
        Location::Numbered { headers } => (headers.first().ok_or_else(missing)?.clone(), signature),
        // Handled above.
        Location::Json { .. } => return Err(missing()),
    };
    put(request, header, value.as_bytes(), "signature")
}

/// Mailgun's way: time, a token used once, and the signature of both are members of the JSON body.
fn put_signature_into_body(
    check: &Check,
    key: &Key,
    now: Timestamp,
    request: &mut SignedRequest,
) -> Result<(), FieldError> {
    let not_json =
        || FieldError::new("body", "invalid_json", "the signature goes into the body, so it must be a JSON object");
    let mut body: Map<String, Value> = serde_json::from_slice(&request.body).map_err(|_| not_json())?;
    let unit = check.time.as_ref().map_or(Unit::Seconds, |(_, window)| window.unit);
    let mut signature = Map::new();
    signature.insert("timestamp".to_owned(), time::write(unit, now).into());
    signature.insert("token".to_owned(), hex::encode(Secret::random(25).expose()).into());
    body.insert("signature".to_owned(), signature.clone().into());
    let unsigned = serde_json::to_vec(&body).map_err(|_| not_json())?;
    let values = check.values(&unsigned);
    let context = Context { values: &values, ..Context::default() };
    let draft = Request { method: "POST", url: "", headers: &request.headers, body: &unsigned };
    let tag = check.tag(key, &draft, &context).ok_or_else(not_json)?;
    signature.insert("signature".to_owned(), candidate::encode(check.encoding, tag.as_ref()).into());
    body.insert("signature".to_owned(), signature.into());
    request.body = serde_json::to_vec(&body).map_err(|_| not_json())?;
    Ok(())
}

fn put_token(check: &token::Check, secret: &Secret, request: &mut SignedRequest) -> Result<(), FieldError> {
    let value = if check.basic {
        format!("Basic {}", STANDARD.encode(secret.expose())).into_bytes()
    } else {
        secret.expose().to_vec()
    };
    put(request, check.header.clone(), &value, "secret")
}

fn put(request: &mut SignedRequest, name: HeaderName, value: &[u8], field: &str) -> Result<(), FieldError> {
    let value = HeaderValue::from_bytes(value)
        .map_err(|_| FieldError::new(field, "invalid_character", "it can not stand in an HTTP header"))?;
    request.headers.insert(name, value);
    Ok(())
}
