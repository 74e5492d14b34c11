//! The providers `hmac` and `jwt`: a scheme written into a source's options, checked until it makes sense.

use super::option::{FieldError, OptionSpec, Options};
use super::scheme::{
    Algorithm, Encoding, Hmac, Jwt, JwtAlgorithm, SecretForm, SignatureFrom, SignedTime, TimeFrom, Unit,
};
use super::{EVENT_OPTIONS, JWK, PUBLIC_URL, TOLERANCE};

/// How old and how far ahead a signed time may be unless the source says otherwise, in seconds.
const DEFAULT_TOLERANCE: u32 = 300;

/// The options that make up the scheme.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::text("signature_header", "the header that carries the signature").required(),
    OptionSpec::one_of(
        "signature_style",
        &["plain", "pairs", "list"],
        "how signatures stand in the header. plain (the default): the whole value after signature_prefix. pairs: \
         named values such as t=1,v1=<signature>, the name given by signature_label. list: items that begin with \
         signature_label, such as v1,<signature> v1,<signature>",
    ),
    OptionSpec::text("signature_prefix", "with style plain: fixed text before the signature, such as sha256="),
    OptionSpec::text(
        "signature_label",
        "with style pairs: the name, such as v1; with list: how items begin, such as v1,",
    ),
    OptionSpec::one_of(
        "signature_separator",
        &["comma", "semicolon", "space"],
        "what stands between pairs (default comma) or list items (default space)",
    ),
    OptionSpec::one_of(
        "signature_encoding",
        &["hex", "hex_upper", "base64", "base64url"],
        "how the signature's bytes are written (default hex, in lower case)",
    ),
    OptionSpec::one_of("algorithm", &["sha1", "sha256", "sha512"], "the hash (default sha256)"),
    OptionSpec::one_of(
        "secret_encoding",
        &["text", "hex", "base64", "whsec"],
        "how the secret becomes a key: text as it is (default), or decoded; whsec is base64 after whsec_",
    ),
    OptionSpec::text(
        "signed_content",
        "what is signed (default {body}): fixed text and {body} {timestamp} {url} {method} {header:Name} {json:path} \
         {form_sorted}; {{ and }} are braces",
    ),
    OptionSpec::text("timestamp_header", "the header with the signed time"),
    OptionSpec::text("timestamp_label", "with style pairs: the name of the signed time, such as t"),
    OptionSpec::text("timestamp_path", "where the time stands in the signed JSON body, such as sent_at"),
    OptionSpec::one_of(
        "timestamp_unit",
        &["seconds", "milliseconds", "rfc3339"],
        "how the time is written (default seconds)",
    ),
    TOLERANCE,
    PUBLIC_URL,
    EVENT_OPTIONS[0],
    EVENT_OPTIONS[1],
    EVENT_OPTIONS[2],
    EVENT_OPTIONS[3],
];

/// The scheme that checked options describe.
pub(crate) fn scheme<'a>(options: &Options<'a>) -> Result<Hmac<'a>, Vec<FieldError>> {
    let mut errors = Vec::new();
    let signature = signature(options, &mut errors);
    let time = time(options, &mut errors);
    let message = options.text("signed_content").unwrap_or("{body}");
    if !["{body}", "{form_sorted}", "{json:"].iter().any(|part| message.contains(part)) {
        let detail = "nothing of the body is signed, so anybody could change it; put {body} into signed_content";
        errors.push(FieldError::new("signed_content", "body_not_signed", detail));
    }
    let outside = matches!(time.map(|time| time.from), Some(TimeFrom::Header(_) | TimeFrom::Pair(_)));
    if outside != message.contains("{timestamp}") {
        let detail = if outside {
            "the time is not signed, so it would prove nothing; put {timestamp} into signed_content"
        } else {
            "{timestamp} needs timestamp_header or timestamp_label, which say where it stands"
        };
        errors.push(FieldError::new("signed_content", "timestamp_not_signed", detail));
    }
    if time.is_none() && options.number("tolerance_seconds").is_some() {
        let detail = "there is no signed time; give timestamp_header, timestamp_label or timestamp_path";
        errors.push(FieldError::new("tolerance_seconds", "no_timestamp", detail));
    }
    if options.text("public_url").is_some() && !message.contains("{url}") {
        errors.push(FieldError::new("public_url", "url_not_signed", "signed_content has no {url}"));
    }
    let algorithm = match options.text("algorithm") {
        Some("sha1") => Algorithm::Sha1,
        Some("sha512") => Algorithm::Sha512,
        _ => Algorithm::Sha256,
    };
    let encoding = match options.text("signature_encoding") {
        Some("hex_upper") => Encoding::HexUpper,
        Some("base64") => Encoding::Base64,
        Some("base64url") => Encoding::Base64Url,
        _ => Encoding::Hex,
    };
    if errors.is_empty() { Ok(Hmac { algorithm, message, signature, encoding, time }) } else { Err(errors) }
}

/// The options that make up the provider `jwt`.
pub(super) const JWT_OPTIONS: &[OptionSpec] = &[
    OptionSpec::text(
        "header",
        "the header that carries the token (default Authorization; Bearer before it is skipped)",
    ),
    OptionSpec::one_of(
        "algorithm",
        &["HS256", "HS384", "HS512", "RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"],
        "the one way in which tokens may be signed (default HS256); those that begin with HS use the secret, the others \
         the option jwk",
    ),
    JWK,
    OptionSpec::text("audience", "what the claim aud must be, or hold"),
    OptionSpec::text("issuer", "what the claim iss must be"),
    OptionSpec::text(
        "body_claim",
        "the claim that holds the SHA-256 of the body, in hexadecimal or base64; without it the body is not covered",
    ),
    TOLERANCE,
    EVENT_OPTIONS[0],
    EVENT_OPTIONS[1],
    EVENT_OPTIONS[2],
    EVENT_OPTIONS[3],
];

/// The token that checked options describe.
pub(crate) fn jwt(options: &Options<'_>) -> Jwt {
    let algorithm = match options.text("algorithm") {
        Some("HS384") => JwtAlgorithm::Hs384,
        Some("HS512") => JwtAlgorithm::Hs512,
        Some("RS256") => JwtAlgorithm::Rs256,
        Some("RS512") => JwtAlgorithm::Rs512,
        Some("PS256") => JwtAlgorithm::Ps256,
        Some("ES256") => JwtAlgorithm::Es256,
        Some("ES384") => JwtAlgorithm::Es384,
        Some("EdDSA") => JwtAlgorithm::EdDsa,
        _ => JwtAlgorithm::Hs256,
    };
    // A token that names neither its end nor its age would be good for ever.
    let needs_expiry = options.number("tolerance_seconds").is_none();
    Jwt { header: "authorization", algorithm, body_claim: None, max_age: None, needs_expiry, plaid_keys: false }
}

/// How the options say that a secret becomes a key.
pub(crate) fn secret_form(options: &Options<'_>) -> SecretForm {
    match options.text("secret_encoding") {
        Some("hex") => SecretForm::Hex,
        Some("base64") => SecretForm::Base64,
        Some("whsec") => SecretForm::Whsec,
        _ => SecretForm::Text,
    }
}

fn signature<'a>(options: &Options<'a>, errors: &mut Vec<FieldError>) -> SignatureFrom<'a> {
    let header = options.text("signature_header").unwrap_or_default();
    let style = options.text("signature_style").unwrap_or("plain");
    let mut only_with = |option: &str, styles: &[&str]| {
        if options.text(option).is_some() && !styles.contains(&style) {
            let detail = format!("only with signature_style {}", styles.join(" or "));
            errors.push(FieldError::new(option, "not_with_this_style", detail));
        }
    };
    only_with("signature_prefix", &["plain"]);
    only_with("signature_label", &["pairs", "list"]);
    only_with("signature_separator", &["pairs", "list"]);
    only_with("timestamp_label", &["pairs"]);
    let label = options.text("signature_label").unwrap_or_default();
    if style != "plain" && label.is_empty() {
        errors.push(FieldError::new("signature_label", "required", "which items hold the signature, such as v1"));
    }
    let separator = |default: u8| match options.text("signature_separator") {
        Some("comma") => b',',
        Some("semicolon") => b';',
        Some("space") => b' ',
        _ => default,
    };
    match style {
        "pairs" => SignatureFrom::Pairs { header, separator: separator(b','), label, trim: true },
        "list" => SignatureFrom::List { header, separator: separator(b' '), label },
        _ => SignatureFrom::Plain { header, prefix: options.text("signature_prefix").unwrap_or_default() },
    }
}

fn time<'a>(options: &Options<'a>, errors: &mut Vec<FieldError>) -> Option<SignedTime<'a>> {
    let places = ["timestamp_header", "timestamp_label", "timestamp_path"];
    let given: Vec<&str> = places.into_iter().filter(|name| options.text(name).is_some()).collect();
    if given.len() > 1 {
        errors.push(FieldError::new(
            given[1],
            "conflict",
            format!("the time stands in one place; {} is given too", given[0]),
        ));
    }
    let Some(place) = given.first() else {
        if options.text("timestamp_unit").is_some() {
            errors.push(FieldError::new("timestamp_unit", "no_timestamp", "there is no signed time to be written so"));
        }
        return None;
    };
    let text = options.text(place)?;
    let from = match *place {
        "timestamp_header" => TimeFrom::Header(text),
        "timestamp_label" => TimeFrom::Pair(text),
        _ => TimeFrom::Json(text),
    };
    let unit = match options.text("timestamp_unit") {
        Some("milliseconds") => Unit::Milliseconds,
        Some("rfc3339") => Unit::Rfc3339,
        _ => Unit::Seconds,
    };
    // compile() puts the source's tolerance_seconds in place of both, as for every provider.
    Some(SignedTime { from, unit, past: Some(DEFAULT_TOLERANCE), future: Some(DEFAULT_TOLERANCE) })
}
