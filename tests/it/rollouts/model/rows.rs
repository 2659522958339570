//! The tables, read whole in one moment.

use std::collections::HashMap;

use paperminder_ota::auth::Scope;
use paperminder_ota::clock::Time;
use paperminder_ota::ids::{Handle, RolloutId};
use paperminder_ota::rollouts::{Counters, Rollout, count, find, snapshot};
use paperminder_ota::version::Version;
use sqlx::{FromRow, PgPool, Row as _};
use uuid::Uuid;

#[derive(Clone, Debug, FromRow)]
pub struct PrinterRow {
    pub id: Uuid,
    pub printer_id: String,
    pub user_id: String,
    pub bucket: i16,
    pub platform: String,
    pub firmware_version: String,
    pub auto_update: bool,
    pub update_channel: String,
    pub installed_release: Option<Uuid>,
    pub installed_rollout: Option<Uuid>,
    pub previous_version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct UpdateRow {
    pub id: Uuid,
    pub number: i64,
    pub rollout_id: Option<Uuid>,
    pub printer: Uuid,
    pub firmware_version_id: Option<Uuid>,
    pub firmware_version: String,
    pub from_version: String,
    pub attempt: i32,
    pub tries: i32,
    pub status: String,
    pub open: bool,
    pub last: bool,
    pub stage: i32,
    pub stone: bool,
    pub sends: i32,
    pub reason: Option<String>,
    pub started_at: Time,
    pub completed_at: Option<Time>,
    pub confirmed_at: Option<Time>,
}

#[derive(Clone, Debug, FromRow)]
pub struct ReleaseRow {
    pub id: Uuid,
    pub version: String,
    pub channel: String,
    pub platform: String,
    pub mandatory: bool,
    pub min_upgrade_version: Option<String>,
    pub deprecated: bool,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub printers: Vec<PrinterRow>,
    /// By number.
    pub updates: Vec<UpdateRow>,
    pub releases: Vec<ReleaseRow>,
    /// Those that were not deleted.
    pub rollouts: Vec<Rollout>,
    /// Status and epoch of all.
    pub states: HashMap<Uuid, (String, i64)>,
    pub counters: HashMap<RolloutId, Counters>,
    /// Where the census and a recount differ.
    pub census: Vec<String>,
}

pub fn version(text: &str) -> Version {
    Version::from(text.to_owned())
}

/// What the census should say, from the tables that it counts.
const RECOUNT: &str = "with told as (
        select rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
            installed_rollout, stage, state, sum(n)::bigint as n
        from census group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 having sum(n) <> 0),
    counted as (
        select null::uuid as rollout_id, true as named, platform, firmware_version, version_key, auto_update, update_channel,
            installed_release, installed_rollout, 0 as stage, null::text as state, count(*) as n
        from printers group by 3, 4, 5, 6, 7, 8, 9
        union all
        select r.id,
            (r.target_all or (r.target_user_ids is null and r.target_printer_ids is null)
                or p.user_id = any(coalesce(r.target_user_ids, '{}')) or p.printer_id = any(coalesce(r.target_printer_ids, '{}')))
            and (r.target_installed_by is null or r.target_installed_by is not distinct from p.installed_rollout)
            and (r.target_previous_version is null or r.target_previous_version is not distinct from p.previous_version),
            p.platform, p.firmware_version, p.version_key, p.auto_update, p.update_channel, p.installed_release,
            p.installed_rollout, u.stage,
            case when u.open and u.status = 'completed' then 'completed' when u.open then 'open'
                when u.status = 'completed' then 'confirmed' when u.status = 'declined' then 'declined'
                when u.tries < r.max_attempts then 'failed' else 'used_up' end,
            count(*)
        from update_history u join update_rollouts r on r.id = u.rollout_id join printers p on p.id = u.printer where u.last
        group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    (select 'only the census: ' || told::text from (select * from told except select * from counted) told)
    union all
    (select 'only the tables: ' || counted::text from (select * from counted except select * from told) counted)";

impl Rows {
    /// Reads everything.
    pub async fn read(pool: &PgPool) -> Self {
        let mut tx = pool.begin().await.unwrap();
        snapshot(&mut tx).await.unwrap();
        let census = sqlx::query_scalar(RECOUNT).fetch_all(&mut *tx).await.unwrap();
        let printers = sqlx::query_as(
            "select id, printer_id, user_id, bucket, platform, firmware_version, auto_update, update_channel, installed_release, \
             installed_rollout, previous_version from printers order by number",
        );
        let printers = printers.fetch_all(&mut *tx).await.unwrap();
        let updates = sqlx::query_as(
            "select id, number, rollout_id, printer, firmware_version_id, firmware_version, from_version, attempt, tries, status, open, \
             last, stage, stone, sends, reason, started_at, completed_at, confirmed_at from update_history order by number",
        );
        let updates = updates.fetch_all(&mut *tx).await.unwrap();
        let releases = sqlx::query_as(
            "select id, version, channel, platform, mandatory, min_upgrade_version, deprecated_at is not null as deprecated \
             from firmware_versions",
        );
        let releases = releases.fetch_all(&mut *tx).await.unwrap();
        let all = sqlx::query(
            "select id, number, status, epoch, deleted_at is not null as deleted from update_rollouts order by number",
        );
        let (mut rollouts, mut states) = (Vec::new(), HashMap::new());
        for row in all.fetch_all(&mut *tx).await.unwrap() {
            states.insert(row.get("id"), (row.get("status"), row.get("epoch")));
            if !row.get::<bool, _>("deleted") {
                rollouts
                    .push(find(&mut tx, Scope::ALL, Handle::Number(row.get("number")), false).await.unwrap());
            }
        }
        let counters = count(&mut tx, &rollouts).await.unwrap();
        tx.rollback().await.unwrap();
        Self { printers, updates, releases, rollouts, states, counters, census }
    }

    pub fn printer(&self, id: Uuid) -> &PrinterRow {
        self.printers.iter().find(|printer| printer.id == id).unwrap()
    }
}
