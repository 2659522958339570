//! Many keys of printers at once, from CSV.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::keys::{check_scope, close, wanted};
use crate::auth::Caller;
use crate::http::extract::whole;
use crate::http::problem::{self, Common, FieldError, Problem};
use crate::http::{Json, Params};
use crate::printers::keys::{self, NewPrinterKey};
use crate::state::AppState;

/// Keys of one import.
const MOST: usize = 10_000;
/// Lines that one refusal complains about.
const COMPLAINTS: usize = 20;

/// This route.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(import))
}

/// What an import made.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"created": 2, "made_up": [{"line": 3, "user_id": "user-123", "printer_id": "printer-9",
    "api_key": "3f1c0d5e9a7b4c2d8e6f0a1b2c3d4e5f"}]}))]
pub struct Imported {
    created: usize,
    /// The keys that the server made up, for lines without one, shown this once.
    made_up: Vec<MadeUp>,
}

/// A key that the server made up for a line of an import.
#[derive(Serialize, ToSchema)]
pub struct MadeUp {
    line: usize,
    user_id: String,
    printer_id: Option<String>,
    api_key: String,
}

/// One line of an import.
#[derive(Deserialize)]
struct Line {
    user_id: String,
    #[serde(default)]
    printer_id: Option<String>,
    #[serde(default)]
    api_key: Option<String>,
}

/// Make many keys at once, all or none.
///
/// CSV with the header `user_id,printer_id,api_key`, up to 10,000 lines. A key that is left empty is made up; without a
/// printer it speaks for all printers of the user.
#[utoipa::path(post, path = "/api/printer-keys/import", operation_id = "importPrinterKeys", tag = "printers",
    request_body(content = String, content_type = "text/csv", example = "user_id,printer_id,api_key\nuser-123,printer-8,its-own-key\nuser-123,printer-9,\n"),
    responses((status = 201, description = "What was made", body = Imported),
        (status = 404, description = "The key is for other users or printers only", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Printers have keys already", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many lines at once", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is no CSV", body = Problem, content_type = "application/problem+json"), Common))]
async fn import(
    State(app): State<AppState>,
    caller: Caller,
    params: Params,
    request: Request,
) -> Result<Response, Problem> {
    params.finish()?;
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/csv") {
        let detail = format!("The Content-Type is `{kind}`; send `Content-Type: text/csv`.");
        return Err(Problem::new(&problem::MEDIA_TYPE, detail));
    }
    let (new, made_up) = read(&whole(request.into_body()).await?)?;
    let (now, mut tx) = (app.clock.now(), caller.begin(&app.pool).await?);
    check_scope(&mut tx, &caller, &new).await?;
    let conflicts = keys::create(&mut tx, &new, &caller.actor.name, now).await?;
    if !conflicts.is_empty() {
        let error = |place: &usize| FieldError {
            field: format!("line {}", place + 2),
            detail: "names a printer that has a key already, or stands twice".into(),
        };
        let errors: Vec<_> = conflicts.iter().take(COMPLAINTS).map(error).collect();
        let detail =
            format!("{} lines name a printer that has a key already; nothing was made.", conflicts.len());
        return Err(Problem { errors, ..Problem::new(&problem::PRINTER_KEY_CONFLICT, detail) });
    }
    let printers = keys::named(&mut tx, &new).await?;
    close(&mut tx, printers, now).await?;
    tx.commit().await?;
    tracing::info!(created = new.len(), "keys of printers were imported");
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, headers, Json(Imported { created: new.len(), made_up })).into_response())
}

/// Every line, or what is wrong with them.
fn read(bytes: &[u8]) -> Result<(Vec<NewPrinterKey>, Vec<MadeUp>), Problem> {
    let (mut new, mut made, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (place, line) in csv::Reader::from_reader(bytes).deserialize::<Line>().enumerate() {
        let at = place + 2;
        if new.len() == MOST {
            return Err(Problem::field(
                "body",
                format!("has more than {MOST} lines; send them in several requests"),
            ));
        }
        let wrong = |detail: String| vec![FieldError { field: format!("line {at}"), detail }];
        let read = line.map_err(|error| wrong(format!("cannot be read: {error}"))).and_then(|line| {
            let text = |text: &Option<String>| {
                text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
            };
            let (printer, key) = (text(&line.printer_id), text(&line.api_key));
            let field = |name: &str| format!("line {at}, {name}");
            let (key, api_key) = wanted(line.user_id.trim(), printer.as_deref(), key.as_deref(), field)?;
            Ok((key, api_key))
        });
        match read {
            Ok((key, api_key)) => {
                let (user_id, printer_id) =
                    (key.user_id.to_string(), key.printer_id.as_ref().map(ToString::to_string));
                made.extend(api_key.map(|api_key| MadeUp { line: at, user_id, printer_id, api_key }));
                new.push(key);
            }
            Err(wrong) => errors.extend(wrong),
        }
        if errors.len() >= COMPLAINTS {
            break;
        }
    }
    if new.is_empty() && errors.is_empty() {
        return Err(Problem::field(
            "body",
            "has no lines; send CSV with the header user_id,printer_id,api_key",
        ));
    }
    if errors.is_empty() { Ok((new, made)) } else { Err(Problem::invalid(errors)) }
}
