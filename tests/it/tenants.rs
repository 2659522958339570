//! Keys for a part of the fleet: whatever operation, role, name, number, filter, cursor or token somebody else's things
//! are asked for with, they look as if they were not there, and stay as they are.

use std::time::Duration;

use futures_util::StreamExt as _;
use paperminder_ota::auth::role::Role;
use paperminder_ota::simulate::{Behaviour, Fate, Fleet, FleetOptions, PrinterOptions};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::timeout;

use crate::keys::{BOOTSTRAP, closed};
use crate::support::{SOON, Server};

/// Stands in everything that is somebody else's.
const THEIRS: &str = "omega";
/// Names of the same shape that nothing has.
const NOBODY: &str = "nobod";
const NO_NUMBER: &str = "4000000";
const NO_ID: &str = "00000000-0000-4000-8000-000000000000";
/// Silence after which a stream of events has said what it knows.
const QUIET: Duration = Duration::from_millis(400);

/// What somebody else has.
struct Theirs {
    printer: Value,
    rollout: Value,
    key: Value,
    printer_key: Value,
    upload: String,
}

/// One request for somebody else's thing, and the same for one that is not there.
struct Case {
    theirs: String,
    absent: Option<String>,
    body: Option<(Value, Value)>,
}

fn path(theirs: impl Into<String>, absent: impl Into<String>) -> Case {
    Case { theirs: theirs.into(), absent: Some(absent.into()), body: None }
}

fn alone(theirs: impl Into<String>) -> Case {
    Case { theirs: theirs.into(), absent: None, body: None }
}

impl Case {
    fn with(mut self, body: Value) -> Self {
        self.body = Some((body.clone(), body));
        self
    }

    fn with_bodies(mut self, theirs: Value, absent: Value) -> Self {
        self.body = Some((theirs, absent));
        self
    }
}

/// A route with each way to name somebody else's printer in it.
fn printer(theirs: &Theirs, route: &str) -> Vec<Case> {
    let named = |name: &str| route.replace("{printer_id}", name);
    vec![
        path(named(theirs.printer["id"].as_str().unwrap()), named(NO_ID)),
        path(named(&theirs.printer["number"].to_string()), named(NO_NUMBER)),
        path(named("omega-1"), named("nobod-1")),
    ]
}

fn rollout(theirs: &Theirs, route: &str) -> Vec<Case> {
    let named = |name: &str| route.replace("{rollout_id}", name);
    vec![
        path(named(theirs.rollout["id"].as_str().unwrap()), named(NO_ID)),
        path(named(&theirs.rollout["number"].to_string()), named(NO_NUMBER)),
    ]
}

fn with(cases: Vec<Case>, body: Value) -> Vec<Case> {
    cases.into_iter().map(|case| case.with(body.clone())).collect()
}

/// A list with nothing, with each filter that names somebody else's, and with somebody else's cursor.
fn list(route: &str, filters: &[(&str, &str)], cursor: Option<&str>) -> Vec<Case> {
    let mut cases = vec![alone(route)];
    cases.extend(
        filters.iter().map(|(theirs, absent)| path(format!("{route}?{theirs}"), format!("{route}?{absent}"))),
    );
    cases.extend(cursor.map(|cursor| alone(format!("{route}?limit=1&cursor={cursor}"))));
    cases
}

/// How each operation can be asked for somebody else's things; none for one that nobody thought about.
fn cases(operation: &str, route: &str, theirs: &Theirs, cursors: &Cursors) -> Option<Vec<Case>> {
    let number = theirs.rollout["number"].to_string();
    let by_rollout = (format!("rollout_id={number}"), format!("rollout_id={NO_NUMBER}"));
    let updates: Vec<(&str, &str)> = vec![
        ("user_id=omega", "user_id=nobod"),
        ("printer_id=omega-1", "printer_id=nobod-1"),
        (&by_rollout.0, &by_rollout.1),
        ("firmware_version=9.8.7-omega", "firmware_version=9.8.7-nobod"),
        ("error=omega", "error=nobod"),
    ];
    let printers = [
        ("user_id=omega", "user_id=nobod"),
        ("firmware_version=9.8.6-omega", "firmware_version=9.8.6-nobod"),
    ];
    let versions = |tail: &str| {
        let named = |name: &str| route.replace("{version}", &format!("9.8.7-{name}")) + tail;
        path(named(THEIRS), named(NOBODY))
    };
    let both = || vec![versions(""), versions("?channel=canary")];
    let users = || vec![path(route.replace("{user_id}", THEIRS), route.replace("{user_id}", NOBODY))];
    let key = || {
        let id = theirs.key["id"].as_str().unwrap();
        vec![path(route.replace("{key_id}", id), route.replace("{key_id}", "000000000000"))]
    };
    let printer_key = || {
        let id = theirs.printer_key["id"].as_str().unwrap();
        vec![path(route.replace("{key_id}", id), route.replace("{key_id}", NO_ID))]
    };
    let target = |target: Value| json!({"firmware_version": "1.5.0", "channel": "stable", "rollout_type": "immediate", "start": false, "target": target});
    let post = || path(route, route);
    Some(match operation {
        "watchEvents" => {
            let rollout = path(
                format!("{route}?last_event_id=1-1&rollout_id={number}"),
                format!("{route}?last_event_id=1-1&rollout_id={NO_NUMBER}"),
            );
            vec![alone(format!("{route}?last_event_id=1-1")), rollout]
        }
        "listFirmware" => {
            let mut cases = list(route, &[("channel=canary", "channel=beta")], Some(&cursors.firmware));
            cases.extend(list(route, &[("platform=esp32", "platform=esp32-s2")], None));
            cases
        }
        "downloadFirmware" | "getFirmware" => both(),
        "latestFirmware" => vec![path(format!("{route}?channel=canary"), format!("{route}?channel=beta"))],
        "listPrinters" => list(route, &printers, Some(&cursors.printers)),
        "exportPrinters" => list(route, &printers, None),
        "getPrinter" | "explainPrinter" => printer(theirs, route),
        "listPrinterUpdates" => printer(theirs, route),
        "listRollouts" => list(route, &[], Some(&cursors.rollouts)),
        "getRollout" => rollout(theirs, route),
        "explainRollout" => {
            let mut cases = rollout(theirs, &format!("{route}?printer_id=alpha-1"));
            let of = |name: &str| {
                format!("{}?printer_id={name}-1", route.replace("{rollout_id}", &cursors.own_rollout))
            };
            cases.push(path(of(THEIRS), of(NOBODY)));
            cases
        }
        // These know nobody but the caller.
        "getSession" | "logIn" | "logOut" | "beginLogin" | "finishLogin" => vec![],
        "getStats" | "whoAmI" => vec![alone(route)],
        "listUpdates" => list(route, &updates, Some(&cursors.updates)),
        "exportUpdates" => list(route, &updates, None),
        "getUser" | "deleteUser" => users(),
        "putUser" => with(users(), json!({"time_zone": "Europe/Rome"})),
        "uploadFirmware" => vec![],
        "beginUpload" => {
            let body = |version: &str| json!({"version": version, "channel": "canary", "size": 1000, "sha256": "0".repeat(64)});
            vec![post().with_bodies(body("9.8.7-omega"), body("9.8.7-nobod"))]
        }
        "completeUpload" => {
            vec![
                path(route.replace("{id}", &theirs.upload), route.replace("{id}", NO_ID))
                    .with(json!({"parts": ["x"]})),
            ]
        }
        "updateFirmware" => both().into_iter().map(|case| case.with(json!({"deprecated": true}))).collect(),
        "deleteFirmware" => both(),
        "promoteFirmware" => both().into_iter().map(|case| case.with(json!({"to": "stable"}))).collect(),
        "createRollout" => {
            let of = |name: &str| {
                let printer = format!("{name}-1");
                [
                    target(json!({"user_ids": [name]})),
                    target(json!({"printer_ids": [printer]})),
                    target(json!({"all": true, "printer_ids": [printer]})),
                    target(json!({"all": true, "min_version": format!("9.8.6-{name}")})),
                    json!({"firmware_version": format!("9.8.7-{name}"), "rollout_type": "immediate", "target": {"all": true}}),
                ]
            };
            let by = |rollout: &str| target(json!({"installed_by": rollout}));
            let mut pairs: Vec<_> = of(THEIRS).into_iter().zip(of(NOBODY)).collect();
            pairs.push((by(&number), by(NO_NUMBER)));
            let created =
                pairs.iter().map(|(theirs, absent)| post().with_bodies(theirs.clone(), absent.clone()));
            let dry = format!("{route}?dry_run=true");
            let dry = pairs
                .iter()
                .map(|(theirs, absent)| path(&dry, &dry).with_bodies(theirs.clone(), absent.clone()));
            created.chain(dry).collect()
        }
        "updateRollout" => with(rollout(theirs, route), json!({"status": "paused"})),
        "deleteRollout" | "advanceRollout" | "retryFailed" => rollout(theirs, route),
        "approveRollout" | "denyRollout" | "rollBack" => with(rollout(theirs, route), json!({})),
        "forceUpdate" => with(
            printer(theirs, route),
            json!({"firmware_version": "1.5.0", "channel": "stable", "allow_downgrade": true}),
        ),
        "blockPrinter" | "unblockPrinter" | "resetPrinterKey" => printer(theirs, route),
        "listPrinterKeys" => list(
            route,
            &[("user_id=omega", "user_id=nobod"), ("printer_id=omega-1", "printer_id=nobod-1")],
            Some(&cursors.printer_keys),
        ),
        "createPrinterKey" => vec![
            post().with_bodies(json!({"user_id": "omega"}), json!({"user_id": "nobod"})),
            post().with_bodies(
                json!({"user_id": "alpha", "printer_id": "omega-1"}),
                json!({"user_id": "alpha", "printer_id": "nobod-1"}),
            ),
        ],
        // Its body is no JSON; a test of its own asks as well.
        "importPrinterKeys" => vec![post().with(json!({}))],
        "rotatePrinterKey" => with(printer_key(), json!({})),
        "deletePrinterKey" => printer_key(),
        "listAudit" => list(route, &[("subject_id=omega", "subject_id=nobod")], Some(&cursors.audit)),
        "exportAudit" => list(route, &[("subject_id=omega", "subject_id=nobod")], None),
        "listKeys" => list(route, &[], Some(&cursors.keys)),
        "getKey" | "revokeKey" => key(),
        "rotateKey" => with(key(), json!({})),
        "createKey" => {
            let body = |scope: Value| json!({"name": "mine", "role": "viewer", "scope": scope});
            vec![
                post().with_bodies(
                    body(json!({"user_ids": ["omega"], "channels": ["canary"]})),
                    body(json!({"user_ids": ["nobod"], "channels": ["canary"]})),
                ),
                post().with(body(json!({}))),
            ]
        }
        _ => return None,
    })
}

/// What an administrator got, and somebody might use.
struct Cursors {
    printers: String,
    rollouts: String,
    updates: String,
    firmware: String,
    keys: String,
    printer_keys: String,
    audit: String,
    own_rollout: String,
}

fn printer_of(server: &Server, user: &str, channel: &str, version: &str, fate: Fate) -> PrinterOptions {
    let mut options = PrinterOptions {
        firmware_version: version.into(),
        behaviour: Behaviour::Always(fate),
        ..server.printer(1)
    };
    options.identity.printer_id = Some(format!("{user}-1"));
    options.identity.user_id = user.into();
    options.identity.name = format!("{user} desk");
    options.identity.channel = channel.into();
    options
}

/// Everything that somebody else has, as one hash.
async fn fingerprint(pool: &PgPool, theirs: &Theirs) -> String {
    let query = "select md5(string_agg(row, '|' order by row)) from (
        select p::text as row from printers p where p.user_id = 'omega'
        union all select r::text from update_rollouts r where r.id::text = $1
        union all select u::text from update_history u join printers p on p.id = u.printer where p.user_id = 'omega'
        union all select f::text from firmware_versions f where f.version = '9.8.7-omega'
        union all select o::text from owners o where o.user_id = 'omega'
        union all select k::text from api_keys k where k.id = $2
        union all select k::text from printer_keys k where k.user_id = 'omega') rows";
    let row = sqlx::query_scalar::<_, String>(query)
        .bind(theirs.rollout["id"].as_str().unwrap())
        .bind(theirs.key["id"].as_str().unwrap());
    row.fetch_one(pool).await.unwrap()
}

/// What must be the same for somebody else's thing and for one that is not there.
fn same(body: &Value) -> Value {
    match body {
        Value::Object(fields) => {
            let own = [
                "trace_id",
                "id",
                "number",
                "created_at",
                "updated_at",
                "started_at",
                "at",
                "key",
                "last_used_at",
            ];
            let kept = fields.iter().filter(|(name, _)| !own.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name.clone(), same(value))).collect())
        }
        Value::Array(items) => items.iter().map(same).collect(),
        Value::String(text) => Value::String(text.replace(THEIRS, NOBODY)),
        other => other.clone(),
    }
}

/// An answer without what the request named, and the other one did not.
fn bare(text: &str, asked: &str, other: &str) -> Value {
    let words =
        |path: &str| path.split(['/', '?', '&', '=', ' ', '"']).map(str::to_owned).collect::<Vec<_>>();
    let named = words(asked).into_iter().zip(words(other)).find(|(ours, theirs)| ours != theirs);
    let mut bare = String::new();
    for word in text.split_inclusive(|c: char| !(c.is_alphanumeric() || "-._".contains(c))) {
        let name = word.trim_end_matches(|c: char| !(c.is_alphanumeric() || "-._".contains(c)));
        let is_named = named.as_ref().is_some_and(|(ours, _)| ours == name);
        bare.push_str(&if is_named { word.replacen(name, "X", 1) } else { word.to_owned() });
    }
    serde_json::from_str(&bare).map_or_else(|_| Value::String(bare.clone()), |body| same(&body))
}

async fn ask(server: &Server, key: &str, method: &Method, path: &str, body: Option<&Value>) -> (u16, String) {
    let mut request = server.request(method.clone(), path).bearer_auth(key);
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let media = response.headers().get("content-type").map(|media| media.to_str().unwrap().to_owned());
    if media.is_none_or(|media| !media.starts_with("text/event-stream")) {
        return (status, timeout(SOON, response.text()).await.expect("an end of the body").unwrap());
    }
    // This one has no end.
    let (mut text, mut chunks) = (String::new(), response.bytes_stream());
    while let Ok(Some(Ok(bytes))) = timeout(QUIET, chunks.next()).await {
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    (status, text)
}

/// Two tenants, each with a printer that failed once, a rollout, a key, an owner's row; theirs on canary and esp8266.
async fn world(server: &Server) -> (Theirs, Cursors, Fleet) {
    let admin = async |method: Method, path: &str, body: Value| {
        let request = server.request(method, path).bearer_auth(BOOTSTRAP).json(&body);
        server.send(request).await
    };
    server.release("1.5.0", "stable").await;
    server.release("9.8.7-omega", "canary").await;
    let fleet = Fleet::start(FleetOptions::from(vec![
        printer_of(server, "alpha", "stable", "1.0.0", Fate::FailDownload),
        printer_of(server, THEIRS, "canary", "9.8.6-omega", Fate::FailDownload),
    ]));
    let fleet = fleet.unwrap();
    server.wait("/api/printers?online=true", |list| list["total"] == 2).await;
    let mut rollouts = Vec::new();
    for (user, version) in [("alpha", "1.5.0"), (THEIRS, "9.8.7-omega")] {
        let channel = if user == THEIRS { "canary" } else { "stable" };
        let target = json!({"user_ids": [user], "channels": [channel]});
        let body = json!({"firmware_version": version, "rollout_type": "immediate", "max_attempts": 1, "target": target});
        rollouts.push(admin(Method::POST, "/api/rollouts", body).await.expect(201));
        let path = format!("/api/rollouts/{}", rollouts.last().unwrap()["number"]);
        server.wait(&path, |rollout| rollout["failed_count"] == 1 && rollout["status"] == "completed").await;
        admin(Method::PUT, &format!("/api/users/{user}"), json!({"time_zone": "Asia/Tokyo"}))
            .await
            .expect(200);
    }
    let scope = json!({"user_ids": [THEIRS], "channels": ["canary"]});
    let key = json!({"name": "omega key", "role": "admin", "scope": scope});
    let key = admin(Method::POST, "/api/keys", key).await.expect(201);
    let printer_key = json!({"user_id": THEIRS});
    let printer_key = admin(Method::POST, "/api/printer-keys", printer_key).await.expect(201);
    admin(Method::POST, "/api/printer-keys", json!({"user_id": "alpha"})).await.expect(201);
    let begin =
        json!({"version": "9.8.8-omega", "channel": "canary", "size": 1000, "sha256": "0".repeat(64)});
    let upload = admin(Method::POST, "/api/firmware/uploads", begin).await.expect(201);
    let cursor = async |list: &str| {
        let page = server.get(&format!("{list}?limit=1")).await.expect(200);
        page["next_cursor"].as_str().unwrap().to_owned()
    };
    let cursors = Cursors {
        printers: cursor("/api/printers").await,
        rollouts: cursor("/api/rollouts").await,
        updates: cursor("/api/updates").await,
        firmware: cursor("/api/firmware").await,
        keys: {
            let body = json!({"name": "another", "role": "viewer"});
            admin(Method::POST, "/api/keys", body).await.expect(201);
            cursor("/api/keys").await
        },
        audit: cursor("/api/audit").await,
        printer_keys: cursor("/api/printer-keys").await,
        own_rollout: rollouts[0]["number"].to_string(),
    };
    let theirs = Theirs {
        printer: server.get("/api/printers/omega-1").await.expect(200),
        rollout: rollouts.remove(1),
        key,
        printer_key,
        upload: upload["id"].as_str().unwrap().to_owned(),
    };
    (theirs, cursors, fleet)
}

/// Every operation, role and way to ask, with keys of this scope.
async fn walk(
    server: &Server,
    scope: &Value,
    theirs: &Theirs,
    cursors: &Cursors,
    wanted: &dyn Fn(&str) -> bool,
) {
    let document = server.get("/api/openapi.json").await.expect(200);
    let secrets =
        [&theirs.printer["id"], &theirs.rollout["id"], &theirs.key["id"]].map(|id| id.as_str().unwrap());
    let (before, mut seen) = (fingerprint(&server.pool, theirs).await, 0);
    for role in Role::ALL {
        let body = json!({"name": "mine", "role": role, "scope": scope});
        let key = server.post("/api/keys", &body).await.expect(201)["key"].as_str().unwrap().to_owned();
        for (route, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                if !wanted(id) {
                    continue;
                }
                let method: Method = method.to_uppercase().parse().unwrap();
                let all = cases(id, route, theirs, cursors).unwrap_or_else(|| {
                    panic!("{id}: say in this test how somebody else's things are asked for")
                });
                for Case { theirs: path, absent, body } in all {
                    let asked =
                        format!("{path} {}", body.as_ref().map_or(Value::Null, |body| body.0.clone()));
                    // A key for channels alone knows every user by name, and one for users every release.
                    let is_open = (scope["user_ids"].is_null()
                        && ((id.ends_with("User") || id.contains("PrinterKey"))
                            || id.contains("PrinterKey")))
                        || (scope["channels"].is_null()
                            && (asked.contains("9.8.7") || id.contains("Firmware")));
                    if is_open {
                        continue;
                    }
                    let told = format!("{id} {path} {body:?} as {role} of {scope}");
                    let (status, text) =
                        ask(server, &key, &method, &path, body.as_ref().map(|body| &body.0)).await;
                    assert!(status < 500 && status != 401, "{told}: {status} {text}");
                    // What the request itself said is no secret.
                    let text =
                        if scope["channels"].is_null() { text.replace("9.8.7-omega", "") } else { text };
                    if !asked.contains(THEIRS) {
                        assert!(!text.contains(THEIRS), "{told} tells of somebody else's: {text}");
                    }
                    for secret in secrets.iter().filter(|secret| !asked.contains(**secret)) {
                        assert!(!text.contains(secret), "{told} tells {secret}: {text}");
                    }
                    if let Some(absent) = absent {
                        let other =
                            ask(server, &key, &method, &absent, body.as_ref().map(|body| &body.1)).await;
                        let instead =
                            format!("{absent} {}", body.as_ref().map_or(Value::Null, |body| body.1.clone()));
                        assert_eq!(
                            (status, bare(&text, &asked, &instead)),
                            (other.0, bare(&other.1, &instead, &asked)),
                            "{told} is answered otherwise than {absent}"
                        );
                    }
                    assert_eq!(
                        fingerprint(&server.pool, theirs).await,
                        before,
                        "{told} changed somebody else's"
                    );
                    seen += 1;
                }
            }
        }
    }
    println!("{seen} requests with {scope}");
    assert!(seen > if wanted("listKeys") { 200 } else { 15 }, "{seen}");
}

#[sqlx::test]
async fn what_is_somebody_elses_is_not_there(pool: PgPool) {
    let (mut server, _file) = closed(pool).await;
    server.as_key(BOOTSTRAP);
    let (theirs, cursors, fleet) = world(&server).await;
    let both = json!({"user_ids": ["alpha"], "channels": ["stable"]});
    let scopes = [both, json!({"user_ids": ["alpha"]}), json!({"channels": ["stable"]})];
    for scope in &scopes {
        walk(&server, scope, &theirs, &cursors, &|id| id != "createRollout").await;
    }
    // Last, because what it makes shows what it was asked for.
    for scope in &scopes {
        walk(&server, scope, &theirs, &cursors, &|id| id == "createRollout").await;
    }
    fleet.stop().await;
    server.stop().await;
}
