//! `postroom admin`: super admins, who belong to the platform and not to an organization.

use anyhow::Context as _;
use clap::Subcommand;
use postroom_domain::Email;
use postroom_storage::SuperAdmin;
use serde_json::json;

use super::{beside, output};
use crate::config::Flags;
use crate::{mail, run};

/// `postroom admin`
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Make a super admin, and print a link to sign in with; who is one already gets a new link
    #[command(after_help = "Example:
  postroom admin create --email ada@example.com

The link works once, for 15 minutes. It goes to POSTROOM_PUBLIC_URL; the command works beside a running server.")]
    Create {
        /// Their address
        #[arg(long)]
        email: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
}

/// Runs `postroom admin`.
///
/// # Errors
/// When the address is none or belongs to a person of an organization, or the database cannot be used.
pub async fn admin(command: AdminCommand) -> anyhow::Result<()> {
    let AdminCommand::Create { email, json, flags } = command;
    let email = Email::parse(&email).map_err(|invalid| anyhow::anyhow!("--email: {}", invalid.detail))?;
    let config = beside::settings(&flags)?;
    let storage = beside::open(&config).await?;
    let made = storage.platform.super_admin_create(SuperAdmin::by_operator(), &email, beside::now()).await;
    let made = made.with_context(|| format!("{email} cannot be a super admin"))?;
    storage.platform.close().await?;
    let link = mail::link(&run::public_url(&config, config.listen), &made.token);
    if json {
        let made = json!({ "id": made.user.to_string(), "email": email.as_str(), "link": link, "expires_at": made.expires_at.to_string() });
        return Ok(output::json(&made)?);
    }
    output::note(format!("{} is a super admin; this link signs them in, once, until {}:", email, made.expires_at));
    Ok(output::line(link)?)
}
