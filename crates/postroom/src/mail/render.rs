//! What mails say: a plain text and the same as HTML. What people wrote is escaped, and stands in no header.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use postroom_domain::Timestamp;
use postroom_domain::sign_in::{Purpose, SignInToken};
use postroom_storage::platform::OutgoingMail;

const STYLE_BUTTON: &str = "display:inline-block;padding:.6em 1.2em;border-radius:.4em;background:#1f4fd8;color:#fff;\
text-decoration:none;font-weight:600";

/// The link that carries a token. It stands behind `#`: a browser sends that part to nobody, so it gets into no log and
/// no `Referer`.
#[must_use]
pub fn link(public_url: &str, token: &SignInToken) -> String {
    format!("{}/sign-in#token={}", public_url.trim_end_matches('/'), token.expose_str())
}

/// A mail, ready to send.
///
/// # Errors
/// When a header can not be written, which no checked address leads to.
pub fn message(
    mail: &OutgoingMail,
    from: &Mailbox,
    public_url: &str,
    now: Timestamp,
) -> Result<Message, lettre::error::Error> {
    let words = Words::of(mail, public_url);
    let to = Mailbox::new(None, mail.to.as_str().parse().map_err(|_| lettre::error::Error::MissingTo)?);
    let since = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0));
    Message::builder()
        .from(from.clone())
        .to(to)
        .subject(words.subject)
        .date(SystemTime::UNIX_EPOCH + since)
        // The same for every try: a mailbox that got it twice can tell.
        .message_id(Some(format!("<{}@{}>", mail.id, from.email.domain())))
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
        .multipart(MultiPart::alternative_plain_html(words.text(), words.html()))
}

/// The sentences of a mail, as text.
struct Words {
    subject: &'static str,
    /// What it is about.
    why: String,
    button: &'static str,
    link: String,
    /// What one should know of the link.
    terms: String,
    /// Who gets it by mistake.
    otherwise: &'static str,
}

impl Words {
    fn of(mail: &OutgoingMail, public_url: &str) -> Self {
        let link = link(public_url, &mail.token);
        let until = until(mail.expires_at);
        let terms =
            format!("The link works once, until {until}. Nothing happens before you press the button on its page.");
        match mail.purpose {
            Purpose::SignIn => Self {
                subject: "Sign in to Postroom",
                why: format!("Somebody, probably you, wants to sign in to Postroom at {public_url} with this address."),
                button: "Sign in",
                link,
                terms,
                otherwise: "If it was not you, ignore this mail: without the link nobody gets in.",
            },
            Purpose::Invitation => Self {
                subject: "You are invited to Postroom",
                why: invitation(mail, public_url),
                button: "Accept and sign in",
                link,
                terms,
                otherwise: "If you do not expect an invitation, ignore this mail: it ends by itself.",
            },
        }
    }

    fn text(&self) -> String {
        let Self { why, link, terms, otherwise, .. } = self;
        format!("Hello,\n\n{why}\n\nOpen this link:\n\n{link}\n\n{terms}\n\n{otherwise}\n")
    }

    fn html(&self) -> String {
        let [subject, why, button, link, terms, otherwise] =
            [self.subject, &self.why, self.button, &self.link, &self.terms, self.otherwise].map(escape);
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{subject}</title></head>\
             <body style=\"font:16px/1.5 system-ui,sans-serif\"><p>Hello,</p>\n<p>{why}</p>\n\
             <p><a href=\"{link}\" style=\"{STYLE_BUTTON}\">{button}</a></p>\n\
             <p>Or open this link:<br>{link}</p>\n<p>{terms}</p>\n<p>{otherwise}</p></body></html>\n"
        )
    }
}

fn invitation(mail: &OutgoingMail, public_url: &str) -> String {
    let role = mail.role.map_or("", |role| role.as_str());
    match &mail.organization {
        Some(name) => format!("You are invited to the organization \"{name}\" on Postroom at {public_url}, as {role}."),
        None => format!("You are invited to Postroom at {public_url}."),
    }
}

/// A moment for people: to the minute, and in UTC, because nobody knows where they are.
fn until(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} {} UTC", text.get(..10).unwrap_or_default(), text.get(11..16).unwrap_or_default())
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let _ = match c {
            '&' | '<' | '>' | '"' | '\'' => write!(escaped, "&#{};", u32::from(c)),
            other => write!(escaped, "{other}"),
        };
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroom_domain::{Email, MailId, Role};

    fn now() -> Timestamp {
        Timestamp::from_millis(1_795_341_600_000)
    }

    fn mail(purpose: Purpose, organization: Option<&str>) -> OutgoingMail {
        OutgoingMail {
            id: MailId::new(now()),
            to: Email::parse("ada@example.com").unwrap(),
            purpose,
            token: SignInToken::generate(),
            organization: organization.map(str::to_owned),
            role: organization.map(|_| Role::Member),
            tries: 0,
            expires_at: now() + purpose.life(),
        }
    }

    #[test]
    fn a_link_carries_its_token_where_no_server_sees_it() {
        let token = SignInToken::generate();
        for public_url in ["https://hooks.example", "https://hooks.example/"] {
            assert_eq!(link(public_url, &token), format!("https://hooks.example/sign-in#token={}", token.expose_str()));
        }
    }

    #[test]
    fn both_forms_of_a_mail_carry_the_link_and_until_when_it_works() {
        let from: Mailbox = "Postroom <postroom@hooks.example>".parse().unwrap();
        for (purpose, until) in
            [(Purpose::SignIn, "2026-11-22 10:15 UTC"), (Purpose::Invitation, "2026-11-29 10:00 UTC")]
        {
            let mail = mail(purpose, Some("Acme"));
            let link = link("https://hooks.example", &mail.token);
            let words = Words::of(&mail, "https://hooks.example");
            for form in [words.text(), words.html()] {
                assert!(form.contains(&link) && form.contains(until), "{form}");
            }
            let whole =
                String::from_utf8(message(&mail, &from, "https://hooks.example", now()).unwrap().formatted()).unwrap();
            for part in [
                "From: Postroom <postroom@hooks.example>\r\n",
                "To: ada@example.com\r\n",
                &format!("Message-ID: <{}@hooks.example>\r\n", mail.id),
                "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n",
                "Auto-Submitted: auto-generated\r\n",
                "Content-Type: multipart/alternative;",
                "Content-Type: text/plain; charset=utf-8\r\n",
                "Content-Type: text/html; charset=utf-8\r\n",
            ] {
                assert!(whole.contains(part), "{part:?} is missing in {whole}");
            }
        }
    }

    #[test]
    fn what_people_wrote_is_text_in_both_forms_and_stands_in_no_header() {
        let from: Mailbox = "postroom@hooks.example".parse().unwrap();
        let name = "<img src=x> & \"Sons\"";
        let mail = mail(Purpose::Invitation, Some(name));
        let words = Words::of(&mail, "https://hooks.example");
        assert!(words.text().contains(name));
        let html = words.html();
        assert!(html.contains("&#60;img src=x&#62; &#38; &#34;Sons&#34;") && !html.contains("<img"), "{html}");
        let whole =
            String::from_utf8(message(&mail, &from, "https://hooks.example", now()).unwrap().formatted()).unwrap();
        let head = whole.split("\r\n\r\n").next().unwrap();
        assert!(!head.contains("img") && head.contains("Subject: You are invited to Postroom\r\n"), "{head}");
    }
}
