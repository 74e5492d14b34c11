//! Documents, forms, calendars, people.

use super::{CONSOLE, Guide, NONE};

pub(super) const GUIDES: &[(&str, Guide)] = &[
    (
        "workos",
        Guide {
            url: "WorkOS Dashboard, Webhooks, Create Webhook.",
            secret: "The endpoint's signing secret, on its page. An API key (sk_...) is not it. Staging and production have \
                     their own.",
            events: "Choose them in the endpoint, such as dsync.user.created.",
            delivery: "2xx at once. More tries over 3 days in production, with growing pauses.",
            notes: &["Its signed time is in milliseconds and may be 180 s away, as in its Python library."],
            unverified: &[CONSOLE, "how many tries: its own texts say 6, others 12"],
            references: &["https://workos.com/docs/events/data-syncing/webhooks", "https://github.com/workos/skills"],
        },
    ),
    (
        "asana",
        Guide {
            url: "The API's POST /webhooks with resource and target. Asana then sends a handshake to the URL, which Postroom \
                  answers while one is awaited.",
            secret: "It arrives in that handshake (X-Hook-Secret): make the source without one, and it learns it.",
            events: "filters of the same call: resource type and action.",
            delivery: "2xx within 10 s. It tries for 24 hours, then deletes the webhook; an event may also be lost there.",
            notes: &["A request carries several events, or none: an empty one is a heartbeat."],
            unverified: &["the scheme: several third parties agree"],
            ..NONE
        },
    ),
    (
        "calendly",
        Guide {
            url: "The API's POST /webhook_subscriptions: url. There is no page for it; it needs a paid plan.",
            secret: "signing_key of the same call: make one up. Of an OAuth app it is the app's webhook signing key.",
            events: "events of the same call, such as invitee.created.",
            delivery: "Connected within 10 s, answered within 15 s. It tries again for 24 hours, with growing pauses; then \
                       the webhook is disabled and has to be made again.",
            notes: &["It sends no id of an event."],
            unverified: &["the scheme: several third parties agree"],
            references: &[
                "https://developer.calendly.com/api-docs/overview/webhooks/webhook-timeouts",
                "https://developer.calendly.com/api-docs/overview/webhooks/webhook-errors",
            ],
        },
    ),
    (
        "docusign",
        Guide {
            url: "Admin, Integrations, Connect: add a custom configuration: URL to publish, data format JSON, Include HMAC signature.",
            secret: "Connect, Connect Keys: add a secret key; shown once. It looks like base64 and is used as the text it is.",
            events: "Tick the envelope and recipient events, such as envelope-completed.",
            delivery: "200 within 100 s.",
            notes: &["Several keys sign side by side, one header each: any of them will do."],
            unverified: &["the 100 s", "the way to a custom configuration: menus move"],
            references: &["https://developers.docusign.com/platform/webhooks/connect/setting-up-hmac"],
        },
    ),
    (
        "dropbox",
        Guide {
            url: "App Console, the app, Settings, Webhooks: Webhook URIs. Dropbox asks it at once with a challenge, which \
                  Postroom gives back.",
            secret: "The App secret, on the same page.",
            events: "There is one kind: something changed for these accounts. Ask the API what.",
            delivery: "200 within 10 s.",
            notes: &["It carries no id and no content: repetitions do no harm."],
            unverified: &[CONSOLE, "the 10 s"],
            ..NONE
        },
    ),
    (
        "hubspot",
        Guide {
            url: "The developer account, the app, Webhooks: Target URL. HubSpot signs this URL, so it must be the very one \
                  that Postroom knows: POSTROOM_PUBLIC_URL, or the option public_url.",
            secret: "The app's Client secret (Auth).",
            events: "Create subscriptions, such as contact.propertyChange; a request carries up to 100 events.",
            delivery: "2xx within 5 s, 10 more tries in 24 hours.",
            notes: &[
                "Signatures of version 1 and 2 are plain hashes without a time and are refused; version 3 is sent beside them.",
            ],
            unverified: &[CONSOLE, "the times", "which escapes of the URL are decoded before signing"],
            ..NONE
        },
    ),
    (
        "monday",
        Guide {
            url: "A board, Integrate, Webhooks, or the API's create_webhook. monday sends a challenge, which Postroom gives \
                  back.",
            secret: "The app's Signing Secret (Developers, the app, Basic information); for webhooks made with an app's token \
                     its Client secret.",
            events: "One webhook for each kind, such as create_item.",
            delivery: "200. Every minute for 30 minutes.",
            notes: &["The token in the header proves the sender and not the body."],
            unverified: &[CONSOLE, "the 30 minutes", "triggerUuid as the id of an event"],
            ..NONE
        },
    ),
    (
        "okta",
        Guide {
            url: "Admin Console, Workflow, Event Hooks, Create Event Hook: URL; then Verify. Give the source its secret first.",
            secret: "The Authentication secret that you type there: make one up. The field Authentication field names the \
                     header: Authorization, unless you give the option header.",
            events: "Subscribe to events, such as user.lifecycle.create; a request may carry several.",
            delivery: "200 or 204 with an empty body within 3 s. One more try at most, and none after a 4xx.",
            notes: &[
                "The secret proves the sender and not the body.",
                "A wrong secret loses events, because 401 is not tried again: they are under /v1/rejections.",
            ],
            references: &[
                "https://developer.okta.com/docs/guides/event-hook-implementation/",
                "https://developer.okta.com/docs/concepts/event-hooks/",
            ],
            ..NONE
        },
    ),
    (
        "trello",
        Guide {
            url: "The API's POST /1/tokens/{token}/webhooks: callbackURL. Trello probes it with HEAD. It signs this URL, so it \
                  must be the very one that Postroom knows: POSTROOM_PUBLIC_URL, or the option public_url.",
            secret: "The Power-Up's OAuth secret (trello.com/power-ups/admin, API key).",
            events: "All actions of the model idModel; the type here is the action's, such as updateCard.",
            delivery: "200. 3 more tries, after 30, 60 and 120 s.",
            notes: &["It signs with SHA-1."],
            unverified: &[
                CONSOLE,
                "the scheme: several third parties agree",
                "the retries",
                "action.id as the id of an event",
            ],
            ..NONE
        },
    ),
    (
        "typeform",
        Guide {
            url: "The form, Connect, Webhooks, Add a webhook; switch it on.",
            secret: "Edit, Secret: make one up. Without it Typeform signs nothing.",
            events: "There is one kind: form_response.",
            delivery: "2xx within 30 s.",
            unverified: &[CONSOLE, "the scheme: several third parties agree", "the 30 s"],
            ..NONE
        },
    ),
];
