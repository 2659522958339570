//! An image that is not packed: tells the layouts apart and hands the bytes to the one that fits.

use super::esp32::{self, Esp32};
use super::esp8266::Esp8266;
use super::parts::{Field, word};
use super::{Findings, Refusal, foreign};
use crate::words::Platform;

/// Reads one image of any platform.
pub struct Plain {
    head: Field<{ foreign::HEAD }>,
    declared: Option<Platform>,
    packed: bool,
    found: Option<Found>,
}

/// The layout. Both are big, and there is one of them an upload.
enum Found {
    Esp8266(Box<Esp8266>),
    Esp32(Platform, Box<Esp32>),
}

impl Found {
    fn platform(&self) -> Platform {
        match self {
            Self::Esp8266(_) => Platform::Esp8266,
            Self::Esp32(platform, _) => *platform,
        }
    }
}

impl Plain {
    /// `packed`: the bytes come out of a gzip.
    pub fn new(declared: Option<Platform>, packed: bool) -> Self {
        Self { head: Field::new(), declared, packed, found: None }
    }

    /// Says what the upload is for. The image is held against it as soon as it is known what it is for itself.
    pub fn declare(&mut self, platform: Platform) -> Result<(), Refusal> {
        self.declared = Some(platform);
        self.found.as_ref().map_or(Ok(()), |found| compare(Some(platform), found.platform()))
    }

    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let taken = self.head.take(bytes);
        if self.found.is_none() {
            let Some(&head) = self.head.full() else { return Ok(()) };
            self.found = Some(self.identify(&head)?);
            self.forward(&head)?;
        }
        self.forward(&bytes[taken..])
    }

    fn forward(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match &mut self.found {
            Some(Found::Esp8266(image)) => image.update(bytes),
            Some(Found::Esp32(_, image)) => image.update(bytes),
            None => Ok(()),
        }
    }

    /// Both kinds begin with 0xE9. What tells them apart is the memory map: the ESP8266 starts in RAM at 0x4010_0000
    /// or in flash at 0x4020_0000, where no ESP32 starts. The boot loader's first segment goes there too, and in its
    /// place an ESP32's header has settings of pins; so one damaged word does not make a stranger of the image.
    fn identify(&self, head: &[u8; foreign::HEAD]) -> Result<Found, Refusal> {
        if !foreign::is_image(head) {
            return Err(foreign::refusal(head));
        }
        let old = |address| matches!(address, 0x4010_0000..0x4011_0000 | 0x4020_0000..0x4030_0000);
        let platform = if old(word(head, 4)) || old(word(head, 8)) {
            Platform::Esp8266
        } else {
            esp32::platform(u16::from_le_bytes([head[12], head[13]]))?
        };
        compare(self.declared, platform)?;
        if platform == Platform::Esp8266 {
            return Ok(Found::Esp8266(Box::new(Esp8266::new(head)?)));
        }
        if self.packed {
            return Err(Refusal::GzipUnsupported { platform });
        }
        Ok(Found::Esp32(platform, Box::new(Esp32::new(platform, head)?)))
    }

    pub fn finish(self) -> Result<Findings, Refusal> {
        match self.found {
            Some(Found::Esp8266(image)) => image.finish(),
            Some(Found::Esp32(_, image)) => image.finish(),
            None => {
                let head = self.head.so_far();
                if !foreign::is_image(head) {
                    return Err(foreign::refusal(head));
                }
                Err(Refusal::Truncated {
                    length: head.len() as u64,
                    place: "the header of the image".to_owned(),
                })
            }
        }
    }
}

fn compare(declared: Option<Platform>, found: Platform) -> Result<(), Refusal> {
    match declared {
        Some(declared) if declared != found => Err(Refusal::WrongPlatform { found, declared }),
        _ => Ok(()),
    }
}
