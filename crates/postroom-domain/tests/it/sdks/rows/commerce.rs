//! Shops, payments, accounts.

use super::super::{HANDSHAKE, Handshake, ROW, Row};

pub const STRIPE: Row = Row {
    provider: "stripe",
    header: "Stripe-Signature",
    shape: "t={t},v1={s}",
    variants: &[
        ("t={t},v1=00,v1={s}", true),
        ("t={t},v1={w},v1={s}", true),
        ("t={t},v1={s},v1={w}", true),
        ("t={t},v1={s},v1=00", true),
        ("t={t},v0={s},v1={s}", true),
        ("v1={s},scheme=x,t={t}", true),
        ("t={t},v0={s}", false),
        ("t={t},V1={s}", false),
        ("t={t},v1", false),
        ("t={t},{s}", false),
        ("v1={s}", false),
        ("t=1,v1={s}", false),
        ("t={t}.0,v1={s}", false),
        ("t={t};v1={s}", false),
        ("t={t}, v1={s}", false),
        ("t=+{t},v1={s}", false),
    ],
    past: 300,
    differences: &[("variant t=+{t},v1={s}", "Python reads a sign before the number; Stripe sends none")],
    ..ROW
};

pub const SHOPIFY: Row = Row {
    provider: "shopify",
    header: "X-Shopify-Hmac-Sha256",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    headers: &[
        ("X-Shopify-Topic", "orders/create"),
        ("X-Shopify-Shop-Domain", "postroom.myshopify.com"),
        ("X-Shopify-API-Version", "2026-01"),
        ("X-Shopify-Webhook-Id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
        ("X-Shopify-Event-Id", "98880550-7158-44d4-b7cd-2c97c8a091b5"),
    ],
    differences: &[("empty body", "it wants a body before it looks at the signature")],
    ..ROW
};

pub const ADYEN_PLATFORM: Row = Row {
    provider: "adyen-platform",
    header: "HmacSignature",
    variants: &[("{s},{s}", false), ("sha256={s}", false)],
    ..ROW
};

pub const COINBASE_COMMERCE: Row =
    Row { provider: "coinbase-commerce", header: "X-CC-Webhook-Signature", variants: &[("sha256={s}", false)], ..ROW };

pub const PADDLE: Row = Row {
    provider: "paddle",
    header: "Paddle-Signature",
    shape: "ts={t};h1={s}",
    variants: &[
        ("ts={t};h1=00;h1={s}", true),
        ("ts={t};h1={w};h1={s}", true),
        ("h1={s};ts={t}", true),
        ("ts={t};h2={s}", false),
        ("ts={t};h2=00;h1={s}", true),
        ("ts={t},h1={s}", false),
        ("t={t};v1={s}", false),
        ("h1={s}", false),
    ],
    past: 5,
    future: 5,
    differences: &[(
        "variant ts={t};h2=00;h1={s}",
        "it refuses names it does not know; a new scheme beside the old one must not stop what is proved by the old one",
    )],
    ..ROW
};

pub const RAZORPAY: Row =
    Row { provider: "razorpay", header: "X-Razorpay-Signature", variants: &[("sha256={s}", false)], ..ROW };

pub const SQUARE: Row = Row {
    provider: "square",
    header: "x-square-hmacsha256-signature",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    differences: &[("empty body", "it wants a body before it looks at the signature")],
    ..ROW
};

pub const XERO: Row = Row {
    provider: "xero",
    header: "x-xero-signature",
    variants: &[("sha256={s}", false)],
    handshakes: &[Handshake { body: r#"{"events":[],"firstEventSequence":0,"lastEventSequence":0}"#, ..HANDSHAKE }],
    ..ROW
};
