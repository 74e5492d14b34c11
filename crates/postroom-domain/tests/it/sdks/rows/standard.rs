//! Standard Webhooks and who uses it.

use super::super::{ROW, Row};

const VARIANTS: &[(&str, bool)] = &[
    ("v1,AAAA v1,{s}", true),
    ("v1,{w} v1,{s}", true),
    ("v1,{s} v1,{w}", true),
    ("v1,{w}", false),
    ("v1,{s} v1,AAAA", true),
    ("v2,{s} v1,{s}", true),
    ("v1a,{s}", false),
    ("v2,{s}", false),
    ("V1,{s}", false),
    ("{s}", false),
    ("v1={s}", false),
    ("v1,{s},v1,{s}", false),
    ("v1,", false),
    ("v1", false),
];

const STANDARD: Row = Row { shape: "v1,{s}", variants: VARIANTS, past: 300, future: 300, ..ROW };

/// What Python's base64 does; here a signature has one spelling.
const PYTHON: &[(&str, &str)] = &[
    ("malformed: longer", "it reads over what follows the padding"),
    ("malformed: doubled", "it reads over what follows the padding"),
];

pub const STANDARD_WEBHOOKS: Row =
    Row { provider: "standard-webhooks", header: "webhook-signature", differences: PYTHON, ..STANDARD };
pub const GITLAB_SIGNING: Row =
    Row { provider: "gitlab-signing", header: "webhook-signature", differences: PYTHON, ..STANDARD };
pub const SVIX: Row = Row { provider: "svix", header: "svix-signature", differences: PYTHON, ..STANDARD };

pub const OPENAI: Row = Row {
    provider: "openai",
    header: "webhook-signature",
    differences: &[("variant {s}", "it also takes a signature without a label, which OpenAI does not send")],
    ..STANDARD
};

pub const CLERK: Row = Row {
    provider: "clerk",
    header: "svix-signature",
    differences: &[
        ("respelled \u{feff}{}", "it decodes the body, which drops the mark; the bytes are what is signed"),
        ("empty body", "it reads the event after the signature, and there is none"),
        ("variant v1,{s},v1,{s}", "it reads over what follows a second comma; one item is one signature"),
    ],
    ..STANDARD
};

pub const RESEND: Row = Row {
    provider: "resend",
    header: "svix-signature",
    differences: &[
        ("respelled \u{feff}{}", "it reads the event after the signature, and its JSON knows no mark"),
        ("empty body", "it wants a body before it looks at the signature"),
        ("variant v1a,{s}", "it never looks at the label; a signature of another scheme proves nothing here"),
        ("variant v2,{s}", "it never looks at the label"),
        ("variant V1,{s}", "it never looks at the label"),
    ],
    ..STANDARD
};
