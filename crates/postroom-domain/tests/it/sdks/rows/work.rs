//! Source code, tickets, operations, documents, forms, calendars.

use super::super::{Bodies, HANDSHAKE, Handshake, ROW, Row};

pub const GITHUB: Row = Row {
    provider: "github",
    header: "X-Hub-Signature-256",
    shape: "sha256={s}",
    variants: &[
        ("{s}", false),
        ("sha1={s}", false),
        ("sha512={s}", false),
        ("SHA256={s}", false),
        ("sha256= {s}", false),
    ],
    headers: &[("X-GitHub-Event", "push"), ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")],
    handshakes: &[Handshake {
        headers: &[("X-GitHub-Event", "ping")],
        body: r#"{"zen":"Keep it logically awesome.","hook_id":109948940}"#,
        ..HANDSHAKE
    }],
    differences: &[("empty body", "it wants a body before it looks at the signature")],
    ..ROW
};

pub const ASANA: Row = Row {
    provider: "asana",
    header: "X-Hook-Signature",
    variants: &[("sha256={s}", false)],
    handshakes: &[Handshake { body: r#"{"events":[]}"#, ..HANDSHAKE }],
    ..ROW
};

pub const BITBUCKET: Row = Row {
    provider: "bitbucket",
    header: "X-Hub-Signature",
    shape: "sha256={s}",
    variants: &[("{s}", false), ("sha1={s}", false)],
    headers: &[("X-Event-Key", "repo:push"), ("X-Request-UUID", "5f3a4c6e-22de-4bd0-a7a9-5b0d3f0d6f9a")],
    ..ROW
};

pub const JIRA: Row = Row {
    provider: "jira",
    header: "X-Hub-Signature",
    shape: "sha256={s}",
    variants: &[("{s}", false), ("sha1={s}", false)],
    ..ROW
};

pub const LINEAR: Row = Row {
    provider: "linear",
    header: "Linear-Signature",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    headers: &[("Linear-Event", "Issue"), ("Linear-Delivery", "234d1a4e-b617-4388-90fe-adc3633d6b72")],
    past: 60,
    future: 60,
    bodies: Bodies::Timed,
    ..ROW
};

pub const PAGERDUTY: Row = Row {
    provider: "pagerduty",
    header: "X-PagerDuty-Signature",
    shape: "v1={s}",
    variants: &[
        ("v1=00,v1={s}", true),
        ("v1={w},v1={s}", true),
        ("v1={s},v1=00", true),
        ("v2={s},v1={s}", true),
        ("v0={s}", false),
        ("{s}", false),
        ("v1={s};v1={s}", false),
    ],
    ..ROW
};

pub const SENTRY: Row = Row {
    provider: "sentry",
    header: "Sentry-Hook-Signature",
    variants: &[("sha256={s}", false)],
    headers: &[("Sentry-Hook-Resource", "issue"), ("Request-ID", "6dc6b8f5d3f04cfcb4d2ad3e0ab46ddb")],
    ..ROW
};

pub const VERCEL: Row = Row {
    provider: "vercel",
    header: "x-vercel-signature",
    variants: &[("sha1={s}", false), ("v1={s}", false)],
    ..ROW
};

pub const WORKOS: Row = Row {
    provider: "workos",
    header: "WorkOS-Signature",
    shape: "t={t}, v1={s}",
    variants: &[
        ("t={t},v1={s}", true),
        ("v1={s}, t={t}", true),
        ("t={t}, v2={s}", false),
        ("t={t}", false),
        ("v1={s}", false),
        ("t={t};v1={s}", false),
        ("t={t}, v1=00, v1={s}", true),
        ("t={t}, v1={w}, v1={s}", true),
    ],
    past: 180,
    future: 180,
    differences: &[
        ("variant t={t},v1={s}", "the library for Python wants the blank, the one for Node does not send it on"),
        ("variant v1={s}, t={t}", "it takes the parts by their place; the names say which is which"),
        ("variant t={t}, v2={s}", "it never looks at the name; a signature of another scheme proves nothing here"),
        ("variant t={t}, v1=00, v1={s}", "it reads two parts and no more; any of several is enough, as elsewhere"),
        ("variant t={t}, v1={w}, v1={s}", "it reads two parts and no more; any of several is enough, as elsewhere"),
    ],
    ..ROW
};

pub const CALENDLY: Row = Row {
    provider: "calendly",
    header: "Calendly-Webhook-Signature",
    shape: "t={t},v1={s}",
    variants: &[
        ("t={t},v1=00,v1={s}", true),
        ("t={t},v1={w},v1={s}", true),
        ("t={t},v0={s}", false),
        ("t={t};v1={s}", false),
        ("v1={s}", false),
    ],
    past: 300,
    ..ROW
};

pub const DOCUSIGN: Row = Row {
    provider: "docusign",
    header: "X-DocuSign-Signature-1",
    beside: "X-DocuSign-Signature-2",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    ..ROW
};

pub const DROPBOX: Row = Row {
    provider: "dropbox",
    header: "X-Dropbox-Signature",
    variants: &[("sha256={s}", false)],
    handshakes: &[Handshake {
        method: "GET",
        query: "&challenge=Q9jLDgOXnTFBlq",
        signed: false,
        answer: (200, Some("text/plain"), "Q9jLDgOXnTFBlq"),
        ..HANDSHAKE
    }],
    ..ROW
};

pub const HUBSPOT: Row = Row {
    provider: "hubspot",
    header: "X-HubSpot-Signature-v3",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    past: 300,
    differences: &[("as old as allowed", "five minutes to the second are too old for it")],
    ..ROW
};

pub const TRELLO: Row = Row {
    provider: "trello",
    header: "X-Trello-Webhook",
    variants: &[("sha1={s}", false)],
    handshakes: &[Handshake { method: "HEAD", signed: false, ..HANDSHAKE }],
    ..ROW
};

pub const TYPEFORM: Row = Row {
    provider: "typeform",
    header: "Typeform-Signature",
    shape: "sha256={s}",
    variants: &[("{s}", false), ("sha1={s}", false)],
    ..ROW
};
