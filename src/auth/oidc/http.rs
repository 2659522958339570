//! The way of a browser to the OpenID provider and back.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::login::{Answer, LIFE};
use super::{Error, Oidc};
use crate::auth::session::{Who, cookie};
use crate::http::Params;
use crate::http::problem::{self, Common, Problem};
use crate::state::{AppState, Parts};

/// The room's routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(begin_login)).routes(routes!(finish_login))
}

/// Again is all that can be done about most of it.
const AGAIN: &str = "begin again at /auth/login";

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let failed =
            |error: &Error| Self::new(&problem::LOGIN_FAILED, format!("The login failed: {error}; {AGAIN}."));
        match &error {
            Error::Away(away) => Self::unavailable("The OpenID provider", away),
            Error::Bad(bad) => {
                let detail = format!("The provider's ID token is worth nothing: {bad}; {AGAIN}.");
                Self::new(&problem::LOGIN_FAILED, detail)
            }
            Error::Refused(refused) => {
                Self::new(&problem::NOT_ADMITTED, format!("You are known, and not let in: {refused}."))
            }
            Error::Denied(_) | Error::Exchange(_) | Error::Unknown | Error::Lacks(_) => failed(&error),
            Error::ReturnTo => {
                Self::field("return_to", "must be a path of this server, as in /console?tab=rollouts")
            }
            Error::NoLogin => Self::new(
                &problem::LOGIN_OFF,
                "Nobody logs in through an OpenID provider here: OIDC_ISSUER and OIDC_CLIENT_ID are not set.",
            ),
            Error::Database(_) | Error::NoChance(_) => match error {
                Error::Database(error) => error.into(),
                other => Self::internal(other),
            },
        }
    }
}

fn provider(app: &Parts) -> Result<&Oidc, Error> {
    app.access.as_ref().and_then(|access| access.oidc.as_ref()).ok_or(Error::NoLogin)
}

/// A redirect that nothing keeps, and that tells the next page nothing.
fn redirect(location: &str, cookies: &[HeaderValue]) -> Result<Response, Problem> {
    let location = HeaderValue::from_str(location).map_err(Problem::internal)?;
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie.clone());
    }
    Ok(response)
}

/// Send a browser to the OpenID provider to log in.
#[utoipa::path(get, path = "/auth/login", operation_id = "beginLogin", tag = "people", security(()),
    params(("return_to" = Option<String>, Query, description = "path of this server to go to in the end; / unless given")),
    responses((status = 303, description = "To the provider"),
        (status = 404, description = "No provider is configured", body = Problem, content_type = "application/problem+json"), Common))]
async fn begin_login(State(app): State<AppState>, mut params: Params) -> Result<Response, Problem> {
    let return_to: Option<String> = params.get("return_to");
    params.finish()?;
    let begun = provider(&app)?.begin(return_to.as_deref().unwrap_or("/")).await?;
    let cookie = cookie::set(cookie::LOGIN, begun.browser.expose_secret(), cookie::SameSite::Lax, LIFE);
    redirect(begun.location.as_str(), &[cookie])
}

/// Where the OpenID provider sends the browser back to.
#[utoipa::path(get, path = "/auth/callback", operation_id = "finishLogin", tag = "people", security(()),
    params(("code" = Option<String>, Query, description = "what the provider gives an ID token for"),
        ("state" = Option<String>, Query, description = "which login it is"),
        ("error" = Option<String>, Query, description = "why there is no code"), ("iss" = Option<String>, Query, description = "the provider")),
    responses((status = 303, description = "Logged in; the cookie `__Host-paperminder` is set, and the browser goes where it wanted to"),
        (status = 400, description = "The login failed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No provider is configured", body = Problem, content_type = "application/problem+json"), Common))]
async fn finish_login(
    State(app): State<AppState>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let browser = cookie::values(&headers, cookie::LOGIN);
    let answer = Answer::read(query.as_deref().unwrap_or_default());
    let (person, return_to) = provider(&app)?.finish(answer, browser.first().copied()).await?;
    let Some(access) = &app.access else { return Err(Error::NoLogin.into()) };
    let earlier = cookie::values(&headers, cookie::SESSION);
    tracing::info!(person = person.name, role = %person.role, "logged in");
    let new = access.sessions.begin(&Who::Person(person), earlier.first().copied()).await?;
    // Behind BASE_URL, whatever the path is, there is no other host.
    let location = format!("{}{return_to}", app.base_url);
    redirect(&location, &[access.sessions.cookie(&new), cookie::clear(cookie::LOGIN)])
}
