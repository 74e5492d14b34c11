//! Providers whose requests carry several events, bring their secret, or only name their key.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_domain::provider::{Payload, sample};
use postroom_domain::verify::{KeyRequest, SignedRequest, sign};
use postroom_domain::{Secret, Timestamp};
use postroom_web::{KeyFetcher, NoKey};
use serde_json::{Map, Value, json};

use crate::support::{Call, Engine, Reply, Room, Tenant};

const RSA_KEY: &str = include_str!("../../../postroom-domain/tests/keys/rsa.pem");
const CERTIFICATE: &str = include_str!("../../../postroom-domain/tests/keys/sns.crt");

/// A server of a provider that answers as it is told, and remembers what it was asked.
#[derive(Default)]
pub struct Script {
    answers: Mutex<VecDeque<Result<Bytes, NoKey>>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn of(answers: impl IntoIterator<Item = Result<Bytes, NoKey>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), asked: Mutex::default() })
    }

    fn next(&self, asked: &str) -> Result<Bytes, NoKey> {
        self.asked.lock().unwrap().push(asked.to_owned());
        self.answers.lock().unwrap().pop_front().unwrap_or_else(|| Err(NoKey::Unavailable("nobody there".to_owned())))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl KeyFetcher for Script {
    async fn fetch(&self, request: &KeyRequest) -> Result<Bytes, NoKey> {
        self.next(request.url.as_str())
    }

    async fn visit(&self, url: &url::Url) -> Result<(), NoKey> {
        self.next(url.as_str()).map(drop)
    }
}

fn call<'a>(room: &'a Room, signed: &SignedRequest) -> Call<'a> {
    let path = signed.url.strip_prefix("https://hooks.example").unwrap();
    let call = room.call(signed.method.as_str(), path).body(&signed.body);
    signed.headers.iter().fold(call, |call, (name, value)| call.header(name.as_str(), value.as_bytes()))
}

fn signed(provider: &str, secret: &str, payload: &Payload, now: Timestamp) -> SignedRequest {
    let url = format!("https://hooks.example/in/acme/{provider}");
    sign(provider, &Map::new(), Some(&Secret::from(secret)), payload, &url, now).unwrap()
}

async fn events(room: &Room, tenant: &Tenant) -> Vec<Value> {
    let list = room.get("/v1/events").bearer(&tenant.key).send().await.json();
    list["data"].as_array().unwrap().clone()
}

fn answers(reply: &Reply) -> (u16, String) {
    (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
}

pub async fn the_events_of_one_request_are_all_kept_and_recognised_one_by_one(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "mandrill", "secret": "key"})).await;
    let batch = |body: &str| signed("mandrill", "key", &Payload::of_body(body), room.now());
    let first = call(&room, &batch(r#"[{"event":"open","_id":"1"},{"event":"click","_id":"1"}]"#)).send().await;
    assert_eq!((first.status, first.json()["duplicate"].as_bool()), (200, Some(false)));
    let mut kinds: Vec<String> =
        events(&room, &tenant).await.iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, ["click", "open"]);
    let again = call(&room, &batch(r#"[{"event":"click","_id":"1"},{"event":"send","_id":"2"}]"#)).send().await;
    assert_eq!((again.status, again.json()["duplicate"].as_bool()), (200, Some(true)), "the first of them was known");
    assert_eq!(events(&room, &tenant).await.len(), 3, "and the other one was not");
}

pub async fn a_source_of_asana_learns_its_secret_once(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "asana"})).await;
    let hello = |secret: &str| room.post("/in/acme/asana").header("x-hook-secret", secret).body("{}");
    let secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";
    let answered = hello(secret).send().await;
    assert_eq!((answered.status, answered.header("x-hook-secret")), (200, Some(secret)));
    let stranger = hello("00000000000000000000000000000000").send().await;
    assert_eq!(stranger.verdict(), "401 signature_invalid");
    let event = signed("asana", secret, &sample("asana", None, 1, room.now()).unwrap(), room.now());
    assert_eq!(call(&room, &event).send().await.status, 200);
    assert_eq!(hello(secret).send().await.status, 200, "Asana asks again when our answer was lost");
    assert_eq!(events(&room, &tenant).await.len(), 1);
    let shown = room.get("/v1/sources").bearer(&tenant.key).send().await;
    assert!(!String::from_utf8_lossy(&shown.body).contains(secret), "it is a secret like any other");
}

pub async fn a_certificate_is_fetched_once_and_a_subscription_is_visited(engine: Engine) {
    let script = Script::of([Ok(Bytes::from_static(CERTIFICATE.as_bytes())), Ok(Bytes::new())]);
    let fetcher = script.clone();
    let room = Room::with(engine, |setup| setup.key_fetcher = fetcher).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "aws-sns"})).await;
    let link = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=t";
    let confirm = json!({"Type": "SubscriptionConfirmation", "Token": "t", "Message": "m", "SubscribeURL": link});
    let confirm = signed("aws-sns", RSA_KEY, &Payload::of_body(confirm.to_string()), room.now());
    assert_eq!(answers(&call(&room, &confirm).send().await), (200, String::new()));
    for number in 0..3 {
        let event = signed("aws-sns", RSA_KEY, &sample("aws-sns", None, number, room.now()).unwrap(), room.now());
        assert_eq!(call(&room, &event).send().await.status, 200);
        let forged = SignedRequest { body: [event.body.as_slice(), b" "].concat(), ..event };
        let forged =
            SignedRequest { body: String::from_utf8(forged.body).unwrap().replace("invoice", "x").into(), ..forged };
        assert_eq!(call(&room, &forged).send().await.verdict(), "401 signature_invalid");
    }
    let asked = script.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].ends_with(".pem") && asked[1] == link, "{asked:?}");
    assert_eq!(events(&room, &tenant).await.len(), 3);
}

pub async fn paypal_is_asked_about_each_request_of_a_source_that_chose_so(engine: Engine) {
    let said = |text: &str| Ok(Bytes::from(text.to_owned()));
    let verdict = |status: &str| said(&json!({ "verification_status": status }).to_string());
    let down = || Err(NoKey::Unavailable("down".to_owned()));
    let script = Script::of([
        said(r#"{"access_token":"A21AAF","expires_in":32400}"#),
        verdict("SUCCESS"),
        verdict("FAILURE"),
        down(),
        said("<html>"),
        Err(NoKey::Absent(400)),
        verdict("SUCCESS"),
    ]);
    let fetcher = script.clone();
    let room = Room::with(engine, |setup| setup.key_fetcher = fetcher).await;
    let tenant = room.tenant("Acme").await;
    let options = json!({
        "webhook_id": "4JH86294D6297924G", "verify_by": "postback", "client_id": "AQcN", "environment": "sandbox"
    });
    room.source(&tenant, json!({"provider": "paypal", "options": options, "secret": "of-the-app"})).await;
    let event = |number| {
        let Value::Object(options) = json!({ "webhook_id": "4JH86294D6297924G" }) else { unreachable!() };
        let payload = sample("paypal", None, number, room.now()).unwrap();
        let url = "https://hooks.example/in/acme/paypal";
        sign("paypal", &options, Some(&Secret::from(RSA_KEY)), &payload, url, room.now()).unwrap()
    };
    assert_eq!(call(&room, &event(1)).send().await.status, 200);
    assert_eq!(call(&room, &event(2)).send().await.verdict(), "401 signature_invalid");
    for _ in ["no answer", "no answer of PayPal"] {
        let answered = call(&room, &event(3)).send().await;
        assert_eq!(answered.verdict(), "503 source_unusable");
        assert!(answered.header("retry-after").is_some());
    }
    assert_eq!(call(&room, &event(3)).send().await.verdict(), "401 signature_invalid", "it is no question for PayPal");
    let not_asked = SignedRequest { body: b"{},\"webhook_id\":\"MINE\",\"webhook_event\":{}".into(), ..event(4) };
    assert_eq!(call(&room, &not_asked).send().await.verdict(), "401 signature_invalid");
    assert_eq!(call(&room, &event(3)).send().await.status, 200);
    let (token, question) = ("/v1/oauth2/token", "/v1/notifications/verify-webhook-signature");
    let asked: Vec<String> =
        script.asked().iter().map(|url| url.replace("https://api-m.sandbox.paypal.com", "")).collect();
    assert_eq!(asked, [token, question, question, question, question, question, question]);
    assert_eq!(events(&room, &tenant).await.len(), 2);
    let shown = room.get("/v1/sources").bearer(&tenant.key).send().await;
    assert!(!String::from_utf8_lossy(&shown.body).contains("of-the-app"));
}

pub async fn while_a_key_can_not_be_had_the_provider_is_told_to_come_again(engine: Engine) {
    let script = Script::of([Err(NoKey::Unavailable("down".to_owned())), Err(NoKey::Absent(404))]);
    let fetcher = script.clone();
    let room = Room::with(engine, |setup| setup.key_fetcher = fetcher).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "aws-sns"})).await;
    let event = signed("aws-sns", RSA_KEY, &sample("aws-sns", None, 1, room.now()).unwrap(), room.now());
    let down = call(&room, &event).send().await;
    assert_eq!((down.verdict().as_str(), down.header("retry-after").is_some()), ("503 source_unusable", true));
    room.forward(Duration::from_secs(6));
    assert_eq!(call(&room, &event).send().await.verdict(), "401 signature_invalid");
    assert_eq!(call(&room, &event).send().await.verdict(), "401 signature_invalid");
    assert_eq!(script.asked().len(), 2, "a key that is not there is not asked for again at once");
    assert!(events(&room, &tenant).await.is_empty());
    let evil = SignedRequest {
        body: String::from_utf8(event.body.clone())
            .unwrap()
            .replace("sns.us-east-1.amazonaws.com", "evil.example")
            .into(),
        ..event
    };
    assert_eq!(call(&room, &evil).send().await.verdict(), "401 signature_invalid");
    assert_eq!(script.asked().len(), 2, "nobody else is asked");
}
