//! HTTPS and WSS without a proxy, and a certificate that is renewed meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{SOON, Server, config};

type Made = CertifiedKey<KeyPair>;

fn made() -> Made {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn write(folder: &Path, made: &Made) {
    std::fs::write(folder.join("crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key"), made.signing_key.serialize_pem()).unwrap();
}

fn files(folder: &TempDir) -> [String; 2] {
    ["crt", "key"].map(|name| folder.path().join(name).to_str().unwrap().to_owned())
}

/// A handshake that believes in this certificate only.
async fn connect(
    server: &Server,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(default_provider().into());
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.app().address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

#[sqlx::test]
async fn rest_and_sockets_are_served_encrypted_and_the_certificate_is_renewed(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (made(), made());
    write(folder.path(), &old);
    let [certificate, key] = files(&folder);
    let server = Server::with(pool, &[("TLS_CERT_FILE", &certificate), ("TLS_KEY_FILE", &key)]).await;

    let mut rest = connect(&server, old.cert.der()).await.unwrap();
    rest.write_all(b"GET /api/firmware HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    rest.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("strict-transport-security: max-age"),
        "{answer}"
    );

    let wire = connect(&server, old.cert.der()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("wss://localhost/ws/demo", wire).await.unwrap();
    socket.send(Message::text(r#"{"printer_id": "over-tls"}"#)).await.unwrap();
    socket.send(Message::text("{")).await.unwrap();
    let said = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
    let said: Value = serde_json::from_str(said.to_text().unwrap()).unwrap();
    assert_eq!(said["code"], "malformed_json");

    // One that is broken changes nothing.
    std::fs::write(folder.path().join("crt"), "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    sleep(Duration::from_secs(6)).await;
    assert!(connect(&server, old.cert.der()).await.is_ok());
    write(folder.path(), &new);
    let deadline = Instant::now() + SOON;
    while connect(&server, new.cert.der()).await.is_err() {
        assert!(Instant::now() < deadline, "the new certificate is not in use");
        sleep(Duration::from_millis(200)).await;
    }
    assert!(connect(&server, old.cert.der()).await.is_err(), "the old one is gone");
    // What was open stays.
    socket.send(Message::text("{")).await.unwrap();
    assert!(timeout(SOON, socket.next()).await.unwrap().unwrap().is_ok());
    drop(socket);
    server.stop().await;
}

#[sqlx::test]
async fn whoever_speaks_no_tls_or_nothing_is_cut_off(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let made = made();
    write(folder.path(), &made);
    let [certificate, key] = files(&folder);
    let server = Server::with(pool, &[("TLS_CERT_FILE", &certificate), ("TLS_KEY_FILE", &key)]).await;
    let started = Instant::now();
    let mut mute = Vec::new();
    for _ in 0..300 {
        mute.push(TcpStream::connect(server.app().address).await.unwrap());
    }
    let mut plain = TcpStream::connect(server.app().address).await.unwrap();
    plain.write_all(b"GET /api/firmware HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    for mut stream in mute.into_iter().chain([plain]) {
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end of the connection");
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(connect(&server, made.cert.der()).await.is_ok());
    server.stop().await;
}

#[sqlx::test]
async fn files_that_are_no_pair_stop_the_start(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (made(), made());
    let [certificate, key] = files(&folder);
    let (cert_text, key_text) = (one.cert.pem(), one.signing_key.serialize_pem());
    for (crt, secret, said) in [
        (Some(cert_text.clone()), None, "TLS_KEY_FILE="),
        (None, Some(key_text.clone()), "TLS_CERT_FILE="),
        (Some("nonsense".into()), Some(key_text.clone()), "holds no certificate as PEM"),
        (Some(cert_text.clone()), Some("nonsense".into()), "holds no private key as PEM"),
        (
            Some(cert_text),
            Some(other.signing_key.serialize_pem()),
            "TLS_KEY_FILE is not the key of the certificate",
        ),
    ] {
        for (path, text) in [(&certificate, &crt), (&key, &secret)] {
            match text {
                Some(text) => std::fs::write(path, text).unwrap(),
                None => drop(std::fs::remove_file(path)),
            }
        }
        let settings = [("TLS_CERT_FILE", certificate.as_str()), ("TLS_KEY_FILE", &key)];
        let config = config(&pool, "http://localhost:1", &settings);
        let error = paperminder_ota::app::start(&config, paperminder_ota::clock::Clock::system()).await;
        let error = error.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("PRIVATE KEY"), "{error}");
    }
}
