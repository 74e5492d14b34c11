//! Source code, tickets, operations, clouds.

use super::{CONSOLE, Guide, NONE};

const GITLAB_RETRIES: &str = "2xx within 10 s. It does not try again. After four failures in a row the webhook is \
    switched off: for a minute and then longer, up to 24 hours, where they were 5xx.";
const GITLAB_401: &str = "A wrong secret is answered with 401, and four of them switch the webhook off until somebody \
    switches it on again.";

pub(super) const GUIDES: &[(&str, Guide)] = &[
    (
        "github",
        Guide {
            url: "The repository's or organization's Settings, Webhooks, Add webhook: the Payload URL, content type \
                  application/json (form works too). For a GitHub App: its settings, Webhook.",
            secret: "The Secret that you type there: make one up, such as `openssl rand -hex 32`.",
            events: "Just the push event, everything, or single ones; the type here is the event and the body's action, such \
                     as issues.opened.",
            delivery: "2xx within 10 s (30 s on Enterprise Server). It does not try again by itself; Recent Deliveries sends \
                       one again by hand, with the same id.",
            notes: &["The older SHA-1 header is passed on and never believed."],
            references: &["https://docs.github.com/webhooks/using-webhooks/handling-failed-webhook-deliveries"],
            ..NONE
        },
    ),
    (
        "gitlab-signing",
        Guide {
            url: "The project's or group's Settings, Webhooks, Add new webhook.",
            secret: "The signing token of the webhook, whsec_..., shown when it is made (GitLab 19.0 and newer).",
            events: "Tick the triggers; the type here is the body's object_kind, such as push.",
            delivery: GITLAB_RETRIES,
            notes: &["Older than GitLab 19.0: use gitlab-token.", GITLAB_401],
            unverified: &[
                "the 10 s: an administrator can change it",
                "after how many failures it is switched off: versions differ",
            ],
            ..NONE
        },
    ),
    (
        "gitlab-token",
        Guide {
            url: "The project's or group's Settings, Webhooks, Add new webhook.",
            secret: "The Secret token that you type there: make one up.",
            events: "Tick the triggers; the type here is the body's object_kind, such as push.",
            delivery: GITLAB_RETRIES,
            notes: &[
                "The token proves the sender and not the body. From GitLab 19.0 on, gitlab-signing proves both.",
                GITLAB_401,
            ],
            unverified: &[
                "the 10 s: an administrator can change it",
                "after how many failures it is switched off: versions differ",
            ],
            ..NONE
        },
    ),
    (
        "bitbucket",
        Guide {
            url: "Repository settings, Webhooks, Add webhook.",
            secret: "The Secret of the webhook: generate or type one. Without it Bitbucket signs nothing.",
            events: "Repository push, or choose from the full list; the type here is X-Event-Key, such as repo:push.",
            delivery: "2xx within 10 s, 2 more tries. A payload over 256 KB may not be sent at all.",
            notes: &["Its X-Hub-Signature holds SHA-256, unlike the header of this name elsewhere."],
            unverified: &["the 10 s and the number of tries", "X-Request-UUID as the id of an event"],
            references: &["https://confluence.atlassian.com/bbkb/troubleshoot-webhooks-1167729092.html"],
        },
    ),
    (
        "jira",
        Guide {
            url: "Jira settings, System, WebHooks: create a webhook (Jira Cloud).",
            secret: "The Secret of the webhook: generate one there.",
            events: "Tick the events, perhaps with a JQL filter; the type here is the body's webhookEvent.",
            delivery: "2xx. Up to 5 more tries; X-Atlassian-Webhook-Retry counts them.",
            notes: &["Webhooks of Connect and OAuth apps are not signed in this way and are refused."],
            unverified: &[CONSOLE, "the number of tries", "how webhooks of Connect apps are signed"],
            ..NONE
        },
    ),
    (
        "linear",
        Guide {
            url: "Settings, API, Webhooks: new webhook.",
            secret: "The webhook's signing secret, shown on its page.",
            events: "Tick the resources; the type here is type and action, such as Issue.create.",
            delivery: "200 within 5 s. 3 more tries, after a minute, an hour and 6 hours.",
            notes: &[
                "The signed time may be 60 s away; it stands inside the body, the header beside it counts for nothing.",
            ],
            unverified: &[CONSOLE, "the retries", "Linear-Delivery as the id of an event"],
            ..NONE
        },
    ),
    (
        "sentry",
        Guide {
            url: "Settings, Developer Settings, the internal or public integration: Webhook URL.",
            secret: "The integration's Client Secret, on the same page.",
            events: "Tick the webhooks and alert actions of the integration; the type here is resource and action.",
            delivery: "2xx within 1 s; after 1000 timeouts in 24 hours the webhook is unsubscribed.",
            notes: &["The time in its header is not signed."],
            references: &[
                "https://docs.sentry.io/organization/integrations/integration-platform/webhooks/",
                "https://docs.sentry.io/organization/integrations/integration-platform/internal-integration/",
            ],
            ..NONE
        },
    ),
    (
        "pagerduty",
        Guide {
            url: "Integrations, Generic Webhooks (v3): new webhook.",
            secret: "The secret shown once when the subscription is made.",
            events: "Choose the scope and the events, such as incident.triggered.",
            delivery: "2xx within 5 s (16 s for custom actions). Timeouts, 5xx, 429 and broken connections are tried again for \
                       up to 48 hours, other 4xx not; later events of the same resource wait behind it.",
            notes: &["A wrong secret loses events, because 401 is not tried again: they are under /v1/rejections."],
            ..NONE
        },
    ),
    (
        "vercel",
        Guide {
            url: "Team Settings, Webhooks: create a webhook. For an integration: its console, Webhook URL.",
            secret: "The secret shown once when the webhook is made; for an integration its client secret.",
            events: "Choose the events, such as deployment.succeeded, and the projects.",
            delivery: "2xx within 30 s. It tries again for 24 hours.",
            unverified: &[CONSOLE, "the 30 s and the 24 hours", "the body's id as the id of an event"],
            ..NONE
        },
    ),
    (
        "aws-sns",
        Guide {
            url: "The topic, Create subscription, protocol HTTPS, endpoint the source's URL; leave raw message delivery off. \
                  The confirmation that SNS sends then is verified and confirmed by Postroom itself.",
            secret: "There is none: SNS signs with a certificate of Amazon's. Give the source the topic as the option \
                     topic_arn, because any customer of AWS can get a valid signature.",
            events: "Whatever is published to the topic. Filter with a subscription filter policy.",
            delivery: "2xx within 15 s; retries follow the topic's delivery policy.",
            notes: &[
                "The certificate is fetched from sns.<region>.amazonaws.com only, over TLS; its name and dates are checked, and \
                 its chain wherever the file brings the issuers along. A file of nothing but the certificate is believed for \
                 where it came from, unless the option trust_root_pem names its issuer or root: then its chain is always \
                 checked.",
                "Raw message delivery is not signed and is refused.",
                "The content type is text/plain although the body is JSON.",
            ],
            unverified: &["the default delivery policy"],
            ..NONE
        },
    ),
    (
        "azure-event-grid",
        Guide {
            url: "The topic or resource, Events, Event Subscription, endpoint type Web Hook: the source's URL with ?code= and \
                  the secret at its end. The validation that Azure sends then is answered by Postroom.",
            secret: "Event Grid does not sign: make a secret up. It stands in the URL's query, or in a header that a delivery \
                     property sets and the option header names.",
            events: "Choose the event types in the subscription; CloudEvents and the Event Grid schema both work.",
            delivery: "200 to 204 within 30 s. It tries again after 10 and 30 s, 1, 5, 10 and 30 minutes and then each hour, for 24 \
                       hours; after a 401 not before 5 minutes.",
            notes: &[
                "The secret proves the sender and not the body.",
                "Validation is answered at once, in the response, which Azure takes from every version on: its validationUrl, for \
                 receivers that cannot answer so, is never visited.",
            ],
            unverified: &[CONSOLE],
            references: &[
                "https://learn.microsoft.com/azure/event-grid/delivery-and-retry",
                "https://learn.microsoft.com/azure/event-grid/end-point-validation-event-grid-events-schema",
            ],
        },
    ),
];
