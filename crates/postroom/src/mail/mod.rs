//! The mailer: takes what storage has queued, hands it over, and tries again until its link has ended.
//!
//! A mail and the token in it are written in one transaction, so neither is there without the other, and no request waits
//! for a mail server. What the server refuses for good is given up at once. Every process with the API's role takes mails;
//! each is taken by one, for 60 seconds. One that was handed over just before a crash is sent again, with the same
//! `Message-ID`.

mod render;
mod send;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lettre::message::Mailbox;
use postroom_domain::{Clock, Timestamp};
use postroom_storage::Platform;
use postroom_storage::platform::OutgoingMail;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::{Mail, printable};
use crate::logging;
pub use render::link;
use send::{Refused, Transport};

/// Mails taken, and sent at the same time.
const TAKE: usize = 8;
/// How often is looked for mails that another process queued, or that are due again.
const LOOK: Duration = Duration::from_secs(5);
/// Waits between the tries of one mail; the last one again and again.
const WAITS: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];
/// Between two lines of the log about mail that can not be sent.
const WARN_PAUSE: Duration = Duration::from_secs(60);

/// Sends mail; see the [module](self).
pub struct Mailer {
    platform: Arc<dyn Platform>,
    transport: Transport,
    from: Mailbox,
    public_url: String,
    clock: Clock,
    /// Told when something was queued in this process.
    queued: Arc<Notify>,
    warned: parking_lot::Mutex<Option<Instant>>,
}

impl Mailer {
    /// Prepares sending.
    ///
    /// # Errors
    /// When a file that the settings name can not be read.
    pub fn new(
        mail: &Mail,
        public_url: &str,
        platform: Arc<dyn Platform>,
        clock: Clock,
        queued: Arc<Notify>,
    ) -> anyhow::Result<Self> {
        metrics::describe_counter!("postroom_mail_failures_total", "Tries to send a mail that failed");
        metrics::describe_counter!(
            "postroom_mails_given_up_total",
            "Mails that the server refused for good, or that were not sent before their link ended"
        );
        let host = host(public_url);
        let from = match mail {
            Mail::Smtp(smtp) => smtp.from.clone(),
            Mail::Files(_) => None,
        };
        let from = match from {
            Some(from) => from,
            None => format!("postroom@{host}").parse()?,
        };
        let transport = Transport::new(mail, &host)?;
        let public_url = public_url.trim_end_matches('/').to_owned();
        Ok(Self { platform, transport, from, public_url, clock, queued, warned: parking_lot::Mutex::new(None) })
    }

    /// Sends until `stop`; what is under way then still ends.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let more = self.send_due().await;
            if more && !stop.is_cancelled() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.queued.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Sends what is due; whether there may be more.
    async fn send_due(&self) -> bool {
        match self.platform.mail_take(self.clock.now(), TAKE).await {
            Ok(mails) => {
                join_all(mails.iter().map(|mail| self.send(mail))).await;
                mails.len() == TAKE
            }
            Err(error) => {
                self.warn(&format!("mails can not be read from storage: {error}"));
                false
            }
        }
    }

    /// Sends one mail, and tells storage what became of it.
    async fn send(&self, mail: &OutgoingMail) {
        let now = self.clock.now();
        let told = if mail.expires_at <= now {
            self.give_up_late(mail).await
        } else {
            match self.hand_over(mail, now).await {
                Ok(()) => self.platform.mail_done(mail.id).await,
                Err(error) => self.failed(mail, &error).await,
            }
        };
        if let Err(error) = told {
            self.warn(&format!("what became of a mail can not be written to storage: {error}"));
        }
    }

    async fn hand_over(&self, mail: &OutgoingMail, now: Timestamp) -> anyhow::Result<()> {
        let message = render::message(mail, &self.from, &self.public_url, now)?;
        if let Some(file) = self.transport.send(&mail.id.to_string(), message).await? {
            let shown = file.display();
            tracing::info!("there is no SMTP server (POSTROOM_SMTP_URL): a mail stands in {shown}");
            // The link is a secret: it is shown where a person sits in front, and kept out of every log file.
            if logging::for_people() {
                tracing::info!("its link: {}", link(&self.public_url, &mail.token));
            }
        }
        Ok(())
    }

    async fn failed(&self, mail: &OutgoingMail, error: &anyhow::Error) -> postroom_storage::Result<()> {
        metrics::counter!("postroom_mail_failures_total").increment(1);
        let reason = printable(&format!("{error:#}"));
        if error.is::<Refused>() {
            // Once for each mail: it is tried no more, so nothing else will tell of it.
            tracing::warn!(mail.id = %mail.id, "a mail is given up: {reason}");
            return self.give_up(mail).await;
        }
        self.warn(&format!("a mail can not be sent and is tried again: {reason}"));
        let tries = usize::try_from(mail.tries).unwrap_or(usize::MAX);
        let wait = WAITS[tries.min(WAITS.len() - 1)];
        let retry_at = self.clock.now() + wait;
        if retry_at >= mail.expires_at {
            self.give_up_late(mail).await
        } else {
            self.platform.mail_failed(mail.id, retry_at).await
        }
    }

    async fn give_up_late(&self, mail: &OutgoingMail) -> postroom_storage::Result<()> {
        self.warn("a mail is given up: its link ends before it could be sent");
        self.give_up(mail).await
    }

    async fn give_up(&self, mail: &OutgoingMail) -> postroom_storage::Result<()> {
        metrics::counter!("postroom_mails_given_up_total").increment(1);
        self.platform.mail_done(mail.id).await
    }

    /// While a mail server is away every mail fails: one line a minute is enough.
    fn warn(&self, text: &str) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
            *warned = Some(Instant::now());
            tracing::warn!("{text}");
        } else {
            tracing::debug!("{text}");
        }
    }
}

/// The name this server has in mail: that of its public URL, if it is one.
fn host(public_url: &str) -> String {
    let url = Url::parse(public_url).ok();
    let domain = url.as_ref().and_then(Url::domain).filter(|name| !name.is_empty());
    domain.unwrap_or("localhost").to_owned()
}
