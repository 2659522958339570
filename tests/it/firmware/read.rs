//! Releases looked up, listed and deleted.

use paperminder_ota::simulate::Printer;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{complaints, image};
use crate::support::{SOON, Server};

async fn release(server: &Server, version: &str, channel: &str, platform: &str) -> Value {
    // The same bytes stand for every platform here.
    let fields = [("version", version), ("channel", channel), ("platform", platform), ("validate", "off")];
    server.upload_bytes(image(1), &fields).await.expect(201)
}

fn versions(list: &Value) -> Vec<&str> {
    list["firmware"].as_array().unwrap().iter().map(|one| one["version"].as_str().unwrap()).collect()
}

#[sqlx::test]
async fn latest_is_the_highest_version_and_not_the_last_upload(pool: PgPool) {
    let server = Server::start(pool).await;
    let missing = server.get("/api/firmware/latest").await.expect(404);
    assert_eq!(missing["type"], "/docs/problems/firmware-not-found");
    for (version, latest) in [
        ("1.9.0", "1.9.0"),
        ("1.10.0-rc.2", "1.10.0-rc.2"),
        ("1.10.0", "1.10.0"),
        ("1.10.0-rc.11", "1.10.0"),
        ("1.2.0", "1.10.0"),
        ("1.9.99", "1.10.0"),
    ] {
        release(&server, version, "stable", "esp8266").await;
        let found = server.get("/api/firmware/latest?channel=stable").await.expect(200);
        assert_eq!(found["version"], latest, "after {version}");
    }
    release(&server, "2.0.0", "beta", "esp8266").await;
    release(&server, "3.0.0", "stable", "esp32").await;
    let latest = async |query: &str| server.get(&format!("/api/firmware/latest{query}")).await;
    assert_eq!(latest("").await.expect(200)["version"], "1.10.0");
    assert_eq!(latest("?channel=beta").await.expect(200)["version"], "2.0.0");
    assert_eq!(latest("?platform=esp32").await.expect(200)["version"], "3.0.0");
    assert_eq!(latest("?channel=canary").await.status, 404);
    assert_eq!(complaints(&latest("?chanel=beta").await.expect(422)), ["chanel"]);
    assert_eq!(complaints(&latest("?channel=nightly").await.expect(422)), ["channel"]);
    // What was withdrawn is no longer the latest.
    sqlx::query("update firmware_versions set deprecated_at = now() where version = '1.10.0'")
        .execute(&server.pool)
        .await
        .unwrap();
    assert_eq!(latest("").await.expect(200)["version"], "1.10.0-rc.11");
    server.stop().await;
}

#[sqlx::test]
async fn a_version_means_its_most_stable_channel_unless_one_is_named(pool: PgPool) {
    let server = Server::start(pool).await;
    let found = async |query: &str| server.get(&format!("/api/firmware/1.5.0{query}")).await;
    for (channel, answer) in [("canary", "canary"), ("stable", "stable"), ("beta", "stable")] {
        release(&server, "1.5.0", channel, "esp8266").await;
        assert_eq!(found("").await.expect(200)["channel"], answer);
    }
    release(&server, "1.5.0", "beta", "esp32").await;
    assert_eq!(found("?channel=beta").await.expect(200)["platform"], "esp8266");
    assert_eq!(found("?platform=esp32").await.expect(200)["channel"], "beta");
    let missing = found("?platform=esp32&channel=stable").await.expect(404);
    assert_eq!(missing["title"], "Firmware version not found");
    assert!(missing["detail"].as_str().unwrap().contains("1.5.0 on stable for esp32"), "{missing}");
    assert_eq!(server.get("/api/firmware/1.5.1").await.status, 404);
    assert_eq!(complaints(&server.get("/api/firmware/newest").await.expect(422)), ["version"]);
    assert_eq!(complaints(&found("?plattform=esp32").await.expect(422)), ["plattform"]);
    server.stop().await;
}

#[sqlx::test]
async fn pages_are_stable_while_releases_come_in(pool: PgPool) {
    let server = Server::start(pool).await;
    for minor in 0..7 {
        release(&server, &format!("1.{minor}.0"), "stable", "esp8266").await;
    }
    for (sort, forward) in
        [("", false), ("&sort=released_at", true), ("&sort=-version", false), ("&sort=number", true)]
    {
        let mut seen: Vec<String> = Vec::new();
        let mut query = format!("limit=3{sort}");
        let mut pages = 0;
        loop {
            let answer = server.get(&format!("/api/firmware?{query}")).await;
            let link = answer.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
            let list = answer.expect(200);
            seen.extend(versions(&list).into_iter().map(str::to_owned));
            pages += 1;
            let Some(cursor) = list["next_cursor"].as_str() else {
                assert_eq!(link, None);
                break;
            };
            // The header leads to the same page as the body.
            let link = link.unwrap();
            let target =
                link.strip_prefix("<?").and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).unwrap();
            assert!(target.contains(cursor) && target.contains("limit=3"), "{link}");
            query = target.to_owned();
            // One more on another channel moves nothing that is still to come, and sorts in front or behind.
            let version = format!("0.0.{}-{}", pages, seen.len());
            if !forward && sort.is_empty() {
                release(&server, &version, "stable", "esp8266").await;
            }
        }
        let mut expected: Vec<_> = (0..7).map(|minor| format!("1.{minor}.0")).collect();
        if !forward {
            expected.reverse();
        }
        seen.retain(|version| version.starts_with("1."));
        assert_eq!(seen, expected, "{sort}");
    }
    server.stop().await;
}

#[sqlx::test]
async fn versions_are_sorted_as_semver_and_not_as_text(pool: PgPool) {
    let server = Server::start(pool).await;
    let ordered = [
        "0.9.0",
        "1.0.0-alpha",
        "1.0.0-alpha.2",
        "1.0.0-alpha.10",
        "1.0.0-beta",
        "1.0.0",
        "1.2.0",
        "1.10.0",
        "10.0.0",
    ];
    for index in [3, 7, 0, 8, 5, 1, 6, 2, 4] {
        release(&server, ordered[index], "stable", "esp8266").await;
    }
    let list = server.get("/api/firmware?sort=version").await.expect(200);
    assert_eq!(versions(&list), ordered);
    assert_eq!((&list["total"], &list["next_cursor"]), (&json!(9), &Value::Null));
    // Page by page as well: the cursor compares by the same order.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let list = server.get(&format!("/api/firmware?sort=version&limit=2{cursor}")).await.expect(200);
        seen.extend(versions(&list).into_iter().map(str::to_owned));
        let Some(next) = list["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ordered);
    server.stop().await;
}

#[sqlx::test]
async fn lists_are_filtered_and_count_what_matches(pool: PgPool) {
    let server = Server::start(pool).await;
    for (version, channel, platform) in [
        ("1.0.0", "stable", "esp8266"),
        ("1.0.0", "beta", "esp8266"),
        ("1.1.0", "beta", "esp8266"),
        ("1.1.0", "beta", "esp32"),
    ] {
        release(&server, version, channel, platform).await;
    }
    sqlx::query("update firmware_versions set deprecated_at = now() where number = 2")
        .execute(&server.pool)
        .await
        .unwrap();
    for (query, total) in [
        ("", 4),
        ("?channel=stable", 1),
        ("?channel=beta", 3),
        ("?channel=canary", 0),
        ("?platform=esp32", 1),
        ("?channel=beta&platform=esp8266", 2),
        ("?deprecated=true", 1),
        ("?channel=beta&deprecated=false", 2),
        ("?channel=beta&limit=1", 3),
    ] {
        let list = server.get(&format!("/api/firmware{query}")).await.expect(200);
        assert_eq!(list["total"], total, "{query}");
        let shown = list["firmware"].as_array().unwrap().len();
        assert_eq!(shown, if query.contains("limit=1") { 1 } else { total }, "{query}");
    }
    for (query, field, hint) in [
        ("?chanel=beta", "chanel", "did you mean `channel`"),
        ("?plaform=esp32", "plaform", "did you mean `platform`"),
        ("?limt=5", "limt", "did you mean `limit`"),
        ("?limit=501", "limit", "from 1 to 500"),
        ("?sort=size", "sort", "released_at, version, number"),
        ("?channel=nightly", "channel", "stable, beta, canary"),
        ("?deprecated=yes", "deprecated", "is not valid"),
        ("?cursor=x", "cursor", "not one of ours"),
    ] {
        let refused = server.get(&format!("/api/firmware{query}")).await.expect(422);
        assert_eq!(complaints(&refused), [field]);
        assert!(refused["detail"].as_str().unwrap().contains(hint), "{query}: {refused}");
    }
    let page = server.get("/api/firmware?channel=beta&limit=1").await.expect(200);
    let cursor = page["next_cursor"].as_str().unwrap();
    let other = server.get(&format!("/api/firmware?channel=stable&cursor={cursor}")).await.expect(422);
    assert!(other["detail"].as_str().unwrap().contains("another filter"), "{other}");
    server.stop().await;
}

#[sqlx::test]
async fn an_entity_tag_spares_what_the_client_has(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    for path in ["/api/firmware/1.5.0", "/api/firmware/latest", "/api/firmware"] {
        let first = server.get(path).await;
        let tag = first.headers["etag"].to_str().unwrap().to_owned();
        let again = async |tag: &str| {
            server.send(server.request(Method::GET, path).header("if-none-match", tag)).await
        };
        for known in [&tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
            let answer = again(known).await;
            assert_eq!((answer.status.as_u16(), &answer.body), (304, &json!("")), "{path} {known}");
            assert_eq!(answer.headers["etag"], tag.as_str());
        }
        assert_eq!(again("\"other\"").await.status, 200);
        // The tag follows what is shown, the counters included.
        sqlx::query("update firmware_versions set download_count = download_count + 1")
            .execute(&server.pool)
            .await
            .unwrap();
        assert_eq!(again(&tag).await.status, 200, "{path}");
    }
    server.stop().await;
}

#[sqlx::test]
async fn a_version_on_several_channels_is_deleted_by_its_channel_only(pool: PgPool) {
    let server = Server::start(pool).await;
    for (channel, platform) in [("beta", "esp8266"), ("stable", "esp8266"), ("canary", "esp32")] {
        release(&server, "1.5.0", channel, platform).await;
    }
    let refused = server.delete("/api/firmware/1.5.0").await.expect(409);
    assert!(refused["detail"].as_str().unwrap().contains("stands in stable, beta; name one"), "{refused}");
    assert_eq!(server.objects().len(), 3);
    assert_eq!(server.delete("/api/firmware/1.5.0?channel=canary").await.status, 404);
    assert_eq!(server.delete("/api/firmware/1.5.0?channel=beta").await.status, 204);
    assert_eq!(server.delete("/api/firmware/1.5.0?channel=beta").await.status, 404);
    // Now it stands in one.
    assert_eq!(server.delete("/api/firmware/1.5.0").await.status, 204);
    let [left] = &server.objects()[..] else { panic!("{:#?}", server.objects()) };
    assert!(left.ends_with("paperminder-1.5.0-canary.bin"));
    assert_eq!(server.delete("/api/firmware/1.5.0?platform=esp32").await.status, 204);
    assert_eq!(server.objects(), Vec::<String>::new());
    // And may come again, as the guide says.
    server.release("1.5.0", "stable").await;
    server.stop().await;
}

#[sqlx::test]
async fn a_release_that_a_rollout_uses_stays(pool: PgPool) {
    let server = Server::start(pool).await;
    release(&server, "1.5.0", "stable", "esp8266").await;
    release(&server, "1.5.0", "canary", "esp8266").await;
    release(&server, "1.6.0", "canary", "esp8266").await;
    let rollout = server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    // The rollout names no channel, so a printer on canary would get the one on canary.
    for path in ["/api/firmware/1.5.0?channel=stable", "/api/firmware/1.5.0?channel=canary"] {
        let refused = server.delete(path).await.expect(409);
        assert_eq!(refused["type"], "/docs/problems/firmware-conflict");
    }
    assert_eq!(server.delete("/api/firmware/1.6.0").await.status, 204);
    assert_eq!(server.objects().len(), 2);
    let path = format!("/api/rollouts/{}", rollout["number"]);
    server.patch(&path, &json!({"status": "cancelled"})).await.expect(200);
    assert_eq!(server.delete("/api/firmware/1.5.0?channel=canary").await.status, 204);
    server.stop().await;
}

#[sqlx::test]
async fn a_release_that_is_on_its_way_stays_and_one_that_was_taken_can_go(pool: PgPool) {
    let server = Server::start(pool).await;
    server.release("1.5.0", "stable").await;
    let mut printer = Printer::online(server.printer(1)).await.unwrap();
    let rollout = server
        .rollout(json!({"firmware_version": "1.5.0", "target": {"all": true}, "rollout_type": "immediate"}))
        .await;
    printer.next_offer(SOON).await.unwrap();
    let path = format!("/api/rollouts/{}", rollout["number"]);
    server.patch(&path, &json!({"status": "cancelled"})).await.expect(200);
    let refused = server.delete("/api/firmware/1.5.0").await.expect(409);
    assert!(refused["detail"].as_str().unwrap().contains("on its way to 1 printers"), "{refused}");
    assert_eq!(server.objects().len(), 1);
    printer.close().await.unwrap();
    let mut options = server.printer(1);
    options.firmware_version = "1.5.0".into();
    let _back = Printer::online(options).await.unwrap();
    server.wait("/api/printers/1/updates", |list| list["updates"][0]["open"] == false).await;
    assert_eq!(server.delete("/api/firmware/1.5.0").await.status, 204);
    assert!(server.objects().is_empty());
    let update = &server.get("/api/printers/1/updates").await.expect(200)["updates"][0];
    assert_eq!(
        (&update["firmware_version"], &update["status"]),
        (&json!("1.5.0"), &json!("completed")),
        "history stays"
    );
    assert_eq!(server.get(&path).await.expect(200)["firmware_version_id"], serde_json::Value::Null);
    server.release("1.5.0", "stable").await;
    server.stop().await;
}
