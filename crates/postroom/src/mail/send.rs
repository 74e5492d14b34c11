//! Handing a mail over: to an SMTP server, or into a file.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use crate::config::{Mail, Security, Smtp};

/// How long an SMTP server may take for one step: to be reached, to answer a command.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one mail may take in all; well below the time for which it was taken.
const MAIL_TIMEOUT: Duration = Duration::from_secs(15);
/// Mails that are kept as files; the oldest goes for one more.
const FILES_MAX: usize = 1_000;

/// Where mails go.
pub(super) enum Transport {
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    Files(PathBuf),
}

impl Transport {
    /// Makes it ready; nothing is said to the server yet, which may be away while this one starts.
    pub fn new(mail: &Mail, hello: &str) -> anyhow::Result<Self> {
        match mail {
            Mail::Smtp(smtp) => Ok(Self::Smtp(Box::new(transport(smtp, hello)?))),
            Mail::Files(directory) => Ok(Self::Files(directory.clone())),
        }
    }

    /// Hands one mail over; the file it went into, if it was one.
    pub async fn send(&self, name: &str, message: Message) -> anyhow::Result<Option<PathBuf>> {
        match self {
            Self::Smtp(transport) => {
                let sent = tokio::time::timeout(MAIL_TIMEOUT, transport.send(message)).await;
                sent.map_err(|_| anyhow::anyhow!("the server took longer than {} s", MAIL_TIMEOUT.as_secs()))??;
                Ok(None)
            }
            Self::Files(directory) => {
                let (directory, name) = (directory.clone(), format!("{name}.eml"));
                let write = move || write(&directory, &name, &message.formatted()).map(Some);
                Ok(tokio::task::spawn_blocking(write).await.context("writing did not end")??)
            }
        }
    }
}

fn transport(smtp: &Smtp, hello: &str) -> anyhow::Result<AsyncSmtpTransport<Tokio1Executor>> {
    let tls = || tls(smtp).context("POSTROOM_SMTP_URL");
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .timeout(Some(STEP_TIMEOUT))
        .hello_name(ClientId::Domain(hello.to_owned()))
        .tls(match smtp.security {
            Security::Tls => Tls::Wrapper(tls()?),
            Security::StartTls => Tls::Required(tls()?),
            Security::None => Tls::None,
        });
    if let Some((user, password)) = &smtp.login {
        let text = |secret: &postroom_domain::Secret| secret.expose_str().unwrap_or_default().to_owned();
        builder = builder.credentials(Credentials::new(text(user), text(password)));
    }
    Ok(builder.build())
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
