//! What each part of the process may do, table by table and column by column.
//!
//! This is the one list; [`super::connection`] holds statements to it. What is not on it is refused: a new table or
//! column is nobody's until it is written down here. Tables of which all columns may be read are named with [`ALL`].
//! An insert may fill every column: SQLite does not ask which. ARCHITECTURE.md shows the list, and a test keeps it so.

#[cfg(test)]
mod tests;

use rusqlite::hooks::AuthAction;

pub(super) use crate::engine::grants::Part;
use crate::engine::grants::Part::{Api, Authorizer, Copier, DeadLetter, Keys, Platform, Receiver, Worker};
use crate::engine::grants::{ALL, Grant, columns, grant};

/// The list.
const GRANTS: &[Grant] = &[
    grant(Authorizer, "organization").read(&["org", "id", "slug", "is_active"]),
    grant(Authorizer, "api_key").read(columns::API_KEY_PROOF).update(&["last_used_at"]),
    grant(Authorizer, "tenants").read(&["org_id"]),
    grant(Authorizer, "user").read(columns::USER_PROOF).update(&["invited_until", "last_login_at"]),
    grant(Authorizer, "sign_in_token").read(ALL).insert().update(&["used_at"]),
    grant(Authorizer, "session").read(columns::SESSION).insert().update(&["ended_at"]),
    grant(Authorizer, "audit").read(columns::CHAIN).insert(),
    // The link goes in, and only who sends it takes it out.
    grant(Authorizer, "mail").insert(),
    grant(Receiver, "organization").read(&["org", "plan", "webhook_limit", "mandrill_secret"]),
    grant(Receiver, "source").read(ALL),
    grant(Receiver, "source_secret").read(ALL),
    grant(Receiver, "endpoint").read(&[
        "endpoint",
        "org",
        "event_types",
        "source_ids",
        "filter",
        "disabled_reason",
        "deleted_at",
    ]),
    grant(Receiver, "event").read(&["seq", "id", "org", "source", "type", "external_id", "targets"]).insert(),
    grant(Receiver, "exception").insert(),
    grant(Receiver, "event_by_org").insert(),
    grant(Receiver, "event_by_type").insert(),
    grant(Receiver, "delivery_by_endpoint").insert(),
    grant(Receiver, "duplicate_guard").read(ALL).insert().update(&["event"]),
    grant(Receiver, "progress").read(ALL).update(&["indexed_upto", "guarded_upto"]),
    grant(Receiver, "usage").read(ALL).insert().update(&["count"]),
    // The length of the body counts for the bound.
    grant(Receiver, "rejection").read(&["seq", "org", "body"]).insert().delete(),
    grant(Worker, "organization").read(&["org", "id", "is_active"]),
    grant(Worker, "endpoint").read(ALL),
    grant(Worker, "endpoint_secret").read(ALL),
    grant(Worker, "event").read(ALL),
    grant(Worker, "attempt").read(&["event", "endpoint", "run"]).insert(),
    grant(Worker, "exception").read(ALL).insert().update(columns::EXCEPTION).delete(),
    grant(Worker, "progress").read(&["one", "watermark"]).update(&["watermark"]),
    grant(Api, "organization").read(&["org", "endpoint_number"]).update(&["endpoint_number"]),
    // Not the hash: it is written once, and compared by the authorizer only.
    grant(Api, "api_key").read(columns::API_KEY).insert().update(&["revoked_at"]),
    grant(Api, "user").read(columns::USER).insert().update(columns::USER_CHANGE),
    grant(Api, "sign_in_token").read(&["usr", "created_at", "used_at"]).insert().update(&["used_at"]),
    grant(Api, "session").read(&["org", "usr", "expires_at", "ended_at"]).update(&["ended_at"]),
    grant(Api, "mail").read(&["usr"]).insert().delete(),
    grant(Api, "source").read(ALL).insert().update(&["name", "options", "is_active", "updated_at", "deleted_at"]),
    grant(Api, "source_secret").read(ALL).insert().update(&["value", "expires_at"]).delete(),
    grant(Api, "endpoint").read(ALL).insert().update(columns::ENDPOINT_CHANGE),
    grant(Api, "endpoint_secret").read(ALL).insert().update(&["value", "expires_at"]).delete(),
    // Nobody changes or deletes an entry.
    grant(Api, "audit").read(ALL).insert(),
    grant(Api, "idempotency").read(ALL).insert().update(columns::ANSWER).delete(),
    grant(Api, "event").read(ALL),
    grant(Api, "attempt").read(ALL),
    grant(Api, "exception").read(ALL),
    grant(Api, "replay").read(ALL),
    grant(Api, "event_by_org").read(ALL),
    grant(Api, "event_by_type").read(ALL),
    grant(Api, "delivery_by_endpoint").read(ALL),
    grant(Api, "duplicate_guard").read(ALL),
    grant(Api, "progress").read(ALL),
    grant(Api, "rejection").read(ALL).update(&["event"]),
    grant(DeadLetter, "endpoint").read(&["endpoint", "org", "id", "number", "disabled_reason", "deleted_at"]),
    grant(DeadLetter, "event").read(&["seq", "id", "org", "source", "type", "external_id", "targets"]),
    grant(DeadLetter, "attempt").read(&[
        "attempt",
        "id",
        "event",
        "endpoint",
        "run",
        "number",
        "succeeded",
        "status",
        "error",
    ]),
    grant(DeadLetter, "exception").read(ALL).insert().update(columns::EXCEPTION),
    grant(DeadLetter, "replay").read(ALL).insert(),
    grant(DeadLetter, "delivery_by_endpoint").insert(),
    grant(DeadLetter, "progress").read(ALL),
    grant(DeadLetter, "audit").read(columns::CHAIN).insert(),
    grant(Platform, "organization")
        .read(&[
            "org",
            "id",
            "slug",
            "name",
            "plan",
            "webhook_limit",
            "is_active",
            "mandrill_fingerprint",
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
            "updated_at",
        ]),
    grant(Platform, "user").read(columns::SUPER_ADMIN).insert().update(&["is_active", "updated_at"]),
    grant(Platform, "sign_in_token")
        .read(&["hash", "usr", "expires_at", "used_at"])
        .insert()
        .update(&["used_at"])
        .delete(),
    grant(Platform, "session").read(columns::SESSION_END).update(&["ended_at"]).delete(),
    grant(Platform, "mail").read(ALL).update(&["due_at", "tries"]).delete(),
    // The source that an organization's own Mandrill secret implies.
    grant(Platform, "source").read(&["org", "is_implied"]).insert().update(&["updated_at", "deleted_at"]),
    grant(Platform, "audit").read(ALL).insert(),
    grant(Platform, "usage").read(ALL).insert().update(&["count"]),
    grant(Platform, "idempotency").read(ALL).insert().update(columns::ANSWER).delete(),
    // What is old goes.
    grant(Platform, "event").read(&["seq", "id", "org", "source", "type", "external_id", "targets"]).delete(),
    grant(Platform, "attempt").read(&["attempt", "event"]).delete(),
    grant(Platform, "exception").read(ALL).delete(),
    grant(Platform, "replay").read(&["endpoint", "event", "run"]).delete(),
    grant(Platform, "event_by_org").read(ALL).delete(),
    grant(Platform, "event_by_type").read(ALL).delete(),
    grant(Platform, "delivery_by_endpoint").read(ALL).delete(),
    grant(Platform, "duplicate_guard").read(ALL).delete(),
    grant(Platform, "progress").read(ALL),
    grant(Platform, "rejection").read(&["seq", "received_at"]).delete(),
    grant(Platform, "revision").read(ALL).update(&["value", "tenants"]),
    grant(Platform, "tenants").read(ALL).insert().update(&[
        "initialize",
        "migration_version",
        "begun",
        "awake",
        "wakes",
        "slept_at",
    ]),
    grant(Keys, "organization").read(&["org", "id", "mandrill_secret"]).update(&["mandrill_secret"]),
    grant(Keys, "source_secret").read(&["secret", "org", "id", "value"]).update(&["value"]),
    grant(Keys, "endpoint_secret").read(&["secret", "org", "id", "value"]).update(&["value"]),
    grant(Keys, "endpoint").read(&["endpoint", "org", "id", "headers"]).update(&["headers"]),
    grant(Keys, "mail").read(&["mail", "org", "id", "token"]).update(&["token"]),
    grant(Keys, "idempotency").read(&["org", "key", "body"]).update(&["body"]),
    grant(Keys, "meta").read(ALL).update(&["value"]),
    grant(Copier, "meta").read(ALL).insert().update(&["value"]).delete(),
    grant(Copier, "revision").read(ALL).update(&["tenants"]),
    grant(Copier, "tenants").read(ALL).insert().delete(),
    grant(Copier, "organization").read(ALL).insert().update(&["endpoint_number"]),
    grant(Copier, "api_key").read(ALL).insert(),
    grant(Copier, "user").read(ALL).insert(),
    grant(Copier, "sign_in_token").read(ALL).insert(),
    grant(Copier, "session").read(ALL).insert(),
    grant(Copier, "mail").read(ALL).insert(),
    grant(Copier, "source").read(ALL).insert().delete(),
    grant(Copier, "source_secret").read(ALL).insert().delete(),
    grant(Copier, "endpoint").read(ALL).insert().delete(),
    grant(Copier, "endpoint_secret").read(ALL).insert().delete(),
    grant(Copier, "audit").read(ALL).insert(),
    grant(Copier, "idempotency").read(ALL).insert().delete(),
    grant(Copier, "event").read(ALL).insert(),
    grant(Copier, "attempt").read(ALL).insert(),
    grant(Copier, "exception").read(ALL).insert().delete(),
    grant(Copier, "replay").read(ALL).insert(),
    grant(Copier, "event_by_org").insert(),
    grant(Copier, "event_by_type").insert(),
    grant(Copier, "delivery_by_endpoint").insert(),
    grant(Copier, "duplicate_guard").read(ALL).insert(),
    grant(Copier, "progress").read(ALL).update(&["watermark", "indexed_upto", "guarded_upto"]),
    grant(Copier, "usage").read(ALL).insert().update(&["count"]),
    grant(Copier, "rejection").read(ALL).insert().delete(),
];

/// Whether a part may do what SQLite asks about.
pub(super) fn allow(part: Part, action: &AuthAction<'_>) -> bool {
    let granted = |table: &str, may: fn(&Grant) -> bool| {
        GRANTS.iter().any(|grant| grant.part == part && grant.table == table && may(grant))
    };
    let columns = |table: &str, column: &str, of: fn(&Grant) -> &'static [&'static str]| {
        let mut grants = GRANTS.iter().filter(|grant| grant.part == part && grant.table == table);
        grants.any(|grant| of(grant).iter().any(|granted| *granted == column || *granted == "*"))
    };
    match *action {
        AuthAction::Select
        | AuthAction::Recursive
        | AuthAction::Function { .. }
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. } => true,
        // A statement that only counts rows names no column.
        AuthAction::Read { table_name, column_name: "" } => granted(table_name, |grant| !grant.read.is_empty()),
        AuthAction::Read { table_name, column_name } => columns(table_name, column_name, |grant| grant.read),
        AuthAction::Insert { table_name } => granted(table_name, |grant| grant.insert),
        AuthAction::Update { table_name, column_name } => columns(table_name, column_name, |grant| grant.update),
        AuthAction::Delete { table_name } => granted(table_name, |grant| grant.delete),
        AuthAction::Pragma { pragma_name: "wal_checkpoint", .. } => part == Platform,
        _ => false,
    }
}
