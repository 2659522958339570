//! What is garbage goes, and nothing else.

use std::path::Path;
use std::time::{Duration, SystemTime};

use paperminder_ota::clock::{Clock, Time};
use paperminder_ota::config;
use paperminder_ota::firmware::gc::{Error, Kind, Orders, Outcome, Total, collect};
use paperminder_ota::ids::FirmwareId;
use paperminder_ota::storage::{Buffers, Folder, ObjectKey, ObjectWriter, PART_SIZE, Store};
use secrecy::ExposeSecret as _;
use sqlx::PgPool;

use crate::storage::ground::{Ground, fill, key};
use crate::support::embedded_s3;
use crate::support::process::database_url;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
const ORDERS: Orders = Orders { older_than: DAY, dry_run: false, no_releases: false };
const DRY: Orders = Orders { dry_run: true, ..ORDERS };

/// A bucket of its own, since everything in it grows old at once.
struct Bucket {
    ground: Ground,
    name: String,
    store: Store,
    pool: PgPool,
}

impl Bucket {
    async fn on(ground: Ground, pool: PgPool) -> Self {
        let name = format!("gc-{}", FirmwareId::generate());
        ground.client.create_bucket().bucket(&name).send().await.unwrap();
        let settings = config::Storage { bucket: name.clone(), ..ground.settings() };
        Self { store: Store::connect(&settings).await, ground, name, pool }
    }

    async fn put(&self, key: &str) {
        let body = vec![7; 100].into();
        self.ground.client.put_object().bucket(&self.name).key(key).body(body).send().await.unwrap();
    }

    /// Every name, asked without our code.
    async fn names(&self) -> Vec<String> {
        let list = self.ground.client.list_objects_v2().bucket(&self.name).send().await.unwrap();
        list.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    /// Collects what is garbage so much later; the pieces, and the sum.
    async fn collect(&self, later: Duration, orders: Orders) -> Result<(Vec<(Kind, String)>, Total), Error> {
        let now: Time = Clock::system().now() + later;
        let mut pieces = Vec::new();
        let total = collect(&self.pool, &self.store, now, &orders, &mut |garbage| {
            assert_eq!(matches!(garbage.outcome, Outcome::Removed), !orders.dry_run, "{garbage:?}");
            assert!(garbage.age.to_std().unwrap().abs_diff(later) < HOUR / 2, "{garbage:?}");
            pieces.push((garbage.kind, garbage.key.to_string()));
        })
        .await?;
        Ok((pieces, total))
    }
}

/// A release's row.
async fn name(pool: &PgPool, id: FirmwareId, key: &ObjectKey) {
    sqlx::query(
        "insert into firmware_versions (id, version, version_key, channel, platform, object_key, file_size, md5_checksum, \
         sha256_checksum, released_at, validated) \
         values ($1, '1.5.0', 'k', 'stable', 'esp8266', $2, 100, repeat('0', 32), repeat('0', 64), now(), true)",
    )
    .bind(id.0)
    .bind(key.as_str())
    .execute(pool)
    .await
    .unwrap();
}

#[sqlx::test]
async fn old_objects_without_a_row_go_on_the_embedded_s3(pool: PgPool) {
    old_objects_without_a_row_go(Bucket::on(Ground::embedded().await, pool).await).await;
}

#[sqlx::test]
async fn old_objects_without_a_row_go_on_seaweedfs(pool: PgPool) {
    old_objects_without_a_row_go(Bucket::on(Ground::seaweedfs().await, pool).await).await;
}

async fn old_objects_without_a_row_go(bucket: Bucket) {
    let [named, orphan, staged] = [(); 3].map(|()| FirmwareId::generate());
    let (release, orphan) = (key(named, "1.5.0+b.1"), key(orphan, "1.5.0"));
    let staged = ObjectKey::staging(staged);
    name(&bucket.pool, named, &release).await;
    let foreign = [
        "backup/of-somebody.bin".to_owned(),
        "firmware/notes.txt".to_owned(),
        format!("firmware/{named}/paperminder-1.5-stable.bin"),
        format!("other/{orphan}"),
        "staging/build-17.bin".to_owned(),
    ];
    for key in foreign.iter().map(String::as_str).chain([release.as_str(), orphan.as_str(), staged.as_str()])
    {
        bucket.put(key).await;
    }
    let all = bucket.names().await;
    assert_eq!(all.len(), 8, "{all:?}");

    for young in [Duration::ZERO, DAY - HOUR] {
        let (pieces, total) = bucket.collect(young, ORDERS).await.unwrap();
        assert!(pieces.is_empty() && total.objects + total.uploads == 0, "{pieces:?}");
    }
    let expected = vec![(Kind::Orphan, orphan.to_string()), (Kind::Staged, staged.to_string())];
    let (pieces, total) = bucket.collect(DAY + HOUR, DRY).await.unwrap();
    assert_eq!((pieces, total.objects, total.bytes), (expected.clone(), 2, 200));
    assert_eq!(bucket.names().await, all, "a dry run removes nothing");

    let (pieces, total) = bucket.collect(DAY + HOUR, ORDERS).await.unwrap();
    assert_eq!((pieces, total.objects, total.bytes, total.failed), (expected, 2, 200, 0));
    let mut left = foreign.to_vec();
    left.push(release.to_string());
    left.sort();
    assert_eq!(bucket.names().await, left);
    assert!(bucket.collect(DAY + HOUR, ORDERS).await.unwrap().0.is_empty(), "a second run finds nothing");
}

#[sqlx::test]
async fn old_multipart_uploads_are_ended(pool: PgPool) {
    let bucket = Bucket::on(Ground::seaweedfs().await, pool).await;
    let id = FirmwareId::generate();
    let mut writer = ObjectWriter::open(bucket.store.clone(), &Buffers::new(1), id).await.unwrap();
    fill(&mut writer, PART_SIZE + 1).await;
    for foreign in ["firmware/of-somebody.bin", "backup/of-somebody.bin"] {
        bucket
            .ground
            .client
            .create_multipart_upload()
            .bucket(&bucket.name)
            .key(foreign)
            .send()
            .await
            .unwrap();
    }
    let open = async || {
        let list = bucket.ground.client.list_multipart_uploads().bucket(&bucket.name).send().await.unwrap();
        list.uploads().len()
    };
    assert_eq!(open().await, 3);

    let (pieces, total) = bucket.collect(DAY - HOUR, ORDERS).await.unwrap();
    assert!(
        pieces.is_empty() && total == Total::default(),
        "an upload that may run is broken off: {pieces:?}"
    );
    let expected = vec![(Kind::Multipart, ObjectKey::staging(id).to_string())];
    assert_eq!(bucket.collect(DAY + HOUR, DRY).await.unwrap().0, expected);
    assert_eq!(open().await, 3);
    let (pieces, total) = bucket.collect(DAY + HOUR, ORDERS).await.unwrap();
    assert_eq!((pieces, total), (expected, Total { uploads: 1, ..Total::default() }));
    assert_eq!(open().await, 2, "those of others stay");
    // The upload that it was finds out, and has nothing left to remove.
    let (_, mut remains) = writer.finish(&key(id, "1.5.0")).await.unwrap_err();
    remains.remove().await.unwrap();
    assert!(bucket.names().await.is_empty());
}

#[sqlx::test]
async fn a_database_without_any_release_is_not_believed(pool: PgPool) {
    let bucket = Bucket::on(Ground::embedded().await, pool).await;
    let image = key(FirmwareId::generate(), "1.5.0");
    bucket.put(image.as_str()).await;
    let refused = bucket.collect(DAY + HOUR, ORDERS).await;
    assert!(matches!(refused, Err(Error::NoReleases)), "{refused:?}");
    assert_eq!(bucket.collect(DAY + HOUR, DRY).await.unwrap().1.objects, 1);
    assert_eq!(bucket.names().await, [image.as_str()]);
    let (_, total) = bucket.collect(DAY + HOUR, Orders { no_releases: true, ..ORDERS }).await.unwrap();
    assert_eq!((total.objects, total.uploads_unknown), (1, true));
    assert!(bucket.names().await.is_empty());
}

/// Puts a file into the bucket's folder that is two days old.
pub(super) fn old_file(folder: &Path, key: &ObjectKey) {
    let path = folder.join("s3/firmware").join(key.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, [7; 100]).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified.checked_sub(2 * DAY).unwrap_or(SystemTime::UNIX_EPOCH)).unwrap();
}

#[sqlx::test]
async fn the_command_goes_through_every_page_and_tells_each_piece(pool: PgPool) {
    let (s3, folder) = embedded_s3().await;
    let ids: Vec<_> = (0..1205).map(|_| FirmwareId::generate()).collect();
    for id in &ids {
        old_file(folder.path(), &key(*id, "1.5.0"));
    }
    // Sorted last, so that it stands on the second page.
    let last = key(*ids.iter().max().unwrap(), "1.5.0");
    name(&pool, *ids.iter().max().unwrap(), &last).await;
    let database = database_url(&pool);
    let endpoint = s3.endpoint();
    let run = async |arguments: &[&str]| {
        let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_paperminder-ota"))
            .arg("gc")
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", &database)
            .env("AWS_ENDPOINT_URL_S3", &endpoint)
            .env("AWS_ACCESS_KEY_ID", s3.access_key())
            .env("AWS_SECRET_ACCESS_KEY", s3.secret_key().expose_secret())
            .kill_on_drop(true)
            .output();
        let output = command.await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, said) = run(&["--older-than", "0"]).await;
    assert!(code == Some(2) && said.contains("--older-than"), "{said}");
    let (code, told, said) = run(&["--older-than", "49"]).await;
    assert!(code == Some(0) && told.contains("garbage: 0 objects"), "{told}{said}");
    let (code, told, said) = run(&["--dry-run"]).await;
    assert!(code == Some(0) && told.contains("garbage: 1204 objects"), "{told}{said}");
    let (code, told, said) = run(&[]).await;
    assert!(code == Some(0), "{told}{said}");
    let removed: Vec<_> = told.lines().filter(|line| line.starts_with("removed firmware/")).collect();
    assert_eq!(removed.len(), 1204);
    assert!(removed[0].ends_with("(no release names it, 2 days old, 100 B)"), "{}", removed[0]);
    assert!(
        told.contains("garbage: 1204 objects (117.58 KiB), 0 open multipart uploads; all removed"),
        "{told}"
    );
    assert!(told.contains("does not list multipart uploads"), "{told}");
    let settings = config::Storage {
        bucket: "firmware".into(),
        endpoint: s3.endpoint().parse().ok(),
        public_endpoint: None,
        path_style: true,
        credentials: Some((s3.access_key().to_owned(), s3.secret_key().clone())),
        presign_expires: HOUR,
        encryption: None,
        checksum: None,
    };
    let left = Store::connect(&settings).await.list(Folder::Firmware, None).await.unwrap();
    let left: Vec<_> = left.entries.into_iter().filter_map(|object| object.key).collect();
    assert_eq!(left, [last]);
    s3.stop().await;
}
