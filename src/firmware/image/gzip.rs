//! A gzip around an image, unpacked as it streams. The ESP8266's boot loader unpacks one member, and takes the size
//! from the last word of the file: so nothing may follow but a signature, which the printer cuts off before.
//!
//! Bytes are gathered into blocks of one size before they are unpacked: how an unpacker that meets an error stops
//! depends on how much it was given, and the verdict must not depend on how the network cut the upload.

use flate2::{Decompress, FlushDecompress, Status};

use super::esp8266::{Last, SIGNED_SURPLUS};
use super::parts::{Field, word};
use super::plain::Plain;
use super::{Findings, Format, Refusal};
use crate::words::Platform;

/// Most bytes that a gzip may unpack to: the largest flash that the core knows.
pub const MAX_UNPACKED: u64 = 16 << 20;
const BLOCK: usize = 1024;
const PIECE: usize = 4096;

/// Optional parts of a gzip's header, by flag.
const CHECKED: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Reads one gzip.
pub struct Gzip {
    /// Bytes that were processed.
    at: u64,
    block: [u8; BLOCK],
    have: usize,
    step: Step,
    /// Header's flags whose parts are still to come.
    flags: u8,
    unpacker: Decompress,
    crc: flate2::Crc,
    unpacked: u64,
    image: Plain,
    /// Bytes behind the trailer.
    surplus: u64,
    last: Last,
}

enum Step {
    Fixed(Field<10>),
    ExtraLength(Field<2>),
    /// So many bytes more that mean nothing here.
    Skip(u16),
    /// A text that ends with NUL.
    Text,
    Data,
    Trailer(Field<8>),
    Behind,
}

impl Gzip {
    pub fn new(declared: Option<Platform>) -> Self {
        Self {
            at: 0,
            block: [0; BLOCK],
            have: 0,
            step: Step::Fixed(Field::new()),
            flags: 0,
            unpacker: Decompress::new(false),
            crc: flate2::Crc::new(),
            unpacked: 0,
            image: Plain::new(declared, true),
            surplus: 0,
            last: Last::default(),
        }
    }

    /// Says what the upload is for.
    pub fn declare(&mut self, platform: Platform) -> Result<(), Refusal> {
        self.image.declare(platform)
    }

    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = rest.len().min(BLOCK - self.have);
            self.block[self.have..self.have + count].copy_from_slice(&rest[..count]);
            self.have += count;
            rest = &rest[count..];
            if self.have == BLOCK {
                self.process()?;
            }
        }
        Ok(())
    }

    /// Goes through the block.
    fn process(&mut self) -> Result<(), Refusal> {
        let block = self.block;
        let mut rest = &block[..self.have];
        self.have = 0;
        self.last.push(rest);
        while !rest.is_empty() {
            let taken = self.step(rest)?;
            self.at += taken as u64;
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Takes some of `bytes`, which are not empty; returns how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let taken = match &mut self.step {
            Step::Fixed(fixed) => {
                let taken = fixed.take(bytes);
                if let Some(&[_, _, method, flags, ..]) = fixed.full() {
                    if method != 8 || flags & RESERVED != 0 {
                        return Err(Refusal::Gzip {
                            at: 2,
                            why: "its header names a method that does not exist",
                        });
                    }
                    self.flags = flags;
                    self.next_part();
                }
                taken
            }
            Step::ExtraLength(length) => {
                let taken = length.take(bytes);
                if let Some(length) = length.full() {
                    self.step = Step::Skip(u16::from_le_bytes(*length));
                    self.skip(0);
                }
                taken
            }
            Step::Skip(left) => {
                let taken = bytes.len().min(usize::from(*left));
                self.skip(u16::try_from(taken).unwrap_or(u16::MAX));
                taken
            }
            Step::Text => {
                let end = bytes.iter().position(|byte| *byte == 0);
                if end.is_some() {
                    self.next_part();
                }
                end.map_or(bytes.len(), |end| end + 1)
            }
            Step::Data => self.unpack(bytes)?,
            Step::Trailer(trailer) => {
                let taken = trailer.take(bytes);
                if let Some(trailer) = trailer.full() {
                    let (crc, size) = (word(trailer, 0), word(trailer, 4));
                    let at = self.at + taken as u64 - 8;
                    if crc != self.crc.sum() {
                        return Err(Refusal::Crc { at, stored: crc, computed: self.crc.sum() });
                    }
                    if u64::from(size) != self.unpacked {
                        return Err(Refusal::Gzip {
                            at: at + 4,
                            why: "it unpacks to another size than it says",
                        });
                    }
                    self.step = Step::Behind;
                }
                taken
            }
            Step::Behind => {
                self.surplus += bytes.len() as u64;
                bytes.len()
            }
        };
        Ok(taken)
    }

    fn skip(&mut self, count: u16) {
        if let Step::Skip(left) = &mut self.step {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.next_part();
            }
        }
    }

    /// The header's next part, in the order of RFC 1952.
    fn next_part(&mut self) {
        let flag = [EXTRA, NAME, COMMENT, CHECKED].into_iter().find(|flag| self.flags & flag != 0);
        self.flags &= !flag.unwrap_or_default();
        self.step = match flag {
            Some(EXTRA) => Step::ExtraLength(Field::new()),
            Some(NAME | COMMENT) => Step::Text,
            // The boot loader skips the header's own check, too.
            Some(_) => Step::Skip(2),
            None => Step::Data,
        };
    }

    /// Unpacks all of `bytes`, or up to the end of the data.
    fn unpack(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let damaged = Refusal::Gzip { at: self.at, why: "its data are damaged" };
        let mut piece = [0; PIECE];
        let mut used = 0;
        loop {
            let before = (self.unpacker.total_in(), self.unpacker.total_out());
            let status = self.unpacker.decompress(&bytes[used..], &mut piece, FlushDecompress::None);
            let Ok(status) = status else { return Err(damaged) };
            let taken = usize::try_from(self.unpacker.total_in() - before.0).unwrap_or(BLOCK);
            let made = usize::try_from(self.unpacker.total_out() - before.1).unwrap_or(PIECE);
            used += taken;
            self.unpacked += made as u64;
            if self.unpacked > MAX_UNPACKED {
                return Err(Refusal::TooLarge { limit: MAX_UNPACKED });
            }
            self.crc.update(&piece[..made]);
            self.image.update(&piece[..made]).map_err(inside)?;
            if status == Status::StreamEnd {
                self.step = Step::Trailer(Field::new());
                return Ok(used);
            }
            // It may hold some back for the next call, so only a call without any effect means that it wants more.
            if taken == 0 && made == 0 {
                return if used == bytes.len() { Ok(used) } else { Err(damaged) };
            }
        }
    }

    pub fn finish(mut self) -> Result<Findings, Refusal> {
        self.process()?;
        let place = match self.step {
            Step::Data => "the data of the gzip",
            Step::Trailer(_) => "the last 8 bytes of the gzip, its CRC and size",
            Step::Behind => "",
            _ => "the header of the gzip",
        };
        if !place.is_empty() {
            return Err(Refusal::Truncated { length: self.at, place: place.to_owned() });
        }
        let signed = self.surplus == SIGNED_SURPLUS && self.last.is_signature();
        if self.surplus > 0 && !signed {
            return Err(Refusal::Trailing { end: self.at - self.surplus, length: self.at });
        }
        let mut findings = self.image.finish().map_err(inside)?;
        if findings.signed {
            findings.warnings.push(
                "the signature is inside of the gzip, where printers do not look for it: sign after compressing"
                    .to_owned(),
            );
        }
        findings.format = Format::Gzip;
        findings.signed = signed;
        Ok(findings)
    }
}

/// What is for another platform is so as a whole; other faults are told as those of the unpacked bytes.
fn inside(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::WrongPlatform { .. } | Refusal::GzipUnsupported { .. } | Refusal::Chip { .. } => refusal,
        other => Refusal::Inside(Box::new(other)),
    }
}
