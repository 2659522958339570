//! The header, and the answer that is given again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{Answer, Earlier, Once};
use crate::auth::Caller;
use crate::clock::{Clock, Time};
use crate::http::extract;
use crate::http::problem::{self, Problem};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key, in bytes.
pub const LONGEST: usize = 255;
/// Largest answer that is kept, in bytes, as the table says it too.
const LARGEST: usize = 1 << 20;
/// The answer of a request that was committed is known soon after.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// An answer that is not known by then was lost: requests are answered within a minute.
const LOST_AFTER: TimeDelta = TimeDelta::seconds(75);
/// The operation whose body is no JSON to be read at once, but a form that streams.
const FORM: &str = "uploadFirmware";

/// The operations that take the header: each that makes something, or that done twice would do more. (Logging in, and
/// beginning an upload that is never completed, leave nothing behind.)
pub const TAKERS: [&str; 13] = [
    "advanceRollout",
    "completeUpload",
    "createKey",
    "createPrinterKey",
    "createRollout",
    "forceUpdate",
    "importPrinterKeys",
    "promoteFirmware",
    "retryFailed",
    "rollBack",
    "rotateKey",
    "rotatePrinterKey",
    "uploadFirmware",
];

/// What the middleware needs.
#[derive(Clone)]
pub struct Repeats {
    /// Where keys are claimed.
    pub pool: PgPool,
    /// Tells how old an answer is that is not known.
    pub clock: Clock,
    /// What the end of the process waits for.
    pub tasks: TaskTracker,
}

/// The middleware, inside of [`crate::auth::require`].
pub async fn once(State(on): State<Repeats>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    let operation = caller.and_then(|caller| caller.actor.operation.clone());
    match operation.filter(|operation| TAKERS.contains(&&**operation)) {
        Some(operation) if request.headers().contains_key(KEY) => {
            at_most_once(on, operation, request, next).await.unwrap_or_else(Problem::into_response)
        }
        _ => next.run(request).await,
    }
}

async fn at_most_once(
    on: Repeats,
    operation: Arc<str>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut head, mut body) = request.into_parts();
    let key = read(&head.headers)?.to_owned();
    let caller = head.extensions.get_mut::<Caller>();
    let caller = caller.ok_or_else(|| Problem::internal("a route outside of the gate takes a key"))?;
    let sees = serde_json::to_string(&*caller.scope).map_err(Problem::internal)?;
    let is_form = &*operation == FORM;
    let once = Arc::new(Once::new(caller.actor.identity.clone(), sees, &key, operation));
    caller.once = Some(once.clone());
    if !is_form {
        let bytes = extract::whole(body).await?;
        let asked = head.uri.path_and_query().map_or("", |path| path.as_str());
        once.describe([asked.as_bytes(), &bytes[..]]);
        body = Body::from(bytes);
    }
    let request = Request::from_parts(head, body);
    // A task of its own: a client that vanishes is the one that will ask again.
    let tasks = on.tasks.clone();
    let task = tasks.spawn(
        async move {
            let response = next.run(request).await;
            match response.status() {
                status if status.is_success() => keep(&on.pool, &once, response).await,
                // Whoever waited for the database in vain waits once.
                StatusCode::SERVICE_UNAVAILABLE => response,
                // It may be refused because it was carried out before.
                _ => earlier(&on, &once).await.unwrap_or(response),
            }
        }
        .in_current_span(),
    );
    task.await.map_err(Problem::internal)
}

/// The header's value. Quotes, as the draft has them and clients do not, make no difference.
fn read(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(KEY).iter();
    let value = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    let quoted = |text: &'_ str| text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    let key = value.map(|text| if quoted(text) { &text[1..text.len() - 1] } else { text });
    key.filter(|key| (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| {
            let detail =
                format!("must be given once, with 1 to {LONGEST} visible ASCII characters, as in a UUID");
            Problem::field("Idempotency-Key", detail)
        })
}

async fn keep(pool: &PgPool, once: &Once, response: Response) -> Response {
    let (head, body) = response.into_parts();
    // It is in memory already.
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return Problem::internal(error).into_response(),
    };
    let is_secret = head.headers.get(header::CACHE_CONTROL).is_some_and(|value| value == "no-store");
    let location = head.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let answer = Answer {
        status: i16::try_from(head.status.as_u16()).unwrap_or(200),
        location: location.map(str::to_owned),
        body: (!is_secret && bytes.len() <= LARGEST).then(|| bytes.to_vec()),
    };
    let kept = async { once.keep(&mut *pool.acquire().await?, &answer).await };
    if let Err(error) = kept.await {
        tracing::warn!(%error, "the answer to a request with an Idempotency-Key could not be kept; sent again, it gets 409");
    }
    Response::from_parts(head, Body::from(bytes))
}

/// What the request that came first with this key was answered, if there was one.
async fn earlier(on: &Repeats, once: &Once) -> Option<Response> {
    // Whatever cannot be described is refused for what it is.
    once.fingerprint.get()?;
    let until = Instant::now() + KNOWN_WITHIN;
    loop {
        let found = async { once.earlier(&mut *on.pool.acquire().await?).await };
        let found =
            found.await.inspect_err(|error| tracing::warn!(%error, "Idempotency-Key cannot be looked up"));
        let earlier = found.ok()??;
        if earlier.is_same && earlier.answer.is_none() && Instant::now() < until {
            sleep(LOOK_EVERY).await;
            continue;
        }
        return Some(again(earlier, on.clock.now()).unwrap_or_else(Problem::into_response));
    }
}

fn again(Earlier { is_same, operation, at, answer }: Earlier, now: Time) -> Result<Response, Problem> {
    let spent = |why: &str| {
        let detail = format!("The request ({operation}) was carried out at {}; {why}", at.format("%FT%TZ"));
        Problem::new(&problem::IDEMPOTENCY_SPENT, detail)
    };
    match answer {
        _ if !is_same => {
            let detail = format!(
                "Idempotency-Key came with another request at {} ({operation}); use a new key for a new request.",
                at.format("%FT%TZ")
            );
            Err(Problem::new(&problem::IDEMPOTENCY_REUSED, detail))
        }
        None if now < at + LOST_AFTER => {
            let soon =
                spent("its answer is not known yet. Send it again, with the same key, in a few seconds.");
            Err(Problem { retry_after: Some(3), ..soon })
        }
        None => Err(spent("its answer was lost. Look at what there is before you send another.")),
        Some(Answer { body: None, .. }) => Err(spent(
            "its answer was not kept, as it held a secret, which is told once, or was too long. Find what it made in the \
             list; a key whose secret nobody saw can be rotated or deleted.",
        )),
        Some(Answer { status, location, body: Some(body) }) => {
            let status =
                StatusCode::from_u16(u16::try_from(status).unwrap_or(200)).map_err(Problem::internal)?;
            let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            if let Some(location) = location {
                let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
                response.headers_mut().insert(header::LOCATION, location);
            }
            Ok(response)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_visible_word_in_quotes_or_not() {
        let read_all = |values: &[&'static str]| {
            let headers = values.iter().map(|value| (KEY, HeaderValue::from_static(value))).collect();
            read(&headers).map(str::to_owned).ok()
        };
        assert_eq!(read_all(&["abc"]), Some("abc".into()));
        assert_eq!(read_all(&["\"abc\""]), Some("abc".into()));
        assert_eq!(read_all(&["\""]), Some("\"".into()));
        for wrong in [&[][..], &[""], &["\"\""], &["a b"], &["a", "a"]] {
            assert_eq!(read_all(wrong), None, "{wrong:?}");
        }
        let longest = HeaderValue::from_str(&"k".repeat(LONGEST)).unwrap();
        assert!(read(&HeaderMap::from_iter([(KEY, longest)])).is_ok());
        let longer = HeaderValue::from_str(&"k".repeat(LONGEST + 1)).unwrap();
        assert!(read(&HeaderMap::from_iter([(KEY, longer)])).is_err());
    }
}
