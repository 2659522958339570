//! Images of the ESP32 family, as `esptool elf2image` writes them: a header of 24 bytes, segments, an XOR checksum, and
//! a SHA-256 of everything before it.
//!
//! The first segment begins with the application's description. In Arduino builds its version and project name are
//! those of the core's precompiled libraries, not of the product: they are shown, and no image is refused for them.
//!
//! What no check covers: images without the SHA-256 in their header and padding, and the bytes of a Secure Boot
//! signature, which the chip checks.

use sha2::{Digest, Sha256};

use super::parts::{Field, Flash, MAX_SEGMENTS, Segments, word};
use super::{Findings, Format, Refusal};
use crate::words::Platform;

/// KiB by the size nibble.
const SIZES: [u64; 8] = [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10];
/// Where the description stands, and how much of it is read: up to the end of the project name.
const DESCRIPTION_AT: u64 = 0x20;
const DESCRIPTION: usize = 80;
const DESCRIPTION_MAGIC: u32 = 0xABCD_5432;
/// A Secure Boot (version 2) signature has a flash sector of its own.
const SECTOR: u64 = 4096;

/// Chips that no platform stands for, by id.
const STRANGERS: &[(u16, &str)] = &[
    (12, "the ESP32-C2"),
    (13, "the ESP32-C6"),
    (16, "the ESP32-H2"),
    (18, "the ESP32-P4"),
    (20, "the ESP32-C61"),
    (23, "the ESP32-C5"),
    (25, "the ESP32-H21"),
    (28, "the ESP32-H4"),
];

/// The platform of a chip id.
pub fn platform(id: u16) -> Result<Platform, Refusal> {
    match id {
        0 => Ok(Platform::Esp32),
        2 => Ok(Platform::Esp32S2),
        5 => Ok(Platform::Esp32C3),
        9 => Ok(Platform::Esp32S3),
        _ => {
            let known = STRANGERS.iter().find(|(stranger, _)| *stranger == id);
            Err(Refusal::Chip { chip: known.map_or("an unknown chip", |(_, name)| name), id })
        }
    }
}

/// Reads one image.
pub struct Esp32 {
    at: u64,
    platform: Platform,
    flash: Flash,
    count: u8,
    entry: u32,
    hashed: bool,
    segments: Segments,
    description: Field<DESCRIPTION>,
    sha256: Sha256,
    stored: Field<32>,
    /// Whether all behind the image looks like a Secure Boot signature so far.
    signature: bool,
}

impl Esp32 {
    /// From the first bytes, which are to be given to [`Self::update`] all the same.
    pub fn new(platform: Platform, head: &[u8; 24]) -> Result<Self, Refusal> {
        let bad = |field, at, found, allowed| Err(Refusal::Header { field, at, found, allowed });
        let [_, count, mode, setting, ..] = *head;
        if !(1..=MAX_SEGMENTS).contains(&count) {
            return bad("count of segments", 1, count, format!("1 to {MAX_SEGMENTS}"));
        }
        if head[23] > 1 {
            return bad("mark of an appended SHA-256", 23, head[23], "0 or 1".to_owned());
        }
        Ok(Self {
            at: 0,
            platform,
            flash: Flash::read(mode, setting, 6, &SIZES)?,
            count,
            entry: word(head, 4),
            hashed: head[23] == 1,
            segments: Segments::new("the image", count, 24, u64::MAX),
            description: Field::new(),
            sha256: Sha256::new(),
            stored: Field::new(),
            signature: true,
        })
    }

    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = if self.at < 24 {
                let count = usize::try_from(24 - self.at).unwrap_or(0).min(rest.len());
                self.sha256.update(&rest[..count]);
                count
            } else if self.segments.end().is_none() {
                let count = self.segments.push(rest)?;
                self.sha256.update(&rest[..count]);
                self.describe(&rest[..count]);
                if self.segments.end().is_some() {
                    self.close()?;
                }
                count
            } else if self.hashed && self.stored.full().is_none() {
                self.stored.take(rest)
            } else {
                self.behind(rest);
                rest.len()
            };
            self.at += taken as u64;
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Keeps the description's bytes.
    fn describe(&mut self, bytes: &[u8]) {
        let skip = usize::try_from(DESCRIPTION_AT.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if let Some(bytes) = bytes.get(skip..) {
            self.description.take(bytes);
        }
    }

    /// At the checksum.
    fn close(&self) -> Result<(), Refusal> {
        self.segments.check()?;
        if self.segments.addresses().iter().any(|address| is_mapped(self.platform, *address)) {
            Ok(())
        } else {
            Err(Refusal::NoApplication)
        }
    }

    /// Where the image ends, hash included.
    fn end(&self) -> Option<u64> {
        self.segments.end().map(|end| if self.hashed { end + 32 } else { end })
    }

    /// Bytes behind the image. Secure Boot fills the sector up with 0xFF and puts a signature block behind it.
    fn behind(&mut self, bytes: &[u8]) {
        let block = self.end().unwrap_or_default().next_multiple_of(SECTOR);
        for (at, byte) in (self.at..).zip(bytes) {
            self.signature &= match at.checked_sub(block) {
                None => *byte == 0xFF,
                Some(0) => *byte == 0xE7,
                Some(1) => matches!(byte, 2 | 3),
                Some(_) => true,
            };
            if !self.signature {
                break;
            }
        }
    }

    pub fn finish(self) -> Result<Findings, Refusal> {
        let length = self.at;
        let Some(end) = self.end() else {
            return Err(Refusal::Truncated { length, place: self.segments.place() });
        };
        if length < end {
            return Err(Refusal::Truncated { length, place: "the SHA-256 behind the image".to_owned() });
        }
        let mut warnings = Vec::new();
        if let Some(stored) = self.stored.full() {
            let computed = self.sha256.finalize();
            if computed.as_slice() != stored.as_slice() {
                let (stored, computed) = (hex::encode(stored), hex::encode(computed));
                return Err(Refusal::Sha256 { at: end - 32, stored, computed });
            }
        } else {
            warnings.push(
                "the image has no SHA-256: a checksum of one byte is all that could be checked; build it without \
                 --dont-append-digest"
                    .to_owned(),
            );
        }
        let signed = length == end.next_multiple_of(SECTOR) + SECTOR && self.signature;
        if length > end && !signed {
            return Err(Refusal::Trailing { end, length });
        }
        let description = self.description.full().filter(|bytes| word(*bytes, 0) == DESCRIPTION_MAGIC);
        if description.is_none() {
            warnings.push(
                "the image has no application description at offset 32: make sure that it is an application"
                    .to_owned(),
            );
        }
        Ok(Findings {
            format: Format::Plain,
            platform: self.platform,
            flash_size: self.flash.size,
            flash_mode: self.flash.mode,
            flash_frequency: self.flash.megahertz,
            segments: self.count,
            entry_point: format!("{:#010x}", self.entry),
            embedded_version: description.and_then(|bytes| text(&bytes[16..48])),
            project_name: description.and_then(|bytes| text(&bytes[48..80])),
            crc: None,
            sha256_appended: self.hashed,
            signed,
            unpacked_size: end,
            warnings,
        })
    }
}

/// Whether an address is one that flash is mapped to.
fn is_mapped(platform: Platform, address: u32) -> bool {
    let (code, data) = match platform {
        Platform::Esp8266 => return false,
        Platform::Esp32 => (0x400D_0000..0x4040_0000, 0x3F40_0000..0x3F80_0000),
        Platform::Esp32S2 => (0x4008_0000..0x40B8_0000, 0x3F00_0000..0x3F3F_0000),
        Platform::Esp32S3 => (0x4200_0000..0x4400_0000, 0x3C00_0000..0x3E00_0000),
        Platform::Esp32C3 => (0x4200_0000..0x4280_0000, 0x3C00_0000..0x3C80_0000),
    };
    code.contains(&address) || data.contains(&address)
}

/// Text up to the first NUL, without what a terminal would obey.
fn text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|char| !char.is_control()).collect();
    (!text.is_empty()).then_some(text)
}
