//! Sample webhooks of each provider, written by us after the providers' documentation, for `sign`, `demo`, `bench` and
//! tests. Names and amounts in them are invented.

use crate::Timestamp;

/// What a provider would send, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The event's type, for providers that name it in a header (`X-GitHub-Event`).
    pub event_type: Option<String>,
    /// The event's id, for providers that name it in a header (`webhook-id`); [`crate::verify::sign`] makes one up if
    /// it is needed and not given.
    pub external_id: Option<String>,
    /// The media type of the body.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Payload {
    /// A body of one's own.
    #[must_use]
    pub fn of_body(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let json = crate::verify::looks_like_json(&body);
        let content_type = if json { "application/json" } else { "application/x-www-form-urlencoded" };
        Self { event_type: None, external_id: None, content_type: content_type.to_owned(), body }
    }
}

/// One sample: its provider and event type, and the body with `<marks>` to fill in.
struct Sample {
    provider: &'static str,
    kind: &'static str,
    body: &'static str,
}

macro_rules! samples {
    ($($provider:literal: $($kind:literal = $file:literal),+;)+) => {
        &[$($(Sample { provider: $provider, kind: $kind, body: include_str!(concat!("samples/", $file)) }),+),+]
    };
}

static SAMPLES: &[Sample] = samples! {
    "adyen": "AUTHORISATION" = "adyen.json";
    "adyen-platform": "balancePlatform.transfer.updated" = "adyen_platform.json";
    "asana": "task.changed" = "asana.json";
    "aws-sns": "Notification" = "aws_sns.json";
    "azure-event-grid": "Microsoft.Storage.BlobCreated" = "azure_event_grid.json";
    "bitbucket": "repo:push" = "bitbucket.json";
    "calendly": "invitee.created" = "calendly.json";
    "clerk": "user.created" = "clerk.json";
    "coinbase-commerce": "charge:confirmed" = "coinbase_commerce.json";
    "discord": "ENTITLEMENT_CREATE" = "discord.json";
    "docusign": "envelope-completed" = "docusign.json";
    "dropbox": "list_folder" = "dropbox.json";
    "github":
        "push" = "github_push.json",
        "pull_request.opened" = "github_pull_request.json",
        "issues.opened" = "github_issues.json",
        "ping" = "github_ping.json";
    "gitlab-signing": "push" = "gitlab_push.json";
    "gitlab-token": "push" = "gitlab_push.json";
    "hubspot": "contact.propertyChange" = "hubspot.json";
    "intercom": "conversation.user.created" = "intercom.json";
    "jira": "jira:issue_created" = "jira.json";
    "line": "message" = "line.json";
    "linear": "Issue.create" = "linear.json";
    "mailgun": "delivered" = "mailgun.json";
    "mandrill":
        "open" = "mandrill_open.json",
        "hard_bounce" = "mandrill_hard_bounce.json";
    "meta": "whatsapp_business_account.messages" = "meta.json";
    "monday": "create_pulse" = "monday.json";
    "okta": "user.lifecycle.create" = "okta.json";
    "openai": "response.completed" = "openai.json";
    "paddle": "transaction.completed" = "paddle.json";
    "pagerduty": "incident.triggered" = "pagerduty.json";
    "paypal": "PAYMENT.CAPTURE.COMPLETED" = "paypal.json";
    "plaid": "TRANSACTIONS.SYNC_UPDATES_AVAILABLE" = "plaid.json";
    "postmark-basic-auth": "Bounce" = "postmark.json";
    "razorpay": "payment.captured" = "razorpay.json";
    "resend": "email.delivered" = "resend.json";
    "roblox": "RightToErasureRequest" = "roblox.json";
    "sendgrid": "delivered" = "sendgrid.json";
    "sentry": "issue.created" = "sentry.json";
    "shopify":
        "orders/create" = "shopify_orders_create.json",
        "products/update" = "shopify_products_update.json";
    "slack":
        "app_mention" = "slack_app_mention.json",
        "message" = "slack_message.json",
        "url_verification" = "slack_url_verification.json";
    "square": "payment.updated" = "square.json";
    "stripe":
        "payment_intent.succeeded" = "stripe_payment_intent.json",
        "invoice.paid" = "stripe_invoice.json",
        "customer.created" = "stripe_customer.json";
    "svix": "invoice.paid" = "standard_invoice.json";
    "telegram": "message" = "telegram.json";
    "trello": "updateCard" = "trello.json";
    "twilio":
        "message.delivered" = "twilio_message.form",
        "call.completed" = "twilio_call.form";
    "twitch": "channel.follow" = "twitch.json";
    "typeform": "form_response" = "typeform.json";
    "vercel": "deployment.succeeded" = "vercel.json";
    "workos":
        "dsync.user.created" = "workos_dsync_user.json",
        "connection.activated" = "workos_connection.json";
    "xero": "INVOICE.UPDATE" = "xero.json";
    "zendesk": "zen:event-type:ticket.created" = "zendesk.json";
    "zoom":
        "meeting.started" = "zoom.json",
        "endpoint.url_validation" = "zoom_validation.json";
    "standard-webhooks":
        "invoice.paid" = "standard_invoice.json",
        "user.created" = "standard_user.json";
    "standard-webhooks-v1a":
        "invoice.paid" = "standard_invoice.json",
        "user.created" = "standard_user.json";
    "hmac": "order.paid" = "general_order.json";
    "basic-auth": "order.paid" = "general_order.json";
    "jwt": "order.paid" = "general_order.json";
    "token": "order.paid" = "general_order.json";
    "none": "order.paid" = "general_order.json";
};

/// The types of the samples of a provider.
pub fn sample_kinds(provider: &str) -> impl Iterator<Item = &'static str> + use<'_> {
    SAMPLES.iter().filter(move |sample| sample.provider == provider).map(|sample| sample.kind)
}

/// The `n`-th sample of a provider: of the asked type, or of its first one. Two numbers give two different events.
///
/// `None` if there is no such provider or it has no sample of that type.
#[must_use]
pub fn sample(provider: &str, kind: Option<&str>, n: u64, now: Timestamp) -> Option<Payload> {
    let mut of_provider = SAMPLES.iter().filter(|sample| sample.provider == provider);
    let sample = of_provider.find(|sample| kind.is_none_or(|kind| kind == sample.kind))?;
    // A number in 24 hexadecimal digits, of the kind that ids are made of: spread over the digits, and still unique.
    let id = format!("{:08x}{n:016x}", n.wrapping_mul(0x9e37_79b9).wrapping_add(0x5bd1_e995) & 0xffff_ffff);
    let iso = now.to_string();
    let filled = sample
        .body
        .trim_end()
        .replace("<id>", &id)
        .replace("<n>", &n.to_string())
        .replace("<seconds>", &now.as_seconds().to_string())
        .replace("<millis>", &now.as_millis().to_string())
        .replace("<iso>", &iso);
    // Stripe sends its JSON on many lines; the others send it without white space.
    let body = if provider == "stripe" { filled.into_bytes() } else { crate::verify::compacted(filled.as_bytes()) };
    Some(Payload { event_type: Some(sample.kind.to_owned()), external_id: Some(id), ..Payload::of_body(body) })
}
