//! Signs a request as a provider would, with the very scheme that checks it.

use aws_lc_rs::hmac as mac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};

use super::candidate::{self, Location};
use super::hmac::{Check, Clock, Key};
pub use super::private::PublicSide;
pub(super) use super::private::rsa_signature;
use super::private::{self, Kind, SAMPLE_KID};
use super::template::{Context, Part};
use super::{Request, Scheme, Verifier, code, form, json, jwt, template, time, token};
use crate::provider::scheme::{Field, Pick, Unit};
use crate::provider::{self, FieldError, Options, Payload, SecretForm};
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

/// Signs a payload as the provider would for a source with these options and this secret, registered at `url`. Where
/// the source holds only a public key or certificate, `secret` is the private key; [`public_side`] says what goes with
/// it.
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
    let public = secret.map(|secret| public_side(provider, options, secret)).transpose()?.flatten();
    let known = match &public {
        None => secret.cloned(),
        Some(PublicSide::Secret(text)) => Some(Secret::from(text.as_str())),
        Some(PublicSide::Jwk(_) | PublicSide::Certificate(_)) => None,
    };
    let verifier = Verifier::compile(provider, options, known.as_slice())?;
    let mut request = SignedRequest {
        method: Method::POST,
        url: url.to_owned(),
        headers: HeaderMap::new(),
        body: payload.body.clone(),
    };
    // What is signed may be another spelling than what the request goes to.
    let url = verifier.public_url.as_deref().unwrap_or(url);
    put_payload(&verifier, payload, &mut request).map_err(|error| vec![error])?;
    match &verifier.scheme {
        Scheme::Open => {}
        Scheme::Hmac { checks, keys, .. } => {
            let key = keys.first().and_then(|keys| keys.first()).ok_or_else(|| no_secret(&verifier))?;
            let key = match (key, secret) {
                (Key::Mac(key), _) => SigningKey::Mac(key),
                (Key::Public(_), Some(secret)) => SigningKey::Private(secret, verifier.provider.secret.form),
                (Key::Public(_), None) => return Err(no_secret(&verifier)),
            };
            put_signature(&checks[0], &key, url, now, &mut request).map_err(|error| vec![error])?;
        }
        Scheme::Jwt(check) => {
            let secret = secret.ok_or_else(|| no_secret(&verifier))?;
            put_jwt(check, secret, options, now, &mut request).map_err(|error| vec![error])?;
        }
        Scheme::Code { check, .. } => {
            let secret = secret.ok_or_else(|| no_secret(&verifier))?;
            // Adyen's secret is written in hexadecimal digits.
            let secret = if check.needs_secret() { verifier.secrets().first().unwrap_or(secret) } else { secret };
            let specs = verifier.provider.options();
            let signer = code::Signer { secret, options: &Options::read(&specs, options)?, url, now };
            check.sign(&signer, &mut request.headers, &mut request.body).map_err(|error| vec![error])?;
        }
        Scheme::Token { check, secrets } => {
            put_query(check, secrets.first(), &mut request);
            put_token(check, secrets.first().ok_or_else(|| no_secret(&verifier))?, &mut request)
                .map_err(|error| vec![error])?;
        }
    }
    Ok(request)
}

/// A fresh private key to sign with; `None` where the source has the same secret.
///
/// # Errors
/// An option is wrong.
pub fn private_key(provider: &str, options: &Map<String, Value>) -> Result<Option<Secret>, Vec<FieldError>> {
    kind(provider, options)?.map(|kind| kind.generate()).transpose().map_err(|error| vec![error])
}

/// What a source has to be given to accept what this private key signs; `None` where the source has the same secret.
///
/// # Errors
/// The secret is no private key of the right kind.
pub fn public_side(
    provider: &str,
    options: &Map<String, Value>,
    private: &Secret,
) -> Result<Option<PublicSide>, Vec<FieldError>> {
    let side = kind(provider, options)?.map(|kind| kind.public_side(private)).transpose();
    side.map_err(|error| vec![error])
}

fn kind(provider: &str, options: &Map<String, Value>) -> Result<Option<Kind>, Vec<FieldError>> {
    let Some(row) = provider::find(provider) else { return Ok(None) };
    let specs = row.options();
    Ok(Kind::of(row, row.jwt_algorithm(&Options::read(&specs, options)?)))
}

/// What signs: the key that also checks, or a private one.
enum SigningKey<'k> {
    Mac(&'k mac::Key),
    Private(&'k Secret, SecretForm),
}

impl SigningKey<'_> {
    fn sign(
        &self,
        check: &Check,
        request: &Request<'_>,
        context: &Context<'_>,
        missing: impl Fn() -> FieldError,
    ) -> Result<Vec<u8>, FieldError> {
        match self {
            Self::Mac(key) => Ok(check.tag(key, request, context).ok_or_else(missing)?.as_ref().to_vec()),
            Self::Private(key, form) => {
                let message = check.message(request, context).ok_or_else(missing)?;
                private::sign(check.algorithm, *form, key, &message)
            }
        }
    }
}

fn put_jwt(
    check: &jwt::Check,
    secret: &Secret,
    options: &Map<String, Value>,
    now: Timestamp,
    request: &mut SignedRequest,
) -> Result<(), FieldError> {
    let shared = check.algorithm.is_shared();
    let given: Option<Value> = options.get("jwk").and_then(|jwk| serde_json::from_str(jwk.as_str()?).ok());
    let kid = given.as_ref().and_then(|jwk| jwk["kid"].as_str()).unwrap_or(SAMPLE_KID);
    let unsigned = jwt::unsigned(check, (!shared).then_some(kid), &request.body, now);
    let signature = if shared {
        let key = mac::Key::new(jwt::keyed_hash(check.algorithm), secret.expose());
        mac::sign(&key, unsigned.as_bytes()).as_ref().to_vec()
    } else {
        private::sign_token(check.algorithm, secret, unsigned.as_bytes())?
    };
    put(request, check.header.clone(), jwt::signed(&unsigned, &signature).as_bytes(), "signature")
}

/// The secret in the URL's query, where the source expects it there.
fn put_query(check: &token::Check, secret: Option<&Secret>, request: &mut SignedRequest) {
    let (Some(name), Some(text)) = (&check.query, secret.and_then(Secret::expose_str)) else { return };
    let pair = form::encode(name, text.as_bytes());
    let joint = if request.url.contains('?') { '&' } else { '?' };
    request.url = format!("{}{joint}{}", request.url, String::from_utf8_lossy(&pair));
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

/// A random UUID.
pub(super) fn fresh_uuid() -> String {
    let mut bytes = [0; 16];
    crate::secret::fill_random(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn fresh_id() -> String {
    format!("msg_{}", hex::encode(Secret::random(12).expose()))
}

fn put_signature(
    check: &Check,
    key: &SigningKey<'_>,
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
    let tag = key.sign(check, &unsigned, &context, missing)?;
    let signature = candidate::encode(check.encoding, &tag);
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
    key: &SigningKey<'_>,
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
    let tag = key.sign(check, &draft, &context, not_json)?;
    signature.insert("signature".to_owned(), candidate::encode(check.encoding, &tag).into());
    body.insert("signature".to_owned(), signature.into());
    request.body = serde_json::to_vec(&body).map_err(|_| not_json())?;
    Ok(())
}

fn put_token(check: &token::Check, secret: &Secret, request: &mut SignedRequest) -> Result<(), FieldError> {
    if check.query.is_some() {
        return Ok(());
    }
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
