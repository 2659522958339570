//! Large answers that stream: CSV and NDJSON from a cursor of the database, in one snapshot and in bounded memory.
//!
//! A body that breaks off is never a short file: it ends without its last chunk, which every client reports as an
//! error.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::extract::Params;
use super::problem::{self, Problem};

/// Rows that are fetched at once.
const BATCH: usize = 500;
/// Batches that wait for a slow client.
const BUFFER: usize = 2;
/// Longest wait for a client to take a batch: its snapshot keeps the database from tidying up.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest export.
const LONGEST: Duration = Duration::from_secs(3600);

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, with a line of names.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

impl std::str::FromStr for Format {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "csv" => Ok(Self::Csv),
            "ndjson" => Ok(Self::Ndjson),
            _ => Err("must be csv or ndjson"),
        }
    }
}

impl Format {
    /// `?format=`; CSV unless it says otherwise.
    pub fn read(params: &mut Params) -> Self {
        params.get("format").unwrap_or(Self::Csv)
    }
}

/// Bounds on exports. Clones share them.
#[derive(Clone, Debug)]
pub struct Exports {
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

enum Piece {
    Rows(Vec<u8>),
    End,
}

impl Exports {
    /// So many at once, until `stop`.
    pub fn new(at_once: u32, stop: CancellationToken) -> Self {
        Self { room: Arc::new(Semaphore::new(at_once as usize)), stop }
    }

    /// Streams what the query finds as `name.csv` or `name.ndjson`, with the fields of `T`, none of which may be
    /// nested.
    pub async fn stream<T>(
        &self,
        pool: &PgPool,
        query: QueryBuilder<Postgres>,
        name: &str,
        format: Format,
    ) -> Result<Response, Problem>
    where
        T: for<'r> FromRow<'r, PgRow> + Serialize + ToSchema + Send + Unpin + 'static,
    {
        let permit = self.room.clone().try_acquire_owned().map_err(|_| Problem {
            retry_after: Some(30),
            ..Problem::new(
                &problem::EXPORTS_FULL,
                "As many exports run on this replica as MAX_CONCURRENT_EXPORTS allows; try again in half a minute.",
            )
        })?;
        let mut tx = pool.begin().await?;
        // A client may take its time, as long as SILENCE.
        sqlx::query("set local idle_in_transaction_session_timeout = '2min'").execute(&mut *tx).await?;
        declare(&mut tx, query).await?;
        // The first rows before the answer: what is wrong with the query or the database is a problem, not a broken file.
        let first = fetch::<T>(&mut tx).await?;
        let (pieces, receiver) = mpsc::channel(BUFFER);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let work = write(tx, first, format, &pieces, permit);
            let done = tokio::select! { done = work => done, () = stop.cancelled() => Err("the replica ends".into()) };
            if let Err(why) = done {
                tracing::info!(why, "an export broke off");
            }
        });
        let (kind, extension) = match format {
            Format::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
            Format::Ndjson => ("application/x-ndjson", "ndjson"),
        };
        let disposition = format!("attachment; filename=\"{name}.{extension}\"");
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            (header::CONTENT_DISPOSITION, HeaderValue::from_str(&disposition).map_err(Problem::internal)?),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        Ok((headers, body(receiver)).into_response())
    }
}

/// Ends with an error unless the writer said that it was done.
fn body(receiver: mpsc::Receiver<Piece>) -> Body {
    let pieces = stream::unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Rows(bytes)) => Some((Ok(Bytes::from(bytes)), Some(receiver))),
            Some(Piece::End) => None,
            None => Some((Err(std::io::Error::other("the export broke off")), None)),
        }
    });
    Body::from_stream(pieces)
}

async fn declare(
    tx: &mut Transaction<'static, Postgres>,
    mut query: QueryBuilder<Postgres>,
) -> Result<(), sqlx::Error> {
    // Not prepared: the plan is for these values.
    query.build().persistent(false).execute(&mut **tx).await.map(drop)
}

/// The beginning of a query that is to be exported.
pub fn cursor(select: &str) -> QueryBuilder<Postgres> {
    QueryBuilder::new(format!("declare export no scroll cursor for {select}"))
}

async fn fetch<T>(tx: &mut Transaction<'static, Postgres>) -> Result<Vec<T>, sqlx::Error>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    // Not prepared: the next export on this connection has other columns.
    let fetch = sqlx::query_as(sqlx::AssertSqlSafe(format!("fetch {BATCH} from export")));
    fetch.persistent(false).fetch_all(&mut **tx).await
}

async fn write<T>(
    mut tx: Transaction<'static, Postgres>,
    mut rows: Vec<T>,
    format: Format,
    pieces: &mpsc::Sender<Piece>,
    _room: OwnedSemaphorePermit,
) -> Result<(), String>
where
    T: for<'r> FromRow<'r, PgRow> + Serialize + ToSchema + Send + Unpin,
{
    let columns = columns::<T>();
    let deadline = Instant::now() + LONGEST;
    let mut first = true;
    loop {
        let piece = match format {
            Format::Csv => csv(&rows, &columns, first)?,
            Format::Ndjson => ndjson(&rows)?,
        };
        let last = rows.len() < BATCH;
        drop(rows);
        if !piece.is_empty() {
            hand(pieces, Piece::Rows(piece)).await?;
        }
        if last {
            return hand(pieces, Piece::End).await;
        }
        if Instant::now() > deadline {
            return Err("it took longer than an hour".into());
        }
        rows = fetch(&mut tx).await.map_err(|error| error.to_string())?;
        first = false;
    }
}

async fn hand(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<(), String> {
    match timeout(SILENCE, pieces.send(piece)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("the client went away".into()),
        Err(_) => Err("the client took nothing for a minute".into()),
    }
}

/// The fields as the OpenAPI document lists them, so that a file without rows has its first line too.
fn columns<T: ToSchema>() -> Vec<String> {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => object.properties.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

fn ndjson<T: Serialize>(rows: &[T]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut bytes, row).map_err(|error| error.to_string())?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn csv<T: Serialize>(rows: &[T], columns: &[String], header: bool) -> Result<Vec<u8>, String> {
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if header {
        csv.write_record(columns).map_err(|error| error.to_string())?;
    }
    for row in rows {
        let row: Map<String, Value> = match serde_json::to_value(row) {
            Ok(Value::Object(row)) => row,
            Ok(_) => return Err("a row is no object".into()),
            Err(error) => return Err(error.to_string()),
        };
        let cells = columns.iter().map(|column| row.get(column).map_or_else(String::new, cell));
        csv.write_record(cells).map_err(|error| error.to_string())?;
    }
    csv.into_inner().map_err(|error| error.to_string())
}

/// Text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, CSV injection): printers choose
/// their names and errors themselves.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, ToSchema)]
    struct Row {
        name: &'static str,
        percent: i32,
        ended: Option<&'static str>,
    }

    #[test]
    fn formulas_are_defused_and_numbers_are_not() {
        let row = |name| Row { name, percent: -1, ended: None };
        let rows =
            [row("=cmd|' /C calc'!A0"), row("+1"), row("-1"), row("@x"), row("a,\"b\"\nc"), row("a=b")];
        let text = String::from_utf8(csv(&rows, &columns::<Row>(), true).unwrap()).unwrap();
        assert_eq!(
            text,
            "name,percent,ended\r\n'=cmd|' /C calc'!A0,-1,\r\n'+1,-1,\r\n'-1,-1,\r\n'@x,-1,\r\n\"a,\"\"b\"\"\nc\",-1,\r\na=b,-1,\r\n"
        );
    }

    #[tokio::test]
    async fn a_writer_that_vanishes_breaks_the_body() {
        for (ends, whole) in [(true, true), (false, false)] {
            let (pieces, receiver) = mpsc::channel(4);
            pieces.send(Piece::Rows(b"a\n".to_vec())).await.ok().unwrap();
            if ends {
                pieces.send(Piece::End).await.ok().unwrap();
            }
            drop(pieces);
            assert_eq!(axum::body::to_bytes(body(receiver), 100).await.is_ok(), whole);
        }
    }
}
