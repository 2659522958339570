//! What happens to a firmware image's bytes as they arrive, whichever way they came.

use std::{io, time::Duration};

use md5::{Digest, Md5};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::Error;

/// A download that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// Bytes received.
    pub bytes: u64,
    /// Their MD5 in hex.
    pub md5: String,
}

/// Why a printer did not take an image.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The offer's URL is none that a printer can fetch.
    #[error("the URL cannot be fetched: {0}")]
    Url(String),
    /// No connection, or it broke.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// TLS, or the HTTP client.
    #[error("{0}")]
    Transport(String),
    /// Another status than 200.
    #[error("HTTP error {0}")]
    Status(u16),
    /// 304.
    #[error("nothing to update (HTTP 304)")]
    NotModified,
    /// No `Content-Length`, or 0.
    #[error("the answer has no Content-Length above 0")]
    NoLength,
    /// Chunked or compressed.
    #[error("the answer is encoded ({0})")]
    Encoded(String),
    /// Larger than the free flash.
    #[error("not enough space: {length} bytes, {free} free")]
    TooBig {
        /// Announced length.
        length: u64,
        /// Bytes of flash left.
        free: u64,
    },
    /// The first byte is neither 0xE9 nor 0x1F.
    #[error("not a firmware image: it begins with {0:#04X}")]
    Magic(u8),
    /// Nothing came for too long.
    #[error("no byte for {0:?}")]
    Silence(Duration),
    /// Ended before or after its announced length.
    #[error("{received} of {announced} bytes")]
    Length {
        /// What the header said.
        announced: u64,
        /// What came.
        received: u64,
    },
    /// The checksum does not match.
    #[error("MD5 mismatch: expected {expected}, got {actual}")]
    Md5 {
        /// From the offer, or from `x-MD5`.
        expected: String,
        /// Of what came.
        actual: String,
        /// How much came.
        received: u64,
    },
    /// Broken off on purpose, as this printer's fate wants it.
    #[error("connection lost at {0} bytes")]
    BrokenOff(u64),
}

impl From<Error> for DownloadError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Io(error),
            Error::Timeout(_) => Self::Io(io::ErrorKind::TimedOut.into()),
            other => Self::Transport(other.to_string()),
        }
    }
}

/// What an installing printer tells its other half.
#[derive(Debug)]
pub(super) enum Step {
    Percent(u8),
    Done(Result<Downloaded, DownloadError>),
}

/// Faults to be played and steps to be told.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Break off after half of the bytes.
    pub(super) break_off: bool,
    /// Let one byte arrive wrong.
    pub(super) corrupt: bool,
    /// Bytes a second.
    pub(super) rate: Option<u32>,
    /// Percents to tell, ascending.
    pub(super) percents: Vec<u8>,
    pub(super) steps: Option<mpsc::Sender<Step>>,
}

/// Counts, hashes and judges the bytes of one download.
pub(super) struct Intake {
    plan: Plan,
    announced: Option<u64>,
    magic: bool,
    received: u64,
    hash: Md5,
    began: Instant,
    told: usize,
}

impl Intake {
    /// `magic`: insist on an image's first byte.
    pub(super) fn new(plan: Plan, announced: Option<u64>, magic: bool) -> Self {
        Self { plan, announced, magic, received: 0, hash: Md5::new(), began: Instant::now(), told: 0 }
    }

    pub(super) async fn take(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        let Some(&first) = bytes.first() else { return Ok(()) };
        if self.received == 0 {
            if self.magic && !matches!(first, 0xE9 | 0x1F) {
                return Err(DownloadError::Magic(first));
            }
            if self.plan.corrupt {
                // Into the hash only: the image itself is not kept.
                self.hash.update([!first]);
            } else {
                self.hash.update([first]);
            }
            self.hash.update(&bytes[1..]);
        } else {
            self.hash.update(bytes);
        }
        self.received += bytes.len() as u64;
        self.tell();
        if self.plan.break_off && self.received >= self.announced.unwrap_or(0) / 2 {
            return Err(DownloadError::BrokenOff(self.received));
        }
        if let Some(rate) = self.plan.rate {
            let due = Duration::from_secs_f64(self.received as f64 / f64::from(rate.max(1)));
            sleep_until(self.began + due).await;
        }
        Ok(())
    }

    /// A progress report that nobody has room for is left out: the download must not wait for the socket.
    fn tell(&mut self) {
        let Some(steps) = &self.plan.steps else { return };
        let Some(announced) = self.announced.filter(|announced| *announced > 0) else { return };
        let percent = (self.received * 100 / announced).min(100);
        while let Some(&step) = self.plan.percents.get(self.told).filter(|step| u64::from(**step) <= percent)
        {
            self.told += 1;
            let _ = steps.try_send(Step::Percent(step));
        }
    }

    pub(super) fn finish(self, md5: Option<&str>) -> Result<Downloaded, DownloadError> {
        let received = self.received;
        if let Some(announced) = self.announced.filter(|announced| *announced != received) {
            return Err(DownloadError::Length { announced, received });
        }
        let actual = hex::encode(self.hash.finalize());
        match md5 {
            Some(expected) if !expected.eq_ignore_ascii_case(&actual) => {
                Err(DownloadError::Md5 { expected: expected.to_owned(), actual, received })
            }
            _ => Ok(Downloaded { bytes: received, md5: actual }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(plan: Plan, announced: u64, bytes: &[u8], md5: &str) -> Result<Downloaded, DownloadError> {
        let mut intake = Intake::new(plan, Some(announced), true);
        for chunk in bytes.chunks(3) {
            intake.take(chunk).await?;
        }
        intake.finish(Some(md5))
    }

    #[tokio::test]
    async fn bytes_are_judged() {
        let image = b"\xE9hello";
        let md5 = hex::encode(Md5::digest(image));
        assert_eq!(run(Plan::default(), 6, image, &md5.to_uppercase()).await.unwrap().bytes, 6);
        let short = run(Plan::default(), 7, image, &md5).await;
        assert!(matches!(short, Err(DownloadError::Length { announced: 7, received: 6 })));
        let corrupt = run(Plan { corrupt: true, ..Plan::default() }, 6, image, &md5).await;
        assert!(matches!(corrupt, Err(DownloadError::Md5 { .. })));
        let broken = run(Plan { break_off: true, ..Plan::default() }, 6, image, &md5).await;
        assert!(matches!(broken, Err(DownloadError::BrokenOff(3))));
        assert!(matches!(run(Plan::default(), 5, b"<html", &md5).await, Err(DownloadError::Magic(b'<'))));
    }

    #[tokio::test]
    async fn each_percent_is_told_once_and_none_waits() {
        let (steps, mut told) = mpsc::channel(3);
        let plan = Plan { percents: vec![0, 50, 60, 100], steps: Some(steps), ..Plan::default() };
        let md5 = hex::encode(Md5::digest(b"\xE9hello"));
        run(plan, 6, b"\xE9hello", &md5).await.unwrap();
        let mut percents = Vec::new();
        while let Some(Step::Percent(percent)) = told.recv().await {
            percents.push(percent);
        }
        // The channel held three; the fourth was left out.
        assert_eq!(percents, [0, 50, 60]);
    }

    #[tokio::test]
    async fn a_slow_printer_keeps_to_its_rate() {
        let began = Instant::now();
        let md5 = hex::encode(Md5::digest([0xE9; 100]));
        run(Plan { rate: Some(1000), ..Plan::default() }, 100, &[0xE9; 100], &md5).await.unwrap();
        assert!(began.elapsed().as_millis() >= 100, "{:?}", began.elapsed());
    }
}
