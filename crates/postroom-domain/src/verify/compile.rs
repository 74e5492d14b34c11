//! Makes a [`Verifier`] of a provider's row, a source's options and its secrets; tells all that is wrong at once.

use serde_json::{Map, Value};

use super::batch::Batch;
use super::handshake::Rule;
use super::identity::{Choice, Fields};
use super::{MAX_SECRETS, Scheme, Verifier, code, hmac, jwk, jwt, key, template, token};
use crate::provider::scheme::{Code, Field, Hmac, Jwt, Scheme as RowScheme, TokenFrom};
use crate::provider::{self, FieldError, Options, Provider, SecretForm};
use crate::{Invalid, Secret};

impl Verifier {
    /// Compiles a checker.
    ///
    /// Without secrets this succeeds and the verifier refuses everything: a source may exist before its secret does.
    ///
    /// # Errors
    /// Every option that is unknown, missing or means nothing, and the first secret that can not be one; the field is
    /// the option's name, `provider` or `secret`.
    pub fn compile(provider: &str, options: &Map<String, Value>, secrets: &[Secret]) -> Result<Self, Vec<FieldError>> {
        let Some(provider) = provider::find(provider) else {
            let detail = "no such provider; GET /v1/providers lists them";
            return Err(vec![FieldError::new("provider", "unknown_provider", detail)]);
        };
        let specs = provider.options();
        let options = Options::read(&specs, options)?;
        let secret_form = match provider.scheme {
            RowScheme::HmacFromOptions => provider::custom_secret_form(&options),
            _ => provider.secret.form,
        };
        let scheme = scheme(provider, &options, secret_form, secrets)?;
        let mut fields = Fields::default();
        let (event_type, event_id) = identity(provider, &options, &mut fields)?;
        let handshakes = handshakes(provider, &options, &scheme, &mut fields)?;
        let public_url = options.text("public_url").map(str::to_owned);
        let batch =
            provider.batch.as_ref().map(Batch::compile).transpose().map_err(|invalid| one("provider", invalid))?;
        let forwards = forwards(provider, &scheme, &fields);
        Ok(Self { provider, scheme, public_url, fields, event_type, event_id, handshakes, batch, forwards })
    }
}

/// The headers that are passed on: told once, because every header of every request is asked about.
fn forwards(provider: &Provider, scheme: &Scheme, fields: &Fields) -> Vec<String> {
    let checks = match scheme {
        Scheme::Hmac { checks, .. } => checks.as_slice(),
        // A token is a password for this server, not a signature: it stays here. Of the others the row names what they read.
        Scheme::Open | Scheme::Token { .. } | Scheme::Jwt(_) | Scheme::Code { .. } => &[],
    };
    let compiled = checks.iter().flat_map(hmac::Check::headers).chain(fields.headers());
    let named = provider.forwarded().map(str::to_ascii_lowercase);
    let mut all: Vec<String> = named.chain(compiled.map(|header| header.as_str().to_owned())).collect();
    all.retain(|name| name != "authorization");
    all.sort_unstable();
    all.dedup();
    all
}

fn scheme(
    provider: &Provider,
    options: &Options<'_>,
    form: SecretForm,
    secrets: &[Secret],
) -> Result<Scheme, Vec<FieldError>> {
    if secrets.len() > MAX_SECRETS {
        return Err(vec![FieldError::new("secret", "too_many", format!("at most {MAX_SECRETS} active secrets"))]);
    }
    let bytes: Vec<Secret> = secrets
        .iter()
        .map(|secret| key::bytes(form, &provider.secret, secret))
        .collect::<Result<_, _>>()
        .map_err(|error| vec![error])?;
    match provider.scheme {
        RowScheme::Open => Ok(Scheme::Open),
        RowScheme::Hmac(rows) => hmac_scheme(rows, options, bytes, secrets),
        RowScheme::HmacFromOptions => hmac_scheme(&[provider::custom_scheme(options)?], options, bytes, secrets),
        RowScheme::Token(from) => Ok(Scheme::Token { check: token_check(from, options)?, secrets: bytes }),
        RowScheme::Code(code) => {
            let check = code::Check::compile(code, options, &bytes).map_err(|error| vec![error])?;
            if code == Code::PayPal && !check.needs_secret() && !secrets.is_empty() {
                let detail = "it is read with verify_by=postback only; a certificate needs none";
                return Err(vec![FieldError::new("secret", "not_needed", detail)]);
            }
            Ok(Scheme::Code { check: Box::new(check), secrets: bytes })
        }
        RowScheme::Jwt(row) => Ok(Scheme::Jwt(Box::new(jwt_check(row, options, bytes)?))),
        RowScheme::JwtFromOptions => {
            Ok(Scheme::Jwt(Box::new(jwt_check(provider::custom_jwt(options), options, bytes)?)))
        }
    }
}

fn token_check(from: TokenFrom, options: &Options<'_>) -> Result<token::Check, Vec<FieldError>> {
    let header = match from {
        TokenFrom::Header(name) => name,
        TokenFrom::HeaderOption(default) => options.text("header").or(default).unwrap_or_default(),
        TokenFrom::Basic => "authorization",
        TokenFrom::HeaderOrQuery(_) => options.text("header").unwrap_or("authorization"),
    };
    let query = match from {
        TokenFrom::HeaderOrQuery(default) if options.text("header").is_none() => {
            Some(options.text("query_parameter").unwrap_or(default).to_owned())
        }
        _ => None,
    };
    let header = template::header_name(header).map_err(|invalid| one("header", invalid))?;
    Ok(token::Check { header, query, basic: matches!(from, TokenFrom::Basic) })
}

fn jwt_check(row: Jwt, options: &Options<'_>, secrets: Vec<Secret>) -> Result<jwt::Check, Vec<FieldError>> {
    let header = options.text("header").unwrap_or(row.header);
    let header = template::header_name(header).map_err(|invalid| one("header", invalid))?;
    let keys = match options.text("jwk") {
        Some(_) if row.algorithm.is_shared() => {
            let detail = format!("{} is checked with the secret; choose another algorithm", row.algorithm.name());
            return Err(vec![FieldError::new("jwk", "not_with_this_algorithm", detail)]);
        }
        Some(text) => {
            jwt::Keys::Public(jwk::read(text.as_bytes(), row.algorithm).map_err(|invalid| one("jwk", invalid))?)
        }
        None if row.plaid_keys => plaid_keys(options, secrets),
        None if row.algorithm.is_shared() && !secrets.is_empty() => jwt::Keys::Shared(secrets),
        None => jwt::Keys::None,
    };
    Ok(jwt::Check {
        header,
        algorithm: row.algorithm,
        keys,
        body_claim: row.body_claim.or(options.text("body_claim")).map(str::to_owned),
        max_age_seconds: options.number("tolerance_seconds").or(row.max_age),
        needs_expiry: row.needs_expiry,
        audience: options.text("audience").map(str::to_owned),
        issuer: options.text("issuer").map(str::to_owned),
    })
}

/// Plaid's own server tells its keys to who has an account there.
fn plaid_keys(options: &Options<'_>, secrets: Vec<Secret>) -> jwt::Keys {
    let (Some(client_id), Some(secret)) = (options.text("client_id"), secrets.into_iter().next()) else {
        return jwt::Keys::None;
    };
    let host =
        if options.text("environment") == Some("sandbox") { "sandbox.plaid.com" } else { "production.plaid.com" };
    jwt::Keys::Plaid { host, client_id: client_id.to_owned(), secret }
}

fn hmac_scheme(
    rows: &[Hmac<'_>],
    options: &Options<'_>,
    bytes: Vec<Secret>,
    secrets: &[Secret],
) -> Result<Scheme, Vec<FieldError>> {
    let mut checks = Vec::with_capacity(rows.len());
    for row in rows {
        let mut check = hmac::Check::compile(row).map_err(|(field, invalid)| one(field, invalid))?;
        if let (Some(seconds), Some((_, window))) = (options.number("tolerance_seconds"), &mut check.time) {
            window.override_with(seconds);
        }
        checks.push(check);
    }
    let keys = checks.iter().map(|check| bytes.iter().map(|bytes| check.key(bytes)).collect()).collect();
    Ok(Scheme::Hmac { checks, keys, secrets: secrets.to_vec(), bytes })
}

fn identity(
    provider: &Provider,
    options: &Options<'_>,
    fields: &mut Fields,
) -> Result<(Choice, Choice), Vec<FieldError>> {
    if !provider.general {
        let row = |pick, fields: &mut Fields| Choice::compile(pick, fields).map_err(|invalid| one("provider", invalid));
        return Ok((row(provider.event_type, fields)?, row(provider.event_id, fields)?));
    }
    let mut errors = Vec::new();
    let mut field = |header: &str, path: &str, default: Option<Field<'static>>| {
        let chosen = match (options.text(header), options.text(path)) {
            (Some(_), Some(_)) => {
                errors.push(FieldError::new(
                    path,
                    "conflict",
                    format!("it stands in one place; {header} is given too"),
                ));
                None
            }
            (Some(name), None) => Some((header, Field::Header(name))),
            (None, Some(at)) => Some((path, Field::Json(at))),
            (None, None) => default.map(|field| ("provider", field)),
        };
        let Some((name, field)) = chosen else { return Choice::default() };
        Choice::compile(&[&[field]], fields).unwrap_or_else(|invalid| {
            errors.push(FieldError { field: name.to_owned(), invalid });
            Choice::default()
        })
    };
    let event_type = field("event_type_header", "event_type_path", Some(Field::Json("type")));
    let event_id = field("event_id_header", "event_id_path", None);
    if errors.is_empty() { Ok((event_type, event_id)) } else { Err(errors) }
}

fn handshakes(
    provider: &Provider,
    options: &Options<'_>,
    scheme: &Scheme,
    fields: &mut Fields,
) -> Result<Vec<Rule>, Vec<FieldError>> {
    let check = match scheme {
        Scheme::Hmac { checks, .. } => checks.first(),
        Scheme::Open | Scheme::Token { .. } | Scheme::Jwt(_) | Scheme::Code { .. } => None,
    };
    let token = options.text("verify_token");
    let compiled = provider.handshakes.iter().map(|row| Rule::compile(row, token, check, fields));
    let rules: Vec<Option<Rule>> = compiled.collect::<Result<_, _>>().map_err(|invalid| one("provider", invalid))?;
    Ok(rules.into_iter().flatten().collect())
}

fn one(field: &str, invalid: Invalid) -> Vec<FieldError> {
    vec![FieldError { field: field.to_owned(), invalid }]
}
