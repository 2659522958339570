//! What printers say about their open update. Whatever changes how an update stands holds the printer's row, because
//! the census counts both together.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::types::{Reason, Status};
use crate::clock::Time;
use crate::ids::UpdateId;
use crate::telemetry::metrics;

/// How an attempt went, in the printer's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was installed; a reboot follows.
    Complete,
    /// It did not work out.
    Failed {
        /// The printer's words.
        error: Option<String>,
    },
    /// The printer does not want it.
    Declined,
}

impl Outcome {
    fn status(&self) -> Status {
        match self {
            Self::Complete => Status::Completed,
            Self::Failed { .. } => Status::Failed,
            Self::Declined => Status::Declined,
        }
    }
}

/// How far a printer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100, or -1 for an error.
    pub percent: i32,
    /// The printer's words.
    pub status: Option<String>,
}

/// A report, after its message was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// On the way.
    Progress(Progress),
    /// At the end.
    Outcome(Outcome),
}

/// Writes outcomes down, each with what the printer said before and nobody wrote yet. Returns the attempts that they
/// changed: one that is closed, or further on already, is not, and of two outcomes of one attempt the first counts.
///
/// The caller holds the printers' rows.
pub async fn report(
    conn: &mut PgConnection,
    outcomes: &[(UpdateId, &Outcome, Option<Progress>)],
    now: Time,
) -> Result<HashSet<UpdateId>, sqlx::Error> {
    let mut seen = HashSet::new();
    let outcomes: Vec<_> = outcomes.iter().filter(|(update, ..)| seen.insert(*update)).collect();
    let error = |outcome: &Outcome| match outcome {
        Outcome::Failed { error } => error.clone(),
        Outcome::Complete | Outcome::Declined => None,
    };
    let before = |progress: &Option<Progress>| progress.as_ref().map(|progress| progress.percent);
    let words = |progress: &Option<Progress>| progress.as_ref().and_then(|progress| progress.status.clone());
    let changed = sqlx::query_scalar!(
        "update update_history u set status = o.status, open = (o.status = 'completed'), \
             reason = case when o.status = 'failed' then 'reported' end, error_message = o.error, \
             last_percent = case when o.status = 'completed' then 100 else coalesce(o.percent, u.last_percent) end, \
             last_status_message = coalesce(o.words, u.last_status_message), completed_at = $6, last_activity_at = $6 \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[]) as o (id, status, error, percent, words) \
         where u.id = o.id and u.open and u.status in ('pending', 'downloading') returning u.id",
        &outcomes.iter().map(|(update, ..)| update.0).collect::<Vec<_>>(),
        &outcomes.iter().map(|(_, outcome, _)| outcome.status().as_str().to_owned()).collect::<Vec<_>>(),
        &outcomes.iter().map(|(_, outcome, _)| error(outcome)).collect::<Vec<_>>() as &[Option<String>],
        &outcomes.iter().map(|(.., progress)| before(progress)).collect::<Vec<_>>() as &[Option<i32>],
        &outcomes.iter().map(|(.., progress)| words(progress)).collect::<Vec<_>>() as &[Option<String>],
        now,
    );
    let changed: HashSet<_> = changed.fetch_all(conn).await?.into_iter().map(UpdateId).collect();
    for (_, outcome, _) in outcomes.iter().filter(|(update, ..)| changed.contains(update)) {
        match outcome {
            // It has ended once the printer is back.
            Outcome::Complete => {}
            Outcome::Failed { .. } => metrics::ended(Status::Failed.as_str(), Reason::Reported.as_str()),
            Outcome::Declined => metrics::ended(Status::Declined.as_str(), "declined"),
        }
    }
    Ok(changed)
}

/// Writes down how far printers are, each attempt once. What is closed, or further on already, stays as it is. Returns
/// the attempts that somebody else is changing right now: this holds no printers, so it waits for nobody who does.
pub async fn progress(
    conn: &mut PgConnection,
    progress: &[(UpdateId, Progress)],
    now: Time,
) -> Result<HashSet<UpdateId>, sqlx::Error> {
    let ids: Vec<Uuid> = progress.iter().map(|(update, _)| update.0).collect();
    let busy = sqlx::query_scalar!(
        r#"with wanted as materialized (
               select id from update_history where id = any($1) and open and status in ('pending', 'downloading')
           ),
           held as materialized (
               select id from update_history where id in (select id from wanted) order by id for no key update skip locked
           ),
           written as (
               update update_history u set status = case when p.percent >= 0 then 'downloading' else u.status end,
                   last_percent = p.percent, last_status_message = coalesce(p.status, u.last_status_message), last_activity_at = $4
               from unnest($1::uuid[], $2::int[], $3::text[]) as p (id, percent, status), held
               where u.id = p.id and held.id = u.id and u.open and u.status in ('pending', 'downloading')
           )
           select id as "id!" from wanted where id not in (select id from held)"#,
        &ids,
        &progress.iter().map(|(_, progress)| progress.percent).collect::<Vec<_>>(),
        &progress.iter().map(|(_, progress)| progress.status.clone()).collect::<Vec<_>>()
            as &[Option<String>],
        now
    );
    Ok(busy.fetch_all(conn).await?.into_iter().map(UpdateId).collect())
}

/// Printers let go of their sockets after the offer: the normal course when a download starts.
pub async fn socket_lost(
    conn: &mut PgConnection,
    updates: &[UpdateId],
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update update_history set socket_lost_at = $2, last_activity_at = $2 \
         where id = any($1) and open and socket_lost_at is null",
        &updates.iter().map(|update| update.0).collect::<Vec<_>>(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
