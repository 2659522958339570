//! The check of an image: what a file is, and whether it arrived as it was built.
//!
//! A wrong image stops printers that nobody can reach, so an upload is read as the printers' boot loaders will read it,
//! while it streams by: pushed in slices of any size into an [`Inspector`], which keeps a few KiB (and some 40 KiB more
//! to unpack a gzip). The verdict depends on the bytes alone, never on where the slices end.
//!
//! - `foreign`: what people send in place of an image (ELF, ZIP, web pages), told by name.
//! - `esp8266`, `esp32`: the two layouts, made of the same `parts`; `plain` tells them apart.
//! - `gzip`: unpacks within a bound, and holds what comes out to the same rules.
//!
//! A [`Refusal`] says what was found where, and what to do; [`Findings`] are what is worth keeping of a good image.

mod esp32;
mod esp8266;
mod foreign;
mod gzip;
mod parts;
mod plain;
mod refusal;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::gzip::Gzip;
pub use self::gzip::MAX_UNPACKED;
use self::parts::Field;
pub use self::parts::FlashMode;
use self::plain::Plain;
pub use self::refusal::Refusal;
use crate::version::Version;
use crate::words::Platform;

/// How the image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Not at all.
    Plain,
    /// By gzip.
    Gzip,
}

/// What a good image says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "format": "plain", "platform": "esp8266", "flash_size": 4194304, "flash_mode": "dio", "flash_frequency": 40,
    "segments": 5, "entry_point": "0x40100000", "embedded_version": null, "project_name": null, "crc": "0x1f2e3d4c",
    "sha256_appended": false, "signed": false, "unpacked_size": 412032, "warnings": []
}))]
pub struct Findings {
    /// How it is packed.
    pub format: Format,
    /// The chip that it is for.
    pub platform: Platform,
    /// Size of the flash that it is built for, in bytes.
    pub flash_size: u64,
    /// How the flash is read.
    pub flash_mode: FlashMode,
    /// Clock of the flash, in MHz.
    pub flash_frequency: u8,
    /// Segments of the program; an ESP8266's boot loader does not count.
    pub segments: u8,
    /// Where the program starts, in hex.
    pub entry_point: String,
    /// Version in the ESP32's application description. In Arduino builds it is that of the core's libraries.
    pub embedded_version: Option<String>,
    /// Project name in the ESP32's application description.
    pub project_name: Option<String>,
    /// The ESP8266's CRC, in hex, which held; null when the image has none.
    pub crc: Option<String>,
    /// Whether a SHA-256 stands behind the ESP32's image; then it held.
    pub sha256_appended: bool,
    /// Whether a signature stands behind the image. It was not checked: the printers have the key.
    pub signed: bool,
    /// Bytes of the image once it is unpacked, without a signature.
    pub unpacked_size: u64,
    /// What is odd about it, in sentences.
    pub warnings: Vec<String>,
}

/// Reads one file, slice by slice.
pub struct Inspector {
    start: Field<2>,
    route: Route,
    version: Option<Version>,
    refused: Option<Refusal>,
}

/// What the first two bytes decide.
enum Route {
    Open(Option<Platform>),
    Plain(Box<Plain>),
    Gzip(Box<Gzip>),
}

impl Inspector {
    /// For an upload that is known to be `version` for `platform`.
    #[must_use]
    pub fn new(platform: Platform, version: &Version) -> Self {
        Self {
            start: Field::new(),
            route: Route::Open(Some(platform)),
            version: Some(version.clone()),
            refused: None,
        }
    }

    /// For an upload whose file comes before the fields that name it: [`Self::declare`] them before the end.
    #[must_use]
    pub fn undeclared() -> Self {
        Self { start: Field::new(), route: Route::Open(None), version: None, refused: None }
    }

    /// Says what the upload is for. Refuses when the bytes so far are for something else.
    ///
    /// # Errors
    /// [`Refusal::WrongPlatform`], [`Refusal::GzipUnsupported`], or what was refused before.
    pub fn declare(&mut self, platform: Platform, version: &Version) -> Result<(), Refusal> {
        self.version = Some(version.clone());
        self.once(|on| match &mut on.route {
            Route::Open(declared) => {
                *declared = Some(platform);
                Ok(())
            }
            Route::Plain(plain) => plain.declare(platform),
            Route::Gzip(gzip) => {
                gzip.declare(platform)?;
                unpacks(platform)
            }
        })
    }

    /// Takes the next slice.
    ///
    /// # Errors
    /// As soon as the bytes so far cannot become a good image. The refusal is final.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.once(|on| {
            let taken = on.start.take(bytes);
            if let (Route::Open(declared), Some(start)) = (&on.route, on.start.full().copied()) {
                on.route = route(*declared, &start)?;
                on.forward(&start)?;
            }
            on.forward(&bytes[taken..])
        })
    }

    /// After the last slice.
    ///
    /// # Errors
    /// When the file is no good image for what it is declared to be.
    pub fn finish(self) -> Result<Findings, Refusal> {
        if let Some(refusal) = self.refused {
            return Err(refusal);
        }
        let mut findings = match self.route {
            Route::Plain(plain) => plain.finish()?,
            Route::Gzip(gzip) => gzip.finish()?,
            Route::Open(declared) => {
                let mut plain = Plain::new(declared, false);
                plain.update(self.start.so_far())?;
                plain.finish()?
            }
        };
        if let Some(version) = self.version {
            findings.warnings.extend(mismatch(&findings, &version));
        }
        Ok(findings)
    }

    fn forward(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match &mut self.route {
            Route::Open(_) => Ok(()),
            Route::Plain(plain) => plain.update(bytes),
            Route::Gzip(gzip) => gzip.update(bytes),
        }
    }

    /// Does it unless the file is refused already, and remembers a refusal.
    fn once(&mut self, act: impl FnOnce(&mut Self) -> Result<(), Refusal>) -> Result<(), Refusal> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone());
        }
        act(self).inspect_err(|refusal| self.refused = Some(refusal.clone()))
    }
}

fn route(declared: Option<Platform>, start: &[u8; 2]) -> Result<Route, Refusal> {
    if *start != [0x1F, 0x8B] {
        return Ok(Route::Plain(Box::new(Plain::new(declared, false))));
    }
    declared.map_or(Ok(()), unpacks)?;
    Ok(Route::Gzip(Box::new(Gzip::new(declared))))
}

/// Only the ESP8266's boot loader unpacks.
fn unpacks(platform: Platform) -> Result<(), Refusal> {
    if platform == Platform::Esp8266 { Ok(()) } else { Err(Refusal::GzipUnsupported { platform }) }
}

/// A warning when the image names another version than the upload. The core's library builders put their own name and
/// version there, which says nothing about the product.
fn mismatch(findings: &Findings, declared: &Version) -> Option<String> {
    let embedded = findings.embedded_version.as_deref()?;
    if findings.project_name.as_deref().is_some_and(|name| name.ends_with("arduino-lib-builder")) {
        return None;
    }
    let text = embedded.strip_prefix('v').unwrap_or(embedded);
    if text.parse::<Version>().is_ok_and(|version| version == *declared) {
        return None;
    }
    Some(format!("the image says that it is version {embedded}, but it is uploaded as {declared}"))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod simulated {
    use super::*;
    use crate::simulate::image::esp8266_image;

    #[test]
    fn the_simulators_images_pass_without_a_warning() {
        for size in [0, 8208, 20 << 10, 60_000, 400_000] {
            let mut inspector = Inspector::new(Platform::Esp8266, &Version::zero());
            let image = esp8266_image(size, 7);
            inspector.update(&image).unwrap();
            let findings = inspector.finish().unwrap();
            assert_eq!(findings.unpacked_size, image.len() as u64);
            assert!(findings.crc.is_some());
            assert_eq!(findings.warnings, Vec::<String>::new());
        }
    }
}
