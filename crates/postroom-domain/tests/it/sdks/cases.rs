//! The cases that every provider is put through.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};
use postroom_domain::provider::{self, Payload, sample};
use postroom_domain::verify::{Outcome, Request, Verifier};
use postroom_domain::{Secret, Timestamp};
use postroom_testkit::sdks::{self, Webhook};
use serde_json::Value;

use super::kinds::{Kind, Seen};
use super::{ANY, Bodies, Handshake, Row};
use crate::support::{Source, URL, at, private_key};

/// Bodies that come out differently after a trip through a JSON library, a form library or an editor.
const RESPELLED: [&str; 6] = [
    "{\"a\":1,  \"a\":2}",
    "{\"n\":1e2,\"big\":123456789012345678901234567890}",
    "{\"t\":\"\\u00e9 \\/ \u{e9}\"}\r\n",
    "\u{feff}{}",
    "{\"lone\":\"\\ud800\"}",
    "{\n  \"pretty\": [ 1.0, 2 ]\n}\n",
];
const RESPELLED_TIMED: [&str; 3] = [
    "{\"webhookTimestamp\":<millis>,\"a\":1,  \"a\":2}",
    "{\n  \"webhookTimestamp\": <millis>, \"n\": 1e2, \"t\": \"\\u00e9 \\/\"\n}\r\n",
    "{\"big\":123456789012345678901234567890,\"webhookTimestamp\":<millis>}",
];
const RESPELLED_FORMS: [&str; 3] = [
    "mandrill_events=%5b%7B%22a%22%3A1%7D%5d",
    "z=+%20&mandrill_events=[{\"a\":1}]&empty=&b=%c3%a9",
    "mandrill_events=%5B%7B%22a%22%3A%201%7D%5D&&",
];
/// A public key of nobody, with the id of the one that signs.
const OTHER_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"83T4O_n84iotIvIW4mdBgQ_7dAfSmpqIM8kF9mN1flo","y":"VSktxkanutoMPtnzTUWiDV71aYoJUiPHjRHOsBANxfo","alg":"ES256","use":"sig","kid":"{kid}"}"#;
const UNICODE: &str = "{\"box\":\"\u{1f4e6}\",\"rtl\":\"\u{202e}\",\"name\":\"Zo\u{eb}\"}";
const UNICODE_TIMED: &str = "{\"webhookTimestamp\":<millis>,\"box\":\"\u{1f4e6}\",\"rtl\":\"\u{202e}\"}";
const UNICODE_FORM: &str = "mandrill_events=%5B%22%F0%9F%93%A6%22%2C%22Zo%C3%AB%22%5D&z=\u{1f4e6}";

/// A row, the names of the cases that it has been through, and what was wrong in them.
struct Run<'r> {
    row: &'r Row,
    names: RefCell<Vec<String>>,
    seen: Seen,
    wrong: RefCell<Vec<String>>,
}

/// Runs every case of a row.
pub fn check(row: &Row) {
    let run = Run { row, names: RefCell::default(), seen: Seen::of(row.provider), wrong: RefCell::default() };
    let signed = sdks::sign(&unsigned(row, &plain_body(row), at(0)))
        .unwrap_or_else(|error| panic!("{}: its library does not sign our sample: {error}", row.provider));
    run.case(true, "valid", &signed);
    signed_by_us(&run);
    bodies(&run);
    tampered(&run, &signed);
    times(&run, &signed);
    shapes(&run, &signed);
    for handshake in row.handshakes {
        answered(&run, handshake);
    }
    for (case, _) in row.differences {
        assert!(run.names.borrow().iter().any(|name| name == case), "{}: no case {case}", row.provider);
    }
    let wrong = run.wrong.into_inner();
    assert!(wrong.is_empty(), "{}:\n{}", row.provider, wrong.join("\n"));
    run.seen.complete();
}

/// Which kind a case is of, by its name.
fn kind_of(name: &str, valid: bool) -> Option<Kind> {
    Some(match name.split([' ', ':']).next().unwrap_or_default() {
        "valid" | "signed" => Kind::Valid,
        "tampered" => Kind::Tampered,
        "another" => Kind::WrongSecret,
        "too" if name == "too old" => Kind::TooOld,
        "too" => Kind::TooNew,
        "malformed" => Kind::Malformed,
        "missing" => Kind::Missing,
        "unicode" => Kind::Unicode,
        "empty" => Kind::EmptyBody,
        "respelled" => Kind::Respelled,
        "variant" if valid && name.contains("{w}") => Kind::Several,
        "variant" if !valid => Kind::Label,
        _ => return None,
    })
}

/// A body and the headers that come with it, not signed yet.
pub fn unsigned(row: &Row, body: &str, now: Timestamp) -> Webhook {
    let source = Source::of(row.provider);
    let kind = match row.bodies {
        Bodies::Form => "application/x-www-form-urlencoded",
        _ => "application/json",
    };
    let mut headers = vec![("content-type".to_owned(), kind.to_owned())];
    headers.extend(row.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Webhook {
        provider: row.provider.to_owned(),
        secret: source.secret.unwrap_or_default().to_owned(),
        private: private_key(row.provider).unwrap_or_default().to_owned(),
        options: Value::Object(source.options),
        method: "POST".to_owned(),
        url: URL.to_owned(),
        headers,
        body: body.replace("<millis>", &now.as_millis().to_string()).into_bytes(),
        now: now.as_millis(),
    }
}

/// Signed by the provider's library; by us if that can not sign such a body.
fn signed(row: &Row, body: &str, now: Timestamp) -> Webhook {
    let webhook = unsigned(row, body, now);
    sdks::sign(&webhook).unwrap_or_else(|_| ours(row, webhook))
}

fn ours(row: &Row, mut webhook: Webhook) -> Webhook {
    let source = Source::of(row.provider);
    let payload = Payload::of_body(webhook.body.clone());
    let signed = source.sign(&payload, Timestamp::from_millis(webhook.now));
    let made = signed.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
    webhook.headers.retain(|(name, _)| !signed.headers.contains_key(name.as_str()));
    webhook.headers.extend(made);
    webhook.body = signed.body;
    webhook
}

fn plain_body(row: &Row) -> String {
    let payload = sample(row.provider, None, 7, at(0)).expect("a sample");
    let body = Source::of(row.provider).sign(&payload, at(0)).body;
    String::from_utf8(body).expect("samples are text")
}

fn signed_by_us(run: &Run<'_>) {
    let webhook = unsigned(run.row, "", at(0));
    let payload = sample(run.row.provider, None, 8, at(0)).expect("a sample");
    run.case(true, "signed by us", &ours(run.row, Webhook { body: payload.body, ..webhook }));
}

fn bodies(run: &Run<'_>) {
    let (unicode, respelled): (&str, &[&str]) = match run.row.bodies {
        Bodies::Timed => (UNICODE_TIMED, &RESPELLED_TIMED),
        Bodies::Form => (UNICODE_FORM, &RESPELLED_FORMS),
        Bodies::Signed | Bodies::Unsigned => (UNICODE, &RESPELLED),
    };
    run.case(true, "unicode", &signed(run.row, unicode, at(0)));
    for body in respelled {
        run.case(true, &format!("respelled {body}"), &signed(run.row, body, at(0)));
    }
    // Where the time stands in the body, an empty one has none.
    run.case(run.row.bodies != Bodies::Timed, "empty body", &signed(run.row, "", at(0)));
}

fn tampered(run: &Run<'_>, signed: &Webhook) {
    let body = &signed.body;
    let flipped = |index: usize| body.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == index)).collect();
    let changes: [(&str, Vec<u8>); 5] = [
        ("first byte", flipped(0)),
        ("middle byte", flipped(body.len() / 2)),
        ("cut", body[..body.len() - 1].to_vec()),
        ("longer", [body.as_slice(), b"\n"].concat()),
        ("empty", Vec::new()),
    ];
    for (what, body) in changes {
        let unnoticed = run.row.bodies == Bodies::Unsigned;
        run.case(unnoticed, &format!("tampered: {what}"), &Webhook { body, ..signed.clone() });
    }
    if provider::find(run.row.provider).expect("a provider").signs_url() {
        let url = URL.replace("https", "http");
        run.case(false, "tampered: another URL", &Webhook { url, ..signed.clone() });
    }
    let source = Source::of(run.row.provider);
    if source.secret.is_some() {
        let secret = source.other_secret().to_owned();
        run.case(false, "another secret", &Webhook { secret, ..signed.clone() });
        // While a secret is replaced there are two of them.
        for secrets in [[source.other_secret(), source.secret.unwrap_or_default()], ["", source.other_secret()]] {
            let both: Vec<&str> = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
            let valid = matches!(outcome_with(signed, &both), Outcome::Verified(_) | Outcome::Handshake(_));
            assert_eq!(valid, both.len() == 2, "{}: {} secrets", run.row.provider, both.len());
        }
    } else {
        // What takes the place of a secret.
        let (name, value) = match run.row.provider {
            "paypal" => ("webhook_id", "WEBHOOK_ID".to_owned()),
            _ => ("jwk", OTHER_JWK.replace("{kid}", &kid(signed))),
        };
        let mut other = signed.clone();
        other.options[name] = value.into();
        run.case(false, &format!("another {name}"), &other);
    }
}

fn kid(signed: &Webhook) -> String {
    let jwk: Value = serde_json::from_str(signed.options["jwk"].as_str().expect("a key")).expect("JSON");
    jwk["kid"].as_str().expect("a kid").to_owned()
}

fn times(run: &Run<'_>, signed: &Webhook) {
    let late = |seconds: i64| Webhook { now: signed.now + seconds * 1000, ..signed.clone() };
    // Where no limit is known, even what is a month old or ahead passes; its id tells repetitions.
    let month = 30 * 24 * 3600;
    for (edge, limit, sign) in [("old", run.row.past, 1), ("new", run.row.future, -1)] {
        let allowed = if limit == ANY { month } else { limit };
        run.case(true, &format!("as {edge} as allowed"), &late(sign * allowed));
        if limit != ANY {
            run.case(false, &format!("too {edge}"), &late(sign * (limit + 1)));
        }
    }
}

fn shapes(run: &Run<'_>, signed: &Webhook) {
    let row = run.row;
    let right = header(signed, row.header);
    let (signature, time) = taken_apart(row.shape, &right);
    let with = |value: &str| {
        let mut changed = signed.clone();
        changed.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(row.header));
        changed.headers.push((row.header.to_owned(), value.to_owned()));
        changed
    };
    for (variant, valid) in row.variants {
        let value = variant.replace("{s}", &signature).replace("{w}", &wrong(&signature)).replace("{t}", &time);
        run.case(*valid, &format!("variant {variant}"), &with(&value));
    }
    if !row.beside.is_empty() {
        for (first, second) in [(&right, &wrong(&right)), (&wrong(&right), &right)] {
            let mut both = with(first);
            both.headers.push((row.beside.to_owned(), second.clone()));
            run.case(true, "beside a wrong one", &both);
            run.seen.add(Kind::Several);
        }
    }
    let bare = row.shape.replace("{s}", "").replace("{t}", "");
    for (what, value) in [
        ("cut", &right[..right.len() - 1]),
        ("longer", &format!("{right}0")),
        ("doubled", &row.shape.replace("{s}", &signature.repeat(2)).replace("{t}", &time)),
        ("upper case", &right.to_uppercase()),
        ("nonsense", "nonsense"),
        ("bare", &bare),
        ("empty", ""),
    ] {
        run.case(false, &format!("malformed: {what}"), &with(value));
    }
    let mut missing = with("");
    missing.headers.pop();
    run.case(false, "missing", &missing);
    let mut twice = signed.clone();
    twice.headers.push((row.header.to_owned(), right));
    // Libraries are given one value; which one is up to the framework before them.
    run.case_of_us(false, "twice", &twice);
}

/// A signature of the same form that is not right.
fn wrong(signature: &str) -> String {
    let first = if signature.starts_with('0') { "1" } else { "0" };
    format!("{first}{}", &signature[1..])
}

/// Signature and time of a header with this form.
fn taken_apart(shape: &str, value: &str) -> (String, String) {
    let mut rest = value;
    let (mut signature, mut time) = (String::new(), String::new());
    let mut form = shape;
    while let Some((before, after)) = form.split_once('{') {
        rest = rest.strip_prefix(before).unwrap_or_else(|| panic!("{value} has not the form {shape}"));
        let (name, after) = after.split_once('}').expect("a placeholder");
        let next = after.split('{').next().unwrap_or_default();
        let end = if next.is_empty() { rest.len() } else { rest.find(next).expect("the form goes on") };
        *(if name == "s" { &mut signature } else { &mut time }) = rest[..end].to_owned();
        (rest, form) = (&rest[end..], after);
    }
    (signature, time)
}

pub fn header(webhook: &Webhook, name: &str) -> String {
    let found = webhook.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.unwrap_or_else(|| panic!("{} has no header {name}", webhook.provider)).1.clone()
}

fn answered(run: &Run<'_>, handshake: &Handshake) {
    let row = run.row;
    let mut webhook = unsigned(row, handshake.body, at(0));
    webhook.method = handshake.method.to_owned();
    webhook.url.push_str(handshake.query);
    for (name, value) in handshake.headers {
        webhook.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        webhook.headers.push(((*name).to_owned(), (*value).to_owned()));
    }
    if let Some((name, value)) = handshake.option {
        webhook.options[name] = value.into();
    }
    if handshake.signed {
        webhook = sdks::sign(&webhook).expect("a handshake is signed");
        let secret = Source::of(row.provider).other_secret().to_owned();
        run.case(false, &format!("forged handshake {}", handshake.body), &Webhook { secret, ..webhook.clone() });
    }
    let answer = match outcome(&webhook) {
        Outcome::Handshake(answer) => answer,
        other => panic!("{} {}: {other:?}", row.provider, handshake.body),
    };
    let text = String::from_utf8(answer.body).expect("text");
    assert_eq!((answer.status, answer.content_type, text.as_str()), handshake.answer, "{}", row.provider);
    run.seen.add(Kind::Handshake);
}

pub fn outcome(webhook: &Webhook) -> Outcome {
    let secret: Vec<&str> = Some(webhook.secret.as_str()).into_iter().filter(|secret| !secret.is_empty()).collect();
    outcome_with(webhook, &secret)
}

/// What it comes to for a source with these secrets.
pub fn outcome_with(webhook: &Webhook, secrets: &[&str]) -> Outcome {
    let Value::Object(options) = &webhook.options else { panic!("options are a map") };
    let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
    let verifier = Verifier::compile(&webhook.provider, options, &secrets).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in &webhook.headers {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let request = Request { method: &webhook.method, url: &webhook.url, headers: &headers, body: &webhook.body };
    verifier.verify(&request, Timestamp::from_millis(webhook.now))
}

impl Run<'_> {
    /// We say whether it is valid, and the provider's library says the same unless the row states otherwise.
    fn case(&self, valid: bool, name: &str, webhook: &Webhook) {
        self.case_of_us(valid, name, webhook);
        if sdks::verified_by(self.row.provider).is_none() {
            return;
        }
        let told = sdks::verify(webhook);
        let different = self.row.differences.iter().any(|(case, _)| name == *case);
        if told.is_ok() == (valid == different) {
            self.wrong.borrow_mut().push(format!("{name}: its library says {told:?}"));
        }
    }

    fn case_of_us(&self, valid: bool, name: &str, webhook: &Webhook) {
        self.names.borrow_mut().push(name.to_owned());
        if let Some(kind) = kind_of(name, valid) {
            self.seen.add(kind);
        }
        let outcome = outcome(webhook);
        if matches!(outcome, Outcome::Verified(_) | Outcome::Handshake(_)) != valid {
            let body = String::from_utf8_lossy(&webhook.body);
            self.wrong.borrow_mut().push(format!("{name}: we say {outcome:?} of {:?} {body}", webhook.headers));
        }
    }
}
