//! Nothing is missed and nothing told twice, whoever commits late, comes back, or does not read for a while.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::sleep;

use super::watcher::Watcher;
use crate::support::Server;

const TELL: &str = "insert into events (kind, data) select 'firmware.changed', jsonb_build_object('n', n) from generate_series($1::bigint, $2) n";

async fn tell(pool: &PgPool, from: i64, to: i64) {
    sqlx::query(TELL).bind(from).bind(to).execute(pool).await.unwrap();
}

#[sqlx::test]
async fn a_transaction_that_commits_late_is_not_skipped(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    let mut watcher = Watcher::open(&server, "", None).await;
    let mut late = pool.begin().await.unwrap();
    sqlx::query(TELL).bind(1i64).bind(1i64).execute(&mut *late).await.unwrap();
    tell(&pool, 2, 2).await;
    // The feed has looked several times by now, and must not have passed the open transaction.
    sleep(Duration::from_millis(900)).await;
    late.commit().await.unwrap();
    tell(&pool, 3, 3).await;
    let seen = watcher.until(|event| event["n"] == 3).await;
    assert_eq!(seen.iter().map(|event| event["n"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    server.stop().await;
}

/// Writers commit in another order than they began, while a client goes away after every few events and comes back to
/// one replica or the other.
#[sqlx::test]
async fn a_client_that_comes_back_misses_nothing_and_hears_nothing_twice(pool: PgPool) {
    const WRITERS: i64 = 4;
    const EACH: i64 = 150;
    let servers = [Server::start(pool.clone()).await, Server::start(pool.clone()).await];
    let mut last_id = Watcher::open(&servers[0], "", None).await.last_id;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for step in 0..EACH {
                    let n = writer * EACH + step;
                    let mut tx = pool.begin().await.unwrap();
                    sqlx::query(TELL).bind(n).bind(n).execute(&mut *tx).await.unwrap();
                    // Each holds its transactions open for another time.
                    sleep(Duration::from_millis(((step * 7 + writer * 13) % 40).unsigned_abs())).await;
                    tx.commit().await.unwrap();
                }
            })
        })
        .collect();
    let mut seen: Vec<i64> = Vec::new();
    let mut visits = 0usize;
    while seen.len() < (WRITERS * EACH) as usize {
        let mut watcher = Watcher::open(&servers[visits % 2], "", Some(&last_id)).await;
        for _ in 0..(visits * 5) % 31 + 1 {
            if seen.len() < (WRITERS * EACH) as usize {
                seen.push(watcher.next().await["n"].as_i64().unwrap());
            }
        }
        last_id = watcher.last_id;
        visits += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(visits > 20, "{visits}");
    // Of one writer they come in its order, and all together each comes once.
    for writer in 0..WRITERS {
        let own: Vec<_> = seen.iter().filter(|n| **n / EACH == writer).copied().collect();
        assert_eq!(own, (writer * EACH..(writer + 1) * EACH).collect::<Vec<_>>());
    }
    for server in servers {
        server.stop().await;
    }
}

#[sqlx::test]
async fn a_client_that_does_not_read_for_a_while_misses_nothing(pool: PgPool) {
    const STEP: i64 = 1000;
    let server = Server::start(pool.clone()).await;
    let mut slow = Watcher::open(&server, "", None).await;
    let mut quick = Watcher::open(&server, "", None).await;
    // More than the feed's buffer and the sockets' take, by far.
    let many = "insert into events (kind, data) select 'firmware.changed', jsonb_build_object('n', n, 'fill', repeat('x', 1000)) \
                from generate_series($1::bigint, $2) n";
    for step in 0..40 {
        sqlx::query(many).bind(step * STEP + 1).bind((step + 1) * STEP).execute(&pool).await.unwrap();
        quick.until(|event| event["n"] == (step + 1) * STEP).await;
    }
    for n in 1..=40 * STEP {
        assert_eq!(slow.next().await["n"], n);
    }
    server.stop().await;
}

#[sqlx::test]
async fn who_comes_back_too_late_is_told_so(pool: PgPool) {
    let server = Server::start(pool.clone()).await;
    let mut watcher = Watcher::open(&server, "", None).await;
    let before = watcher.last_id.clone();
    tell(&pool, 1, 2).await;
    watcher.until(|event| event["n"] == 2).await;
    let (seen_both, mut conn) = (watcher.last_id.clone(), pool.acquire().await.unwrap());
    sqlx::query("update events set at = now() - interval '2 hours'").execute(&mut *conn).await.unwrap();
    tell(&pool, 3, 3).await;
    let hour = Duration::from_secs(3600);
    assert_eq!(paperminder_ota::events::forget(&mut conn, hour).await.unwrap(), 2);
    assert_eq!(paperminder_ota::events::forget(&mut conn, hour).await.unwrap(), 0);

    let mut in_time = Watcher::open(&server, "", Some(&seen_both)).await;
    assert_eq!(in_time.next().await["n"], 3);
    for lost in [before.as_str(), "1-1", "9000000000000-1", "nonsense"] {
        let mut late = Watcher::open(&server, "", Some(lost)).await;
        assert_eq!(late.next().await["kind"], "reset", "{lost}");
        tell(&pool, 4, 4).await;
        assert_eq!(late.next().await["n"], 4, "{lost}");
    }
    // A dump that was restored into another cluster brings events that seem to be still to come.
    sqlx::query("insert into events (xid, kind, data) values ('9000000000000', 'firmware.changed', '{}')")
        .execute(&mut *conn)
        .await
        .unwrap();
    assert_eq!(paperminder_ota::events::forget(&mut conn, hour).await.unwrap(), 1);
    server.stop().await;
}
