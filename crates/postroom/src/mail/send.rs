//! Handing a mail over: to an SMTP server, or into a file.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lettre::Message;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{Mail, Security, Smtp};

/// How long it may take to reach one address of an SMTP server.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one mail may take in all; well below the time for which it was taken.
const MAIL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may take to say good-bye: by then it is known what became of the mail.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);
/// "Authentication required" (RFC 4954, section 6) and "Must issue a STARTTLS command first" (RFC 3207, section 4).
const NOT_LET_IN: u16 = 530;
/// Mails that are kept as files; the oldest goes for one more.
const FILES_MAX: usize = 1_000;

/// Where mails go.
pub(super) enum Transport {
    Smtp(Box<Relay>),
    Files(PathBuf),
}

/// The server has understood the mail and will not have it, now or later (RFC 5321, section 4.2.1).
#[derive(Debug, thiserror::Error)]
#[error("the server refuses it for good: {0}")]
pub(super) struct Refused(smtp::Error);

impl Transport {
    /// Makes it ready; nothing is said to the server yet, which may be away while this one starts.
    pub fn new(mail: &Mail, hello: &str) -> anyhow::Result<Self> {
        match mail {
            Mail::Smtp(smtp) => Ok(Self::Smtp(Box::new(Relay::new(smtp, hello)?))),
            Mail::Files(directory) => Ok(Self::Files(directory.clone())),
        }
    }

    /// Hands one mail over; the file it went into, if it was one.
    ///
    /// # Errors
    /// [`Refused`] when it is of no use to try again.
    pub async fn send(&self, name: &str, message: Message) -> anyhow::Result<Option<PathBuf>> {
        match self {
            Self::Smtp(relay) => relay.send(&message).await.map(|()| None),
            Self::Files(directory) => {
                let (directory, name) = (directory.clone(), format!("{name}.eml"));
                let write = move || write(&directory, &name, &message.formatted()).map(Some);
                Ok(tokio::task::spawn_blocking(write).await.context("writing did not end")??)
            }
        }
    }
}

/// An SMTP server. Each mail has a connection of its own, which is made here and not by the library's transport: that
/// does not tell whether the mail was refused, or whoever sends it.
pub(super) struct Relay {
    host: String,
    port: u16,
    hello: ClientId,
    tls: Tls,
    login: Option<Credentials>,
}

impl Relay {
    fn new(smtp: &Smtp, hello: &str) -> anyhow::Result<Self> {
        let tls = || tls(smtp).context("POSTROOM_SMTP_URL");
        let text = |secret: &postroom_domain::Secret| secret.expose_str().unwrap_or_default().to_owned();
        Ok(Self {
            host: smtp.host.clone(),
            port: smtp.port,
            hello: ClientId::Domain(hello.to_owned()),
            tls: match smtp.security {
                Security::Tls => Tls::Wrapper(tls()?),
                Security::StartTls => Tls::Required(tls()?),
                Security::None => Tls::None,
            },
            login: smtp.login.as_ref().map(|(user, password)| Credentials::new(text(user), text(password))),
        })
    }

    async fn send(&self, message: &Message) -> anyhow::Result<()> {
        let late = |_| anyhow::anyhow!("the server took longer than {} s", MAIL_TIMEOUT.as_secs());
        let deadline = Instant::now() + MAIL_TIMEOUT;
        let mut connection = timeout_at(deadline, self.connect()).await.map_err(late)??;
        let sent = timeout_at(deadline, connection.send(message.envelope(), &message.formatted())).await;
        let _goes_anyway = timeout(QUIT_TIMEOUT, connection.abort()).await;
        match sent.map_err(late)? {
            Ok(_) => Ok(()),
            Err(error) if is_for_good(&error) => Err(Refused(error).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// A connection on which mail may be sent. Whatever a server has against that, the operator can mend.
    async fn connect(&self) -> Result<AsyncSmtpConnection, smtp::Error> {
        let wrapper = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let (server, reach) = ((self.host.as_str(), self.port), Some(REACH_TIMEOUT));
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, reach, &self.hello, wrapper, None).await?;
        if let Tls::Required(parameters) = &self.tls {
            connection.starttls(parameters.clone(), &self.hello).await?;
        }
        if let Some(login) = &self.login {
            connection.auth(DEFAULT_MECHANISMS, login).await?;
        }
        Ok(connection)
    }
}

/// Of an error to MAIL, RCPT, DATA or the mail itself.
fn is_for_good(error: &smtp::Error) -> bool {
    error.is_permanent() && error.status().map(u16::from) != Some(NOT_LET_IN)
}

fn tls(smtp: &Smtp) -> anyhow::Result<TlsParameters> {
    let mut parameters = TlsParameters::builder(smtp.host.clone());
    if let Some(path) = &smtp.authorities {
        let shown = path.display();
        let pem = fs::read(path).with_context(|| format!("the certificate authorities {shown} cannot be read"))?;
        let certificate = Certificate::from_pem(&pem).with_context(|| format!("{shown} is not PEM"))?;
        parameters = parameters.add_root_certificate(certificate);
    }
    Ok(parameters.build()?)
}

/// Writes a mail that appears whole or not at all, readable by its owner only: it opens a door.
fn write(directory: &Path, name: &str, message: &[u8]) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let (path, temporary) = (directory.join(name), directory.join(format!("{name}.new")));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(message)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    fs::File::open(directory)?.sync_all()?;
    forget_oldest(directory)?;
    Ok(path)
}

/// Names begin with the time, so the oldest stand first.
fn forget_oldest(directory: &Path) -> io::Result<()> {
    let mut mails: Vec<PathBuf> = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    mails.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    mails.sort();
    mails.iter().rev().skip(FILES_MAX).try_for_each(|path| match fs::remove_file(path) {
        // Somebody who writes another mail at the same time was first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn files_are_whole_their_owners_and_not_without_number() {
        let dir = tempfile::tempdir().unwrap();
        let mail = dir.path().join("a/mail");
        for number in 0..FILES_MAX + 2 {
            let path = if number < FILES_MAX {
                let path = mail.join(format!("{number:06}.eml"));
                fs::create_dir_all(&mail).unwrap();
                fs::write(&path, "x").unwrap();
                path
            } else {
                write(&mail, &format!("{number:06}.eml"), b"link").unwrap()
            };
            assert!(path.exists());
        }
        let mut names: Vec<_> = fs::read_dir(&mail).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!((names.len(), names[0].to_str()), (FILES_MAX, Some("000002.eml")));
        let newest = mail.join(format!("{:06}.eml", FILES_MAX + 1));
        assert_eq!(fs::read(&newest).unwrap(), b"link");
        assert_eq!(fs::metadata(&newest).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
