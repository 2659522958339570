//! The embedded S3, asked by the real SDK and by a client as simple as a printer.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use paperminder_ota::dev::EmbeddedS3;
use paperminder_ota::dev::s3::Error;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const BUCKET: &str = "firmware";

async fn start(folder: &tempfile::TempDir) -> (EmbeddedS3, Client) {
    let server = EmbeddedS3::start(&folder.path().join("s3"), ANY, &[BUCKET]).await.unwrap();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.endpoint())
        .credentials_provider(Credentials::new(
            server.access_key(),
            server.secret_key().expose_secret(),
            None,
            None,
            "test",
        ))
        .force_path_style(true)
        .build();
    (server, Client::from_conf(config))
}

fn code<E: ProvideErrorMetadata, R>(result: Result<impl Sized, SdkError<E, R>>) -> Option<String> {
    result.err()?.code().map(str::to_owned)
}

async fn put(client: &Client, key: &str, body: &[u8]) {
    let body = ByteStream::from(body.to_vec());
    client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .body(body)
        .content_type("application/octet-stream")
        .send()
        .await
        .unwrap();
}

async fn keys(client: &Client) -> Vec<String> {
    let mut keys = Vec::new();
    let mut pages = client.list_objects_v2().bucket(BUCKET).max_keys(2).into_paginator().send();
    while let Some(page) = pages.next().await {
        keys.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    keys
}

#[tokio::test]
async fn objects_are_put_read_listed_copied_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = start(&folder).await;

    put(&client, "firmware/1/a.bin", b"hello printer").await;
    let object = client.get_object().bucket(BUCKET).key("firmware/1/a.bin").send().await.unwrap();
    assert_eq!(object.content_length(), Some(13));
    assert_eq!(&object.body.collect().await.unwrap().to_vec(), b"hello printer");
    let range =
        client.get_object().bucket(BUCKET).key("firmware/1/a.bin").range("bytes=6-").send().await.unwrap();
    assert_eq!(range.content_range(), Some("bytes 6-12/13"));
    assert_eq!(&range.body.collect().await.unwrap().to_vec(), b"printer");

    let head = client.head_object().bucket(BUCKET).key("firmware/1/a.bin").send().await.unwrap();
    assert_eq!((head.content_length(), head.content_type()), (Some(13), Some("application/octet-stream")));
    let missing = client.head_object().bucket(BUCKET).key("none").send().await.unwrap_err();
    assert!(missing.into_service_error().is_not_found());
    assert_eq!(
        code(client.get_object().bucket(BUCKET).key("none").send().await).as_deref(),
        Some("NoSuchKey")
    );

    let again = client.put_object().bucket(BUCKET).key("firmware/1/a.bin").if_none_match("*");
    let again = again.body(ByteStream::from_static(b"other")).send().await;
    assert_eq!(code(again).as_deref(), Some("PreconditionFailed"));

    let source = format!("{BUCKET}/firmware/1/a.bin");
    client.copy_object().bucket(BUCKET).key("firmware/2/b.bin").copy_source(source).send().await.unwrap();
    let copy = client.head_object().bucket(BUCKET).key("firmware/2/b.bin").send().await.unwrap();
    assert_eq!((copy.content_length(), copy.e_tag()), (Some(13), head.e_tag()));
    assert_eq!(copy.content_type(), Some("application/octet-stream"));

    put(&client, "firmware/3/c.bin", b"").await;
    assert_eq!(keys(&client).await, ["firmware/1/a.bin", "firmware/2/b.bin", "firmware/3/c.bin"]);
    for key in keys(&client).await {
        client.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
    client.delete_object().bucket(BUCKET).key("never-there").send().await.unwrap();
    assert!(keys(&client).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn large_objects_come_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = start(&folder).await;
    let body: Vec<u8> = (0..5 * 1024 * 1024 + 12_345_u32).map(|n| (n % 251) as u8).collect();

    let upload = client.create_multipart_upload().bucket(BUCKET).key("big.bin").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let mut parts = CompletedMultipartUpload::builder();
    for (number, chunk) in (1..).zip(body.chunks(5 * 1024 * 1024)) {
        let part = client.upload_part().bucket(BUCKET).key("big.bin").upload_id(id).part_number(number);
        let part = part.body(ByteStream::from(chunk.to_vec())).send().await.unwrap();
        let tag = part.e_tag().unwrap();
        parts = parts.parts(CompletedPart::builder().part_number(number).e_tag(tag).build());
    }
    // Nothing is to be seen before the end.
    assert!(keys(&client).await.is_empty());
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("big.bin").upload_id(id);
    let complete = complete.multipart_upload(parts.build()).send().await.unwrap();
    assert!(complete.e_tag().unwrap().ends_with("-2\""));
    let object = client.get_object().bucket(BUCKET).key("big.bin").send().await.unwrap();
    assert!(object.body.collect().await.unwrap().to_vec() == body);

    let upload = client.create_multipart_upload().bucket(BUCKET).key("gone.bin").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let part = client.upload_part().bucket(BUCKET).key("gone.bin").upload_id(id).part_number(1);
    part.body(ByteStream::from_static(b"x")).send().await.unwrap();
    client.abort_multipart_upload().bucket(BUCKET).key("gone.bin").upload_id(id).send().await.unwrap();
    assert_eq!(keys(&client).await, ["big.bin"]);
    server.stop().await;
}

#[tokio::test]
async fn wrong_keys_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = start(&folder).await;
    let wrong = Credentials::new(server.access_key(), "not the secret", None, None, "test");
    let config = client.config().to_builder().credentials_provider(wrong).build();
    let refused = Client::from_conf(config).list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(code(refused).as_deref(), Some("SignatureDoesNotMatch"));
    let anonymous = reqwest::get(format!("{}/{BUCKET}", server.endpoint())).await.unwrap();
    assert_eq!(anonymous.status(), 403);
    server.stop().await;
}

/// One HTTP/1.0 request, as the printers' firmware makes them: status line, headers in lower case, body.
async fn http_1_0(url: &str) -> (String, String, Vec<u8>) {
    let url = Url::parse(url).unwrap();
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let target = &url[url::Position::BeforePath..];
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    (status.to_owned(), headers.to_lowercase(), answer[end + 4..].to_vec())
}

async fn presigned(client: &Client, key: &str, seconds: u64) -> String {
    let config = PresigningConfig::expires_in(Duration::from_secs(seconds)).unwrap();
    client.get_object().bucket(BUCKET).key(key).presigned(config).await.unwrap().uri().to_owned()
}

#[tokio::test]
async fn presigned_urls_are_fetched_by_simple_clients_until_they_expire() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = start(&folder).await;
    put(&client, "firmware/1/paperminder-1.5.0+build.7-stable.bin", &[0xE9; 70_000]).await;
    let key = "firmware/1/paperminder-1.5.0+build.7-stable.bin";

    let url = presigned(&client, key, 600).await;
    let (status, headers, body) = http_1_0(&url).await;
    assert!(status.ends_with("200 OK"), "{status}\n{headers}");
    assert!(headers.contains("content-length: 70000"), "{headers}");
    assert!(!headers.contains("transfer-encoding"), "{headers}");
    assert_eq!(body, [0xE9; 70_000]);

    let tampered = url.replace("1.5.0", "1.6.0");
    assert!(http_1_0(&tampered).await.0.contains(" 403 "));
    let longer = url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000");
    assert_ne!(longer, url);
    assert!(http_1_0(&longer).await.0.contains(" 403 "));
    let short = presigned(&client, key, 1).await;
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let (status, _, body) = http_1_0(&short).await;
    assert!(status.contains(" 403 "), "{status}");
    assert!(String::from_utf8_lossy(&body).contains("expired"));
    server.stop().await;
}

#[tokio::test]
async fn keys_and_urls_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = start(&folder).await;
    put(&client, "a", b"still here").await;
    let (addr, key) = (server.addr(), server.access_key().to_owned());
    let url = presigned(&client, "a", 600).await;
    let file = folder.path().join("s3.credentials");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = server.secret_key().expose_secret().to_owned();
    assert!(!format!("{server:?}").contains(&secret));
    drop(client); // its pooled connections
    server.stop().await;

    let server = EmbeddedS3::start(&folder.path().join("s3"), addr, &[BUCKET]).await.unwrap();
    assert_eq!(server.access_key(), key);
    assert_eq!(http_1_0(&url).await.2, b"still here");
    server.stop().await;
}

#[tokio::test]
async fn refusals_name_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _client) = start(&folder).await;
    let root = folder.path().join("s3");

    let error = EmbeddedS3::start(&root, server.addr(), &[]).await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }) && error.to_string().contains("port 0"), "{error}");
    let error = EmbeddedS3::start(&root, ANY, &[]).await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    let error = EmbeddedS3::start(&folder.path().join("other"), ANY, &["Not A Bucket"]).await.unwrap_err();
    assert!(matches!(error, Error::Bucket { .. }), "{error}");
    std::fs::write(folder.path().join("third.credentials"), "nonsense").unwrap();
    let error = EmbeddedS3::start(&folder.path().join("third"), ANY, &[]).await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
    server.stop().await;
}
