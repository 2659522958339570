//! The pure decision and the SQL that counts say the same about every printer.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use paperminder_ota::auth::Scope;
use paperminder_ota::ids::{Handle, PrinterRef};
use paperminder_ota::printers::{self, Arrival, Subscription};
use paperminder_ota::rollouts::{
    Decision, Offering, Plan, Rollout, Status, Target, Why, catalog, count, decide, find,
};
use paperminder_ota::version::Version;
use paperminder_ota::words::{Channel, Platform};
use paperminder_ota::{clock::Clock, ids::ReplicaId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::Server;

const VERSIONS: &[&str] = &["1.4.0-rc.2", "1.4.0-rc.10", "1.4.0", "1.5.0-beta", "1.5.0", "1.10.0", "2.0.0"];

fn some<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(of)
}

fn printers() -> impl Strategy<Value = Vec<(&'static str, bool, Channel, Platform, u8)>> {
    let one = (
        some(VERSIONS),
        any::<bool>(),
        some(Channel::ALL),
        some(&[Platform::Esp8266, Platform::Esp32, Platform::Esp32C3]),
        0u8..3,
    );
    proptest::collection::vec(one, 60)
}

/// Users and printers, channels, least and greatest version.
fn target() -> impl Strategy<Value = Target> {
    let version = || proptest::option::of(some(VERSIONS).prop_map(|text| Version::from(text.to_owned())));
    let users = proptest::option::of(proptest::collection::vec(
        (0u8..3).prop_map(|user| format!("user-{user}").parse().unwrap()),
        1..3,
    ));
    let ids = proptest::option::of(proptest::collection::vec(
        (0u8..60).prop_map(|index| format!("printer-{index}").parse().unwrap()),
        1..30,
    ));
    let channels = proptest::option::of(proptest::collection::vec(some(Channel::ALL), 1..3));
    (any::<bool>(), users, ids, channels, version(), version()).prop_map(
        |(all, user_ids, printer_ids, channels, min_version, max_version)| Target {
            all,
            user_ids,
            printer_ids,
            channels,
            min_version,
            max_version,
            ..Target::default()
        },
    )
}

#[sqlx::test]
async fn deciding_and_counting_agree_about_every_printer(pool: PgPool) {
    let server = Server::start(pool).await;
    for (version, channel, platform, extra) in [
        ("1.5.0", "stable", "esp8266", ("mandatory", "false")),
        ("1.5.0", "beta", "esp8266", ("min_upgrade_version", "1.4.0")),
        ("1.5.0", "canary", "esp32", ("mandatory", "true")),
    ] {
        let fields =
            [("version", version), ("channel", channel), ("platform", platform), ("validate", "off"), extra];
        server.upload_bytes(vec![0xE9; 100], &fields).await.expect(201);
    }
    let mut runner = TestRunner::deterministic();
    let mut all = Vec::new();
    let mut conn = server.pool.acquire().await.unwrap();
    for (index, (version, auto_update, channel, platform, user)) in
        (0u32..).zip(printers().new_tree(&mut runner).unwrap().current())
    {
        let said = Subscription {
            printer_id: format!("printer-{index}").parse().unwrap(),
            user_id: format!("user-{user}").parse().unwrap(),
            name: None,
            platform,
            version: version.to_owned().into(),
            auto_update,
            channel,
            downloads: printers::Downloads::default(),
            time_zone: None,
            credential: None,
        };
        let now = Clock::system().now();
        all.push(
            printers::subscribe(
                &mut conn,
                &[Arrival { said, connection: None, ip: [127, 0, 0, 1].into(), shared_key: false }],
                ReplicaId::generate(),
                now,
            )
            .await
            .unwrap()
            .remove(0)
            .unwrap()
            .facts,
        );
    }
    for round in 0..40 {
        let target = target().new_tree(&mut runner).unwrap().current();
        let channel = (round % 4 != 0).then_some(()).map_or(Some(Channel::Beta), |()| None);
        let rollout = create(&server, &target, channel).await;
        // Written paused, so that the engine leaves it alone; decided as if it were active.
        let active = Rollout { status: Status::Active, ..rollout.clone() };
        let plan = Plan::new(
            vec![Offering { rollout: active, slots: None }],
            catalog(&mut conn).await.unwrap(),
            Default::default(),
        );
        let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
        for facts in &all {
            let class = match decide(&plan, facts, &HashMap::new(), Duration::ZERO, Clock::system().now()) {
                Decision::Offer { .. } | Decision::Waiting { .. } => "pending",
                Decision::Nothing(Some(Why::NotInTarget)) => continue,
                Decision::Nothing(Some(why)) => why.code(),
                Decision::Nothing(None) => panic!("no reason"),
            };
            *expected.entry(class).or_default() += 1;
        }
        let counted =
            count(&mut conn, std::slice::from_ref(&rollout)).await.unwrap().remove(&rollout.id).unwrap();
        let mut actual: BTreeMap<&str, i64> =
            counted.excluded.iter().map(|(class, count)| (class.as_str(), *count)).collect();
        if counted.pending > 0 {
            actual.insert("pending", counted.pending);
        }
        assert_eq!(actual, expected, "{target:?} on {channel:?}");
    }
    drop(conn);
    server.stop().await;
}

/// Writes a rollout that has not started, and reads it as the engine would.
async fn create(server: &Server, target: &Target, channel: Option<Channel>) -> Rollout {
    let texts = |list: Option<Vec<String>>| list.map_or(Value::Null, |list| json!(list));
    let strings = |list: &Option<Vec<Channel>>| {
        list.as_ref().map(|list| list.iter().map(ToString::to_string).collect())
    };
    let body = json!({
        "firmware_version": "1.5.0", "channel": channel, "rollout_type": "immediate", "start": false,
        "target": {
            "all": true, "user_ids": texts(target.user_ids.as_ref().map(|ids| ids.iter().map(ToString::to_string).collect())),
            "printer_ids": texts(target.printer_ids.as_ref().map(|ids| ids.iter().map(ToString::to_string).collect())),
            "channels": texts(strings(&target.channels)),
        },
    });
    let rollout = server.rollout(body).await;
    let id: uuid::Uuid = rollout["id"].as_str().unwrap().parse().unwrap();
    // A target whose least version is above its greatest is refused by REST; the predicate must hold for it too.
    sqlx::query("update update_rollouts set target_all = $2, min_version = $3, min_version_key = $4, max_version = $5, max_version_key = $6 where id = $1")
        .bind(id)
        .bind(target.all)
        .bind(target.min_version.as_ref().map(ToString::to_string))
        .bind(target.min_version.as_ref().map(Version::key))
        .bind(target.max_version.as_ref().map(ToString::to_string))
        .bind(target.max_version.as_ref().map(Version::key))
        .execute(&server.pool)
        .await
        .unwrap();
    let mut conn = server.pool.acquire().await.unwrap();
    find(&mut conn, Scope::ALL, Handle::Id(id), false).await.unwrap()
}

/// Rows have ids of their own.
#[test]
fn ids_are_ordered_by_time() {
    let ids: Vec<_> = (0..100).map(|_| PrinterRef::generate()).collect();
    assert!(ids.is_sorted());
}
