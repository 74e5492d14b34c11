//! Mail.

use super::{CONSOLE, Guide, NONE};

pub(super) const GUIDES: &[(&str, Guide)] = &[
    (
        "mandrill",
        Guide {
            url: "Settings, Webhooks, Add a webhook: Post to URL. Mandrill signs this URL as it is typed there, so it must be \
                  the very one that Postroom knows: POSTROOM_PUBLIC_URL, or the option public_url.",
            secret: "The webhook's Key, shown in the list once the webhook exists. Make the source first, then the webhook, \
                     then give the source its key.",
            events: "Tick the triggers, such as message opened; a request carries up to 1000 events.",
            delivery: "200. It tries the whole batch again by itself.",
            notes: &[
                "On saving it probes the URL with HEAD, and then with a request signed with a key that everybody knows. \
                 Both are answered and nothing is recorded.",
                "Its events have no id: a repetition is recognised by its content.",
            ],
            unverified: &["how often and how long it tries again"],
            ..NONE
        },
    ),
    (
        "mailgun",
        Guide {
            url: "Send, Sending, Webhooks: add one for each kind of event, for a domain or the account.",
            secret: "The HTTP webhook signing key of the account, on the same page. An API key is not it.",
            events: "One webhook for each: delivered, opened, permanent failure and so on.",
            delivery: "200. Otherwise it tries again for 8 hours (after 5, 10 and 15 minutes, 1, 2 and 4 hours), but not for \
                       delivered; 406 would end it.",
            notes: &[
                "Time and token are signed, the body itself is not. A token is good once: its repetition is a duplicate.",
                "Events of a subaccount are signed with the subaccount's key.",
            ],
            unverified: &[CONSOLE],
            references: &[
                "https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries",
                "https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhooks",
            ],
        },
    ),
    (
        "postmark-basic-auth",
        Guide {
            url: "The server, a message stream, Webhooks, Add webhook: the URL, with Basic auth credentials in their own \
                  fields or as https://user:password@host/...",
            secret: "user:password, as typed there: make them up.",
            events: "Tick the events; the type here is RecordType, such as Bounce.",
            delivery: "200. 403 ends the tries.",
            notes: &["The password proves the sender and not the body.", "It sends no id of an event."],
            unverified: &[CONSOLE, "the meaning of 403"],
            ..NONE
        },
    ),
    (
        "resend",
        Guide {
            url: "resend.com, Webhooks, Add Webhook.",
            secret: "The webhook's signing secret, whsec_..., on its page.",
            events: "Choose them in the webhook, such as email.delivered.",
            delivery: super::general::SVIX_RETRIES,
            unverified: &[CONSOLE, "that Svix's 15 s and its switching off hold here"],
            references: &["https://resend.com/docs/webhooks/retries-and-replays", "https://docs.svix.com/retries"],
            ..NONE
        },
    ),
    (
        "sendgrid",
        Guide {
            url: "Settings, Mail Settings, Event Webhooks: create one with the source's URL.",
            secret: "Switch Signature Verification on: the Verification Key shown then, base64 without header and footer. It \
                     is a public key, so nobody can sign with it.",
            events: "Tick the events; a request carries many of them, each of which becomes one here.",
            delivery: "2xx. It tries again for 24 hours.",
            notes: &[
                "The body often ends in a line end that is signed too: it has to arrive byte for byte.",
                "The signed time is not limited in age unless the source says so.",
            ],
            unverified: &[CONSOLE, "the 24 hours"],
            ..NONE
        },
    ),
];
