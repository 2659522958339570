//! The OpenAPI document, the interactive documentation, and a page for every type of problem. None of it needs the
//! internet.

mod bounds;

use std::fmt::Write as _;

use axum::Router;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::auth::role::needs;
use crate::http::Segment;
use crate::http::problem::{self, KINDS, Kind, Problem};
use crate::state::AppState;

#[derive(OpenApi)]
#[openapi(
    info(title = "PaperMinder OTA", description = "Firmware, rollouts and printers. Errors are RFC 9457 problems; each `type` answers with cause and remedy."),
    components(schemas(Problem)),
    tags((name = "firmware", description = "Releases"), (name = "rollouts", description = "Who gets which version"),
        (name = "printers", description = "The fleet and its history"),
        (name = "updates", description = "Attempts to bring one printer to one release"),
        (name = "stats", description = "Numbers for dashboards"),
        (name = "events", description = "What changes, as it changes"),
        (name = "keys", description = "Who may do what"),
        (name = "audit", description = "Who did what"),
        (name = "people", description = "Who is logged in in a browser"))
)]
struct Document;

/// The frame of the document, which the rooms' routes are merged into.
pub fn router() -> OpenApiRouter<AppState> {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    for (name, scheme) in schemes() {
        components.add_security_scheme(name, scheme);
    }
    let requirements = ["bearer", "apiKey", "token", "session"]
        .map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
    document.security = Some(requirements.to_vec());
    OpenApiRouter::with_openapi(document)
}

/// The ways of saying who one is, of which a request uses one.
fn schemes() -> [(&'static str, SecurityScheme); 4] {
    let bearer =
        |description: &str| HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
    let cookie = "Set by POST /api/session and /auth/callback. A request that is no GET needs `X-CSRF-Token` too: GET /api/session tells it.";
    [
        ("bearer", SecurityScheme::Http(bearer("A key, `pmk_…`.").build())),
        (
            "apiKey",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "X-API-Key",
                "The same key.",
            ))),
        ),
        (
            "token",
            SecurityScheme::Http(
                bearer("A JWT of the OpenID Connect issuer in OIDC_ISSUER, for OIDC_AUDIENCE.")
                    .bearer_format("JWT")
                    .build(),
            ),
        ),
        (
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                "__Host-paperminder",
                cookie,
            ))),
        ),
    ]
}

/// Says of each operation which roles may use it, and of values what they may be.
pub fn with_roles(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    bounds::add(&mut document);
    for item in document.paths.paths.values_mut() {
        let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in all.into_iter().flatten() {
            let Some(right) = operation.operation_id.as_deref().and_then(needs) else { continue };
            let earlier = operation.description.take().map_or_else(String::new, |text| format!("{text}\n\n"));
            operation.description = Some(earlier + &right.sentence());
        }
    }
    document
}

/// The document as it is committed: `openapi.json`.
pub fn document() -> String {
    let document = with_roles(crate::app::api().into_openapi());
    // The document is made of strings.
    document.to_pretty_json().unwrap_or_default() + "\n"
}

/// `/api/openapi.json`, `/docs` and the problems' pages.
pub fn pages(document: utoipa::openapi::OpenApi) -> Router<AppState> {
    Router::new()
        .route("/docs/problems", get(index))
        .route("/docs/problems/{slug}", get(page))
        .merge(SwaggerUi::new("/docs").url("/api/openapi.json", with_roles(document)))
}

async fn index() -> Html<String> {
    let mut list = String::new();
    for kind in KINDS {
        let _ = write!(
            list,
            "<li><a href=\"/docs/problems/{}\">{} {}</a></li>",
            kind.slug, kind.status, kind.title
        );
    }
    frame("Problems", &format!("<ul>{list}</ul>"))
}

async fn page(Segment(slug): Segment<String>) -> Response {
    let Some(Kind { status, title, cause, remedy, .. }) = KINDS.iter().find(|kind| kind.slug == slug) else {
        return Problem::new(
            &problem::NOT_FOUND,
            "No type of problem has this name; GET /docs/problems lists them.",
        )
        .into_response();
    };
    frame(
        title,
        &format!("<p>HTTP status {status}</p><h2>Cause</h2><p>{cause}</p><h2>Remedy</h2><p>{remedy}</p>"),
    )
    .into_response()
}

/// The texts are ours and hold nothing to escape.
fn frame(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}}</style>\
         <h1>{title}</h1>{body}<p><a href=\"/docs/problems\">All problems</a> · <a href=\"/docs/\">API</a></p></html>"
    ))
}
