//! What a device takes for an image, and what it does not.

use md5::{Digest, Md5};
use paperminder_ota::simulate::{DownloadError, Downloaded, Offer, Printer};

use super::{
    stand::{Stand, answering},
    *,
};

const BODY: &[u8] = b"\xE9image";

async fn fetch(mode: Mode, answer: &[u8]) -> Result<Downloaded, DownloadError> {
    fetch_within(PrinterOptions::new("", 1).pace.silence, mode, answer).await
}

async fn fetch_within(silence: Duration, mode: Mode, answer: &[u8]) -> Result<Downloaded, DownloadError> {
    let stand = Stand::start(vec![], |_| vec![]).await;
    let address = answering(answer.to_vec(), Duration::from_secs(2)).await;
    let mut options = printer(&stand.ws, mode);
    options.pace.silence = silence;
    let printer = Printer::connect(options).await.unwrap();
    let md5 = Some(hex::encode(Md5::digest(BODY)));
    printer.download(&Offer { version: "1.1.0".into(), url: format!("http://{address}/i"), md5 }).await
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat()
}

#[tokio::test]
async fn a_length_and_200_are_enough() {
    let good = answer("200 OK\r\nContent-Length: 6", BODY);
    assert_eq!(fetch(Mode::Device, &good).await.unwrap().bytes, 6);
    assert_eq!(fetch(Mode::Polite, &good).await.unwrap().bytes, 6);
}

#[tokio::test]
async fn chunks_and_compression_are_refused() {
    let chunked = answer("200 OK\r\nTransfer-Encoding: chunked", b"6\r\n\xE9image\r\n0\r\n\r\n");
    assert!(
        matches!(fetch(Mode::Device, &chunked).await, Err(DownloadError::Encoded(how)) if how == "chunked")
    );
    let gzip = answer("200 OK\r\nContent-Length: 6\r\nContent-Encoding: gzip", BODY);
    assert!(matches!(fetch(Mode::Device, &gzip).await, Err(DownloadError::Encoded(_))));
    // A real HTTP/1.1 client takes chunks.
    assert_eq!(fetch(Mode::Polite, &chunked).await.unwrap().bytes, 6);
}

#[tokio::test]
async fn no_length_is_no_download() {
    for head in ["200 OK", "200 OK\r\nContent-Length: 0", "200 OK\r\nContent-Length: many"] {
        let result = fetch(Mode::Device, &answer(head, BODY)).await;
        assert!(matches!(result, Err(DownloadError::NoLength)), "{head}: {result:?}");
    }
}

#[tokio::test]
async fn every_other_status_fails_and_no_redirect_is_followed() {
    for status in [204, 206, 301, 302, 307, 403, 404, 426, 429, 503] {
        let head = format!("{status} X\r\nLocation: /elsewhere\r\nContent-Length: 6");
        let result = fetch(Mode::Device, &answer(&head, BODY)).await;
        assert!(matches!(result, Err(DownloadError::Status(got)) if got == status), "{status}: {result:?}");
    }
    let unchanged = fetch(Mode::Device, &answer("304 Not Modified", b"")).await;
    assert!(matches!(unchanged, Err(DownloadError::NotModified)));
}

#[tokio::test]
async fn silence_before_the_header_or_within_the_body_is_a_failure() {
    for (mode, head) in [
        (Mode::Device, &b""[..]),
        (Mode::Device, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\xE9im"),
        (Mode::Polite, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\xE9im"),
    ] {
        let result = fetch_within(Duration::from_millis(300), mode, head).await;
        assert!(matches!(result, Err(DownloadError::Silence(_))), "{mode:?}: {result:?}");
    }
}

#[tokio::test]
async fn what_is_no_image_is_refused_at_its_first_byte() {
    let page = answer("200 OK\r\nContent-Length: 6", b"<html>");
    assert!(matches!(fetch(Mode::Device, &page).await, Err(DownloadError::Magic(b'<'))));
}

#[tokio::test]
async fn a_wrong_md5_is_found_and_x_md5_serves_when_the_offer_has_none() {
    let other = answer("200 OK\r\nContent-Length: 6", b"\xE9imagf");
    assert!(matches!(fetch(Mode::Device, &other).await, Err(DownloadError::Md5 { .. })));
    assert!(matches!(fetch(Mode::Polite, &other).await, Err(DownloadError::Md5 { .. })));

    let stand = Stand::start(vec![], |_| vec![]).await;
    let wrong = answer("200 OK\r\nContent-Length: 6\r\nx-MD5: 00000000000000000000000000000000", BODY);
    let address = answering(wrong, Duration::ZERO).await;
    let printer = Printer::connect(printer(&stand.ws, Mode::Device)).await.unwrap();
    let offer = Offer { version: "1.1.0".into(), url: format!("http://{address}/"), md5: None };
    assert!(matches!(printer.download(&offer).await, Err(DownloadError::Md5 { .. })));
}

#[tokio::test]
async fn an_image_larger_than_the_flash_is_not_begun() {
    let stand = Stand::start(vec![], |_| vec![]).await;
    let address = answering(answer("200 OK\r\nContent-Length: 6", BODY), Duration::ZERO).await;
    let mut options = printer(&stand.ws, Mode::Device);
    options.limits.free_space = 5;
    let printer = Printer::connect(options).await.unwrap();
    let offer = Offer { version: "1.1.0".into(), url: format!("http://{address}/"), md5: None };
    assert!(matches!(printer.download(&offer).await, Err(DownloadError::TooBig { length: 6, free: 5 })));
}

#[tokio::test]
async fn a_connection_that_ends_early_is_a_short_download() {
    let stand = Stand::start(vec![], |_| vec![]).await;
    let address = answering(answer("200 OK\r\nContent-Length: 7", BODY), Duration::ZERO).await;
    let printer = Printer::connect(printer(&stand.ws, Mode::Device)).await.unwrap();
    let offer = Offer { version: "1.1.0".into(), url: format!("http://{address}/"), md5: None };
    let result = printer.download(&offer).await;
    assert!(matches!(result, Err(DownloadError::Length { announced: 7, received: 6 })), "{result:?}");
}

#[tokio::test]
async fn a_handshake_that_printers_do_not_understand_is_refused() {
    for (head, complaint) in [
        ("101 Switching Protocols\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket", "exactly"),
        ("101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket", "Sec-WebSocket-Accept"),
        ("503 Busy\r\nRetry-After: 9", "503"),
    ] {
        let address = answering(answer(head, b""), Duration::ZERO).await;
        let error = Printer::connect(printer(&format!("ws://{address}"), Mode::Device)).await.unwrap_err();
        assert!(error.to_string().contains(complaint), "{error}");
    }
}
