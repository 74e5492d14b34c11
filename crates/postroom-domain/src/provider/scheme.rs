//! The vocabulary a provider's row is written in: where the signature stands, what was signed, with what.
//!
//! A row is data only. [`crate::verify::Verifier::compile`] turns it, with a source's options and secrets, into
//! something that checks requests. Rows borrow their text, so that the scheme a user writes into the options of the
//! provider `hmac` is the same type as a row of the catalogue.

use serde::Serialize;

/// How the catalogue's providers prove who sent a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scheme {
    /// Nothing is checked; chosen openly by the provider `none`.
    Open,
    /// A keyed hash. With several entries, the first whose signature header is present decides alone.
    Hmac(&'static [Hmac<'static>]),
    /// A keyed hash whose every part comes from the source's options.
    HmacFromOptions,
    /// A secret text that comes with each request. The body is not authenticated.
    Token(TokenFrom),
    /// A signed JSON Web Token in a header.
    Jwt(Jwt),
    /// The same, every part of it from the source's options.
    JwtFromOptions,
    /// What no row can say; [`crate::verify`] has a file for each.
    Code(Code),
}

/// The providers whose scheme is code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Every item of the body carries its own signature.
    Adyen,
    /// Signed with a certificate that the body names.
    AwsSns,
    /// Signed with a certificate that a header names.
    PayPal,
    /// The URL in several spellings, with the form or the digest of the body.
    Twilio,
}

/// A JSON Web Token that proves a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jwt {
    /// The header it stands in; `Bearer` before it is skipped.
    pub header: &'static str,
    pub algorithm: JwtAlgorithm,
    /// The claim with the digest of the body, if the body is covered.
    pub body_claim: Option<&'static str>,
    /// How old `iat` may be, in seconds.
    pub max_age: Option<u32>,
    /// Whether a token without `exp` is refused.
    pub needs_expiry: bool,
    /// Keys may be fetched from Plaid by their `kid`.
    pub plaid_keys: bool,
}

/// The one way in which a token may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JwtAlgorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs512,
    Ps256,
    Es256,
    Es384,
    EdDsa,
}

impl JwtAlgorithm {
    /// Whether who checks has the same key as who signs.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// One keyed-hash or public-key scheme.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hmac<'a> {
    pub algorithm: Algorithm,
    /// Template of what was signed; [`crate::verify`] says which placeholders there are.
    pub message: &'a str,
    pub signature: SignatureFrom<'a>,
    pub encoding: Encoding,
    pub time: Option<SignedTime<'a>>,
}

/// The hash inside the keyed hash, or the public-key signature in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
    Ed25519,
    /// ECDSA on P-256 with SHA-256, the signature in DER.
    EcdsaP256,
}

impl Algorithm {
    /// Whether who checks has another key than who signs.
    pub(crate) fn is_public_key(self) -> bool {
        matches!(self, Self::Ed25519 | Self::EcdsaP256)
    }
}

/// Where the signatures of a request stand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SignatureFrom<'a> {
    /// The whole header after a fixed prefix: `sha256=<signature>`.
    Plain { header: &'a str, prefix: &'a str },
    /// Named values: `t=1,v1=<signature>,v1=<signature>`. Names that are not `label` are skipped. `trim` drops blanks
    /// around the items.
    Pairs { header: &'a str, separator: u8, label: &'a str, trim: bool },
    /// Labelled items: `v1,<signature> v1,<signature>`. Items that do not begin with `label` are skipped.
    List { header: &'a str, separator: u8, label: &'a str },
    /// One header per key, ending in `1`, `2`, ...; this is the first.
    Numbered { first: &'a str },
    /// A text inside the JSON body.
    Json { path: &'a str },
}

/// How the bytes of a signature are written. One signature has one spelling: anything else does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Lower-case hexadecimal digits.
    Hex,
    /// Upper-case hexadecimal digits.
    HexUpper,
    /// The standard alphabet with padding.
    Base64,
    /// The URL-safe alphabet without padding.
    Base64Url,
}

/// A time that the sender signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedTime<'a> {
    pub from: TimeFrom<'a>,
    pub unit: Unit,
    /// How old it may be, in seconds; `None` = any age.
    pub past: Option<u32>,
    /// How far ahead of our clock it may be, in seconds; `None` = any distance.
    pub future: Option<u32>,
}

/// Where a signed time stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TimeFrom<'a> {
    Header(&'a str),
    /// A named value of the signature header (only with [`SignatureFrom::Pairs`]).
    Pair(&'a str),
    /// A value inside the signed JSON body.
    Json(&'a str),
}

/// How a signed time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    Rfc3339,
}

/// Where a secret text stands in a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TokenFrom {
    /// The whole value of this header.
    Header(&'static str),
    /// The whole value of the header that the option `header` names; the text here is its default.
    HeaderOption(Option<&'static str>),
    /// `Authorization: Basic`, the secret being `user:password`.
    Basic,
    /// The header that the option `header` names, or else the value of the URL's query that the option
    /// `query_parameter` names; the text here is the default of the latter.
    HeaderOrQuery(&'static str),
}

/// How the text of a secret becomes the bytes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretForm {
    /// There is none.
    None,
    /// The text as it is, all prefixes included.
    Text,
    /// Hexadecimal digits.
    Hex,
    /// Base64 of the key.
    Base64,
    /// `whsec_` and base64 of the key, as in Standard Webhooks. The prefix may be left out.
    Whsec,
    /// `whsec_` and base64 of the key, or any other text as it is.
    WhsecOrText,
    /// `user:password`.
    UserAndPassword,
    /// The 32 bytes of an Ed25519 public key in hexadecimal digits.
    Ed25519Hex,
    /// `whpk_` and base64 of the 32 bytes of an Ed25519 public key.
    Whpk,
    /// A P-256 public key as base64 (SPKI, without the PEM armour).
    EcdsaSpki,
}

/// One piece of a request that says which event it is, or of which type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    /// The value of a header that stands there once.
    Header(&'a str),
    /// A text, whole number or truth value inside a JSON body: names and positions with dots between; `*` is every
    /// item of a list, which must agree (else an event's type is `batch` and
    /// an id is none). An empty list reads as `[]`.
    Json(&'a str),
    /// A fixed word, if that value is in the JSON body.
    JsonMark(&'a str, &'a str),
    /// The same as [`Field::Json`] inside a JSON text in a form field; an empty path is the form field's text itself.
    Form(&'a str, &'a str),
    /// A fixed word, if the form field is there.
    FormMark(&'a str, &'a str),
    /// A value of the URL's query.
    Query(&'a str),
    /// A digest of the form's fields and values.
    FormDigest,
    /// A digest of the body, or of the item where a [`Batch`] says it.
    BodyDigest,
}

/// How a request carries several events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    /// The form field whose text is the JSON; the body itself without it.
    pub form: Option<&'static str>,
    /// Where the list stands, names with dots between; empty if the document is the list.
    pub items: &'static str,
    /// What names an item's type and id, read in the item.
    pub event_type: Pick<'static>,
    pub event_id: Pick<'static>,
}

/// What a provider wants to be answered when its event is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventAnswer {
    /// The ordinary answer.
    Ordinary,
    /// 200 and an empty body.
    Empty,
    /// 204 and no body.
    NoContent,
    /// 200 and this plain text.
    Text(&'static str),
}

/// Which fields name an event's type or id: the first group of which every field is there, its values joined.
pub(crate) type Pick<'a> = &'a [&'a [Field<'a>]];

/// A request that the provider sends to see whether we are there. It is answered and nothing is recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handshake {
    /// An unsigned probe with this method gets 200 and nothing else.
    Probe { method: &'static str },
    /// An unsigned request with this method and this value in its query gets that value back.
    Echo { method: &'static str, query: &'static str },
    /// An unsigned `GET` whose query holds the configured `verify_token` gets its `hub.challenge` back.
    HubChallenge,
    /// A request signed with a publicly known key, whose form field has this value. It proves nothing, so it gets
    /// 200 and nothing else.
    PublicKey { key: &'static str, form: &'static str, equals: &'static str },
    /// After verification: a request whose field has this value gets this reply.
    Verified { when: Field<'static>, equals: &'static str, reply: Reply },
    /// After verification: a request that has this field gets this reply.
    VerifiedHas { has: Field<'static>, reply: Reply },
    /// The same as `Verified`, but not if the request has the other field.
    VerifiedUnless { when: Field<'static>, equals: &'static str, unless: Field<'static>, reply: Reply },
    /// An unsigned `POST` of a JSON object with this one member gets it back. With the header there it has to verify
    /// like any other request.
    JsonEcho { member: &'static str, unless_header: &'static str },
    /// An `OPTIONS` with `WebHook-Request-Origin` is answered as CloudEvents want it.
    CloudEvents,
    /// An unsigned `POST` brings the secret in this header: a source that has none learns it, and gives it back.
    LearnSecret { header: &'static str },
    /// After verification: a request whose field has this value is confirmed by a visit to the URL in the other
    /// field, which must be one of SNS.
    VisitSns { when: Field<'static>, equals: &'static str, url: Field<'static> },
}

/// What a handshake is answered with: 200 unless it says otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// An empty body.
    Empty,
    /// The field as plain text.
    Text(Field<'static>),
    /// 204 and no body.
    NoContent,
    /// This JSON.
    Fixed(&'static str),
    /// The field as the only member of a JSON object.
    Json(&'static str, Field<'static>),
    /// The field, and the keyed hash of it in hexadecimal, as `plainToken` and `encryptedToken`.
    PlainAndEncryptedToken(Field<'static>),
}
