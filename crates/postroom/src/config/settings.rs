//! The table of settings: one entry each, from which come the command line flags, the nearest-name advice and the
//! reference page `docs/settings.md`.

/// One setting, as people read about it.
#[derive(Debug)]
pub struct Setting {
    /// Its key in `postroom.toml`; the environment variable is the same in capitals behind `POSTROOM_`.
    pub key: &'static str,
    /// What holds when nobody says otherwise, as text for people.
    pub default: &'static str,
    /// Whether the value must never be shown, and can be given as a file.
    pub secret: bool,
    doc: &'static [&'static str],
}

impl Setting {
    /// The environment variable.
    #[must_use]
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.to_uppercase())
    }

    /// What it means, in whole sentences.
    #[must_use]
    pub fn doc(&self) -> String {
        self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

/// What every environment variable of ours begins with.
pub const ENV_PREFIX: &str = "POSTROOM_";

/// Environment variables with our prefix that are not settings of the server: client commands read them.
pub const CLIENT_ENV: [&str; 4] = ["POSTROOM_URL", "POSTROOM_API_KEY", "POSTROOM_COPY_FROM", "POSTROOM_COPY_TO"];

macro_rules! settings {
    (
        flags { $( $(#[doc = $doc:literal])+ $key:ident = $default:literal, )+ }
        secrets { $( $(#[doc = $secret_doc:literal])+ $secret:ident = $secret_default:literal, )+ }
    ) => {
        /// Every setting there is.
        pub const SETTINGS: &[Setting] = &[
            $( Setting { key: stringify!($key), default: $default, secret: false, doc: &[$($doc),+] }, )+
            $( Setting { key: stringify!($secret), default: $secret_default, secret: true, doc: &[$($secret_doc),+] }, )+
        ];

        /// Settings given on the command line. Secrets are not among them: arguments are visible to every user of a
        /// machine.
        #[derive(Debug, Clone, Default, clap::Args)]
        #[command(next_help_heading = "Settings (also in the environment and postroom.toml)")]
        pub struct Flags {
            /// Settings file; without it ./postroom.toml is read if it is there
            #[arg(long, value_name = "FILE")]
            pub config: Option<std::path::PathBuf>,
            $( $(#[doc = $doc])+ #[arg(long, value_name = "VALUE", allow_hyphen_values = true)] pub $key: Option<String>, )+
        }

        impl Flags {
            /// Key and text of every flag that was given.
            pub(super) fn given(&self) -> Vec<(&'static str, &str)> {
                let all = [$( (stringify!($key), self.$key.as_deref()), )+];
                all.into_iter().filter_map(|(key, text)| text.map(|text| (key, text))).collect()
            }

            /// The same flags for another process of this program, but for those named.
            #[must_use]
            pub fn to_arguments(&self, but: &[&str]) -> Vec<String> {
                let config = self.config.iter().map(|path| format!("--config={}", path.display()));
                let given = self.given().into_iter().filter(|(key, _)| !but.contains(key));
                config.chain(given.map(|(key, text)| format!("--{}={text}", key.replace('_', "-")))).collect()
            }
        }
    };
}

settings! {
    flags {
        /// Address and port to listen on. Port 0 picks a free port and prints it.
        listen = "127.0.0.1:8080",
        /// Directory of the embedded engine's database, of the encryption keys that Postroom makes itself, and of mail
        /// while there is no SMTP server (`mail/*.eml`). On PostgreSQL for such mail only.
        data_dir = "./postroom-data",
        /// How the outside reaches this server: shown in links, and part of what Mandrill signs. Scheme and host only.
        public_url = "http:// and the address it listens on",
        /// Reverse proxies in front of this server, in CIDR form, separated by commas: the last address of
        /// X-Forwarded-For that is none of them is the client that limits and the audit log go by. Without it that is
        /// whoever connects.
        trusted_proxies = "none",
        /// Seconds between the attempts of a delivery, separated by commas; at most 20 of 1 to 604800 seconds. Empty
        /// means no retry. An endpoint can have its own.
        retry_schedule = "60,300,900",
        /// The largest body that is accepted, in bytes (1024 to 67108864). A larger one is answered 413.
        max_body_bytes = "1048576",
        /// Milliseconds that one attempt may take, from looking up the name to the last byte (1000 to 30000).
        delivery_timeout_ms = "15000",
        /// Networks that deliveries may reach although they are private, in CIDR form, separated by commas. For local
        /// trials: 127.0.0.0/8.
        allow_private_networks = "none",
        /// Days that the same provider event id, or the same id of /v1/events, is recognised as a duplicate (1 to 365).
        dedupe_days = "7",
        /// Events, deliveries and attempts older than this many days are deleted, in bounded steps (1 to 3650).
        retention_days = "30",
        /// Events that an organization of the plan free may have accepted in a calendar month (UTC), unless it has a limit
        /// of its own: 1 to 1000000000000, or none. At the limit events are answered 429 until the month is over. Every
        /// process of an installation must have the same.
        free_webhook_limit = "1000",
        /// The same for the plan starter.
        starter_webhook_limit = "50000",
        /// The same for the plan premium.
        premium_webhook_limit = "none",
        /// Which parts this process runs, separated by commas: receiver (`/in/...`), api (`/v1/...`), worker (deliveries
        /// and upkeep). On PostgreSQL every process may run other parts, as long as some run each; the embedded engine
        /// has one process, which runs all.
        roles = "all",
    }
    secrets {
        /// Bearer token with super admin rights, for automation: at least 32 characters. Without it only super admins who
        /// sign in have these rights over HTTP.
        admin_token = "none",
        /// Keys that encrypt secrets at rest, base64 of 32 bytes each, newest first, separated by commas. Without it
        /// one is made in the data directory (encryption.keys, readable by its owner only); on PostgreSQL it must be set,
        /// to the same for every process. `postroom keys generate` prints one.
        encryption_keys = "made in the data directory",
        /// Server that sign-in links and invitations are mailed through: smtp://user:password@host:587 (STARTTLS, which it
        /// must have) or smtps://user:password@host:465. Options: `?from=` the sender, else postroom@ the public host;
        /// `?tls=none` for a relay without TLS, which also holds for this machine itself unless `?tls=required`;
        /// `?ca=/path/ca.pem` authorities to trust beside the public ones. Without it mail is written to `mail/*.eml` in
        /// the data directory, and the link is logged on a terminal.
        smtp_url = "none: files",
        /// PostgreSQL 15 or newer in place of the embedded engine: postgres://user:password@host:port/database. Its user
        /// owns nothing; `postroom migrate` grants it what the parts of the process need. Every process of an
        /// installation has the same database and the same encryption keys.
        database_url = "none: the embedded engine",
        /// A login of its own for the part that proves callers: it reads API keys, people and sessions, and no signing
        /// secret.
        database_url_authorizer = "POSTROOM_DATABASE_URL",
        /// A login of its own for the part that accepts events: it reads sources and appends events.
        database_url_receiver = "POSTROOM_DATABASE_URL",
        /// A login of its own for the part that delivers: it reads endpoints and events, no API key.
        database_url_worker = "POSTROOM_DATABASE_URL",
        /// A login of its own for the API: it sees one organization at a time.
        database_url_api = "POSTROOM_DATABASE_URL",
        /// A login of its own for the part that shows and moves deliveries and dead letters: no secrets, no payloads.
        database_url_dead_letter = "POSTROOM_DATABASE_URL",
        /// A login of its own for super admins, mail and upkeep: no payloads.
        database_url_platform = "POSTROOM_DATABASE_URL",
        /// The login that owns the schema, for `postroom migrate`, `keys rotate`, `copy` and `tenants move`. A server that
        /// has it brings the database to its version itself when it starts; give it to few.
        migrate_database_url = "POSTROOM_DATABASE_URL",
    }
}

/// The setting of this key.
#[must_use]
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The key that was probably meant, if one is near.
#[must_use]
pub fn nearest(key: &str) -> Option<String> {
    let file_keys = SETTINGS.iter().filter(|s| s.secret).map(|s| format!("{}_file", s.key));
    SETTINGS
        .iter()
        .map(|setting| setting.key.to_owned())
        .chain(file_keys)
        .map(|known| (strsim::jaro_winkler(&known, key), known))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// The reference page, in Markdown.
#[must_use]
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Settings\n\n\
        Defaults, then `postroom.toml` in the working directory (or the file of `--config`), then the environment, then\n\
        command line flags: the later one wins. Nothing has to be set. An unknown key is an error, and `postroom config\n\
        check` reports every problem at once; `postroom config show` shows each value and where it came from.\n\n\
        A key of `postroom.toml` is the name below in lower case without `POSTROOM_`, for example `listen =\n\
        \"127.0.0.1:9000\"`; lists can be written as arrays. A flag is the same with hyphens: `--listen`.\n\
        A secret has no flag, because arguments are visible to other users of a machine; instead it can be given as a\n\
        file, by the same name with `_FILE` at its end. White space around the contents of such a file does not count.\n\n\
        | Setting | Default | Meaning |\n|---|---|---|\n",
    );
    for setting in SETTINGS {
        let secret = if setting.secret { " Secret." } else { "" };
        page.push_str(&format!("| `{}` | {} | {}{secret} |\n", setting.env(), setting.default, setting.doc()));
    }
    page.push_str(
        "\nClient commands (`send`, `tail`, `events`, ...) read two more, and never a settings file: `POSTROOM_URL`, the\n\
        server (default `http://127.0.0.1:8080`), and `POSTROOM_API_KEY`. `POSTROOM_COPY_FROM` and `POSTROOM_COPY_TO` are the\n\
        two sides of `postroom copy`. `RUST_LOG` filters the log (default `info`).\n",
    );
    page
}
