//! `postroom admin`: super admins, who belong to the platform and not to an organization.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use postroom_domain::Email;
use postroom_storage::api::PageRequest;
use postroom_storage::platform::SuperAdminView;
use postroom_storage::{Error, SuperAdmin};
use serde_json::{Value, json};

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
        #[arg(long, value_parser = address)]
        email: Email,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Super admins, newest first
    #[command(after_help = "Example:\n  postroom admin list")]
    List {
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Switch a super admin off: their sessions and links end on every server within a second
    #[command(after_help = "Example:
  postroom admin deactivate --email ada@example.com

The last one can be switched off, too: the admin token and this command remain.")]
    Deactivate {
        #[command(flatten)]
        which: Which,
    },
    /// Switch a super admin on again; `admin create` then gives them a link
    #[command(after_help = "Example:\n  postroom admin activate --email ada@example.com")]
    Activate {
        #[command(flatten)]
        which: Which,
    },
}

/// One super admin.
#[derive(Debug, Args)]
pub struct Which {
    /// Their address
    #[arg(long, value_parser = address)]
    email: Email,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Runs `postroom admin`.
///
/// # Errors
/// When the address is none, belongs to a person of an organization or to nobody, or the database cannot be used.
pub async fn admin(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Create { email, json, flags } => create(&email, json, &flags).await,
        AdminCommand::List { json, flags } => list(json, &flags).await,
        AdminCommand::Deactivate { which } => switch(&which, false).await,
        AdminCommand::Activate { which } => switch(&which, true).await,
    }
}

fn address(text: &str) -> Result<Email, String> {
    Email::parse(text).map_err(|invalid| invalid.detail)
}

async fn create(email: &Email, json: bool, flags: &Flags) -> anyhow::Result<()> {
    let config = beside::settings(flags)?;
    let storage = beside::open_or_make(&config).await?;
    let made = storage.platform.super_admin_create(SuperAdmin::by_operator(), email, beside::now()).await;
    let made = made.with_context(|| format!("no link can be made for {email}"))?;
    storage.platform.close().await?;
    let link = mail::link(&run::public_url(&config, config.listen), &made.token);
    if json {
        let made = json!({ "id": made.user.to_string(), "email": email.as_str(), "link": link, "expires_at": made.expires_at.to_string() });
        return Ok(output::json(&made)?);
    }
    output::note(format!("{} is a super admin; this link signs them in, once, until {}:", email, made.expires_at));
    Ok(output::line(link)?)
}

async fn list(json: bool, flags: &Flags) -> anyhow::Result<()> {
    let storage = beside::open(&beside::settings(flags)?).await?;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit: 250, after };
        let page = storage.platform.super_admin_list(SuperAdmin::by_operator(), request).await?;
        found.extend(page.data);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    storage.platform.close().await?;
    if json {
        return Ok(found.iter().map(object).try_for_each(|one| output::json(&one))?);
    }
    let fields = ["id", "email", "status", "last_login_at", "created_at"];
    let row = |one: &SuperAdminView| {
        let one = object(one);
        fields.map(|field| output::cell(&one[field])).to_vec()
    };
    Ok(output::table(&["id", "email", "status", "last login", "made"], found.iter().map(row).collect())?)
}

async fn switch(which: &Which, is_active: bool) -> anyhow::Result<()> {
    let email = &which.email;
    let storage = beside::open(&beside::settings(&which.flags)?).await?;
    let (by, now) = (SuperAdmin::by_operator(), beside::now());
    let switched = storage.platform.super_admin_set_active(by, email, is_active, now).await;
    let switched = match switched {
        Err(Error::NotFound { .. }) => anyhow::bail!("{email} is no super admin; `postroom admin list` shows who is"),
        other => other?,
    };
    storage.platform.close().await?;
    if which.json {
        return Ok(output::json(&object(&switched))?);
    }
    Ok(output::line(format!("{email} is switched {}", if is_active { "on" } else { "off" }))?)
}

/// As JSON, in the words of `/v1/users`.
fn object(one: &SuperAdminView) -> Value {
    json!({
        "id": one.id.to_string(),
        "email": one.email.as_str(),
        "status": if one.is_active { "active" } else { "deactivated" },
        "last_login_at": one.last_login_at.map(|at| at.to_string()),
        "created_at": one.created_at.to_string(),
        "updated_at": one.updated_at.to_string(),
        "created_by": one.created_by,
    })
}
