//! What the catalogue tells about a provider, and the questions other parts ask a row.

use std::time::Duration;

use serde::Serialize;

use super::option::{OptionSpec, Options};
use super::scheme::{
    Algorithm, Code, Encoding, Field, Handshake, Hmac, Jwt, JwtAlgorithm, Scheme, SecretForm, SignatureFrom, TimeFrom,
    TokenFrom,
};
use super::{CERTIFICATES, EVENT_OPTIONS, JWK, PUBLIC_URL, Provider, TOLERANCE, custom};

/// A provider as `/v1/providers` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// The name for a source's `provider`.
    pub name: &'static str,
    /// The name as its makers write it.
    pub title: &'static str,
    /// `hmac`, `public_key`, `token`, `jwt`, `certificate` or `none`.
    pub scheme: &'static str,
    /// How a request is proved, in one sentence.
    pub summary: String,
    /// The headers that carry the signature or token; the first that is there counts. Empty if options name it.
    pub signature_headers: Vec<&'static str>,
    /// Whether a source without a secret refuses everything.
    pub needs_secret: bool,
    /// How the secret is written.
    pub secret_form: SecretForm,
    /// What the provider calls the secret and where it is found.
    pub secret_hint: &'static str,
    /// How old a signed time may be unless the source says otherwise, in seconds; null if any age passes.
    pub tolerance_seconds: Option<u64>,
    /// Whether the public URL is part of what is signed.
    pub signs_url: bool,
    /// The options of a source.
    pub options: Vec<OptionSpec>,
    /// The HTTP methods that its source answers.
    pub methods: Vec<&'static str>,
}

impl Provider {
    /// Everything a person needs to set up a source.
    #[must_use]
    pub fn describe(&self) -> Description {
        Description {
            name: self.name,
            title: self.title,
            scheme: self.scheme_kind(),
            summary: self.summary(),
            signature_headers: self.signature_headers(),
            needs_secret: self.needs_secret(),
            secret_form: self.secret.form,
            secret_hint: self.secret.hint,
            tolerance_seconds: self.default_tolerance().map(|tolerance| tolerance.as_secs()),
            signs_url: self.signs_url(),
            options: self.options(),
            methods: self.methods(),
        }
    }

    /// `hmac`, `public_key`, `token`, `jwt`, `certificate` or `none`.
    #[must_use]
    pub fn scheme_kind(&self) -> &'static str {
        match self.scheme {
            Scheme::Open => "none",
            Scheme::Hmac([Hmac { algorithm, .. }, ..]) if algorithm.is_public_key() => "public_key",
            Scheme::Hmac(_) | Scheme::HmacFromOptions | Scheme::Code(Code::Adyen | Code::Twilio) => "hmac",
            Scheme::Jwt(_) | Scheme::JwtFromOptions => "jwt",
            Scheme::Code(Code::AwsSns | Code::PayPal) => "certificate",
            Scheme::Token(_) => "token",
        }
    }

    /// Whether a source without a secret refuses everything.
    #[must_use]
    pub fn needs_secret(&self) -> bool {
        self.secret.form != SecretForm::None && !self.secret.is_optional
    }

    /// Whether a source holds only the public side of the key that requests are signed with (not for `jwt`, where an
    /// option decides).
    #[must_use]
    pub fn is_asymmetric(&self) -> bool {
        let token = matches!(self.scheme, Scheme::Jwt(row) if !row.algorithm.is_shared());
        token || self.is_certified() || self.scheme_kind() == "public_key"
    }

    /// Whether requests are signed with a certificate of the provider.
    pub(crate) fn is_certified(&self) -> bool {
        matches!(self.scheme, Scheme::Code(Code::AwsSns | Code::PayPal))
    }

    /// How tokens are signed, where requests come with one.
    pub(crate) fn jwt_algorithm(&self, options: &Options<'_>) -> Option<JwtAlgorithm> {
        match self.scheme {
            Scheme::Jwt(row) => Some(row.algorithm),
            Scheme::JwtFromOptions => Some(custom::jwt(options).algorithm),
            _ => None,
        }
    }

    /// How the secret is written, unless the option `secret_encoding` says otherwise.
    #[must_use]
    pub fn secret_form(&self) -> SecretForm {
        self.secret.form
    }

    /// How old a signed time may be unless the source says otherwise; `None` if any age passes.
    #[must_use]
    pub fn default_tolerance(&self) -> Option<Duration> {
        let past = match self.scheme {
            Scheme::Jwt(row) => row.max_age,
            _ => self.schemes().first()?.time?.past,
        };
        past.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Whether the public URL is part of what is signed, so that it must be known exactly.
    #[must_use]
    pub fn signs_url(&self) -> bool {
        let is_code = matches!(self.scheme, Scheme::Code(Code::Twilio));
        is_code || self.schemes().iter().any(|scheme| scheme.message.contains("{url}"))
    }

    /// The HTTP methods that a source of this provider answers: `POST`, and those of unsigned probes.
    #[must_use]
    pub fn methods(&self) -> Vec<&'static str> {
        let mut methods = vec!["POST"];
        for handshake in self.handshakes {
            let method = match handshake {
                Handshake::Probe { method } | Handshake::Echo { method, .. } => method,
                Handshake::HubChallenge => "GET",
                // Only Okta: its challenge comes with the same token as every request, but by GET.
                Handshake::VerifiedHas { has: Field::Header(_), .. } => "GET",
                Handshake::CloudEvents => "OPTIONS",
                Handshake::PublicKey { .. }
                | Handshake::Verified { .. }
                | Handshake::VerifiedHas { .. }
                | Handshake::VerifiedUnless { .. }
                | Handshake::JsonEcho { .. }
                | Handshake::LearnSecret { .. }
                | Handshake::VisitSns { .. } => "POST",
            };
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        methods
    }

    /// The options that a source of this provider can have.
    #[must_use]
    pub fn options(&self) -> Vec<OptionSpec> {
        let mut options = match self.scheme {
            Scheme::HmacFromOptions => return custom::OPTIONS.to_vec(),
            Scheme::JwtFromOptions => return custom::JWT_OPTIONS.to_vec(),
            Scheme::Jwt(row) => jwt_options(row),
            Scheme::Code(code) => code_options(code),
            Scheme::Open => EVENT_OPTIONS.to_vec(),
            Scheme::Token(from) => token_options(from, self.general),
            Scheme::Hmac(_) => Vec::new(),
        };
        if self.schemes().iter().any(|scheme| scheme.time.is_some()) {
            options.push(TOLERANCE);
        }
        if self.signs_url() {
            options.push(PUBLIC_URL);
        }
        if self.handshakes.iter().any(|handshake| matches!(handshake, Handshake::HubChallenge)) {
            options.push(OptionSpec::text(
                "verify_token",
                "the verify token typed at the provider; without it the subscription challenge is refused",
            ));
        }
        options
    }

    /// Whether a header of a received webhook is passed on to endpoints, so that the provider's own libraries can
    /// verify there again. `content-type` always is, whatever this says. A scheme made of options reads headers that
    /// the row does not know: ask [`crate::verify::Verifier::forwards_header`] for a source.
    #[must_use]
    pub fn forwards_header(&self, name: &str) -> bool {
        self.forwarded().any(|header| header.eq_ignore_ascii_case(name)) || self.numbers_header(name)
    }

    /// The headers that are passed on, but for those that are told by a number.
    pub(crate) fn forwarded(&self) -> impl Iterator<Item = &'static str> {
        let picked = self.event_type.iter().chain(self.event_id).copied().flatten();
        let picked = picked.filter_map(|field| match field {
            Field::Header(header) => Some(*header),
            _ => None,
        });
        self.forwards.iter().copied().chain(picked).chain(self.schemes().iter().flat_map(Hmac::headers))
    }

    /// Whether a header is one of several that hold signatures, told by the number at its end.
    pub(crate) fn numbers_header(&self, name: &str) -> bool {
        let numbers = |scheme: &Hmac<'_>| match scheme.signature {
            SignatureFrom::Numbered { first } => {
                let base = first.trim_end_matches('1');
                let number = name.get(base.len()..).filter(|_| name[..base.len()].eq_ignore_ascii_case(base));
                number.is_some_and(|number| number.parse::<u8>().is_ok())
            }
            _ => false,
        };
        self.schemes().iter().any(numbers)
    }

    pub(crate) fn schemes(&self) -> &'static [Hmac<'static>] {
        match self.scheme {
            Scheme::Hmac(schemes) => schemes,
            _ => &[],
        }
    }

    fn signature_headers(&self) -> Vec<&'static str> {
        match self.scheme {
            Scheme::Hmac(schemes) => schemes.iter().filter_map(|scheme| scheme.signature.header()).collect(),
            Scheme::Token(TokenFrom::Header(header) | TokenFrom::HeaderOption(Some(header))) => vec![header],
            Scheme::Token(TokenFrom::Basic) => vec!["Authorization"],
            Scheme::Jwt(row) => vec![row.header],
            Scheme::Code(Code::Twilio) => vec!["X-Twilio-Signature"],
            Scheme::Code(Code::PayPal) => vec!["PAYPAL-TRANSMISSION-SIG"],
            // An option names it, or the body or the URL carries it.
            Scheme::Open
            | Scheme::HmacFromOptions
            | Scheme::JwtFromOptions
            | Scheme::Code(Code::Adyen | Code::AwsSns)
            | Scheme::Token(TokenFrom::HeaderOption(None) | TokenFrom::HeaderOrQuery(_)) => Vec::new(),
        }
    }

    fn summary(&self) -> String {
        match self.scheme {
            Scheme::Open => "nothing is checked: anybody who knows the URL can send events".to_owned(),
            Scheme::HmacFromOptions => "a keyed hash whose every part is set by options".to_owned(),
            Scheme::Jwt(row) => {
                let body = if row.body_claim.is_some() { "a digest of the body in it" } else { "the body itself is not signed" };
                format!("a JSON Web Token ({}); {body}", row.algorithm.name())
            }
            Scheme::JwtFromOptions => "a JSON Web Token whose every part is set by options".to_owned(),
            Scheme::Code(code) => code_summary(code).to_owned(),
            Scheme::Token(TokenFrom::HeaderOrQuery(_)) => {
                "a secret text in the URL's query or in a header, compared in constant time; the body itself is not signed"
                    .to_owned()
            }
            Scheme::Token(_) => {
                "a secret text in a header, compared in constant time; the body itself is not signed".to_owned()
            }
            Scheme::Hmac(schemes) => schemes.first().map(Hmac::summary).unwrap_or_default(),
        }
    }
}

fn code_summary(code: Code) -> &'static str {
    match code {
        Code::Adyen => {
            "HMAC-SHA-256 over eight fields of every item, in base64 inside the item; its other fields are not signed"
        }
        Code::AwsSns => "RSA over the message's fields, with a certificate of Amazon SNS that the body names",
        Code::PayPal => {
            "RSA over transmission id, time, webhook id and the CRC32 of the body, with a certificate of PayPal that a \
             header names"
        }
        Code::Twilio => {
            "HMAC-SHA-1 over {url} and {form_sorted}, or over a {url} that holds a digest of the body, in base64"
        }
    }
}

fn code_options(code: Code) -> Vec<OptionSpec> {
    match code {
        Code::Adyen | Code::Twilio => Vec::new(),
        Code::AwsSns => {
            let topic = "the topic whose messages these are; without it any customer of AWS can send here";
            [&[OptionSpec::text("topic_arn", topic)], CERTIFICATES.as_slice()].concat()
        }
        Code::PayPal => {
            let id = OptionSpec::text(
                "webhook_id",
                "the id of the webhook, as PayPal's dashboard shows it (not WH-... of an event)",
            );
            [&[id.required()], CERTIFICATES.as_slice(), &POSTBACK, &[TOLERANCE]].concat()
        }
    }
}

/// What PayPal itself is asked with.
const POSTBACK: [OptionSpec; 3] = [
    OptionSpec::one_of(
        "verify_by",
        &["certificate", "postback"],
        "certificate (the default), or postback: PayPal's server is asked about every request, with client_id and the \
         secret of the app",
    ),
    OptionSpec::text("client_id", "the Client ID of the app that the webhook belongs to, for verify_by=postback"),
    OptionSpec::one_of(
        "environment",
        &["production", "sandbox"],
        "which PayPal is asked with verify_by=postback: production (the default) or sandbox",
    ),
];

fn jwt_options(row: Jwt) -> Vec<OptionSpec> {
    if !row.plaid_keys {
        return Vec::new();
    }
    let environment = "where keys are fetched: production (the default) or sandbox";
    vec![
        OptionSpec::text("client_id", "the client_id of Plaid's dashboard: with it and the secret, keys are fetched"),
        OptionSpec::one_of("environment", &["production", "sandbox"], environment),
        JWK,
        TOLERANCE,
    ]
}

fn token_options(from: TokenFrom, general: bool) -> Vec<OptionSpec> {
    let header = OptionSpec::text("header", "the header that carries the secret text");
    let mut options = match from {
        TokenFrom::HeaderOption(Some(_)) => vec![header],
        TokenFrom::HeaderOption(None) => vec![header.required()],
        TokenFrom::HeaderOrQuery(_) => vec![
            OptionSpec::text("query_parameter", "the name of the secret in the URL's query (default code)"),
            OptionSpec::text("header", "the header that carries the secret text, in place of the query"),
        ],
        TokenFrom::Header(_) | TokenFrom::Basic => Vec::new(),
    };
    if general {
        options.extend(EVENT_OPTIONS);
    }
    options
}

impl<'a> SignatureFrom<'a> {
    /// The header the signature stands in; for numbered ones the first.
    pub(crate) fn header(&self) -> Option<&'a str> {
        match *self {
            Self::Plain { header, .. } | Self::Pairs { header, .. } | Self::List { header, .. } => Some(header),
            Self::Numbered { first } => Some(first),
            // The body carries it.
            Self::Json { .. } => None,
        }
    }
}

impl<'a> Hmac<'a> {
    /// The headers that this scheme needs to check a request; of numbered ones the first.
    fn headers(&self) -> impl Iterator<Item = &'a str> {
        let time = match self.time.map(|time| time.from) {
            Some(TimeFrom::Header(header)) => Some(header),
            _ => None,
        };
        let signed = self.message.split("{header:").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        self.signature.header().into_iter().chain(time).chain(signed)
    }

    fn summary(&self) -> String {
        let hash = match self.algorithm {
            Algorithm::Sha1 => "HMAC-SHA-1",
            Algorithm::Sha256 => "HMAC-SHA-256",
            Algorithm::Sha512 => "HMAC-SHA-512",
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::EcdsaP256 => "ECDSA (P-256, SHA-256)",
        };
        let written = match self.encoding {
            Encoding::Hex | Encoding::HexUpper => "hexadecimal",
            Encoding::Base64 | Encoding::Base64Url => "base64",
        };
        format!("{hash} over {}, in {written}", self.message)
    }
}
