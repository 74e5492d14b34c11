//! Source code, tickets, operations.

use super::super::scheme::{
    Algorithm, Batch, Code, Field, Handshake, Hmac, Pick, Reply, Scheme, SecretForm, SignatureFrom, SignedTime,
    TimeFrom, TokenFrom, Unit,
};
use super::super::{Provider, SecretSpec};
use super::{HMAC, ROW, SECRET, STANDARD, WHSEC, plain, text};

pub(super) const GITHUB: Provider = Provider {
    name: "github",
    title: "GitHub",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Hub-Signature-256", "sha256="), ..HMAC }]),
    secret: text("the Secret typed when the webhook was created (repository or organization settings, Webhooks)"),
    event_type: &[
        &[Field::Header("X-GitHub-Event"), Field::Json("action")],
        &[Field::Header("X-GitHub-Event"), Field::Form("payload", "action")],
        &[Field::Header("X-GitHub-Event")],
    ],
    event_id: &[&[Field::Header("X-GitHub-Delivery")]],
    handshakes: &[Handshake::Verified { when: Field::Header("X-GitHub-Event"), equals: "ping", reply: Reply::Empty }],
    forwards: &[
        "X-Hub-Signature",
        "X-GitHub-Hook-ID",
        "X-GitHub-Hook-Installation-Target-ID",
        "X-GitHub-Hook-Installation-Target-Type",
        "X-GitHub-Enterprise-Host",
        "X-GitHub-Enterprise-Version",
    ],
    ..ROW
};

// Bitbucket and Jira put SHA-256 into the header that is SHA-1 elsewhere: the row decides, never the prefix sent.
pub(super) const BITBUCKET: Provider = Provider {
    name: "bitbucket",
    title: "Bitbucket",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Hub-Signature", "sha256="), ..HMAC }]),
    secret: text("the Secret of the webhook (Repository settings, Webhooks)"),
    event_type: &[&[Field::Header("X-Event-Key")]],
    event_id: &[&[Field::Header("X-Request-UUID")], &[Field::Header("X-Request-Id")]],
    forwards: &["X-Hook-UUID", "X-Attempt-Number"],
    ..ROW
};

// Webhooks made by an administrator, with a secret; those of Connect and OAuth apps are signed otherwise.
pub(super) const JIRA: Provider = Provider {
    name: "jira",
    title: "Jira Cloud",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Hub-Signature", "sha256="), ..HMAC }]),
    secret: text("the Secret of the webhook (System, WebHooks)"),
    event_type: &[&[Field::Json("webhookEvent")]],
    event_id: &[&[Field::Header("X-Atlassian-Webhook-Identifier")]],
    forwards: &["X-Atlassian-Webhook-Retry", "X-Atlassian-Webhook-Flow"],
    ..ROW
};

const GITLAB_TYPE: Pick<'static> =
    &[&[Field::Json("object_kind")], &[Field::Json("event_name")], &[Field::Header("X-Gitlab-Event")]];
const GITLAB_HEADERS: &[&str] =
    &["X-Gitlab-Event", "X-Gitlab-Event-UUID", "X-Gitlab-Webhook-UUID", "X-Gitlab-Instance", "Idempotency-Key"];

pub(super) const GITLAB_SIGNING: Provider = Provider {
    name: "gitlab-signing",
    title: "GitLab (signing token)",
    scheme: Scheme::Hmac(&[STANDARD]),
    secret: WHSEC,
    event_type: GITLAB_TYPE,
    event_id: &[&[Field::Header("webhook-id")]],
    forwards: GITLAB_HEADERS,
    ..ROW
};

pub(super) const GITLAB_TOKEN: Provider = Provider {
    name: "gitlab-token",
    title: "GitLab (secret token)",
    scheme: Scheme::Token(TokenFrom::Header("X-Gitlab-Token")),
    secret: text("the Secret token of the webhook (Settings, Webhooks)"),
    event_type: GITLAB_TYPE,
    event_id: &[&[Field::Header("Idempotency-Key")], &[Field::Header("X-Gitlab-Event-UUID")]],
    forwards: GITLAB_HEADERS,
    ..ROW
};

pub(super) const LINEAR: Provider = Provider {
    name: "linear",
    title: "Linear",
    scheme: Scheme::Hmac(&[Hmac {
        signature: plain("Linear-Signature", ""),
        // Only the time inside the signed body counts; the header Linear-Timestamp is not signed.
        time: Some(SignedTime {
            from: TimeFrom::Json("webhookTimestamp"),
            unit: Unit::Milliseconds,
            past: Some(60),
            future: Some(60),
        }),
        ..HMAC
    }]),
    secret: text("the webhook's Signing secret (Settings, API, Webhooks)"),
    event_type: &[&[Field::Json("type"), Field::Json("action")], &[Field::Json("type")]],
    event_id: &[&[Field::Header("Linear-Delivery")]],
    forwards: &["Linear-Event", "Linear-Timestamp"],
    ..ROW
};

pub(super) const PAGERDUTY: Provider = Provider {
    name: "pagerduty",
    title: "PagerDuty",
    scheme: Scheme::Hmac(&[Hmac {
        signature: SignatureFrom::List { header: "X-PagerDuty-Signature", separator: b',', label: "v1=" },
        ..HMAC
    }]),
    secret: text("the secret shown once when the webhook subscription (v3) was made"),
    event_type: &[&[Field::Json("event.event_type")]],
    event_id: &[&[Field::Json("event.id")]],
    forwards: &["X-Webhook-Id"],
    ..ROW
};

pub(super) const SENTRY: Provider = Provider {
    name: "sentry",
    title: "Sentry",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("Sentry-Hook-Signature", ""), ..HMAC }]),
    secret: text("the integration's Client Secret (Settings, Developer Settings)"),
    event_type: &[
        &[Field::Header("Sentry-Hook-Resource"), Field::Json("action")],
        &[Field::Header("Sentry-Hook-Resource")],
    ],
    event_id: &[&[Field::Header("Request-ID")]],
    forwards: &["Sentry-Hook-Timestamp"],
    ..ROW
};

pub(super) const VERCEL: Provider = Provider {
    name: "vercel",
    title: "Vercel",
    scheme: Scheme::Hmac(&[Hmac { algorithm: Algorithm::Sha1, signature: plain("X-Vercel-Signature", ""), ..HMAC }]),
    secret: text("the webhook's secret, shown when it was made; for integrations the client secret"),
    event_type: &[&[Field::Json("type")]],
    event_id: &[&[Field::Json("id")]],
    ..ROW
};

// The official validators of AWS for PHP and Node. Raw message delivery is not signed.
pub(super) const AWS_SNS: Provider = Provider {
    name: "aws-sns",
    title: "Amazon SNS",
    scheme: Scheme::Code(Code::AwsSns),
    secret: SecretSpec { form: SecretForm::None, hint: "there is none; set the option topic_arn", ..SECRET },
    event_type: &[&[Field::Json("Type")]],
    event_id: &[&[Field::Json("MessageId")]],
    handshakes: &[Handshake::VisitSns {
        when: Field::Json("Type"),
        equals: "SubscriptionConfirmation",
        url: Field::Json("SubscribeURL"),
    }],
    forwards: &["x-amz-sns-message-type", "x-amz-sns-message-id", "x-amz-sns-topic-arn"],
    ..ROW
};

// Nothing is signed: a secret in the query of the URL, or in a header that the subscription sets. Microsoft Entra
// tokens are the provider `jwt` with the option jwk.
pub(super) const AZURE_EVENT_GRID: Provider = Provider {
    name: "azure-event-grid",
    title: "Azure Event Grid",
    scheme: Scheme::Token(TokenFrom::HeaderOrQuery("code")),
    secret: text("a secret of your own: put ?code=<secret> at the end of the subscription's URL, or into a header"),
    event_type: &[&[Field::Json("*.eventType")], &[Field::Json("*.type")], &[Field::Json("type")]],
    event_id: &[&[Field::Json("*.id")], &[Field::Json("id")]],
    batch: Some(Batch {
        form: None,
        items: "",
        event_type: &[&[Field::Json("eventType")], &[Field::Json("type")]],
        event_id: &[&[Field::Json("id")]],
    }),
    handshakes: &[
        Handshake::Verified {
            when: Field::Header("aeg-event-type"),
            equals: "SubscriptionValidation",
            reply: Reply::Json("validationResponse", Field::Json("0.data.validationCode")),
        },
        Handshake::CloudEvents,
    ],
    forwards: &["aeg-subscription-name", "aeg-delivery-count", "aeg-event-type"],
    ..ROW
};
