//! Writes a world by `copy`, in one transaction: a seeding that fails leaves nothing.

use indicatif::ProgressBar;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::super::Fatal;
use super::rows;
use super::world::World;
use crate::simulate::Noise;

/// Bytes that go out at once.
const CHUNK: usize = 1 << 20;

/// Writes all of it, if there is room for it.
pub async fn write(
    conn: &mut PgConnection,
    world: &World,
    seed: u64,
    bar: &ProgressBar,
) -> Result<(), Fatal> {
    let mut tx = conn.begin().await?;
    for setting in ["statement_timeout = 0", "maintenance_work_mem = '256MB'", "work_mem = '64MB'"] {
        run(&mut tx, &format!("set local {setting}")).await?;
    }
    // A table whose triggers wait for the end of the transaction cannot be altered before.
    run(&mut tx, "set constraints all immediate").await?;
    run(&mut tx, "lock table firmware_versions, update_rollouts, printers, update_history in exclusive mode")
        .await?;
    let taken: bool = sqlx::query_scalar(
        "select exists (select 1 from printers) or exists (select 1 from firmware_versions) or exists (select 1 from update_rollouts)",
    )
    .fetch_one(&mut *tx)
    .await?;
    if taken {
        return Err(
            "this database has printers, releases or rollouts already, and only an empty one is filled; \
            make another one and run `paperminder-ota migrate` on it"
                .into(),
        );
    }
    let mut out = String::new();
    rows::releases(world, &mut out);
    copy(&mut tx, rows::RELEASES, std::iter::once(out)).await?;
    let mut out = String::new();
    rows::rollouts(world, &mut out);
    copy(&mut tx, rows::ROLLOUTS, std::iter::once(out)).await?;

    let bare = Bare::strip(&mut tx).await?;
    bar.set_message("printers");
    let mut index = 0;
    copy(
        &mut tx,
        rows::PRINTERS,
        chunks(|out| {
            (index < world.printers).then(|| {
                rows::printer(world, index, out);
                index += 1;
                bar.inc(1);
            })
        }),
    )
    .await?;
    bar.set_message("updates");
    let (mut turn, turns, mut noise) = (0, world.waves.len() as u64 * world.printers, Noise::new(!seed));
    copy(
        &mut tx,
        rows::UPDATES,
        chunks(|out| {
            (turn < turns).then(|| {
                let (wave, place) = ((turn / world.printers) as usize, turn % world.printers);
                bar.inc(rows::attempts(world, wave, place, &mut noise, out));
                turn += 1;
            })
        }),
    )
    .await?;
    bar.set_message("indexes");
    bare.restore(&mut tx).await?;
    bar.set_message("sums");
    for sum in [PRESENCE, FLEET, ATTEMPTED, OUTCOMES] {
        run(&mut tx, sum).await?;
    }
    tx.commit().await?;
    bar.set_message("vacuum");
    // Not in a transaction. Autovacuum would do it too, some minutes later.
    run(conn, "set statement_timeout = 0").await?;
    for table in [
        "printers",
        "presence",
        "update_history",
        "update_rollouts",
        "firmware_versions",
        "census",
        "outcomes",
    ] {
        run(conn, &format!("vacuum (analyze) {table}")).await?;
    }
    Ok(())
}

async fn run(conn: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(conn).await.map(drop)
}

/// Chunks of what `next` appends, until it appends nothing more.
fn chunks(mut next: impl FnMut(&mut String) -> Option<()>) -> impl Iterator<Item = String> {
    std::iter::from_fn(move || {
        let mut out = String::with_capacity(CHUNK + CHUNK / 16);
        while out.len() < CHUNK && next(&mut out).is_some() {}
        (!out.is_empty()).then_some(out)
    })
}

async fn copy(
    conn: &mut PgConnection,
    into: &str,
    chunks: impl Iterator<Item = String>,
) -> Result<(), sqlx::Error> {
    let mut copy = conn.copy_in_raw(&format!("copy {into} from stdin")).await?;
    for chunk in chunks {
        copy.send(chunk.into_bytes()).await?;
    }
    copy.finish().await.map(drop)
}

/// What was taken off the two large tables: row by row it costs many times what it costs at the end.
struct Bare(Vec<String>);

impl Bare {
    /// Takes off indexes, foreign keys and triggers. The database itself knows how they are put back.
    async fn strip(conn: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let known: Vec<(String, String)> = sqlx::query_as(
            "select format('drop index %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid) from pg_index i \
             where i.indrelid in ('printers'::regclass, 'update_history'::regclass) \
               and not exists (select 1 from pg_constraint c where c.conindid = i.indexrelid) \
             union all \
             select format('alter table %s drop constraint %I', conrelid::regclass, conname), \
                 format('alter table %s add constraint %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) \
             from pg_constraint where contype = 'f' and conrelid in ('printers'::regclass, 'update_history'::regclass) \
             union all \
             select format('alter table %s disable trigger user', name), format('alter table %s enable trigger user', name) \
             from unnest(array['printers', 'update_history']) name",
        )
        .fetch_all(&mut *conn)
        .await?;
        let (off, on): (Vec<_>, Vec<_>) = known.into_iter().unzip();
        for statement in off {
            run(conn, &statement).await?;
        }
        Ok(Self(on))
    }

    async fn restore(self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        for statement in self.0 {
            run(conn, &statement).await?;
        }
        Ok(())
    }
}

/// Each was there for twenty minutes, and nobody is there now.
const PRESENCE: &str = "insert into presence (printer, number, connection, last_connected, last_disconnected, last_ip, online_seconds) \
    select id, number, 0, updated_at, least(updated_at + interval '20 minutes', now()), \
        concat_ws('.', 10, number >> 16 & 255, number >> 8 & 255, number & 255), 1200 from printers";

// What the triggers would have written row by row; as in the migrations that made these tables.
const FLEET: &str = "
    insert into census (platform, firmware_version, version_key, auto_update, update_channel, installed_release, installed_rollout, n)
    select platform, firmware_version, version_key, auto_update, update_channel, installed_release, installed_rollout, count(*)
    from printers group by 1, 2, 3, 4, 5, 6, 7";
const ATTEMPTED: &str = "
    insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
        installed_rollout, stage, state, shared, n)
    select r.id, rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version), p.platform, p.firmware_version,
        p.version_key, p.auto_update, p.update_channel, p.installed_release, p.installed_rollout, u.stage,
        update_state(u.status, u.open, u.tries, r.max_attempts), u.shared_key, count(*)
    from update_history u join update_rollouts r on r.id = u.rollout_id join printers p on p.id = u.printer
    where u.last group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12";
const OUTCOMES: &str = "
    insert into outcomes (hour, version, platform, channel, outcome, reason, duration, count, release)
    select date_trunc(case when ended < date_trunc('day', now() - interval '48 hours', 'UTC') then 'day' else 'hour' end, ended, 'UTC'),
        u.firmware_version, coalesce(f.platform, 'unknown'), coalesce(f.channel, 'unknown'), u.status, coalesce(u.reason, ''),
        coalesce(duration_class(extract(epoch from u.confirmed_at - u.started_at)), -1), count(*), coalesce(f.id, '00000000-0000-0000-0000-000000000000')
    from (select *, coalesce(completed_at, started_at) as ended from update_history where not open) u
    left join firmware_versions f on f.id = u.firmware_version_id
    group by 1, 2, 3, 4, 5, 6, 7, 9";
