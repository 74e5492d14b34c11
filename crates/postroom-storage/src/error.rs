//! What can go wrong at this boundary, by what the caller can do about it.

use postroom_domain::{OrganizationId, Timestamp};

/// What every method of the boundary answers with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why storage did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such row, or not this organization's.
    #[error("{kind} not found")]
    NotFound {
        /// `endpoint`, `source`, …
        kind: &'static str,
    },
    /// Another row has what must be unique.
    #[error("{field} is already taken")]
    Taken {
        /// Which unique value: `slug`, `source name`, `webhook secret`.
        field: Unique,
    },
    /// The row is not in a state in which this can be done; `detail` says what can.
    #[error("{detail}")]
    Conflict {
        /// Stable and `snake_case`, for example `delivery_not_retryable`.
        code: &'static str,
        /// One plain sentence.
        detail: String,
    },
    /// The row has changed since the caller read it. Read it again.
    #[error("it has changed since it was read")]
    Stale,
    /// The organization has had all events of this calendar month.
    #[error("the monthly limit of {limit} events is reached")]
    LimitReached {
        /// How many a month.
        limit: u64,
        /// When counting starts again.
        resets_at: Timestamp,
    },
    /// The [`Position`](crate::api::Position) is not a place in this list: the caller got it elsewhere.
    #[error("the cursor is not one of this list")]
    BadPosition,
    /// A bound was reached: this one is not stored. Try again in a second.
    #[error("storage is overloaded, try again")]
    Overloaded,
    /// The database does not answer now (full disk, locked, gone): nothing was acknowledged. Try again.
    #[error("storage is unavailable, try again")]
    Unavailable(#[source] BoxError),
    /// The stored data is not what it should be, or this program is wrong. Trying again does not help.
    #[error("storage failed")]
    Internal(#[source] BoxError),
}

impl Error {
    /// The same error for one more of those who wait for the same thing.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::LimitReached { limit, resets_at } => Self::LimitReached { limit: *limit, resets_at: *resets_at },
            Self::Overloaded => Self::Overloaded,
            Self::Internal(source) => Self::Internal(source.to_string().into()),
            other => Self::Unavailable(other.chain().into()),
        }
    }

    /// An error and what is behind it, in one line.
    pub(crate) fn chain(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}

/// A value that may exist only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unique {
    /// The slug of an organization, in the installation.
    OrganizationSlug,
    /// The name of a source, in its organization.
    SourceName,
    /// The Mandrill webhook secret of an organization, in the installation.
    MandrillWebhookSecret,
    /// The e-mail address of a person, in the installation, in capitals or not.
    UserEmail,
}

impl std::fmt::Display for Unique {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OrganizationSlug => "the slug",
            Self::SourceName => "the source name",
            Self::MandrillWebhookSecret => "the webhook secret",
            Self::UserEmail => "the e-mail address",
        })
    }
}

/// What is behind [`Error::Unavailable`] when the database of one organization does not answer: nobody else's requests
/// are put off, and the operator is told by itself, once a minute.
#[derive(Debug, thiserror::Error)]
#[error("the database of {organization} is not available: {reason}")]
pub struct TenantUnavailable {
    /// Whose.
    pub(crate) organization: OrganizationId,
    /// For the operator.
    pub(crate) reason: String,
}
