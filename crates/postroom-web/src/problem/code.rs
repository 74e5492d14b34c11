//! The closed list of problems. `docs/problems.md` and the pages under `/problems/` are made from it.

use http::StatusCode;

macro_rules! catalogue {
    ($($name:ident $status:ident $code:literal, $title:literal, $advice:literal;)*) => {
        /// Every problem this server can answer with. The text form is stable: programs decide by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All of them, in the order of their status.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }

            /// The stable name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The same sentence for every occurrence, without a full stop.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }

            /// What the caller can do about it.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)*
                }
            }
        }
    };
}

catalogue! {
    InvalidJson BAD_REQUEST "invalid_json", "The body is not one JSON document",
        "Send exactly one JSON document in UTF-8, without a byte order mark, comments or trailing commas. The detail says at which line and column reading stopped.";
    InvalidRequest BAD_REQUEST "invalid_request", "The request can not be read",
        "The detail says which part of the request is damaged. Nothing was done.";
    OrganizationRequired BAD_REQUEST "organization_required", "It is not said for which organization",
        "A super admin belongs to no organization: name one with the header `Postroom-Organization`, by id (`org_...`) or slug.";
    InvalidIdempotencyKey BAD_REQUEST "invalid_idempotency_key", "The Idempotency-Key can not be used",
        "Send the header once, with 1 to 255 visible ASCII characters; a random UUID is a good key.";
    CredentialsMissing UNAUTHORIZED "credentials_missing", "No credential was sent",
        "Send `Authorization: Bearer <key>` with an API key (`prk_...`) of your organization, or sign in at `/sign-in`. Keys in the URL are not accepted.";
    CredentialsInvalid UNAUTHORIZED "credentials_invalid", "The credential is not valid",
        "The key is mistyped, revoked or expired, or the session has ended, or the header is not exactly `Authorization: Bearer <key>`, sent once.";
    SignInLinkInvalid UNAUTHORIZED "sign_in_link_invalid", "The link is not good for signing in",
        "It was used already, is too old, or was cut on its way. Ask for a new one at `/sign-in`; who was invited asks an admin of the organization to invite again.";
    SignatureMissing UNAUTHORIZED "signature_missing", "The request carries no signature",
        "The provider has to sign what it sends here. The request was kept: its owner can see which header was expected, and what probably became of it, under `/v1/rejections/{id}`.";
    SignatureInvalid UNAUTHORIZED "signature_invalid", "The signature does not fit the request",
        "Check that the source has the provider's current secret, then verify the kept requests again: `POST /v1/rejections/reverify`.";
    TimestampOutOfTolerance UNAUTHORIZED "timestamp_out_of_tolerance", "The signed time is too far from now",
        "The request is a replay or took too long, or one of the clocks is wrong. The source's option `tolerance_seconds` says how far is too far.";
    Forbidden FORBIDDEN "forbidden", "The credential may not do this",
        "Use a credential with the permission that the detail names.";
    OrganizationInactive FORBIDDEN "organization_inactive", "The organization is switched off",
        "Its API keys and its people are refused until a super admin switches the organization on again.";
    CrossSiteRequest FORBIDDEN "cross_site_request", "The request comes from a page of another site",
        "A browser's session counts for changes only when a page of this server makes them. Open the server at its public URL; a program sends `Authorization: Bearer`.";
    ProviderDisabled FORBIDDEN "provider_disabled", "The source or its organization is switched off",
        "Nothing was kept. Switch the source on with `PATCH /v1/sources/{id}` and let the provider send again.";
    RouteNotFound NOT_FOUND "route_not_found", "There is nothing at this path",
        "`/docs` lists every path.";
    OrganizationNotFound NOT_FOUND "organization_not_found", "No such organization",
        "There is no such organization, or the credential is not for it. A path names it by id (`org_...`), the header `Postroom-Organization` by id or slug.";
    SourceNotFound NOT_FOUND "source_not_found", "No such source",
        "Check the organization's slug and the source's name in the URL, or the source's id.";
    ProviderNotFound NOT_FOUND "provider_not_found", "No such provider",
        "`GET /v1/providers` lists them. For a sender that is not among them, `hmac`, `token`, `basic-auth` and `none` may do.";
    EndpointNotFound NOT_FOUND "endpoint_not_found", "No such endpoint",
        "There is no endpoint with this id in the organization.";
    EventNotFound NOT_FOUND "event_not_found", "No such event",
        "There is no event with this id in the organization, or it is older than the retention.";
    DeliveryNotFound NOT_FOUND "delivery_not_found", "No such delivery",
        "There is no delivery with this id in the organization, or its event is older than the retention.";
    DeadLetterNotFound NOT_FOUND "dead_letter_not_found", "No such dead letter",
        "There is no delivery with this id in the organization that is a dead letter now.";
    RejectionNotFound NOT_FOUND "rejection_not_found", "No such rejection",
        "There is no rejected request with this id in the organization; the newest 1,000 are kept, for 30 days at most.";
    ApiKeyNotFound NOT_FOUND "api_key_not_found", "No such API key",
        "There is no API key with this id in the organization.";
    UserNotFound NOT_FOUND "user_not_found", "No such user",
        "There is no user with this id in the organization.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed", "The path does not take this method",
        "The header `Allow` lists the methods it takes.";
    RequestTimeout REQUEST_TIMEOUT "request_timeout", "The body did not arrive in time",
        "Nothing was done. Send the request again over a better connection.";
    Conflict CONFLICT "conflict", "The current state does not allow this",
        "The detail says what stands in the way.";
    SlugTaken CONFLICT "slug_taken", "Another organization has this slug",
        "Choose another `slug`.";
    SourceNameTaken CONFLICT "source_name_taken", "Another source of the organization has this name",
        "Give a `name` of its own: it stands in the source's URL.";
    WebhookSecretInUse CONFLICT "webhook_secret_in_use", "Another organization uses this webhook secret",
        "Every organization needs a webhook secret of its own: take the key that Mandrill shows for this organization's webhook.";
    EmailTaken CONFLICT "email_taken", "Somebody has this e-mail address already",
        "An address belongs to one user of one organization. Choose another address, or change the user who has it.";
    LastAdmin CONFLICT "last_admin", "The organization would be left without an admin",
        "Nothing was done. Make somebody else an admin first.";
    InvitationAccepted CONFLICT "invitation_accepted", "The invitation was accepted already",
        "Nothing was done. This user signs in with a link that `/sign-in` sends.";
    UserDeactivated CONFLICT "user_deactivated", "The user is switched off",
        "Switch the user on with `PATCH /v1/users/{id}`, then invite again.";
    TooManyInvitations CONFLICT "too_many_invitations", "The user was invited as often as may be within an hour",
        "Nothing was sent. Wait an hour, or ask the user to look among the unwanted mails.";
    DedicatedNotAvailable CONFLICT "dedicated_not_available", "This installation makes no databases of their own",
        "Nothing was made. The detail says what the operator has to set first; `isolation: shared` works without.";
    EndpointDisabled CONFLICT "endpoint_disabled", "The endpoint is disabled",
        "Enable it first: `POST /v1/endpoints/{id}/enable`.";
    EndpointDeleted CONFLICT "endpoint_deleted", "The endpoint was deleted",
        "Replay the event to another endpoint: `POST /v1/events/{id}/replay`.";
    DeliveryNotRetryable CONFLICT "delivery_not_retryable", "The delivery can not be tried again",
        "Only failed deliveries and dead letters can. To send an event again that was delivered or discarded, replay it: `POST /v1/events/{id}/replay`.";
    NoEndpoints CONFLICT "no_endpoints", "There is no endpoint to replay to",
        "The event went to no endpoint that still exists. Name endpoints with `endpoint_ids`.";
    TooManyReplays CONFLICT "too_many_replays", "The event was replayed to one endpoint as often as it can be",
        "Send its data as a new event: `POST /v1/events`.";
    RejectionStillInvalid CONFLICT "rejection_still_invalid", "The kept request still fails verification",
        "The detail names the failing check. Mend the source's secret or options first.";
    SourceDisabled CONFLICT "source_disabled", "The source is switched off or deleted",
        "Switch it on with `PATCH /v1/sources/{id}`, then verify the request again.";
    SourceOfOrganization CONFLICT "source_of_organization", "The source stands for the organization's own Mandrill secret",
        "Change `mandrill_webhook_secret` of the organization, or make a source named `mandrill`.";
    LimitReached CONFLICT "limit_reached", "The organization has as many of these as it may",
        "Delete some that are not needed any more.";
    IdempotencyKeyReused CONFLICT "idempotency_key_reused", "The Idempotency-Key was used for another request",
        "Use a fresh key for every request; repeat a key only with the very same method, path and body.";
    IdempotencyKeyInUse CONFLICT "idempotency_key_in_use", "The request with this Idempotency-Key is still under way",
        "Wait as long as `Retry-After` says and send the same request again.";
    PreconditionFailed PRECONDITION_FAILED "precondition_failed", "It has changed since it was read",
        "Nothing was done. Read it again, and send the `ETag` of what you have seen in `If-Match`.";
    BodyTooLarge PAYLOAD_TOO_LARGE "body_too_large", "The body is larger than this server takes",
        "Nothing was kept. The detail says how many bytes are taken; the operator sets it with `POSTROOM_MAX_BODY_BYTES`.";
    UriTooLong URI_TOO_LONG "uri_too_long", "The URL is too long",
        "Send less in the query.";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type", "The body has to be JSON",
        "Send `Content-Type: application/json`.";
    ValidationFailed UNPROCESSABLE_ENTITY "validation_failed", "Some fields are not valid",
        "`errors` names each field, what is wrong with it as a stable code, and what would be right. Nothing was done.";
    InvalidCursor UNPROCESSABLE_ENTITY "invalid_cursor", "The cursor does not belong to this list",
        "Take `next_cursor` of the page before as it is, with the same filters. A cursor of another list, organization or filter, or one that was altered, is refused.";
    WebhookLimitReached TOO_MANY_REQUESTS "webhook_limit_reached", "The organization has had all events of this month",
        "Nothing was kept. Counting starts again when `Retry-After` is over; a larger plan lifts the limit at once.";
    RateLimited TOO_MANY_REQUESTS "rate_limited", "Too many requests",
        "Nothing was done. Wait as long as `Retry-After` says; `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` say how the count stands. Sending events (`POST /v1/events`) is not counted.";
    TooManyStreams TOO_MANY_REQUESTS "too_many_streams", "Too many live streams are open",
        "Close some streams of this organization first, or take events from `/v1/events`.";
    HeadersTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE "headers_too_large", "The headers are larger than this server takes",
        "Nothing was kept. All headers together may have 16 KiB, and there may be 100 of them.";
    InternalError INTERNAL_SERVER_ERROR "internal_error", "This server made a mistake",
        "It was logged with the `request_id`. Whether the request took effect is not known: repeat it with the same `Idempotency-Key` or `id`.";
    Overloaded SERVICE_UNAVAILABLE "overloaded", "This server has too much to do right now",
        "Nothing was kept. Send the same request again after `Retry-After` seconds.";
    StorageUnavailable SERVICE_UNAVAILABLE "storage_unavailable", "The storage does not answer right now",
        "Nothing was acknowledged. Send the same request again, with the same id, after `Retry-After` seconds.";
    SourceUnusable SERVICE_UNAVAILABLE "source_unusable", "The source can not verify requests right now",
        "Its stored secret can not be read, or the key that the provider signs with can not be fetched from it now. The operator finds the reason in the log; the provider should send again later.";
    NotReady SERVICE_UNAVAILABLE "not_ready", "This server takes no new work right now",
        "It is starting or stopping, or its storage does not answer. Try again, or use another node.";
}

impl Code {
    /// The problem of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

/// The catalogue as `docs/problems.md` shows it.
#[must_use]
pub fn catalogue_markdown() -> String {
    let mut text = String::from(
        "# Problems\n\n\
         Every error of the API is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`,\n\
         `code` and `request_id`. Programs decide by `code`, which never changes; `detail` is for people. A 422 adds\n\
         `errors`: a list of `{field, code, detail}`. `type` is a page of the server itself: `/problems/{code}`.\n\n\
         This page is made from the code and held true by a test.\n\n\
         | Status | Code | Means | What to do |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let status = code.status().as_u16();
        text += &format!("| {status} | `{}` | {} | {} |\n", code.as_str(), code.title(), code.advice());
    }
    text
}
