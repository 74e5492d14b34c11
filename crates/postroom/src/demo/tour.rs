//! The steps of the tour.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use postroom_domain::verify::SignedRequest;
use postroom_domain::{Clock, Secret};
use serde_json::{Map, Value, json};

use super::receiver::{Arrival, Receiver};
use super::tell;
use crate::cli::client::Client;
use crate::{process, samples};

/// How long anything may take before the tour gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The path that fails until it is mended, and the type it wants.
const BROKEN: &str = "/broken";
const BROKEN_TYPE: &str = "invoice.overdue";
const HOOKS: &str = "/hooks";

/// What was accepted and where it has to arrive.
#[derive(Default)]
pub struct Ledger {
    /// Event ids, each with the paths it has not arrived at.
    missing: HashMap<String, HashSet<&'static str>>,
    /// Deliveries that needed more than one attempt.
    pub retried: u64,
    /// Repeated webhooks that were recognised.
    pub duplicates: u64,
    /// Wrongly signed webhooks that were refused.
    pub rejected: u64,
    /// Handshakes that were answered.
    pub handshakes: u64,
    /// Deliveries that became dead letters on the way.
    pub dead_letters: u64,
    /// Of these, sent again by a person.
    pub requeued: u64,
}

impl Ledger {
    /// Events answered with 2xx as new.
    pub fn accepted(&self) -> usize {
        self.missing.len()
    }

    /// Of these, arrived everywhere they should.
    pub fn delivered(&self) -> usize {
        self.missing.values().filter(|paths| paths.is_empty()).count()
    }

    /// Of these, not.
    pub fn lost(&self) -> usize {
        self.accepted() - self.delivered()
    }

    fn accept(&mut self, id: &str, paths: &[&'static str]) {
        self.missing.insert(id.to_owned(), paths.iter().copied().collect());
    }

    fn note(&mut self, arrival: &Arrival) {
        self.retried += u64::from(arrival.attempt == 2);
        if arrival.status.is_success()
            && let Some(paths) = self.missing.get_mut(&arrival.webhook_id)
        {
            paths.remove(arrival.path.as_str());
        }
    }

    /// Whether nothing is missing but at `except`.
    fn is_complete(&self, except: Option<&str>) -> bool {
        self.missing.values().flatten().all(|path| Some(*path) == except)
    }
}

/// A tour under way.
pub struct Tour {
    /// What was accepted and what arrived.
    pub ledger: Ledger,
    url: String,
    admin: Client,
    client: Client,
    stranger: Client,
    api_key: String,
    sources: Vec<(&'static str, Secret)>,
    receiver: Receiver,
    clock: Clock,
}

impl Tour {
    /// Starts the receiver; nothing is made yet.
    pub async fn begin(url: &str, admin_token: &str) -> anyhow::Result<Self> {
        let clock = process::clock();
        let admin = Client::new(url, &Secret::from(admin_token), None)?;
        Ok(Self {
            ledger: Ledger::default(),
            url: url.to_owned(),
            client: admin.clone(),
            admin,
            stranger: Client::anonymous(url)?,
            api_key: String::new(),
            sources: Vec::new(),
            receiver: Receiver::start(clock.clone()).await?,
            clock,
        })
    }

    /// The organization's API key.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The signing secret of a source.
    pub fn source_secret(&self, name: &str) -> &str {
        let source = self.sources.iter().find(|(provider, _)| *provider == name);
        source.and_then(|(_, secret)| secret.expose_str()).unwrap_or_default()
    }

    /// All steps.
    pub async fn walk(&mut self) -> anyhow::Result<()> {
        self.organization().await?;
        self.make_sources().await?;
        self.webhooks().await?;
        self.repeated_and_handshake().await?;
        self.forged().await?;
        self.own_events().await?;
        self.dead_letter().await
    }

    /// Shows what else arrives, for as long as anybody plays.
    pub async fn keep_receiving(&mut self) -> anyhow::Result<()> {
        while let Some(arrival) = self.receiver.arrivals.recv().await {
            tell::arrived(&arrival)?;
        }
        Ok(())
    }

    async fn organization(&mut self) -> anyhow::Result<()> {
        tell::step(1, "An organization, with an API key and an endpoint, in one call")?;
        let target = format!("http://{}{HOOKS}", self.receiver.address);
        let body = json!({ "name": "Acme Corp", "slug": "acme-corp", "plan": "premium", "target_url": target });
        tell::command(&format!(
            "curl {}/v1/tenants -H \"Authorization: Bearer $POSTROOM_ADMIN_TOKEN\" \\\n     -H 'Content-Type: application/json' -d '{body}'",
            self.url
        ))?;
        let made = self.admin.post("/v1/tenants", Some(&body)).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a secret that is shown once");
        self.api_key = text(&made["api_key"]["secret"])?;
        self.client = Client::new(&self.url, &Secret::from(self.api_key.as_str()), None)?;
        self.receiver.knows(HOOKS, &text(&made["endpoint"]["secret"])?)?;
        tell::said(&format!("acme-corp sends everything to {target}: a receiver on this machine that is flaky"))?;
        Ok(())
    }

    async fn make_sources(&mut self) -> anyhow::Result<()> {
        tell::step(2, "Sources: addresses for third parties, each with its provider's signing secret")?;
        tell::command(&format!(
            "curl {}/v1/sources -H \"Authorization: Bearer $POSTROOM_API_KEY\" \\\n     -H 'Content-Type: application/json' -d '{{\"provider\": \"stripe\", \"secret\": \"whsec_...\"}}'",
            self.url
        ))?;
        for provider in samples::PROVIDERS {
            let secret = samples::secret(provider);
            let body = json!({ "provider": provider, "secret": secret.expose_str().unwrap_or_default() });
            let made = self.client.post("/v1/sources", Some(&body)).await?;
            tell::said(&format!("{provider:<18} {}", made["url"].as_str().unwrap_or_default()))?;
            self.sources.push((provider, secret));
        }
        Ok(())
    }

    async fn webhooks(&mut self) -> anyhow::Result<()> {
        tell::step(3, "Webhooks, signed exactly as each provider signs them: verified, recorded, answered, delivered")?;
        tell::command(&format!(
            "postroom sign --provider stripe --secret whsec_... --url {}/in/acme-corp/stripe --curl | sh",
            self.url
        ))?;
        for number in 0..2 {
            for (provider, secret) in self.sources.clone() {
                let kinds: Vec<&str> = postroom_domain::provider::sample_kinds(provider).collect();
                let kind = kinds.get(number).or(kinds.first()).copied().unwrap_or_default();
                let signed = self.signed(provider, kind, number as u64 + 1, &secret)?;
                self.deliver_webhook(provider, kind, signed).await?;
            }
        }
        self.watch(None).await
    }

    fn signed(&self, provider: &str, kind: &str, number: u64, secret: &Secret) -> anyhow::Result<SignedRequest> {
        let url = format!("{}/in/acme-corp/{provider}", self.url);
        samples::webhook(provider, Some(kind), number, &url, &Map::new(), Some(secret), self.clock.now())
    }

    async fn send(&self, provider: &str, signed: SignedRequest) -> anyhow::Result<(StatusCode, Bytes)> {
        let path = format!("/in/acme-corp/{provider}");
        self.stranger.exchange(Method::POST, &path, signed.headers, Some(signed.body.into())).await
    }

    async fn deliver_webhook(&mut self, provider: &str, kind: &str, signed: SignedRequest) -> anyhow::Result<()> {
        let (status, body) = self.send(provider, signed).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = answer["id"].as_str();
        tell::answered(&format!("{provider} {kind}"), status, id.unwrap_or("(the answer that this provider expects)"))?;
        ensure!(status.is_success(), "a rightly signed webhook of {provider} was refused with {status}");
        // A provider may want an empty answer: then the newest event of this type is the one.
        let id = match id {
            Some(id) => id.to_owned(),
            None => self.newest_event().await?,
        };
        self.ledger.accept(&id, &[HOOKS]);
        Ok(())
    }

    async fn newest_event(&self) -> anyhow::Result<String> {
        let page = self.client.get("/v1/events?limit=1").await?;
        Ok(page["data"][0]["id"].as_str().context("the event that was just accepted")?.to_owned())
    }

    async fn repeated_and_handshake(&mut self) -> anyhow::Result<()> {
        tell::step(4, "The same webhook again is recognised; a handshake is answered and recorded nowhere")?;
        let secret = Secret::from(self.source_secret("stripe"));
        let (status, body) =
            self.send("stripe", self.signed("stripe", "payment_intent.succeeded", 1, &secret)?).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        tell::answered("stripe payment_intent.succeeded, repeated", status, &answer.to_string())?;
        ensure!(answer["duplicate"] == true, "a repeated webhook was not recognised");
        self.ledger.duplicates += 1;

        let secret = Secret::from(self.source_secret("slack"));
        let (status, body) = self.send("slack", self.signed("slack", "url_verification", 1, &secret)?).await?;
        tell::answered("slack url_verification", status, &String::from_utf8_lossy(&body))?;
        ensure!(status.is_success(), "the handshake was refused with {status}");
        self.ledger.handshakes += 1;
        Ok(())
    }

    async fn forged(&mut self) -> anyhow::Result<()> {
        tell::step(5, "A webhook signed with the wrong secret is refused, and kept for its owner to see why")?;
        let signed = self.signed("github", "push", 99, &Secret::from("a wrong guess"))?;
        let (status, body) = self.send("github", signed).await?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        tell::answered("github push, wrong secret", status, answer["code"].as_str().unwrap_or_default())?;
        ensure!(status == StatusCode::UNAUTHORIZED, "a forged webhook was answered with {status}");
        self.ledger.rejected += 1;
        let kept = self.client.get("/v1/rejections?limit=1").await?;
        let id = kept["data"][0]["id"].as_str().context("the rejection that was just kept")?;
        let kept = self.client.get(&format!("/v1/rejections/{id}")).await?;
        let part = |key: &str| kept[key].as_str().unwrap_or_default();
        tell::said(&format!("kept as {id}: {}, failed check {}", part("code"), part("failed_check")))?;
        let cause = kept["explanation"]["likely_causes"][0].as_str().unwrap_or_default();
        tell::said(&format!("likely cause: {cause}"))?;
        tell::command(&format!("postroom rejections show {id}"))?;
        Ok(())
    }

    async fn own_events(&mut self) -> anyhow::Result<()> {
        tell::step(6, "The organization's own events go the same way")?;
        tell::command(&format!(
            "curl {}/v1/events -H \"Authorization: Bearer $POSTROOM_API_KEY\" \\\n     -H 'Content-Type: application/json' -d '{{\"type\": \"order.paid\", \"data\": {{\"order\": 1}}}}'",
            self.url
        ))?;
        for (number, event_type) in ["order.paid", "order.shipped", "customer.created", "order.paid"].iter().enumerate()
        {
            self.own_event(event_type, json!({ "order": number + 1 }), &[HOOKS]).await?;
        }
        self.watch(None).await
    }

    async fn own_event(&mut self, event_type: &str, data: Value, paths: &[&'static str]) -> anyhow::Result<String> {
        let answer = self.client.post("/v1/events", Some(&json!({ "type": event_type, "data": data }))).await?;
        let id = answer["id"].as_str().context("an accepted event has an id")?.to_owned();
        tell::answered(event_type, StatusCode::ACCEPTED, &answer.to_string())?;
        self.ledger.accept(&id, paths);
        Ok(id)
    }

    async fn dead_letter(&mut self) -> anyhow::Result<()> {
        tell::step(7, "An endpoint that always fails: retries, dead letter, mended, requeued, delivered")?;
        let body = json!({
            "url": format!("http://{}{BROKEN}", self.receiver.address), "event_types": [BROKEN_TYPE], "retry_schedule": [1]
        });
        let endpoint = self.client.post("/v1/endpoints", Some(&body)).await?;
        self.receiver.knows(BROKEN, endpoint["secret"].as_str().context("a new endpoint shows its secret")?)?;
        let event = self.own_event(BROKEN_TYPE, json!({ "invoice": 7 }), &[HOOKS, BROKEN]).await?;
        self.watch(Some(BROKEN)).await?;
        let dead = self.wait_for_dead_letter(&event).await?;
        self.ledger.dead_letters += 1;
        let part = |key: &str| dead[key].as_str().unwrap_or_default().to_owned();
        tell::said(&format!("dead letter {}: {}", part("id"), part("dead_letter_reason")))?;
        self.receiver.mend();
        tell::said("the endpoint is mended")?;
        tell::command(&format!("postroom dead-letters requeue {}", part("id")))?;
        self.client.post(&format!("/v1/dead-letters/{}/requeue", part("id")), Some(&json!({}))).await?;
        self.ledger.requeued += 1;
        self.watch(None).await
    }

    /// Tells what arrives until nothing is missing any more, but at `except`.
    async fn watch(&mut self, except: Option<&str>) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.ledger.is_complete(except) {
            match tokio::time::timeout_at(deadline, self.receiver.arrivals.recv()).await {
                Ok(Some(arrival)) => self.arrived(&arrival)?,
                // What is missing now counts as lost at the end.
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn arrived(&mut self, arrival: &Arrival) -> anyhow::Result<()> {
        tell::arrived(arrival)?;
        ensure!(arrival.signature_good, "a delivery arrived with a bad signature");
        self.ledger.note(arrival);
        Ok(())
    }

    /// Tells the attempts at the broken endpoint until its delivery is a dead letter.
    async fn wait_for_dead_letter(&mut self, event: &str) -> anyhow::Result<Value> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            // An attempt is told as it arrives; its outcome is recorded a moment later, so look again in any case.
            if let Ok(Some(arrival)) =
                tokio::time::timeout(Duration::from_millis(100), self.receiver.arrivals.recv()).await
            {
                self.arrived(&arrival)?;
            }
            let page = self.client.get(&format!("/v1/dead-letters?event_id={event}")).await?;
            if let Some(dead) = page["data"].get(0) {
                return Ok(dead.clone());
            }
        }
        anyhow::bail!("the delivery to the broken endpoint did not become a dead letter within 30 seconds")
    }
}
