//! Server-side encryption and checksums: asked for in every request that writes, and kept by a server that knows them.

use aws_sdk_s3::types::{ChecksumAlgorithm, ServerSideEncryption};
use paperminder_ota::config::{self, Encryption};
use paperminder_ota::ids::FirmwareId;
use paperminder_ota::storage::{Buffers, ObjectWriter, PART_SIZE, Store};
use url::Url;

use super::ground::{BUCKET, Ground, fill, key, read};
use super::on_both_servers;
use crate::support::proxy::{Proxy, Target};
use crate::support::raw;

on_both_servers! {
    every_part_and_the_end_carry_the_checksum
    encryption_is_asked_for_wherever_an_object_comes_to_be
}

/// A store whose requests can be read.
async fn overheard(ground: &Ground, settings: config::Storage) -> (Store, Proxy) {
    let server = Url::parse(&ground.endpoint).unwrap().socket_addrs(|| None).unwrap()[0];
    let wire = Proxy::listening_in(Target::Tcp(server.to_string())).await;
    let endpoint = format!("http://{}", wire.address).parse().ok();
    (Store::connect(&config::Storage { endpoint, ..settings }).await, wire)
}

/// Everything that writes: a small object, a large one in two parts, a copy, a direct upload.
async fn write(store: &Store) -> [FirmwareId; 3] {
    let ids = [(); 3].map(|()| FirmwareId::generate());
    let [small, large, copied] = ids.map(|id| key(id, "1.5.0"));
    let bytes = raw::noise(1000, 2);
    store.put(&small, bytes.clone().into()).await.unwrap();
    store.copy(&small, &copied).await.unwrap();
    assert!(read(store, &small).await == bytes && read(store, &copied).await == bytes);
    let mut writer = ObjectWriter::open(store.clone(), &Buffers::new(1), ids[1]).await.unwrap();
    let bytes = fill(&mut writer, PART_SIZE + 1).await;
    writer.finish(&large).await.map_err(|(error, _)| error).unwrap();
    assert!(read(store, &large).await == bytes);
    ids
}

/// The one request that this is said of.
#[track_caller]
fn only<'a>(requests: &'a [String], what: &str, is: impl Fn(&str) -> bool) -> &'a str {
    let found: Vec<_> = requests.iter().filter(|request| is(request.lines().next().unwrap())).collect();
    assert_eq!(found.len(), 1, "{what}: {:?}", requests.iter().map(|r| r.lines().next()).collect::<Vec<_>>());
    found[0]
}

async fn every_part_and_the_end_carry_the_checksum(ground: Ground) {
    for (checksum, name) in [
        (Some(ChecksumAlgorithm::Crc32), "crc32"),
        (Some(ChecksumAlgorithm::Crc32C), "crc32c"),
        (Some(ChecksumAlgorithm::Crc64Nvme), "crc64nvme"),
        (Some(ChecksumAlgorithm::Sha1), "sha1"),
        (Some(ChecksumAlgorithm::Sha256), "sha256"),
        (None, "none"),
    ] {
        let named = checksum.is_some();
        let settings = config::Storage { checksum, ..ground.settings() };
        let (store, wire) = overheard(&ground, settings).await;
        let [small, large, copied] = write(&store).await;
        let begun = store.direct_begin(FirmwareId::generate()).await.unwrap();
        assert!(!begun.is_empty());
        let requests = wire.requests();
        let header = format!("\r\nx-amz-checksum-{name}: ");
        let algorithm = format!("\r\nx-amz-checksum-algorithm: {}\r\n", name.to_uppercase());
        let put = |id: FirmwareId| {
            only(&requests, "put", move |line| {
                line.starts_with("PUT ") && line.contains(&id.to_string()) && line.contains("/paperminder-")
            })
        };
        assert_eq!(put(small).contains(&header), named, "{name}: {}", put(small));
        assert_eq!(put(copied).contains(&algorithm), named, "{name}");
        assert_eq!(put(large).contains(&algorithm), named, "{name}");
        for number in 1..=2 {
            let wanted = format!("partNumber={number}&");
            let part = only(&requests, "part", |line| line.contains(&wanted));
            assert_eq!(part.contains(&header), named, "{name}");
        }
        let begins: Vec<_> = requests
            .iter()
            .filter(|request| {
                request.starts_with("POST ") && request.lines().next().unwrap().contains("?uploads")
            })
            .collect();
        assert_eq!(
            begins.iter().filter(|begin| begin.contains(&algorithm)).count(),
            usize::from(named),
            "{name}"
        );
        let end = only(&requests, "end", |line| line.starts_with("POST ") && line.contains("uploadId="));
        // The end repeats what the server said of the parts; the embedded one says nothing.
        let told = end.matches(&format!("<Checksum{}>", name.to_uppercase())).count();
        assert_eq!(told, if named && ground.reader.is_some() { 2 } else { 0 }, "{name}: {end}");
        let writes = requests.iter().filter(|request| !request.starts_with("GET "));
        let silent = writes.filter(|request| !request.to_lowercase().contains("checksum")).count();
        assert!(named || silent == requests.len() - 3, "{name}: {silent} of {}", requests.len());
    }
    ground.close().await;
}

async fn encryption_is_asked_for_wherever_an_object_comes_to_be(ground: Ground) {
    let encryption = Some(Encryption { kind: ServerSideEncryption::Aes256, kms_key: None });
    let (store, wire) = overheard(&ground, config::Storage { encryption, ..ground.settings() }).await;
    let ids = write(&store).await;
    let direct = FirmwareId::generate();
    let upload = store.direct_begin(direct).await.unwrap();
    assert!(!upload.is_empty());
    let requests = wire.requests();
    let asked: Vec<_> = requests
        .iter()
        .filter(|request| request.contains("\r\nx-amz-server-side-encryption: AES256\r\n"))
        .map(|request| request.lines().next().unwrap())
        .collect();
    // A put, a copy of it, the beginning of an upload in parts, its copy, and the beginning of a direct one.
    assert_eq!(asked.len(), 5, "{asked:#?}");
    if ground.reader.is_some() {
        for id in ids {
            let head = ground.client.head_object().bucket(BUCKET).key(key(id, "1.5.0").as_str());
            let head = head.send().await.unwrap();
            assert_eq!(head.server_side_encryption, Some(ServerSideEncryption::Aes256));
        }
    }
    ground.close().await;
}

#[tokio::test]
async fn a_kms_key_is_named_in_every_request_that_takes_one() {
    let ground = Ground::embedded().await;
    let encryption =
        Some(Encryption { kind: ServerSideEncryption::AwsKms, kms_key: Some("alias/firmware".into()) });
    let (store, wire) = overheard(&ground, config::Storage { encryption, ..ground.settings() }).await;
    write(&store).await;
    let requests = wire.requests();
    let named = |header: &str| requests.iter().filter(|request| request.contains(header)).count();
    assert_eq!(named("\r\nx-amz-server-side-encryption: aws:kms\r\n"), 4);
    assert_eq!(named("\r\nx-amz-server-side-encryption-aws-kms-key-id: alias/firmware\r\n"), 4);
    ground.close().await;
}
