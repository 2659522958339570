//! Errors as RFC 9457 problems.
//!
//! A [`Kind`] is a stable type: its URL under `/docs/problems/` answers with cause and remedy. A [`Problem`] is one
//! occurrence. It travels in the response's extensions, and [`super::log`] writes the body, because only there the
//! trace id is known.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{db, storage};

/// One type of problem.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Last part of the type's URL.
    pub slug: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Short and stable.
    pub title: &'static str,
    /// When it happens.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:literal $slug:literal $title:literal, $cause:literal, $remedy:literal;)+) => {
        $($(#[$doc])* pub static $name: Kind =
            Kind { slug: $slug, status: $status, title: $title, cause: $cause, remedy: $remedy };)+
        /// Every type, for the documentation pages.
        pub static KINDS: &[&Kind] = &[$(&$name),+];
    };
}

kinds! {
    /// Bad input.
    VALIDATION = 422 "validation" "The request has errors",
        "A field, a parameter or the body is missing, unknown, or not what it must be. `errors` names each one.",
        "Mend what `errors` names and send the request again; nothing was changed.";
    /// The body is in a format that we do not read.
    MEDIA_TYPE = 415 "media-type" "The body has the wrong type",
        "The Content-Type is not what this endpoint reads.",
        "Send `application/json`, or `multipart/form-data` for an upload.";
    /// No or a wrong key.
    UNAUTHORIZED = 401 "unauthorized" "Authentication is needed",
        "The request carries no valid key, token or session, or more than one.",
        "Send exactly one of `Authorization: Bearer <key>` and `X-API-Key: <key>`, or log in.";
    /// The key's role is too small.
    FORBIDDEN = 403 "forbidden" "The key may not do this",
        "The key is valid, and its role does not have the right that the operation needs.",
        "Use a key with one of the roles that `detail` names; an administrator makes one with POST /api/keys.";
    /// Known, and nobody here.
    NOT_ADMITTED = 403 "not-admitted" "You are not let in",
        "The OpenID provider knows you, and nothing that it says of you has a role here.",
        "Ask whoever keeps OIDC_ROLES, or the provider, for what `detail` names.";
    /// Somebody else's page may have sent it.
    CSRF = 403 "csrf" "The request may not be yours",
        "A request in a session changes something, and lacks the session's X-CSRF-Token or comes from a page of another site.",
        "Take `csrf_token` from GET /api/session and send it as `X-CSRF-Token`, from a page of this server.";
    /// A key instead of a session.
    NO_SESSION = 404 "no-session" "There is no session",
        "The request has a key or a token, and the operation is about a session.",
        "Log in with POST /api/session or at /auth/login.";
    /// Nobody logs in this way.
    LOGIN_OFF = 404 "login-not-configured" "Nobody logs in this way here",
        "Authentication is off, or no OpenID provider is configured.",
        "Set OIDC_ISSUER and OIDC_CLIENT_ID, or log in with a key.";
    /// The provider's answer is worth nothing.
    LOGIN_FAILED = 400 "login-failed" "The login failed",
        "What came back from the OpenID provider is not what belongs to this login, or the provider let nobody in.",
        "Begin again at /auth/login; when it stays, compare the provider's settings with those of this server.";
    /// No such key.
    KEY_NOT_FOUND = 404 "key-not-found" "Key not found",
        "No key has this id.",
        "List the keys with GET /api/keys.";
    /// No user that the key may know.
    USER_NOT_FOUND = 404 "user-not-found" "User not found",
        "The key is for the printers of some users, and this is none of them.",
        "GET /api/me lists the users that your key is for; use another key for others.";
    /// The key is dead.
    KEY_CONFLICT = 409 "key-conflict" "The key's state does not allow this",
        "A key that is revoked or expired opens nothing any more, for good.",
        "Make a new key with POST /api/keys.";
    /// No such path.
    NOT_FOUND = 404 "not-found" "There is nothing here",
        "No endpoint has this path.",
        "Look the path up under /docs.";
    /// A browser page of a foreign origin.
    ORIGIN = 403 "origin-not-allowed" "This origin may not do this",
        "A browser page of an origin that is not listed asked for something that only listed ones may.",
        "List the origin in CORS_ALLOWED_ORIGINS, if the page is yours.";
    /// No key of printers has this id.
    PRINTER_KEY_NOT_FOUND = 404 "printer-key-not-found" "Key of printers not found",
        "No key of printers has this id.",
        "List the keys with GET /api/printer-keys.";
    /// The printer has a key.
    PRINTER_KEY_CONFLICT = 409 "printer-key-conflict" "The printer has a key already",
        "A printer has at most one key of its own.",
        "Rotate that key with POST /api/printer-keys/{key_id}/rotate, or delete it first.";
    /// The path takes other methods.
    METHOD = 405 "method-not-allowed" "This method is not allowed here",
        "The endpoint exists, but not for this method.",
        "Use one of the methods in the `Allow` header.";
    /// No such release.
    FIRMWARE_NOT_FOUND = 404 "firmware-not-found" "Firmware version not found",
        "No release has this version on this channel and platform.",
        "List the releases with GET /api/firmware, or upload this one.";
    /// The release exists.
    FIRMWARE_EXISTS = 409 "firmware-exists" "Firmware version already exists",
        "A release is unique by version, channel and platform, and never changes.",
        "Use another version number, or delete the existing release first.";
    /// The release is in use, or its name is ambiguous.
    FIRMWARE_CONFLICT = 409 "firmware-conflict" "The release cannot be deleted",
        "A rollout or an update refers to the release, or the version stands in several channels and none was named.",
        "Name the channel with ?channel=, or cancel the rollout first; a release that printers have taken stays.";
    /// Above MAX_FIRMWARE_SIZE.
    FILE_TOO_LARGE = 413 "file-too-large" "File too large",
        "The image is larger than this server takes.",
        "Make the image smaller, or raise MAX_FIRMWARE_SIZE.";
    /// Above the limit of a JSON body.
    BODY_TOO_LARGE = 413 "body-too-large" "The body is too large",
        "A JSON body may have 1 MiB.",
        "Send less at once; long lists of printers are better named by user, channel or version.";
    /// The upload broke off.
    UPLOAD_INTERRUPTED = 400 "upload-interrupted" "The upload broke off",
        "The connection ended, or was silent for too long, before the whole form had arrived.",
        "Send the upload again; nothing of it was kept.";
    /// No such rollout.
    ROLLOUT_NOT_FOUND = 404 "rollout-not-found" "Rollout not found",
        "No rollout has this id or number.",
        "List the rollouts with GET /api/rollouts.";
    /// The state forbids it.
    ROLLOUT_CONFLICT = 409 "rollout-conflict" "The rollout's state does not allow this",
        "A rollout goes pending, active, paused, completed; cancelled is final. One with open updates cannot be deleted.",
        "Look at the rollout's status first; make a new rollout instead of reviving a cancelled one.";
    /// The key stands for something else.
    IDEMPOTENCY_REUSED = 422 "idempotency-key-reused" "The Idempotency-Key came with another request",
        "Within 24 hours the same caller sent the key with another operation, path, query or body.",
        "Use a new key for a new request, and the same key only for the same bytes.";
    /// The request was carried out, and nobody can say its answer again.
    IDEMPOTENCY_SPENT = 409 "idempotency-key-spent" "The request was carried out before",
        "A request with this Idempotency-Key changed what it asked for. Its answer held a secret, which is told once, is not there yet, or was lost with a replica or a connection to the database.",
        "With a `Retry-After`, send it again after these seconds. Else look at what there is before you send it with another key: list it, then rotate a key, or go on with what you find.";
    /// If-Match does not hold.
    PRECONDITION = 412 "precondition-failed" "Somebody changed it in the meantime",
        "The entity tag in If-Match is not the current one.",
        "GET it again, decide again, and send the new ETag.";
    /// No such printer.
    PRINTER_NOT_FOUND = 404 "printer-not-found" "Printer not found",
        "No printer has this printer_id, id or number.",
        "List the printers with GET /api/printers.";
    /// A short link that opens nothing.
    LINK_GONE = 404 "link-gone" "This link downloads nothing",
        "A download link expired, or was never handed out.",
        "Nothing needs to be done: the printer gets a new link with its next offer.";
    /// The image does not fit.
    NO_SPACE = 403 "no-space" "The image does not fit into the printer",
        "The printer told how much room it has, and the image needs more.",
        "Build a smaller image, or one for a flash layout with more room.";
    /// A range outside of the image.
    RANGE = 416 "range" "The range cannot be served",
        "The Range header asks for bytes that the image does not have.",
        "Ask for bytes within the image, or leave the header out.";
    /// Too many uploads.
    UPLOADS_FULL = 503 "uploads-full" "Too many uploads at once",
        "Each upload holds a buffer, and as many are in use as MAX_CONCURRENT_UPLOADS allows.",
        "Try again after the seconds in `Retry-After`, or raise the limit.";
    /// Too many downloads.
    DOWNLOADS_FULL = 503 "downloads-full" "Too many downloads at once",
        "This replica streams as many downloads as MAX_CONCURRENT_DOWNLOADS allows, or one address started more than DOWNLOADS_PER_ADDRESS a minute.",
        "Try again after the seconds in `Retry-After`; add replicas, raise the limit, or let printers download from S3 or a CDN.";
    /// Too many watchers.
    EVENT_STREAMS_FULL = 503 "event-streams-full" "Too many watch events",
        "As many clients watch events on this replica as MAX_EVENT_STREAMS allows.",
        "Try again after the seconds in `Retry-After`; close pages that nobody looks at, add replicas, or raise the limit.";
    /// Too many exports.
    EXPORTS_FULL = 503 "exports-full" "Too many exports at once",
        "Each export holds a connection to the database, and as many run as MAX_CONCURRENT_EXPORTS allows.",
        "Try again after the seconds in `Retry-After`, or raise the limit.";
    /// Too many sockets.
    TOO_MANY_CONNECTIONS = 503 "too-many-connections" "This replica is full",
        "The replica holds as many sockets as MAX_CONNECTIONS allows, or as many connections as MAX_OPEN_CONNECTIONS.",
        "The printer comes back by itself; add replicas or raise the limit.";
    /// Too many sockets a second.
    TOO_MANY_CONNECTS = 503 "too-many-connects" "Too many printers connect at once",
        "More sockets came than CONNECTS_PER_SECOND allows, or more from one address than CONNECTS_PER_ADDRESS allows in a minute.",
        "The printer comes back by itself; add replicas or raise the limit.";
    /// Too many requests.
    TOO_MANY_REQUESTS = 429 "too-many-requests" "Too many requests",
        "A key asked more often than REQUESTS_PER_KEY allows in a minute, an address without one more often than REQUESTS_PER_ADDRESS, or an address tried more keys that opened nothing than WRONG_KEYS_PER_ADDRESS.",
        "Wait for the seconds in `Retry-After`, ask less often, or raise the limit; GET /api/events tells of changes without asking again and again.";
    /// The client is slow.
    TOO_SLOW = 408 "too-slow" "The body did not come in time",
        "A JSON body must be here within 20 seconds of its head.",
        "Send the request again over a better connection, or send less at once.";
    /// Shutting down.
    SHUTTING_DOWN = 503 "shutting-down" "This replica is shutting down",
        "The process was asked to end and takes no new work.",
        "Try again; another replica answers.";
    /// A part that we need is away.
    UNAVAILABLE = 503 "unavailable" "A part of the service is away",
        "The database or the object store does not answer at the moment.",
        "Try again after the seconds in `Retry-After`.";
    /// Our fault.
    INTERNAL = 500 "internal" "Something went wrong on our side",
        "The server met a state that it did not expect.",
        "Try again; if it stays, report the `trace_id`, under which the log has the details.";
}

/// What is wrong with one field.
#[derive(Debug, Clone, Serialize, ToSchema, PartialEq, Eq)]
pub struct FieldError {
    /// The field or parameter, as in `target.channels[0]`.
    #[schema(example = "rollout_percentage")]
    pub field: String,
    /// What is wrong and what to do.
    #[schema(example = "must be a whole number from 0 to 100, this is 101")]
    pub detail: String,
}

/// One occurrence of a problem, as `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Stable type; GET it for cause and remedy.
    #[serde(rename = "type")]
    #[schema(example = "/docs/problems/validation")]
    pub kind: String,
    /// The type's title.
    #[schema(example = "The request has errors")]
    pub title: &'static str,
    /// HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What happened, in plain words, with the remedy.
    #[schema(example = "rollout_percentage must be a whole number from 0 to 100, this is 101.")]
    pub detail: String,
    /// Each field that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Finds the request in logs and traces; set on the way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Seconds after which to try again.
    #[serde(skip)]
    pub retry_after: Option<u32>,
    /// For the log only.
    #[serde(skip)]
    pub internal: Option<String>,
}

impl Problem {
    /// An occurrence of this kind.
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/docs/problems/{}", kind.slug),
            title: kind.title,
            status: kind.status,
            detail: detail.into(),
            errors: Vec::new(),
            trace_id: None,
            retry_after: None,
            internal: None,
        }
    }

    /// Whether it is of this kind.
    pub fn is(&self, kind: &Kind) -> bool {
        self.kind.ends_with(kind.slug)
    }

    /// Bad input; the detail is made of the errors.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .iter()
            .map(|error| format!("{} {}.", error.field, error.detail))
            .collect::<Vec<_>>()
            .join(" ");
        Self { errors, ..Self::new(&VALIDATION, detail) }
    }

    /// Bad input in one field.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError { field: field.into(), detail: detail.into() }])
    }

    /// A 500 that tells the outside nothing.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self { internal: Some(why.to_string()), ..Self::new(&INTERNAL, INTERNAL.remedy) }
    }

    /// A 503 that says when to come back.
    pub fn unavailable(what: &str, why: impl std::fmt::Display) -> Self {
        let detail = format!("{what} does not answer at the moment; try again in a few seconds.");
        Self { retry_after: Some(5), internal: Some(why.to_string()), ..Self::new(&UNAVAILABLE, detail) }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        if db::is_unavailable(&error) {
            Self::unavailable("The database", error)
        } else if db::is_bad_value(&error) {
            let detail = "A value in the request cannot be used: it holds characters or numbers that no text or time here has.";
            Self { internal: Some(error.to_string()), ..Self::new(&VALIDATION, detail) }
        } else {
            Self::internal(error)
        }
    }
}

impl From<storage::Error> for Problem {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::Unavailable(_) | storage::Error::Timeout(_) => {
                Self::unavailable("The object store", error)
            }
            storage::Error::NotFound(_)
            | storage::Error::Denied(_)
            | storage::Error::Unsupported(_)
            | storage::Error::Other(_) => Self::internal(error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == 401 {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The refusals that every operation may answer with, for the OpenAPI document.
pub struct Common;

impl utoipa::IntoResponses for Common {
    fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
        use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
        let kinds = [&VALIDATION, &UNAUTHORIZED, &FORBIDDEN, &TOO_MANY_REQUESTS, &INTERNAL, &UNAVAILABLE];
        let response = |kind: &Kind| {
            let example = serde_json::json!({
                "type": format!("/docs/problems/{}", kind.slug), "title": kind.title, "status": kind.status,
                "detail": kind.remedy, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            });
            let content =
                ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).example(Some(example));
            ResponseBuilder::new()
                .description(kind.title)
                .content("application/problem+json", content.build())
                .build()
        };
        kinds.iter().map(|kind| (kind.status.to_string(), response(kind).into())).collect()
    }
}
