//! ESP8266 images, as the Arduino core's `elf2bin` writes them: the boot loader in the first flash sector, filled up
//! with 0xAA, and the sketch behind it, each with a header, segments and an XOR checksum.
//!
//! What guards the bytes depends on the core's age, and the boot loader's count of segments tells which it is:
//!
//! | core | boot loader | length and CRC | XOR checksum of the sketch |
//! |---|---|---|---|
//! | before 2.6 | 1 segment | none: both places hold filling | holds |
//! | 2.6 to 2.7 | 1 segment | at 4088, 4092 | holds |
//! | since 3.0 | 2 segments | at 4112, 4116 | broken, because the two words were written over bytes that it covers |
//!
//! The CRC covers the whole image, with both words read as zero; a signature behind the image is not part of it. What
//! no check covers: the signature's bytes (the printer's own check), and in images before 2.6 the two headers, the
//! filling and zeros, where a wrong byte goes unseen.

use crc::{CRC_32_MPEG_2, Crc, Digest, Table};

use super::parts::{Field, Flash, MAGIC, MAX_SEGMENTS, Segments, word};
use super::{Findings, Format, Refusal};
use crate::words::Platform;

/// The boot loader's sector; the sketch begins behind it.
const SECTOR: u64 = 4096;
/// Where the two words stand, by age.
const WORDS_IN_SECTOR: u64 = SECTOR - 8;
const WORDS_IN_SKETCH: u64 = SECTOR + 16;
/// Offsets where something else begins. Slices are cut here, so that every piece belongs to one thing.
const EDGES: [u64; 7] =
    [8, WORDS_IN_SECTOR, SECTOR, SECTOR + 8, WORDS_IN_SKETCH, WORDS_IN_SKETCH + 8, u64::MAX];
/// A signature and the word that tells its length: RSA-2048 is the one kind that the core makes.
const SIGNATURE: u32 = 256;
pub const SIGNED_SURPLUS: u64 = SIGNATURE as u64 + 4;
/// KiB by the size nibble. 5 and 6 are 2 and 4 MiB in another arrangement.
const SIZES: [u64; 10] = [512, 256, 1024, 2048, 4096, 2048, 4096, 0, 8192, 16384];

/// 16 KiB of tables, several times as fast as one.
static MPEG_2: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_MPEG_2);

/// Reads one image.
pub struct Esp8266 {
    at: u64,
    flash: Flash,
    boot: Segments,
    /// The sketch's header.
    header: Field<8>,
    sketch: Option<Segments>,
    words: Field<8>,
    words_at: u64,
    crc: Digest<'static, u32, Table<16>>,
    last: Last,
}

impl Esp8266 {
    /// From the first bytes, which are to be given to [`Self::update`] all the same.
    pub fn new(head: &[u8; 24]) -> Result<Self, Refusal> {
        let count = head[1];
        let words_at = match count {
            1 => WORDS_IN_SECTOR,
            2 => WORDS_IN_SKETCH,
            found => return Err(Refusal::BootLoader { found }),
        };
        Ok(Self {
            at: 0,
            flash: Flash::read(head[2], head[3], 4, &SIZES)?,
            boot: Segments::new("the boot loader", count, 8, SECTOR),
            header: Field::new(),
            sketch: None,
            words: Field::new(),
            words_at,
            crc: MPEG_2.digest(),
            last: Last::default(),
        })
    }

    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.last.push(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let edge = EDGES.into_iter().find(|edge| *edge > self.at).unwrap_or(u64::MAX);
            let count = usize::try_from(edge - self.at).map_or(rest.len(), |left| left.min(rest.len()));
            let (piece, behind) = rest.split_at(count);
            self.count_in(piece);
            let start = self.at;
            self.at += count as u64;
            self.piece(start, piece)?;
            rest = behind;
        }
        Ok(())
    }

    /// The CRC: of the image alone, the two words as zeros.
    fn count_in(&mut self, piece: &[u8]) {
        if (self.words_at..self.words_at + 8).contains(&self.at) {
            self.words.take(piece);
            self.crc.update(&[0; 8][..piece.len()]);
            return;
        }
        // Both words come before anything that a signature could be.
        let end = self.words.full().map_or(u64::MAX, |words| u64::from(word(words, 0)));
        let inside = end.saturating_sub(self.at);
        self.crc
            .update(&piece[..usize::try_from(inside).map_or(piece.len(), |inside| inside.min(piece.len()))]);
    }

    /// The structure. `piece` starts at `start` and crosses no edge.
    fn piece(&mut self, start: u64, piece: &[u8]) -> Result<(), Refusal> {
        if start < 8 {
            return Ok(());
        }
        if start < SECTOR {
            if self.boot.end().is_none() {
                self.boot.push(piece)?;
                if self.boot.end().is_some() {
                    self.boot.check()?;
                }
            }
            return Ok(());
        }
        if self.boot.end().is_none() {
            return Err(Refusal::Overrun);
        }
        let Some(sketch) = &mut self.sketch else {
            self.header.take(piece);
            let found = self.header.so_far().first().copied().unwrap_or(MAGIC);
            if found != MAGIC {
                return Err(Refusal::Magic { part: "the sketch", at: SECTOR, found });
            }
            if let Some(&[_, found, ..]) = self.header.full() {
                if !(1..=MAX_SEGMENTS).contains(&found) {
                    let allowed = format!("1 to {MAX_SEGMENTS}");
                    return Err(Refusal::Header {
                        field: "sketch's count of segments",
                        at: SECTOR + 1,
                        found,
                        allowed,
                    });
                }
                self.sketch = Some(Segments::new("the sketch", found, SECTOR + 8, u64::MAX));
            }
            return Ok(());
        };
        sketch.push(piece).map(drop)
    }

    pub fn finish(self) -> Result<Findings, Refusal> {
        let length = self.at;
        let truncated = |place: String| Refusal::Truncated { length, place };
        if length < SECTOR && self.boot.end().is_none() {
            return Err(truncated(self.boot.place()));
        }
        let (Some(sketch), Some(header)) = (&self.sketch, self.header.full()) else {
            let place = "the first flash sector, before the sketch's header at offset 4096";
            return Err(truncated(if length < SECTOR { place } else { "the sketch's header" }.to_owned()));
        };
        let Some(end) = sketch.end() else { return Err(truncated(sketch.place())) };

        let signed = |image: u64| length == image + SIGNED_SURPLUS && self.last.word() == SIGNATURE;
        let mut warnings = Vec::new();
        let mut crc = None;
        let mut image = end;
        if let Some((stored_length, stored)) = self.stored() {
            image = stored_length;
            let whole = length == image || signed(image);
            if !whole && image == end {
                return Err(Refusal::Trailing { end, length });
            }
            if !whole || end > image {
                return Err(Refusal::Length { at: self.words_at, stored: image, length });
            }
            let computed = self.crc.finalize();
            if computed != stored {
                return Err(Refusal::Crc { at: self.words_at + 4, stored, computed });
            }
            crc = Some(format!("{stored:#010x}"));
        } else {
            if length != end && !signed(end) {
                return Err(Refusal::Trailing { end, length });
            }
            sketch.check()?;
            warnings.push(
                "the image has no CRC, because it was built with an ESP8266 core before 2.6: a checksum of one byte is \
                 all that could be checked; build it with a core since 3.0"
                    .to_owned(),
            );
        }
        Ok(Findings {
            format: Format::Plain,
            platform: Platform::Esp8266,
            flash_size: self.flash.size,
            flash_mode: self.flash.mode,
            flash_frequency: self.flash.megahertz,
            segments: header[1],
            entry_point: format!("{:#010x}", word(header, 4)),
            embedded_version: None,
            project_name: None,
            crc,
            sha256_appended: false,
            signed: length != image,
            unpacked_size: image,
            warnings,
        })
    }

    /// Length and CRC as the build stored them. Images before 2.6 have filling in that place, and linkers fill with
    /// one byte over and over.
    fn stored(&self) -> Option<(u64, u32)> {
        let words = self.words.full()?;
        let filling = matches!(words[0], 0xAA | 0x00 | 0xFF) && words.iter().all(|byte| *byte == words[0]);
        let dated = self.words_at == WORDS_IN_SECTOR && filling;
        (!dated).then(|| (u64::from(word(words, 0)), word(words, 4)))
    }
}

/// The last four bytes of what went by.
#[derive(Default)]
pub struct Last([u8; 4]);

impl Last {
    pub fn push(&mut self, bytes: &[u8]) {
        let tail = &bytes[bytes.len().saturating_sub(4)..];
        self.0.rotate_left(tail.len());
        self.0[4 - tail.len()..].copy_from_slice(tail);
    }

    pub fn word(&self) -> u32 {
        u32::from_le_bytes(self.0)
    }

    /// Whether they end a signature.
    pub fn is_signature(&self) -> bool {
        self.word() == SIGNATURE
    }
}
