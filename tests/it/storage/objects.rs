//! Objects put, read, copied, removed; and written in parts.

use bytes::Bytes;
use paperminder_ota::ids::FirmwareId;
use paperminder_ota::storage::{Buffers, Error, ObjectWriter, PART_SIZE};

use super::ground::{Ground, fill, key, read};
use super::on_both_servers;
use crate::support::raw;

on_both_servers! {
    an_object_is_put_read_copied_and_removed
    a_key_with_a_plus_is_one_key_everywhere
    a_writer_of_any_size_makes_one_whole_object
    an_abandoned_writer_leaves_no_open_upload
    a_writer_that_cannot_finish_says_what_must_go
    many_writers_share_the_buffers
}

async fn an_object_is_put_read_copied_and_removed(ground: Ground) {
    let store = ground.store().await;
    store.check().await.unwrap();
    let (one, two) = (key(FirmwareId::generate(), "1.5.0"), key(FirmwareId::generate(), "1.5.0"));
    let bytes = raw::noise(100_000, 1);
    store.put(&one, bytes.clone().into()).await.unwrap();
    assert!(read(&store, &one).await == bytes);
    store.copy(&one, &two).await.unwrap();
    store.delete(&one).await.unwrap();
    assert!(matches!(store.get(&one).await.map(|_| ()), Err(Error::NotFound(_))));
    assert!(read(&store, &two).await == bytes);
    // Removing what is not there is fine, as a second try must be.
    store.delete(&one).await.unwrap();
    store.delete(&two).await.unwrap();
    assert!(!ground.has(&two).await);
    ground.close().await;
}

async fn a_key_with_a_plus_is_one_key_everywhere(ground: Ground) {
    let store = ground.store().await;
    let (one, two) =
        (key(FirmwareId::generate(), "1.5.0+abc.7"), key(FirmwareId::generate(), "1.5.0-rc.1+b.2"));
    let bytes = raw::noise(1000, 2);
    store.put(&one, bytes.clone().into()).await.unwrap();
    assert!(ground.has(&one).await, "the key is another one outside");
    store.copy(&one, &two).await.unwrap();
    assert!(ground.has(&two).await && read(&store, &two).await == bytes);
    // Through the parts as well.
    let id = FirmwareId::generate();
    let large = key(id, "2.0.0+build.11");
    let mut writer = ObjectWriter::open(store.clone(), &Buffers::new(1), id).await.unwrap();
    let bytes = fill(&mut writer, PART_SIZE + 1).await;
    writer.finish(&large).await.map_err(|(error, _)| error).unwrap();
    assert!(ground.has(&large).await && read(&store, &large).await == bytes);
    for key in [&one, &two, &large] {
        store.delete(key).await.unwrap();
        assert!(!ground.has(key).await);
    }
    ground.close().await;
}

async fn a_writer_of_any_size_makes_one_whole_object(ground: Ground) {
    let (store, buffers) = (ground.store().await, Buffers::new(1));
    for size in [1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE, 2 * PART_SIZE + 77] {
        let id = FirmwareId::generate();
        let key = key(id, "1.5.0");
        let mut writer = ObjectWriter::open(store.clone(), &buffers, id).await.unwrap();
        let bytes = fill(&mut writer, size).await;
        assert!(!ground.has(&key).await, "seen before its end");
        writer.finish(&key).await.map_err(|(error, _)| error).unwrap();
        assert!(read(&store, &key).await == bytes, "{size}");
        assert_eq!(ground.remains(id).await, Vec::<String>::new(), "{size}");
        store.delete(&key).await.unwrap();
    }
    ground.close().await;
}

async fn an_abandoned_writer_leaves_no_open_upload(ground: Ground) {
    let (store, buffers) = (ground.store().await, Buffers::new(1));
    for (size, open) in [(1000, false), (PART_SIZE, false), (2 * PART_SIZE + 10, true)] {
        let id = FirmwareId::generate();
        let mut writer = ObjectWriter::open(store.clone(), &buffers, id).await.unwrap();
        fill(&mut writer, size).await;
        // So that the end of the test means something: there is something to abandon.
        assert_eq!(!ground.remains(id).await.is_empty(), open, "{size}");
        let mut remains = writer.abandon();
        remains.remove().await.unwrap();
        assert_eq!(ground.remains(id).await, Vec::<String>::new(), "{size}");
        remains.remove().await.unwrap();
    }
    ground.close().await;
}

async fn a_writer_that_cannot_finish_says_what_must_go(ground: Ground) {
    let store = ground.store().await;
    let id = FirmwareId::generate();
    let mut writer = ObjectWriter::open(store.clone(), &Buffers::new(1), id).await.unwrap();
    fill(&mut writer, PART_SIZE + 1).await;
    // Somebody else ends the upload behind its back.
    for upload in uploads(&ground, id).await {
        let call = ground.client.abort_multipart_upload().bucket(super::ground::BUCKET);
        let staging = paperminder_ota::storage::ObjectKey::staging(id);
        call.key(staging.as_str()).upload_id(upload).send().await.unwrap();
    }
    let key = key(id, "1.5.0");
    let (_, mut remains) = writer.finish(&key).await.unwrap_err();
    remains.remove().await.unwrap();
    assert_eq!(ground.remains(id).await, Vec::<String>::new());
    assert!(!ground.has(&key).await);
    ground.close().await;
}

/// Ids of the open uploads.
async fn uploads(ground: &Ground, id: FirmwareId) -> Vec<String> {
    let staging = paperminder_ota::storage::ObjectKey::staging(id);
    match ground.client.list_multipart_uploads().bucket(super::ground::BUCKET).send().await {
        Ok(list) => list
            .uploads()
            .iter()
            .filter(|upload| upload.key() == Some(staging.as_str()))
            .map(|upload| upload.upload_id().unwrap().to_owned())
            .collect(),
        // The embedded server lists none; its folder does.
        Err(_) => ground
            .remains(id)
            .await
            .iter()
            .filter_map(|path| Some(path.rsplit_once("/.upload-")?.1.strip_suffix(".json")?.to_owned()))
            .collect(),
    }
}

async fn many_writers_share_the_buffers(ground: Ground) {
    let (store, buffers) = (ground.store().await, Buffers::new(2));
    let ids = [(); 5].map(|()| FirmwareId::generate());
    let mut writers = tokio::task::JoinSet::new();
    for id in ids {
        let (store, buffers) = (store.clone(), buffers.clone());
        writers.spawn(async move {
            let mut writer = ObjectWriter::open(store, &buffers, id).await.unwrap();
            let bytes = fill(&mut writer, PART_SIZE + 100).await;
            writer.finish(&key(id, "1.5.0")).await.map_err(|(error, _)| error).unwrap();
            Bytes::from(bytes)
        });
    }
    let written = writers.join_all().await;
    for id in ids {
        let bytes = read(&store, &key(id, "1.5.0")).await;
        assert!(written.iter().any(|one| *one == bytes));
        assert_eq!(ground.remains(id).await, Vec::<String>::new());
    }
    ground.close().await;
}
