//! Chat, telephony, streams, support.

use super::{CONSOLE, Guide, NONE};

pub(super) const GUIDES: &[(&str, Guide)] = &[
    (
        "slack",
        Guide {
            url: "api.slack.com, the app, Event Subscriptions, Request URL (Slack verifies it at once, so give the source its \
                  secret first). The same URL can serve Interactivity and Slash Commands.",
            secret: "Basic Information, App Credentials, Signing Secret. A token (xoxb-..., xapp-...) is not it.",
            events: "Subscribe to bot events or workspace events, such as app_mention, and install the app anew.",
            delivery: "2xx within 3 s. 3 more tries, with X-Slack-Retry-Num.",
            notes: &[
                "A slash command wants its answer in the response; here it gets the ordinary one and shows nothing.",
            ],
            unverified: &["the number of tries"],
            ..NONE
        },
    ),
    (
        "discord",
        Guide {
            url: "discord.com/developers, the application: General Information, Interactions Endpoint URL, or Webhooks, \
                  Endpoint URL. Discord tests it at once, also with wrong signatures: give the source its key first.",
            secret: "General Information, Public Key: 64 hexadecimal digits. It is no secret.",
            events: "Interactions come as they happen; webhook events are chosen on the page Webhooks.",
            delivery: "Interactions want an answer within 3 s; webhook events 204 within 3 s, with tries for up to 10 minutes. \
                       A wrong signature has to get 401, or the URL is removed.",
            notes: &["An interaction wants a reply that means something: what Postroom answers is that it arrived."],
            unverified: &["the 3 s of interactions"],
            references: &[
                "https://discord.com/developers/docs/events/webhook-events",
                "https://discord.com/developers/docs/interactions/overview",
            ],
        },
    ),
    (
        "twilio",
        Guide {
            url: "Console, the phone number (or messaging service), A call comes in / A message comes in: Webhook, HTTP POST. \
                  Twilio signs this URL, so it must be the very one that Postroom knows: POSTROOM_PUBLIC_URL, or the option \
                  public_url.",
            secret: "The account's Auth Token (Console, Account, API keys & tokens): the primary one, which signs.",
            events: "Incoming messages and calls, status callbacks and so on, each with a URL of its own.",
            delivery: "2xx within 15 s; what follows depends on the product.",
            notes: &[
                "A call or message wants TwiML as answer: with Postroom's it goes on without one.",
                "The query belongs to the signed URL, byte for byte.",
            ],
            unverified: &[CONSOLE, "the 15 s", "I-Twilio-Idempotency-Token as the id of an event"],
            ..NONE
        },
    ),
    (
        "intercom",
        Guide {
            url: "Developer Hub, the app, Configure, Webhooks: Endpoint URL.",
            secret: "The app's Client secret (Configure, Basic information).",
            events: "Choose the topics there, such as conversation.user.created.",
            delivery: "2xx within 5 s, one more try after a minute. After 1000 errors in a row within 15 minutes it pauses for as long; \
                       after 7 days of errors a private app's subscription is suspended, until Set live.",
            notes: &["It signs with SHA-1. Its ping is answered and not recorded."],
            unverified: &[
                "the scheme: several third parties agree",
                "the 5 s and the try after a minute",
                "the body's id as the id of an event",
            ],
            references: &["https://developers.intercom.com/docs/webhooks/webhook-notifications"],
        },
    ),
    (
        "line",
        Guide {
            url: "LINE Developers Console, the channel, Messaging API, Webhook URL; then switch Use webhook on.",
            secret: "The Channel secret (Basic settings).",
            events: "All events of the channel; the type here is that of the events in the request.",
            delivery: "200. Repetitions have to be switched on (Webhook redelivery) and carry the same webhookEventId.",
            notes: &["Verify in the console sends an empty list of events: it is answered and not recorded."],
            unverified: &[CONSOLE],
            ..NONE
        },
    ),
    (
        "meta",
        Guide {
            url: "App Dashboard, Webhooks (for WhatsApp: WhatsApp, Configuration): Callback URL and Verify token. The token is \
                  one that you make up; give it to the source as the option verify_token before you press Verify.",
            secret: "The App secret (App settings, Basic).",
            events: "Subscribe to the fields of each object; the type here is object and field.",
            delivery: "200. It tries again for up to 36 hours.",
            notes: &[
                "Its JSON has \\u escapes that are part of what is signed: it has to arrive byte for byte.",
                "It sends no id of an event.",
            ],
            unverified: &[CONSOLE, "the signature's form: several third parties agree", "the 36 hours"],
            ..NONE
        },
    ),
    (
        "roblox",
        Guide {
            url: "Creator Dashboard, Webhooks, Add Webhook.",
            secret: "The Secret of the webhook: type one. Without it Roblox sends a time and no signature.",
            events: "Tick the triggers, such as Right to Erasure Request.",
            delivery: "2xx within 5 s, 5 more tries.",
            notes: &["The signed time may be 600 s away, as its documentation advises."],
            unverified: &[CONSOLE],
            ..NONE
        },
    ),
    (
        "telegram",
        Guide {
            url: "The Bot API's method setWebhook: url. Ports 443, 80, 88 and 8443 only.",
            secret: "The secret_token given to setWebhook: make one up, 1 to 256 of A-Z a-z 0-9 _ -. The bot token is not it.",
            events: "allowed_updates of setWebhook; the type here is the update's one member, such as message.",
            delivery: "Any 2xx. It waits up to 1 to 2 minutes between tries, honours Retry-After up to an hour, and drops the \
                       webhook when it gets 410 for 23 hours.",
            notes: &[
                "The token proves the sender and not the body.",
                "An answer with a member method would be carried out as a call of the bot; Postroom's has none.",
            ],
            ..NONE
        },
    ),
    (
        "twitch",
        Guide {
            url: "The API's POST /helix/eventsub/subscriptions: transport.callback. Twitch sends a challenge at once, so make \
                  the source with its secret first.",
            secret: "transport.secret of the same call: make one up, 10 to 100 characters of ASCII.",
            events: "type and condition of the subscription, such as channel.follow.",
            delivery: "2xx within a few seconds. Too many failures revoke the subscription; the revocation arrives as an event.",
            notes: &[
                "Another subscription may have another secret: give the source all of them by rotation, or a source each.",
            ],
            unverified: &["that the signed time may be 600 s old: several third parties agree"],
            references: &["https://dev.twitch.tv/docs/eventsub/handling-webhook-events"],
        },
    ),
    (
        "zendesk",
        Guide {
            url: "Admin Center, Apps and integrations, Webhooks, Create webhook; method POST, format JSON, no authentication.",
            secret: "The webhook's signing secret: its page, Reveal secret.",
            events: "Zendesk events of the webhook, or a trigger or automation that notifies it.",
            delivery: "2xx within 12 s.",
            notes: &["A webhook of a trigger has the body you wrote: put a member type into it if you want types."],
            unverified: &[CONSOLE, "the 12 s", "how exactly the time in the header is written"],
            ..NONE
        },
    ),
    (
        "zoom",
        Guide {
            url: "marketplace.zoom.us, Manage, the app, Features, Access, Event Subscriptions: Event notification endpoint URL, then \
                  Validate. Give the source its secret first.",
            secret: "The app's Secret Token on the same page. The older Verification Token is not it.",
            events: "Add event types to the subscription, such as meeting.started.",
            delivery: "200 or 204 within 3 s. 3 more tries, after 5, 20 and 60 minutes. It validates the URL again every 72 hours.",
            notes: &["It sends no id of an event."],
            unverified: &["the 72 hours"],
            references: &["https://developers.zoom.us/blog/webhook-delays/"],
        },
    ),
];
