//! `postroom audit`: the audit log over the API, and whether its chains are whole, in the database itself.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use postroom_storage::SuperAdmin;
use postroom_storage::audit::ChainReport;
use serde_json::json;

use super::beside;
use super::client::{Client, ServerArgs};
use super::output::{self, BAD, GOOD, styled};
use super::resources::{JsonArgs, ListArgs};
use super::view::{AUDIT, View};
use crate::config::Flags;

/// `postroom audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Who did what, newest first, over the API
    #[command(
        after_help = "Example:\n  postroom audit list --action endpoint.secret_viewed --after 2026-11-01T00:00:00Z"
    )]
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Check in the database that no entry was changed, removed or put in; exits 1 and says where if one was
    #[command(
        after_help = "Example:\n  postroom audit verify\n\nKeep the heads elsewhere: a chain whose end was cut off is whole, and only shorter."
    )]
    Verify {
        /// Only the entries of this organization, by slug or id
        #[arg(long, value_name = "SLUG")]
        organization: Option<String>,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Box<Flags>,
    },
}

/// Which entries.
#[derive(Debug, Args)]
pub struct Filter {
    /// Done by this user, API key, or other actor
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// This was done, such as endpoint.updated
    #[arg(long)]
    action: Option<String>,
    /// Done to things of this kind, such as endpoint
    #[arg(long, value_name = "TYPE")]
    resource_type: Option<String>,
    /// Done to this thing
    #[arg(long, value_name = "ID")]
    resource: Option<String>,
    /// Done at or after this moment, such as 2026-11-22T10:00:00Z
    #[arg(long, value_name = "TIME")]
    after: Option<String>,
    /// Done before this moment
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
}

/// Runs `postroom audit`.
///
/// # Errors
/// When the server or the database cannot be used, or there is no such organization.
pub async fn audit(command: AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::List { filter, list, json, server } => {
            let filters = [
                ("actor", filter.actor),
                ("action", filter.action),
                ("resource_type", filter.resource_type),
                ("resource_id", filter.resource),
                ("created_after", filter.after),
                ("created_before", filter.before),
            ];
            View::new(Client::from_environment(&server)?, json.json).list(&AUDIT, &filters, list.limit).await?;
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Verify { organization, json, flags } => verify(organization.as_deref(), json, &flags).await,
    }
}

async fn verify(organization: Option<&str>, json: bool, flags: &Flags) -> anyhow::Result<ExitCode> {
    let storage = beside::open(&beside::settings(flags)?).await?;
    let by = SuperAdmin::by_operator();
    let only = match organization {
        Some(name) => {
            let found = storage.authorizer.organization_enter(by.clone(), name).await?;
            Some(found.with_context(|| format!("there is no organization {name}"))?.organization())
        }
        None => None,
    };
    let reports = storage.platform.audit_verify(by, only).await?;
    storage.platform.close().await?;
    for report in &reports {
        if json { output::json(&as_json(report))? } else { output::line(as_text(report))? }
    }
    let is_whole = reports.iter().all(|report| report.broken.is_none());
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(report: &ChainReport) -> serde_json::Value {
    json!({
        "organization_id": report.organization,
        "dedicated": report.dedicated,
        "chain": hex::encode(report.chain),
        "entries": report.entries,
        "head": report.head.map(hex::encode),
        "broken_at": report.broken.as_ref().map(|broken| broken.number),
        "reason": report.broken.as_ref().map(|broken| broken.reason),
    })
}

fn as_text(report: &ChainReport) -> String {
    let whose = report.organization.map_or_else(|| "the installation".to_owned(), |id| id.to_string());
    let place = if report.dedicated { ", in its own database" } else { "" };
    let head = report.head.map(hex::encode).unwrap_or_default();
    let count = report.entries;
    match &report.broken {
        None => format!("{} {whose}{place}: {count} entries, head {head}", styled(GOOD, "whole ")),
        Some(broken) => {
            let (number, reason) = (broken.number, broken.reason);
            format!(
                "{} {whose}{place}: entry {number}: {reason}; {count} entries before it are good, head {head}",
                styled(BAD, "broken")
            )
        }
    }
}
