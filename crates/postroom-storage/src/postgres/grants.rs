//! What each part of the process may do, table by table and column by column.
//!
//! This is the one list: a test holds to it what the migrations grant, whoever granted it and however, and tries all that
//! is not on it. ARCHITECTURE.md shows it. A new table or column is nobody's until it is written down here.

use crate::engine::grants::Part::{self, Api, Authorizer, Copier, DeadLetter, Keys, Platform, Receiver, Worker};
use crate::engine::grants::{ALL, Grant, grant};

/// What moves when an exception does.
const EXCEPTION: &[&str] = &["state", "due_at", "attempts", "attempts_of_schedule", "reason", "since"];
/// What moves when a repeated request is claimed and answered.
const ANSWER: &[&str] = &["request_hash", "claimed_at", "status", "body"];
/// A key without what proves it.
const KEY: &[&str] = &[
    "org",
    "key",
    "id",
    "name",
    "scopes",
    "last_four",
    "expires_at",
    "revoked_at",
    "last_used_at",
    "created_at",
    "created_by",
];

/// The list. Changes of configuration write `revisions`, by a trigger that acts for whoever makes them.
pub(super) const GRANTS: &[Grant] = &[
    grant(Authorizer, "organizations").read(&["org", "id", "slug", "is_active"]),
    grant(Authorizer, "tenants").read(&["org_id"]),
    grant(Authorizer, "api_keys")
        .read(&["org", "key", "id", "scopes", "hash", "expires_at", "revoked_at", "last_used_at"])
        .update(&["last_used_at"]),
    grant(Authorizer, "users")
        .read(&["org", "usr", "id", "email", "email_key", "role", "is_active", "invited_until"])
        .update(&["invited_until", "last_login_at"]),
    grant(Authorizer, "sign_in_tokens").read(ALL).insert().update(&["used_at"]),
    grant(Authorizer, "sessions")
        .read(&["id", "org", "usr", "created_at", "expires_at", "ended_at"])
        .insert()
        .update(&["ended_at"]),
    // The link goes in, and only who sends it takes it out.
    grant(Authorizer, "mails").insert(),
    grant(Authorizer, "audit_logs").read(&["org", "chain", "number", "id", "hash"]).insert(),
    grant(Authorizer, "revisions").read(ALL).insert().update(&["tx"]),
    grant(Authorizer, "pokes").read(ALL),
    grant(Receiver, "organizations").read(&[
        "org",
        "id",
        "slug",
        "plan",
        "webhook_limit",
        "is_active",
        "mandrill_secret",
    ]),
    grant(Receiver, "sources").read(ALL),
    grant(Receiver, "source_secrets").read(ALL),
    grant(Receiver, "endpoints").read(&[
        "org",
        "endpoint",
        "id",
        "number",
        "event_types",
        "source_ids",
        "filter",
        "version",
        "disabled_reason",
        "deleted_at",
    ]),
    grant(Receiver, "revisions").read(ALL),
    grant(Receiver, "nodes").read(ALL).update(&["epoch"]),
    grant(Receiver, "events").read(&["org", "id", "node", "tx", "targets"]).insert(),
    grant(Receiver, "exceptions").insert(),
    grant(Receiver, "duplicate_guard").read(ALL).insert().update(&["event"]).delete(),
    grant(Receiver, "usage").read(ALL).insert().update(&["count"]),
    // The length of the body counts for the bound.
    grant(Receiver, "rejections").read(&["org", "id", "source", "received_at", "body"]).insert().delete(),
    grant(Worker, "organizations").read(&["org", "id", "is_active"]),
    grant(Worker, "endpoints").read(ALL).update(&["version", "disabled_reason", "disabled_at", "updated_at"]),
    grant(Worker, "endpoint_secrets").read(ALL),
    grant(Worker, "revisions").read(ALL).insert().update(&["tx"]),
    grant(Worker, "tenants").read(&["awake", "wakes"]).update(&["wakes"]),
    grant(Worker, "nodes").read(ALL).insert().update(&["lease_until", "watermark", "counted", "state"]).delete(),
    grant(Worker, "shards").read(ALL).update(&["node", "epoch", "lease_until"]),
    grant(Worker, "pokes").read(ALL).insert().delete(),
    grant(Worker, "events").read(ALL),
    grant(Worker, "attempts").read(ALL).insert(),
    grant(Worker, "exceptions").read(ALL).insert().update(EXCEPTION).delete(),
    grant(Worker, "usage").read(ALL).insert().update(&["count"]),
    grant(Api, "organizations")
        .read(&[
            "org",
            "id",
            "slug",
            "name",
            "plan",
            "webhook_limit",
            "is_active",
            "mandrill_fingerprint",
            "endpoint_number",
            "created_at",
            "updated_at",
            "created_by",
        ])
        .update(&["name", "endpoint_number", "updated_at"]),
    grant(Api, "api_keys").read(KEY).insert().update(&["revoked_at"]),
    grant(Api, "users")
        .read(&[
            "org",
            "usr",
            "id",
            "email",
            "role",
            "is_active",
            "invited_until",
            "last_login_at",
            "created_at",
            "updated_at",
            "created_by",
        ])
        .insert()
        .update(&["role", "is_active", "invited_until", "updated_at"]),
    grant(Api, "sign_in_tokens").read(&["org", "usr", "created_at", "used_at"]).insert().update(&["used_at"]),
    grant(Api, "sessions").read(&["org", "usr", "expires_at", "ended_at"]).update(&["ended_at"]),
    grant(Api, "mails").read(&["org", "usr"]).insert().delete(),
    grant(Api, "sources").read(ALL).insert().update(&["name", "options", "is_active", "updated_at", "deleted_at"]),
    grant(Api, "source_secrets").read(ALL).insert().update(&["value", "expires_at"]).delete(),
    grant(Api, "endpoints").read(ALL).insert().update(&[
        "url",
        "description",
        "event_types",
        "source_ids",
        "filter",
        "retry_schedule",
        "timeout_ms",
        "rate_limit",
        "headers",
        "signature",
        "version",
        "disabled_reason",
        "disabled_at",
        "updated_at",
        "deleted_at",
    ]),
    grant(Api, "endpoint_secrets").read(ALL).insert().update(&["value", "expires_at"]).delete(),
    // Nobody changes or deletes an entry.
    grant(Api, "audit_logs").read(ALL).insert(),
    grant(Api, "idempotency_keys").read(ALL).insert().update(ANSWER).delete(),
    grant(Api, "revisions").read(ALL).insert().update(&["tx"]),
    grant(Api, "nodes").read(&["node", "watermark", "state"]),
    grant(Api, "events").read(ALL),
    grant(Api, "attempts").read(ALL),
    grant(Api, "exceptions").read(ALL),
    grant(Api, "replays").read(ALL),
    grant(Api, "duplicate_guard").read(ALL),
    grant(Api, "usage").read(ALL),
    grant(Api, "rejections").read(ALL).update(&["event"]),
    grant(DeadLetter, "endpoints").read(&["org", "endpoint", "id", "number", "url", "disabled_reason", "deleted_at"]),
    grant(DeadLetter, "nodes").read(&["node", "watermark", "state"]),
    grant(DeadLetter, "events").read(&["org", "id", "node", "tx", "source", "type", "external_id", "targets"]),
    grant(DeadLetter, "attempts").read(ALL),
    grant(DeadLetter, "exceptions").read(ALL).insert().update(EXCEPTION).delete(),
    grant(DeadLetter, "replays").read(ALL).insert(),
    grant(DeadLetter, "audit_logs").read(&["org", "chain", "number", "id", "hash"]).insert(),
    grant(Platform, "migrations").read(ALL),
    grant(Platform, "meta").read(ALL).insert(),
    grant(Platform, "organizations")
        .read(&[
            "org",
            "id",
            "slug",
            "name",
            "plan",
            "webhook_limit",
            "is_active",
            "mandrill_fingerprint",
            "endpoint_number",
            "created_at",
            "updated_at",
            "created_by",
        ])
        .insert()
        .update(&[
            "slug",
            "name",
            "plan",
            "webhook_limit",
            "is_active",
            "mandrill_secret",
            "mandrill_fingerprint",
            "endpoint_number",
            "updated_at",
        ]),
    grant(Platform, "tenants").read(ALL).insert().update(&[
        "initialize",
        "begun",
        "url",
        "database",
        "migration_version",
        "awake",
        "wakes",
        "slept_at",
    ]),
    grant(Platform, "api_keys").read(KEY).insert(),
    grant(Platform, "users")
        .read(&[
            "org",
            "usr",
            "id",
            "email",
            "email_key",
            "role",
            "is_active",
            "last_login_at",
            "created_at",
            "updated_at",
            "created_by",
        ])
        .insert()
        .update(&["is_active", "updated_at"]),
    grant(Platform, "sign_in_tokens")
        .read(&["hash", "org", "usr", "expires_at", "used_at"])
        .insert()
        .update(&["used_at"])
        .delete(),
    grant(Platform, "sessions").read(&["id", "org", "usr", "expires_at", "ended_at"]).update(&["ended_at"]).delete(),
    grant(Platform, "mails").read(ALL).update(&["due_at", "tries"]).delete(),
    grant(Platform, "sources").read(ALL).insert().update(&["deleted_at", "updated_at"]),
    grant(Platform, "source_secrets").read(&["org", "secret", "expires_at", "is_erased"]).update(&["value"]),
    grant(Platform, "endpoints").read(&["org", "endpoint", "deleted_at"]).insert(),
    grant(Platform, "endpoint_secrets").read(&["org", "secret", "expires_at", "is_erased"]).insert().update(&["value"]),
    grant(Platform, "audit_logs").read(ALL).insert(),
    grant(Platform, "idempotency_keys").read(&["org", "key", "claimed_at"]).delete(),
    grant(Platform, "revisions").read(ALL).insert().update(&["tx"]),
    grant(Platform, "nodes").read(ALL),
    grant(Platform, "shards").read(ALL),
    grant(Platform, "usage").read(ALL),
    // What is old goes.
    grant(Platform, "events").read(&["org", "id", "node", "tx", "targets"]).delete(),
    grant(Platform, "attempts").read(&["org", "endpoint", "event", "run"]).delete(),
    grant(Platform, "exceptions").read(&["org", "endpoint", "event", "run", "state", "due_at"]).delete(),
    grant(Platform, "replays").read(&["org", "event", "endpoint", "run"]).delete(),
    grant(Platform, "duplicate_guard").read(ALL).delete(),
    grant(Platform, "rejections").read(&["org", "id", "received_at"]).delete(),
    grant(Keys, "meta").read(ALL).update(&["value"]),
    grant(Keys, "organizations").read(&["org", "id", "mandrill_secret"]).update(&["mandrill_secret"]),
    grant(Keys, "tenants")
        .read(&["cell", "id", "org_id", "initialize", "name", "url", "database", "migration_version"])
        .update(&["migration_version"]),
    grant(Keys, "source_secrets").read(&["org", "secret", "id", "value"]).update(&["value"]),
    grant(Keys, "endpoint_secrets").read(&["org", "secret", "id", "value"]).update(&["value"]),
    grant(Keys, "endpoints").read(&["org", "endpoint", "id", "headers"]).update(&["headers"]),
    grant(Keys, "idempotency_keys").read(&["org", "key", "body"]).update(&["body"]),
    grant(Keys, "mails").read(&["org", "mail", "id", "token"]).update(&["token"]),
    grant(Keys, "revisions").read(ALL).insert().update(&["tx"]),
    // Everything of all organizations, and into an empty database; and what one of them leaves behind that moves.
    grant(Copier, "meta").read(ALL).insert().update(&["value"]).delete(),
    grant(Copier, "organizations").read(ALL).insert().update(&["endpoint_number"]),
    grant(Copier, "tenants").read(ALL).insert().update(&["wakes"]).delete(),
    grant(Copier, "api_keys").read(ALL).insert(),
    grant(Copier, "users").read(ALL).insert(),
    grant(Copier, "sign_in_tokens").read(ALL).insert(),
    grant(Copier, "sessions").read(ALL).insert(),
    grant(Copier, "mails").read(ALL).insert(),
    grant(Copier, "sources").read(ALL).insert().delete(),
    grant(Copier, "source_secrets").read(ALL).insert().delete(),
    grant(Copier, "endpoints").read(ALL).insert().delete(),
    grant(Copier, "endpoint_secrets").read(ALL).insert().delete(),
    grant(Copier, "audit_logs").read(ALL).insert(),
    grant(Copier, "idempotency_keys").read(ALL).insert().delete(),
    grant(Copier, "revisions").read(ALL).insert().update(&["tx"]),
    grant(Copier, "nodes").read(&["node", "lease_until", "watermark", "counted", "state"]).update(&["state"]),
    grant(Copier, "shards").read(&["node"]).update(&["node", "lease_until"]),
    grant(Copier, "events").read(ALL).insert().delete(),
    grant(Copier, "attempts").read(ALL).insert().delete(),
    grant(Copier, "exceptions").read(ALL).insert().delete(),
    grant(Copier, "replays").read(ALL).insert().delete(),
    grant(Copier, "duplicate_guard").read(ALL).insert().delete(),
    grant(Copier, "usage").read(ALL).insert().update(&["count"]),
    grant(Copier, "rejections").read(ALL).insert().delete(),
];

/// The tables that no organization owns: all others have row-level security, forced.
pub(super) const OF_THE_INSTALLATION: [&str; 5] = ["meta", "migrations", "nodes", "pokes", "shards"];

/// The parts that work for one organization at a time.
pub(super) const OF_ONE_ORGANIZATION: [Part; 2] = [Api, DeadLetter];

/// Functions, and who may call them. All run with a fixed search path; the last two as the owner.
pub(super) const FUNCTIONS: [(&str, bool, &[Part]); 5] = [
    ("day_floor", false, &[Platform]),
    ("revise", false, &[]),
    ("revise_tenant", false, &[]),
    ("drop_partition", true, &[Platform]),
    ("make_partition", true, &[Receiver, Platform, Copier]),
];
