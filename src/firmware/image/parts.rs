//! The pieces that both image layouts are made of: fields that arrive in slices, flash settings, segments.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Refusal;

/// First byte of every image and of the sketch's header.
pub const MAGIC: u8 = 0xE9;
/// The ROM loader refuses more.
pub const MAX_SEGMENTS: u8 = 16;
/// Largest flash that these chips map. A segment that claims more is damaged, and is refused before its bytes come.
const MAX_SEGMENT: u64 = 16 << 20;
/// What the XOR checksum starts from.
const SEED: u8 = 0xEF;

/// A field of `N` bytes, put together from slices that may end anywhere.
pub struct Field<const N: usize> {
    bytes: [u8; N],
    have: usize,
}

impl<const N: usize> Field<N> {
    pub fn new() -> Self {
        Self { bytes: [0; N], have: 0 }
    }

    /// Takes what it lacks from the front of `input`; returns how much that was.
    pub fn take(&mut self, input: &[u8]) -> usize {
        let count = input.len().min(N - self.have);
        self.bytes[self.have..self.have + count].copy_from_slice(&input[..count]);
        self.have += count;
        count
    }

    /// The bytes once all are here.
    pub fn full(&self) -> Option<&[u8; N]> {
        (self.have == N).then_some(&self.bytes)
    }

    /// The bytes that are here.
    pub fn so_far(&self) -> &[u8] {
        &self.bytes[..self.have]
    }
}

/// The little-endian word at `at`; zero beyond the end, which no caller reaches.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// How the chip reads its flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlashMode {
    /// Four lines for address and data.
    Qio,
    /// Four lines for data.
    Qout,
    /// Two lines for address and data.
    Dio,
    /// Two lines for data.
    Dout,
    /// One line, fast; ESP32 only.
    FastRead,
    /// One line, slow; ESP32 only.
    SlowRead,
}

/// The flash settings of bytes 2 and 3.
#[derive(Debug, Clone, Copy)]
pub struct Flash {
    pub mode: FlashMode,
    pub megahertz: u8,
    pub size: u64,
}

impl Flash {
    /// Reads them; `sizes` gives the KiB by the size nibble, 0 where there is none, `modes` how many modes there are.
    pub fn read(mode: u8, setting: u8, modes: u8, sizes: &[u64]) -> Result<Self, Refusal> {
        let bad = |field, at, found, allowed: &str| Refusal::Header {
            field,
            at,
            found,
            allowed: allowed.to_owned(),
        };
        let mode = match mode {
            0 => FlashMode::Qio,
            1 => FlashMode::Qout,
            2 => FlashMode::Dio,
            3 => FlashMode::Dout,
            4 if modes > 4 => FlashMode::FastRead,
            5 if modes > 5 => FlashMode::SlowRead,
            other => return Err(bad("flash mode", 2, other, &format!("0 to {}", modes - 1))),
        };
        let megahertz = match setting & 0x0F {
            0x0 => 40,
            0x1 => 26,
            0x2 => 20,
            0xF => 80,
            other => return Err(bad("flash frequency (low half)", 3, other, "0, 1, 2 or 15")),
        };
        let nibble = setting >> 4;
        match sizes.get(usize::from(nibble)) {
            Some(&kib) if kib > 0 => Ok(Self { mode, megahertz, size: kib << 10 }),
            _ => Err(bad("flash size (high half)", 3, nibble, "a size that flash chips have")),
        }
    }
}

/// Walks a part's segments to the checksum that ends the part, at the end of a 16-byte line.
pub struct Segments {
    part: &'static str,
    count: u8,
    seen: u8,
    at: u64,
    limit: u64,
    step: Step,
    head: Field<8>,
    sum: u8,
    stored: u8,
    addresses: [u32; MAX_SEGMENTS as usize],
}

enum Step {
    Head,
    Data { left: u64 },
    Padding,
    Done,
}

impl Segments {
    /// `count` segments of `part`, from offset `at`, that must end before `limit`.
    pub fn new(part: &'static str, count: u8, at: u64, limit: u64) -> Self {
        let addresses = [0; MAX_SEGMENTS as usize];
        let step = if count == 0 { Step::Padding } else { Step::Head };
        Self { part, count, seen: 0, at, limit, step, head: Field::new(), sum: SEED, stored: 0, addresses }
    }

    /// Takes bytes up to the end of the part; returns how many.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.step {
                Step::Done => break,
                Step::Head => self.head.take(rest),
                Step::Data { left } => {
                    let count = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    self.sum = rest[..count].iter().fold(self.sum, |sum, byte| sum ^ byte);
                    self.step = Step::Data { left: left - count as u64 };
                    count
                }
                // The checksum is the last byte of its line: up to it there are 0 to 15 zeros.
                Step::Padding => match usize::try_from(15 - self.at % 16).unwrap_or(0).min(rest.len()) {
                    0 => {
                        self.stored = rest[0];
                        self.step = Step::Done;
                        1
                    }
                    zeros => zeros,
                },
            };
            self.at += taken as u64;
            rest = &rest[taken..];
            self.turn()?;
        }
        Ok(bytes.len() - rest.len())
    }

    /// Goes on to the next step where one has come to its end.
    fn turn(&mut self) -> Result<(), Refusal> {
        if let (Step::Head, Some(head)) = (&self.step, self.head.full()) {
            let (address, left) = (word(head, 0), u64::from(word(head, 4)));
            if let Some(place) = self.addresses.get_mut(usize::from(self.seen)) {
                *place = address;
            }
            self.seen += 1;
            let room = self.limit.saturating_sub(self.at + 1).min(MAX_SEGMENT);
            if left > room {
                return Err(Refusal::Segment {
                    part: self.part,
                    number: self.seen,
                    at: self.at - 8,
                    length: left,
                    room,
                });
            }
            self.head = Field::new();
            self.step = Step::Data { left };
        }
        if matches!(self.step, Step::Data { left: 0 }) {
            self.step = if self.seen == self.count { Step::Padding } else { Step::Head };
        }
        Ok(())
    }

    /// The offset behind the checksum, when that was reached.
    pub fn end(&self) -> Option<u64> {
        matches!(self.step, Step::Done).then_some(self.at)
    }

    /// Compares the checksum. To be asked at the end.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.sum == self.stored {
            return Ok(());
        }
        Err(Refusal::Checksum {
            part: self.part,
            at: self.at.saturating_sub(1),
            stored: self.stored,
            computed: self.sum,
        })
    }

    /// Where each segment goes.
    pub fn addresses(&self) -> &[u32] {
        &self.addresses[..usize::from(self.seen.min(MAX_SEGMENTS))]
    }

    /// Where the walk stands, for the sentence about a file that ends here.
    pub fn place(&self) -> String {
        let Self { part, count, seen, .. } = self;
        match self.step {
            Step::Head => format!("the header of segment {} of {count} of {part}", seen + 1),
            Step::Data { left } => {
                format!("segment {seen} of {count} of {part}, which goes on to offset {}", self.at + left)
            }
            Step::Padding | Step::Done => format!("the last line of {part}, which holds its checksum"),
        }
    }
}
