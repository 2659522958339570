//! URLs for printers: fetched by a client as simple as theirs, and refused when somebody meddles with them.

use chrono::TimeDelta;
use paperminder_ota::clock::Clock;
use paperminder_ota::config;
use paperminder_ota::ids::FirmwareId;
use paperminder_ota::storage::Store;
use url::Url;

use super::ground::{BUCKET, Ground, LIFE, key};
use super::on_both_servers;
use crate::support::proxy::{Proxy, Target};
use crate::support::raw::{self, Reply};

on_both_servers! {
    a_device_downloads_by_a_presigned_url
    a_url_that_was_meddled_with_is_refused
    a_url_is_good_for_its_life_and_not_longer
    a_url_names_the_host_that_printers_reach
}

/// GET as the ESP8266's updater does it.
async fn fetch(url: &str) -> Reply {
    let url = Url::parse(url).unwrap();
    let address = url.socket_addrs(|| None).unwrap()[0];
    let headers = "User-Agent: ESP8266-http-Update\r\nConnection: close\r\nx-ESP8266-mode: sketch\r\n";
    raw::ask(address, "GET", &url[url::Position::BeforePath..], "HTTP/1.0", headers).await
}

async fn a_device_downloads_by_a_presigned_url(ground: Ground) {
    let store = ground.store().await;
    for version in ["1.5.0", "1.5.0-rc.1", "1.5.0+abc.7"] {
        let key = key(FirmwareId::generate(), version);
        let bytes = raw::noise(70_000, 1);
        store.put(&key, bytes.clone().into()).await.unwrap();
        let url = store.presign(&key, Clock::system().now()).await.unwrap();
        assert!(url.len() < 450, "{} characters: {url}", url.len());
        let reply = fetch(&url).await;
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("70000")), "{url}");
        assert_eq!((reply.header("transfer-encoding"), reply.header("content-encoding")), (None, None));
        assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
        assert!(reply.body == bytes, "{version}");
        store.delete(&key).await.unwrap();
        assert_eq!(fetch(&url).await.status, 404);
    }
    ground.close().await;
}

async fn a_url_that_was_meddled_with_is_refused(ground: Ground) {
    let store = ground.store().await;
    let (mine, other) = (key(FirmwareId::generate(), "1.5.0"), key(FirmwareId::generate(), "1.6.0"));
    for key in [&mine, &other] {
        store.put(key, vec![0xE9; 100].into()).await.unwrap();
    }
    let url = store.presign(&mine, Clock::system().now()).await.unwrap();
    let signature = url.split_once("X-Amz-Signature=").unwrap().1.split('&').next().unwrap();
    let turned: String = signature.chars().rev().collect();
    let forgeries = [
        ("another object", url.replace(mine.as_str(), other.as_str())),
        ("another signature", url.replace(signature, &turned)),
        ("no signature", url.replace(&format!("X-Amz-Signature={signature}"), "")),
        ("a longer life", url.replace("X-Amz-Expires=600", "X-Amz-Expires=604800")),
        ("no query", url.split_once('?').unwrap().0.to_owned()),
    ];
    assert_eq!(fetch(&url).await.status, 200);
    for (what, forged) in forgeries {
        assert_ne!(forged, url, "{what}");
        let reply = fetch(&forged).await;
        assert!(matches!(reply.status, 400 | 403), "{what}: {}", reply.status);
        assert!(!reply.body.contains(&0xE9), "{what}");
    }
    ground.close().await;
}

async fn a_url_is_good_for_its_life_and_not_longer(ground: Ground) {
    let store = ground.store().await;
    let key = key(FirmwareId::generate(), "1.5.0");
    store.put(&key, vec![0xE9; 100].into()).await.unwrap();
    let (now, life) = (Clock::system().now(), TimeDelta::from_std(LIFE).unwrap());
    let almost = store.presign(&key, now - life + TimeDelta::seconds(60)).await.unwrap();
    assert_eq!(fetch(&almost).await.status, 200);
    let expired = store.presign(&key, now - life - TimeDelta::seconds(5)).await.unwrap();
    let reply = fetch(&expired).await;
    assert!(matches!(reply.status, 400 | 403), "{}", reply.status);
    ground.close().await;
}

async fn a_url_names_the_host_that_printers_reach(ground: Ground) {
    // Inside a cluster S3 has another name than outside, and the signature covers the name.
    let server = Url::parse(&ground.endpoint).unwrap().socket_addrs(|| None).unwrap()[0];
    let outside = Proxy::start(Target::Tcp(server.to_string())).await;
    let public = format!("http://{}", outside.address);
    let store =
        Store::connect(&config::Storage { public_endpoint: public.parse().ok(), ..ground.settings() }).await;
    let key = key(FirmwareId::generate(), "1.5.0+abc");
    store.put(&key, vec![0xE9; 100].into()).await.unwrap();
    let url = store.presign(&key, Clock::system().now()).await.unwrap();
    assert!(url.starts_with(&format!("{public}/{BUCKET}/firmware/")), "{url}");
    assert_eq!(fetch(&url).await.body, [0xE9; 100]);
    // Under the other name the signature does not hold.
    let inside = url.replace(&public, &ground.endpoint);
    assert_eq!(fetch(&inside).await.status, 403);
    ground.close().await;
}
