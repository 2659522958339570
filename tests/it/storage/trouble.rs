//! What goes wrong is told apart, soon, and without secrets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use paperminder_ota::config;
use paperminder_ota::ids::FirmwareId;
use paperminder_ota::storage::{Buffers, Error, ObjectWriter, PART_SIZE, Store};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::ground::{Ground, fill, key};
use super::on_both_servers;
use crate::support::proxy::{Proxy, Target};
use crate::support::raw;

on_both_servers! {
    what_is_not_there_is_not_found
    wrong_keys_and_missing_rights_are_denied
    a_server_that_is_away_is_told_soon
    a_stream_that_hesitates_is_not_broken_off
    remains_go_as_soon_as_the_server_is_back
}

async fn what_is_not_there_is_not_found(ground: Ground) {
    let store = ground.store().await;
    let key = key(FirmwareId::generate(), "1.5.0");
    assert!(matches!(store.get(&key).await.map(|_| ()), Err(Error::NotFound(_))));
    let copied = store.copy(&key, &super::ground::key(FirmwareId::generate(), "1.5.0")).await;
    assert!(matches!(copied, Err(Error::NotFound(_))), "{copied:?}");
    let nowhere =
        Store::connect(&config::Storage { bucket: "no-such-bucket".into(), ..ground.settings() }).await;
    let checked = nowhere.check().await;
    assert!(matches!(checked, Err(Error::NotFound(_))), "{checked:?}");
    ground.close().await;
}

async fn wrong_keys_and_missing_rights_are_denied(ground: Ground) {
    let secret = "not the secret of anybody at all";
    let as_other = |id: &str, secret: &str| config::Storage {
        credentials: Some((id.into(), secret.to_owned().into())),
        ..ground.settings()
    };
    let key = key(FirmwareId::generate(), "1.5.0");
    let stranger = Store::connect(&as_other(&ground.keys.0, secret)).await;
    for outcome in [stranger.get(&key).await.map(|_| ()), stranger.put(&key, vec![1].into()).await] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Denied(_)), "{error:?}");
        assert!(!error.to_string().contains(secret), "{error}");
    }
    assert!(!format!("{stranger:?}").contains(secret));
    if let Some((id, secret)) = &ground.reader {
        ground.store().await.put(&key, vec![1].into()).await.unwrap();
        let reader = Store::connect(&as_other(id, secret)).await;
        reader.get(&key).await.map(|_| ()).unwrap();
        let refused = [reader.put(&key, vec![2].into()).await, reader.delete(&key).await];
        assert!(refused.iter().all(|outcome| matches!(outcome, Err(Error::Denied(_)))), "{refused:?}");
    }
    ground.close().await;
}

/// The server behind a wire.
async fn behind_wire(ground: &Ground) -> (Store, Proxy) {
    let server = Url::parse(&ground.endpoint).unwrap().socket_addrs(|| None).unwrap()[0];
    let wire = Proxy::start(Target::Tcp(server.to_string())).await;
    let endpoint = format!("http://{}", wire.address).parse().ok();
    (Store::connect(&config::Storage { endpoint, ..ground.settings() }).await, wire)
}

async fn a_server_that_is_away_is_told_soon(ground: Ground) {
    let (store, wire) = behind_wire(&ground).await;
    let key = key(FirmwareId::generate(), "1.5.0");
    store.put(&key, vec![1].into()).await.unwrap();
    let told = async |how: &str| {
        let began = Instant::now();
        let outcomes = tokio::join!(
            async { store.get(&key).await.map(|_| ()) },
            store.put(&key, vec![2].into()),
            store.delete(&key),
            store.check()
        );
        for outcome in [outcomes.0, outcomes.1, outcomes.2, outcomes.3] {
            assert!(matches!(outcome, Err(Error::Unavailable(_) | Error::Timeout(_))), "{how}: {outcome:?}");
        }
        println!("{how}: told after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(12), "{how}: {:?}", began.elapsed());
    };
    wire.cut();
    told("cut").await;
    wire.mend();
    store.put(&key, vec![3].into()).await.unwrap();
    wire.freeze();
    told("frozen").await;
    drop(wire);
    told("refused").await;
    ground.close().await;
}

async fn a_stream_that_hesitates_is_not_broken_off(ground: Ground) {
    let (store, wire) = behind_wire(&ground).await;
    let key = key(FirmwareId::generate(), "1.5.0");
    // More than what the system holds on the way.
    let image = Bytes::from(raw::noise(32 << 20, 7));
    store.put(&key, image.clone()).await.unwrap();
    let mut stream = store.get(&key).await.unwrap().body.into_data_stream();
    let mut read = stream.next().await.unwrap().unwrap().to_vec();
    wire.freeze();
    let mut longest = Duration::ZERO;
    let mend = async {
        // A printer waits for 8 seconds.
        tokio::time::sleep(Duration::from_secs(9)).await;
        wire.mend();
    };
    let rest = async {
        let mut last = Instant::now();
        while let Some(chunk) = stream.next().await {
            read.extend_from_slice(&chunk.unwrap());
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    };
    tokio::join!(mend, rest);
    assert!(longest > Duration::from_secs(8), "{longest:?}");
    assert!(read == image);
    ground.close().await;
}

async fn remains_go_as_soon_as_the_server_is_back(ground: Ground) {
    let (store, wire) = behind_wire(&ground).await;
    let id = FirmwareId::generate();
    let mut writer = ObjectWriter::open(store, &Buffers::new(1), id).await.unwrap();
    fill(&mut writer, 2 * PART_SIZE).await;
    wire.cut();
    let mut remains = writer.abandon();
    assert!(remains.remove().await.is_err());
    assert!(!ground.remains(id).await.is_empty());
    let patient = tokio::spawn(remains.remove_patiently(CancellationToken::new()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!patient.is_finished());
    wire.mend();
    tokio::time::timeout(Duration::from_secs(20), patient).await.unwrap().unwrap();
    assert_eq!(ground.remains(id).await, Vec::<String>::new());
    ground.close().await;
}
