//! Standard Webhooks and who uses it unchanged; schemes for senders that are not in the catalogue.

use super::{CONSOLE, Guide, NONE};

const STANDARD_RETRIES: &str = "2xx within 15 to 30 s; the specification's example tries about 10 times over 3 days, and an answer of 410 ends it.";
pub(super) const SVIX_RETRIES: &str = "2xx within 15 s. 7 more tries over some 28 hours (after 5 s, 5 and 30 minutes, 2, 5, 10 and 10 hours), each with the same svix-id; after 5 days of failures alone the endpoint is switched off.";

pub(super) const GUIDES: &[(&str, Guide)] = &[
    (
        "standard-webhooks",
        Guide {
            url: "Where the sender lets you add an endpoint.",
            secret: "The endpoint's signing secret: whsec_ and base64 of the key. Its text is decoded, not used as it is.",
            events: "As the sender offers them; the type here is the body's type.",
            delivery: STANDARD_RETRIES,
            notes: &["For a sender with a public key (whpk_...), use standard-webhooks-v1a."],
            ..NONE
        },
    ),
    (
        "standard-webhooks-v1a",
        Guide {
            url: "Where the sender lets you add an endpoint.",
            secret: "The sender's public key: whpk_ and base64 of 32 bytes. It is no secret; whoever has it can only verify.",
            events: "As the sender offers them; the type here is the body's type.",
            delivery: STANDARD_RETRIES,
            notes: &["Signatures of the shared-secret kind (v1) are not accepted beside it."],
            ..NONE
        },
    ),
    (
        "svix",
        Guide {
            url: "The sender's webhook portal, Endpoints, Add Endpoint.",
            secret: "The endpoint's Signing Secret in the portal, whsec_...; it is decoded as base64, unlike Stripe's of the \
                     same look.",
            events: "Choose the event types of the endpoint.",
            delivery: SVIX_RETRIES,
            notes: &["Both families of headers are taken: svix-* and webhook-*."],
            unverified: &[CONSOLE],
            references: &["https://docs.svix.com/retries"],
        },
    ),
    (
        "clerk",
        Guide {
            url: "Clerk Dashboard, Webhooks, Add Endpoint.",
            secret: "The endpoint's Signing Secret, whsec_..., shown when it is selected there. Development and production instances have their own.",
            events: "Choose them in the endpoint, such as user.created.",
            delivery: SVIX_RETRIES,
            references: &["https://clerk.com/docs/webhooks/overview", "https://docs.svix.com/retries"],
            ..NONE
        },
    ),
    (
        "openai",
        Guide {
            url: "platform.openai.com, Settings, the project, Webhooks: create a webhook.",
            secret: "The signing secret, whsec_..., shown once when the webhook is made. An API key (sk-...) is not it.",
            events: "Choose them in the webhook, such as response.completed.",
            delivery: "2xx within a few seconds. It tries again for up to 72 hours.",
            unverified: &[CONSOLE, "the times of retries"],
            ..NONE
        },
    ),
    (
        "hmac",
        Guide {
            url: "Where the sender lets you add a webhook.",
            secret: "The secret it shares with you. The option secret_encoding says whether its text is the key or is decoded.",
            events: "As the sender offers them; options say where an event's type and id stand.",
            delivery: "As the sender does it.",
            notes: &[
                "Sign a body that you know with `postroom sign` and the same options, and compare with what the sender \
                 sends: `postroom verify` says which part differs.",
            ],
            ..NONE
        },
    ),
    (
        "basic-auth",
        Guide {
            url: "Where the sender lets you add a webhook: with user and password in its own fields, or as \
                  https://user:password@host/...",
            secret: "user:password, as typed there.",
            events: "As the sender offers them; options say where an event's type and id stand.",
            delivery: "As the sender does it.",
            notes: &["The password proves the sender and not the body."],
            ..NONE
        },
    ),
    (
        "token",
        Guide {
            url: "Where the sender lets you add a webhook with a header of your own.",
            secret: "The whole value of that header, with Bearer in front if the sender puts it there.",
            events: "As the sender offers them; options say where an event's type and id stand.",
            delivery: "As the sender does it.",
            notes: &["The token proves the sender and not the body."],
            ..NONE
        },
    ),
    (
        "jwt",
        Guide {
            url: "Where the sender lets you add a webhook.",
            secret: "What the token is verified with: the shared secret, or the sender's public key.",
            events: "As the sender offers them; options say where an event's type and id stand.",
            delivery: "As the sender does it.",
            ..NONE
        },
    ),
    (
        "none",
        Guide {
            url: "Where the sender lets you add a webhook.",
            secret: "There is none: anybody who knows the URL can send events.",
            events: "As the sender offers them; options say where an event's type and id stand.",
            delivery: "As the sender does it.",
            notes: &[
                "For trials, and for senders that can prove nothing. Treat what arrives as a hint and ask the sender.",
            ],
            ..NONE
        },
    ),
];
