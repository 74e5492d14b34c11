//! `users` and `orgs`: people and organizations, over the API.

use clap::{Subcommand, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, ServerArgs, escape};
use super::output;
use super::resources::ListArgs;
use super::view::{ORGANIZATIONS, Resource, USERS, View};

/// `postroom users`
#[derive(Debug, Subcommand)]
pub enum Users {
    /// People of the organization, newest first
    List {
        #[command(flatten)]
        list: ListArgs,
    },
    /// One person
    Show {
        /// usr_..., or the address
        user: String,
    },
    /// Invite somebody by mail; who was invited before and has not come yet gets a new invitation
    #[command(after_help = "Example:\n  postroom users invite ada@example.com --role admin")]
    Invite {
        /// Where the invitation goes
        email: String,
        /// What they may do
        #[arg(long, value_enum, default_value_t = RoleArg::Member)]
        role: RoleArg,
    },
    /// Give somebody another role; it ends their sessions
    #[command(after_help = "Example:\n  postroom users role ada@example.com member")]
    Role {
        /// usr_..., or the address
        user: String,
        /// What they may do from now on
        #[arg(value_enum)]
        role: RoleArg,
    },
    /// Switch somebody off; it ends their sessions
    Deactivate {
        /// usr_..., or the address
        user: String,
    },
    /// Switch somebody on again
    Activate {
        /// usr_..., or the address
        user: String,
    },
}

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Reads, retries, replays
    Member,
    /// Everything of the organization
    Admin,
}

impl RoleArg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }
}

/// `postroom orgs`
#[derive(Debug, Subcommand)]
pub enum Organizations {
    /// Organizations, newest first
    #[command(after_help = "The admin token is what POSTROOM_API_KEY has to be for `orgs`, but for showing one's own.")]
    List {
        #[command(flatten)]
        list: ListArgs,
    },
    /// One organization
    Show {
        /// Its slug or id
        #[arg(value_name = "ORGANIZATION")]
        which: String,
    },
    /// Make an organization
    #[command(after_help = "Example:\n  postroom orgs create \"Acme Corp.\" --plan starter")]
    Create {
        /// Its name, for people
        name: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change an organization; what is not named stays
    #[command(after_help = "Example:\n  postroom orgs update acme-corp --plan premium --webhook-limit plan")]
    Update {
        /// Its slug or id
        #[arg(value_name = "ORGANIZATION")]
        which: String,
        /// Another name, for people
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Switch an organization off: its sources answer 403, its keys and people are refused, its data stays
    Deactivate {
        /// Its slug or id
        #[arg(value_name = "ORGANIZATION")]
        which: String,
    },
    /// Switch an organization on again
    Activate {
        /// Its slug or id
        #[arg(value_name = "ORGANIZATION")]
        which: String,
    },
}

/// What an organization has beside its name.
#[derive(Debug, clap::Args)]
pub struct Fields {
    /// Stands in URLs: lower-case letters, digits, hyphens
    #[arg(long)]
    slug: Option<String>,
    /// free, starter or premium
    #[arg(long)]
    plan: Option<String>,
    /// Events a calendar month; `plan` is what the plan says
    #[arg(long, value_name = "N|plan", value_parser = webhook_limit)]
    webhook_limit: Option<Value>,
    /// A file that holds the key of Mandrill's webhook; - reads standard input
    #[arg(long, value_name = "FILE")]
    mandrill_secret_file: Option<std::path::PathBuf>,
}

fn webhook_limit(text: &str) -> Result<Value, String> {
    match text {
        "plan" => Ok(Value::Null),
        number => number.parse::<u64>().map(Value::from).map_err(|_| "give a whole number, or plan".to_owned()),
    }
}

impl Fields {
    fn write(self, body: &mut Value) -> anyhow::Result<()> {
        for (key, text) in [("slug", self.slug), ("plan", self.plan)] {
            if let Some(text) = text {
                body[key] = text.into();
            }
        }
        if let Some(limit) = self.webhook_limit {
            body["webhook_limit"] = limit;
        }
        if let Some(file) = self.mandrill_secret_file {
            let secret = super::resources::read_secret(&file)?;
            body["mandrill_webhook_secret"] = secret.expose_str().unwrap_or_default().into();
        }
        Ok(())
    }
}

/// Runs `postroom users`.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn users(command: Users, server: &ServerArgs, json: bool) -> anyhow::Result<()> {
    let view = View::new(Client::from_environment(server)?, json);
    match command {
        Users::List { list } => view.list(&USERS, &[], list.limit).await,
        Users::Show { user } => view.show(&USERS, &find(&view, &USERS, "email", user).await?).await,
        Users::Invite { email, role } => invite(&view, email, role).await,
        Users::Role { user, role } => change(&view, &USERS, "email", user, json!({ "role": role.as_str() })).await,
        Users::Deactivate { user } => change(&view, &USERS, "email", user, json!({ "is_active": false })).await,
        Users::Activate { user } => change(&view, &USERS, "email", user, json!({ "is_active": true })).await,
    }
}

/// Invites, or invites again whoever has not come yet.
async fn invite(view: &View, email: String, role: RoleArg) -> anyhow::Result<()> {
    let body = json!({ "email": email, "role": role.as_str() });
    let invited = match view.client().post(USERS.path, Some(&body)).await {
        Err(error) if error.downcast_ref::<super::client::Refused>().is_some_and(|no| no.code == "email_taken") => {
            // Somebody of another organization is not to be found here, and the first answer stands.
            let Ok(id) = find(view, &USERS, "email", email).await else { return Err(error) };
            view.client().post(&format!("{}/{}/invite", USERS.path, escape(&id)), Some(&json!({}))).await?
        }
        invited => invited?,
    };
    view.print_object(&invited)
}

/// Runs `postroom orgs`.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn organizations(command: Organizations, server: &ServerArgs, json: bool) -> anyhow::Result<()> {
    let view = View::new(Client::from_environment(server)?, json);
    let all = &ORGANIZATIONS;
    match command {
        Organizations::List { list } => view.list(all, &[], list.limit).await,
        Organizations::Show { which } => view.show(all, &find(&view, all, "slug", which).await?).await,
        Organizations::Create { name, fields } => {
            let mut body = json!({ "name": name });
            fields.write(&mut body)?;
            view.print_object(&view.client().post(all.path, Some(&body)).await?)
        }
        Organizations::Update { which, name, fields } => {
            let mut body = json!({});
            if let Some(name) = name {
                body["name"] = name.into();
            }
            fields.write(&mut body)?;
            anyhow::ensure!(body != json!({}), "say what to change, for example --plan starter");
            change(&view, all, "slug", which, body).await
        }
        Organizations::Deactivate { which } => change(&view, all, "slug", which, json!({ "is_active": false })).await,
        Organizations::Activate { which } => change(&view, all, "slug", which, json!({ "is_active": true })).await,
    }
}

/// Changes one and shows it.
async fn change(view: &View, resource: &Resource, name: &str, wanted: String, body: Value) -> anyhow::Result<()> {
    let path = format!("{}/{}", resource.path, escape(&find(view, resource, name, wanted).await?));
    let body = bytes::Bytes::from(body.to_string());
    view.print_object(&view.client().json(Method::PATCH, &path, Some(body)).await?)
}

/// The id of what people name otherwise: a person by the address, an organization by the slug.
async fn find(view: &View, resource: &Resource, name: &str, wanted: String) -> anyhow::Result<String> {
    let is_id = wanted.starts_with("usr_") || wanted.starts_with("org_");
    if is_id {
        return Ok(wanted);
    }
    let same = |row: &Value| row[name].as_str().is_some_and(|known| known.eq_ignore_ascii_case(&wanted));
    let found = view.all(resource).await?.into_iter().find(same);
    let found = found.map(|row| output::cell(&row["id"]));
    found.ok_or_else(|| anyhow::anyhow!("there is nothing with the {name} {:?} here", output::plain(&wanted)))
}
