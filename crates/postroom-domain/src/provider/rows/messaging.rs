//! Chat, telephony, streams, support.

use super::super::scheme::{
    Algorithm, Batch, Code, Encoding, EventAnswer, Field, Handshake, Hmac, Reply, Scheme, SecretForm, SignatureFrom,
    SignedTime, TimeFrom, TokenFrom, Unit,
};
use super::super::{Provider, SecretSpec};
use super::{HMAC, ROW, SECRET, plain, seconds, text, untimed};

pub(super) const SLACK: Provider = Provider {
    name: "slack",
    title: "Slack",
    scheme: Scheme::Hmac(&[Hmac {
        message: "v0:{timestamp}:{body}",
        signature: plain("X-Slack-Signature", "v0="),
        time: seconds(TimeFrom::Header("X-Slack-Request-Timestamp"), 300, Some(300)),
        ..HMAC
    }]),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::Text,
        hint: "the app's Signing Secret (api.slack.com, Basic Information, App Credentials)",
        mistakes: &[
            ("xoxb-", "this is a bot token; use the app's Signing Secret"),
            ("xoxp-", "this is a user token; use the app's Signing Secret"),
            ("xapp-", "this is an app-level token; use the app's Signing Secret"),
        ],
    },
    event_type: &[
        &[Field::Json("event.type")],
        &[Field::Json("type")],
        &[Field::Form("payload", "type")],
        &[Field::FormMark("command", "slash_command")],
    ],
    event_id: &[&[Field::Json("event_id")]],
    handshakes: &[Handshake::Verified {
        when: Field::Json("type"),
        equals: "url_verification",
        reply: Reply::Text(Field::Json("challenge")),
    }],
    forwards: &["X-Slack-Retry-Num", "X-Slack-Retry-Reason"],
    ..ROW
};

pub(super) const INTERCOM: Provider = Provider {
    name: "intercom",
    title: "Intercom",
    scheme: Scheme::Hmac(&[Hmac { algorithm: Algorithm::Sha1, signature: plain("X-Hub-Signature", "sha1="), ..HMAC }]),
    secret: text("the app's Client secret (Developer Hub, Basic information)"),
    event_type: &[&[Field::Json("topic")]],
    event_id: &[&[Field::Json("id")]],
    handshakes: &[Handshake::Verified { when: Field::Json("topic"), equals: "ping", reply: Reply::Empty }],
    ..ROW
};

pub(super) const LINE: Provider = Provider {
    name: "line",
    title: "LINE",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Line-Signature", ""), encoding: Encoding::Base64, ..HMAC }]),
    secret: text("the Channel secret (LINE Developers Console, Basic settings)"),
    event_type: &[&[Field::Json("events.*.type")]],
    event_id: &[&[Field::Json("events.*.webhookEventId")]],
    batch: Some(Batch {
        form: None,
        items: "events",
        event_type: &[&[Field::Json("type")]],
        event_id: &[&[Field::Json("webhookEventId")]],
    }),
    handshakes: &[Handshake::Verified { when: Field::Json("events"), equals: "[]", reply: Reply::Empty }],
    ..ROW
};

pub(super) const META: Provider = Provider {
    name: "meta",
    title: "Meta (Facebook, Instagram, WhatsApp)",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Hub-Signature-256", "sha256="), ..HMAC }]),
    secret: text("the App secret (App Dashboard, App settings, Basic)"),
    event_type: &[&[Field::Json("object"), Field::Json("entry.*.changes.*.field")], &[Field::Json("object")]],
    handshakes: &[Handshake::HubChallenge],
    forwards: &["X-Hub-Signature"],
    ..ROW
};

pub(super) const ROBLOX: Provider = Provider {
    name: "roblox",
    title: "Roblox",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{timestamp}.{body}",
        signature: SignatureFrom::Pairs { header: "roblox-signature", separator: b',', label: "v1", trim: true },
        encoding: Encoding::Base64,
        time: seconds(TimeFrom::Pair("t"), 600, Some(600)),
        ..HMAC
    }]),
    secret: text("the secret of the webhook (Creator Dashboard, Webhooks)"),
    event_type: &[&[Field::Json("EventType")]],
    event_id: &[&[Field::Json("NotificationId")]],
    ..ROW
};

// The kind of an update is its one member besides update_id.
pub(super) const TELEGRAM: Provider = Provider {
    name: "telegram",
    title: "Telegram Bot API",
    scheme: Scheme::Token(TokenFrom::Header("X-Telegram-Bot-Api-Secret-Token")),
    secret: text("the secret_token given to setWebhook, not the bot token"),
    event_type: &[
        &[Field::JsonMark("message.message_id", "message")],
        &[Field::JsonMark("edited_message.message_id", "edited_message")],
        &[Field::JsonMark("channel_post.message_id", "channel_post")],
        &[Field::JsonMark("edited_channel_post.message_id", "edited_channel_post")],
        &[Field::JsonMark("callback_query.id", "callback_query")],
        &[Field::JsonMark("inline_query.id", "inline_query")],
        &[Field::JsonMark("chosen_inline_result.result_id", "chosen_inline_result")],
        &[Field::JsonMark("my_chat_member.date", "my_chat_member")],
        &[Field::JsonMark("chat_member.date", "chat_member")],
        &[Field::JsonMark("chat_join_request.date", "chat_join_request")],
        &[Field::JsonMark("pre_checkout_query.id", "pre_checkout_query")],
        &[Field::JsonMark("shipping_query.id", "shipping_query")],
        &[Field::JsonMark("poll.id", "poll")],
        &[Field::JsonMark("poll_answer.poll_id", "poll_answer")],
    ],
    event_id: &[&[Field::Json("update_id")]],
    ..ROW
};

pub(super) const TWITCH: Provider = Provider {
    name: "twitch",
    title: "Twitch EventSub",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{header:Twitch-Eventsub-Message-Id}{timestamp}{body}",
        signature: plain("Twitch-Eventsub-Message-Signature", "sha256="),
        time: Some(SignedTime {
            from: TimeFrom::Header("Twitch-Eventsub-Message-Timestamp"),
            unit: Unit::Rfc3339,
            past: Some(600),
            future: None,
        }),
        ..HMAC
    }]),
    secret: text("the secret given when the subscription was created"),
    event_type: &[&[Field::Header("Twitch-Eventsub-Subscription-Type")]],
    event_id: &[&[Field::Header("Twitch-Eventsub-Message-Id")]],
    handshakes: &[Handshake::Verified {
        when: Field::Header("Twitch-Eventsub-Message-Type"),
        equals: "webhook_callback_verification",
        reply: Reply::Text(Field::Json("challenge")),
    }],
    forwards: &[
        "Twitch-Eventsub-Message-Type",
        "Twitch-Eventsub-Message-Retry",
        "Twitch-Eventsub-Subscription-Version",
    ],
    ..ROW
};

// The time is signed, but no limit for its age is stated, and repetitions may be late.
pub(super) const ZENDESK: Provider = Provider {
    name: "zendesk",
    title: "Zendesk",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{timestamp}{body}",
        signature: plain("X-Zendesk-Webhook-Signature", ""),
        encoding: Encoding::Base64,
        time: Some(SignedTime {
            from: TimeFrom::Header("X-Zendesk-Webhook-Signature-Timestamp"),
            unit: Unit::Rfc3339,
            past: None,
            future: None,
        }),
        ..HMAC
    }]),
    secret: text("the webhook's signing secret (Admin Center, Apps and integrations, Webhooks)"),
    event_type: &[&[Field::Json("type")]],
    forwards: &["X-Zendesk-Webhook-Id", "X-Zendesk-Webhook-Invocation-Id", "X-Zendesk-Account-Id"],
    ..ROW
};

pub(super) const ZOOM: Provider = Provider {
    name: "zoom",
    title: "Zoom",
    scheme: Scheme::Hmac(&[Hmac {
        message: "v0:{timestamp}:{body}",
        signature: plain("x-zm-signature", "v0="),
        time: Some(SignedTime {
            from: TimeFrom::Header("x-zm-request-timestamp"),
            unit: Unit::Seconds,
            past: None,
            future: None,
        }),
        ..HMAC
    }]),
    secret: text("the app's Secret token (Marketplace, Feature, Event subscriptions)"),
    event_type: &[&[Field::Json("event")]],
    handshakes: &[Handshake::Verified {
        when: Field::Json("event"),
        equals: "endpoint.url_validation",
        reply: Reply::PlainAndEncryptedToken(Field::Json("payload.plainToken")),
    }],
    forwards: &["x-zm-trackingid"],
    ..ROW
};

// Interactions and webhook events share the scheme. Discord sends wrong signatures on purpose and wants 401.
pub(super) const DISCORD: Provider = Provider {
    name: "discord",
    title: "Discord",
    scheme: Scheme::Hmac(&[Hmac {
        algorithm: Algorithm::Ed25519,
        message: "{timestamp}{body}",
        signature: plain("X-Signature-Ed25519", ""),
        time: untimed("X-Signature-Timestamp"),
        ..HMAC
    }]),
    secret: SecretSpec {
        form: SecretForm::Ed25519Hex,
        hint: "the application's Public Key, 64 hexadecimal digits (Developer Portal, General Information)",
        ..SECRET
    },
    event_type: &[
        &[Field::Json("event.type")],
        &[Field::JsonMark("data.custom_id", "message_component")],
        &[Field::JsonMark("data.name", "application_command")],
    ],
    // A webhook event has no id; its body holds the time at which it happened.
    event_id: &[&[Field::Json("id")], &[Field::BodyDigest]],
    handshakes: &[
        Handshake::Verified { when: Field::Json("type"), equals: "0", reply: Reply::NoContent },
        Handshake::VerifiedUnless {
            when: Field::Json("type"),
            equals: "1",
            unless: Field::Json("event.type"),
            reply: Reply::Fixed(r#"{"type":1}"#),
        },
    ],
    answer: EventAnswer::NoContent,
    ..ROW
};

// The status of a call is no event of its own (it is told again with every answer of ours), so only numbered callbacks
// have an id. I-Twilio-Idempotency-Token is unverified, and only believed to be the same on a repetition.
pub(super) const TWILIO: Provider = Provider {
    name: "twilio",
    title: "Twilio",
    scheme: Scheme::Code(Code::Twilio),
    secret: SecretSpec {
        hint: "the account's Auth Token (Console, Account info), or the secret of a shared key",
        mistakes: &[
            ("AC", "this is the account's SID; use its Auth Token"),
            ("SK", "this is the SID of an API key; use the account's Auth Token"),
        ],
        ..SECRET
    },
    event_type: &[
        &[Field::FormMark("MessageSid", "message"), Field::Form("MessageStatus", "")],
        &[Field::FormMark("MessageSid", "message"), Field::Form("SmsStatus", "")],
        &[Field::FormMark("CallSid", "call"), Field::Form("CallStatus", "")],
        &[Field::Json("type")],
        &[Field::Json("*.type")],
    ],
    event_id: &[
        &[Field::Header("I-Twilio-Idempotency-Token")],
        &[Field::Form("MessageSid", ""), Field::Form("MessageStatus", "")],
        &[Field::Form("MessageSid", ""), Field::Form("SmsStatus", "")],
        &[Field::Form("CallSid", ""), Field::Form("CallStatus", ""), Field::Form("SequenceNumber", "")],
        &[Field::Json("*.id")],
    ],
    forwards: &["X-Twilio-Signature", "X-Twilio-Webhooks-Signature-Settings"],
    answer: EventAnswer::Empty,
    ..ROW
};
