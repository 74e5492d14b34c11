//! Shops, payments, accounts.

use super::{CONSOLE, Guide, NONE};

pub(super) const GUIDES: &[(&str, Guide)] = &[
    (
        "stripe",
        Guide {
            url: "Dashboard, Workbench, Webhooks (older accounts: Developers, Webhooks): create an event destination of the \
                  kind webhook endpoint with the source's URL.",
            secret: "The destination's signing secret, behind Reveal: all of it, whsec_ included. Every destination has its \
                     own, test mode and live mode have different ones, and `stripe listen` prints yet another.",
            events: "Choose the types your code handles; snapshot and thin events both verify.",
            delivery: "Any 2xx is success. In live mode it tries again for up to 3 days with growing pauses, in a sandbox 3 \
                       times over a few hours. The order is not promised.",
            notes: &["Only the age of the signed time is limited, to 300 s, as in Stripe's own libraries."],
            unverified: &["times and numbers of retries: taken from several guides that cite docs.stripe.com"],
            ..NONE
        },
    ),
    (
        "shopify",
        Guide {
            url: "The app's subscriptions: `shopify.app.toml`, or the GraphQL mutation webhookSubscriptionCreate. For a single \
                  shop: admin, Settings, Notifications, Webhooks.",
            secret: "For an app its client secret (one for all shops); for webhooks made in the admin the secret shown below \
                     their list. An access token (shpat_...) is not it.",
            events: "Topics such as orders/create. The mandatory privacy topics go to the same kind of URL.",
            delivery: "200 to 299 within 5 s; a redirect is a failure. 8 more tries within 4 hours.",
            notes: &[
                "Test notifications from the admin are signed with another secret and fail here.",
                "Several topics and subscriptions share one event id, so a repetition is recognised by id and topic.",
                "The time is not signed: an old request can be repeated by whoever has it.",
            ],
            unverified: &[CONSOLE],
            references: &["https://shopify.dev/changelog/updates-to-webhook-retry-mechanism"],
        },
    ),
    (
        "square",
        Guide {
            url: "Developer Console, the application, Webhooks, Subscriptions: add a subscription. Square signs this URL, so \
                  it must be the very one that Postroom knows: POSTROOM_PUBLIC_URL, or the option public_url.",
            secret: "The subscription's Signature key. Sandbox and production have their own.",
            events: "Choose them in the subscription, such as payment.updated.",
            delivery: "2xx within 10 s. An older page speaks of 72 hours of retries; after three weeks without a 2xx the \
                       subscription is switched off.",
            unverified: &["how long it tries again"],
            ..NONE
        },
    ),
    (
        "paddle",
        Guide {
            url: "Developer Tools, Notifications: new destination of the kind webhook.",
            secret: "The destination's secret key, all of pdl_ntfset_..., behind Edit destination. An API key is not it.",
            events: "Choose them in the destination, such as transaction.completed.",
            delivery: "200 within 5 s. Up to 60 more tries in 3 days for live accounts, fewer in the sandbox.",
            notes: &[
                "Its library allows the signed time to be 5 s away, and so does Postroom; when requests are slow on their \
                 way, set the option tolerance_seconds.",
            ],
            ..NONE
        },
    ),
    (
        "paypal",
        Guide {
            url: "developer.paypal.com, Apps & Credentials, the app, Webhooks: add the URL, on port 443; up to 10 for an app.",
            secret: "There is none: PayPal signs with a certificate. What is needed is the Webhook ID, shown beside the URL \
                     after it was added: give it to the source as the option webhook_id. It is not sent with a request. With \
                     the option verify_by=postback PayPal is asked about every request instead: then give it the option \
                     client_id, and the Secret of the same app.",
            events: "Choose them with the URL, such as PAYMENT.CAPTURE.COMPLETED.",
            delivery: "2xx. Up to 25 tries in 3 days.",
            notes: &[
                "The certificate is fetched from PayPal's own hosts only, over TLS; its name and dates are checked, and its \
                 chain wherever the file brings the issuers along. A file of nothing but the certificate is believed for where \
                 it came from, unless the option trust_root_pem names its issuer or root: then its chain is always checked.",
                "With verify_by=postback nothing is decided here but what PayPal can not have sent. While PayPal does not \
                 answer, requests get 503 with Retry-After, and it sends them again; a server that must take events while \
                 PayPal's API is down stays with the certificate.",
                "The webhook simulator signs with the literal id WEBHOOK_ID: it proves nothing and is refused. \
                 PayPal's postback does not know its requests either.",
                "The body counts by its CRC-32 only; PayPal's own choice.",
            ],
            unverified: &[CONSOLE],
            references: &[
                "https://developer.paypal.com/api/rest/webhooks/rest",
                "https://developer.paypal.com/api/webhooks/v1/verify-webhook-signature-post",
            ],
        },
    ),
    (
        "adyen",
        Guide {
            url: "Customer Area, Developers, Webhooks: add a Standard webhook, method JSON.",
            secret: "Its HMAC key: Edit webhook, Security, HMAC key, Generate, and Save configuration; 64 hexadecimal digits, \
                     shown once. Keep the one before for a while: events already queued are signed with it.",
            events: "Choose the event codes in the webhook, such as AUTHORISATION.",
            delivery: "2xx within 10 s, with [accepted] as body. It tries again until it gets that.",
            notes: &[
                "Eight fields of each item are signed, not the whole of it: trust only these (pspReference, \
                 originalReference, merchantAccountCode, merchantReference, amount, eventCode, success).",
                "A request with several items is accepted only if every one of them verifies.",
            ],
            unverified: &["the 10 s", "that the body [accepted] is still required"],
            references: &[
                "https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures",
                "https://docs.adyen.com/marketplaces/manage-webhooks",
            ],
        },
    ),
    (
        "adyen-platform",
        Guide {
            url: "Customer Area, Developers, Webhooks: add one of the platform or management webhooks.",
            secret: "Its HMAC key (Edit webhook, Security, HMAC key, Generate, Save configuration): 64 hexadecimal digits, \
                     shown once.",
            events: "By the kind of webhook, such as balancePlatform.transfer.updated.",
            delivery: "2xx within 10 s. It tries again until it gets that.",
            notes: &[
                "For the classic payment webhooks, whose items carry their signature in the body, use the provider adyen.",
            ],
            unverified: &["the 10 s"],
            references: &[
                "https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures",
            ],
        },
    ),
    (
        "razorpay",
        Guide {
            url: "Dashboard, Account & Settings, Webhooks: add a webhook. Test mode and live mode have their own.",
            secret: "The Secret that you type there: make one up. The API key (rzp_...) is not it.",
            events: "Tick the active events, such as payment.captured.",
            delivery: "2xx within 5 s. Growing pauses for 24 hours, then the webhook is switched off.",
            unverified: &[CONSOLE],
            ..NONE
        },
    ),
    (
        "coinbase-commerce",
        Guide {
            url: "Settings, Notifications, Webhook subscriptions: add an endpoint.",
            secret: "The webhook shared secret, behind Show shared secret on the same page.",
            events: "All events go to every endpoint unless you edit its list, such as charge:confirmed.",
            delivery: "200. It tries again for up to 3 days, at most an hour apart.",
            unverified: &[CONSOLE, "where the event's id and type stand inside event"],
            ..NONE
        },
    ),
    (
        "xero",
        Guide {
            url: "developer.xero.com, My Apps, the app, Webhooks: the delivery URL. Saving begins the intent to receive: \
                  several requests, some of them signed wrongly on purpose, which Postroom answers as Xero wants.",
            secret: "The Webhooks key on the same page.",
            events: "Choose the categories there: contacts, invoices and so on.",
            delivery: "Exactly 200 with an empty body within 5 s. It tries again for 24 hours, then the webhook is switched off.",
            notes: &[
                "An event names what changed and carries none of it: fetch it from the API.",
                "Give the source its key before you save the URL there, or the intent to receive fails.",
            ],
            unverified: &[CONSOLE],
            ..NONE
        },
    ),
    (
        "plaid",
        Guide {
            url: "The field webhook of /link/token/create, or /item/webhook/update for an existing item. There is no list in \
                  the dashboard.",
            secret: "There is no shared secret: each request carries a signed token, whose public key is fetched from Plaid's \
                     API with the option client_id and the API secret of the dashboard (or given as the option jwk).",
            events: "Every webhook of the products in use arrives, such as TRANSACTIONS.SYNC_UPDATES_AVAILABLE.",
            delivery: "200 within 10 s. It tries again for 24 hours.",
            notes: &["It sends no id of an event, so its repetitions cannot be recognised."],
            unverified: &["the 10 s and the 24 hours"],
            ..NONE
        },
    ),
];
