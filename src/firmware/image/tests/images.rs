//! Images made by hand, with checksums that share nothing with the code under test.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// Age of an ESP8266 core.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Core {
    Before26,
    Since26,
    Since30,
}

/// Bit by bit, most significant first, as the boot loader does it.
pub fn crc_mpeg(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        for shift in (0..8).rev() {
            let bit = ((crc >> 31) as u8 ^ (byte >> shift)) & 1;
            crc = (crc << 1) ^ if bit == 1 { 0x04C1_1DB7 } else { 0 };
        }
    }
    crc
}

/// Bit by bit, least significant first: that of gzip.
pub fn crc_gzip(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    !crc
}

/// Bytes without a pattern; the same every time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

pub fn put(image: &mut [u8], at: usize, word: u32) {
    image[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

/// Segments and the checksum that ends them, behind `head`.
fn part(head: &[u8], segments: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = head.to_vec();
    let mut sum = 0xEF;
    for (address, data) in segments {
        out.extend(address.to_le_bytes());
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(data);
        sum = data.iter().fold(sum, |sum, byte| sum ^ byte);
    }
    while out.len() % 16 != 15 {
        out.push(0);
    }
    out.push(sum);
    out
}

pub const ENTRY_8266: u32 = 0x4010_0080;

/// An ESP8266 image: 1 MB of flash, DOUT, 80 MHz.
pub fn esp8266(core: Core) -> Vec<u8> {
    let mut boot = vec![(0x4010_F000, noise(700))];
    if core == Core::Since30 {
        boot.push((0x3FFE_8000, noise(61)));
    }
    let mut head = vec![0xE9, boot.len() as u8, 3, 0x2F];
    head.extend(0x4010_F4C4_u32.to_le_bytes());
    let mut image = part(&head, &boot);
    image.resize(4096, 0xAA);

    let mut head = vec![0xE9, 3, 3, 0x2F];
    head.extend(ENTRY_8266.to_le_bytes());
    let segments = [(0x4020_1010, noise(900)), (0x4010_0000, noise(333)), (0x3FFE_8000, noise(64))];
    image.extend(part(&head, &segments));

    let at = match core {
        Core::Before26 => return image,
        Core::Since26 => 4088,
        Core::Since30 => 4112,
    };
    stamp(&mut image, at);
    image
}

/// Writes length and CRC at `at`.
pub fn stamp(image: &mut [u8], at: usize) {
    put(image, at, 0);
    put(image, at + 4, 0);
    let crc = crc_mpeg(image);
    put(image, at, image.len() as u32);
    put(image, at + 4, crc);
}

/// What an ESP32 image is made of.
pub struct Esp32 {
    pub chip: u16,
    pub entry: u32,
    pub data: u32,
    pub code: u32,
    pub version: &'static str,
    pub project: &'static str,
    pub described: bool,
    pub hashed: bool,
}

impl Esp32 {
    pub const ESP32: Self = Self {
        chip: 0,
        entry: 0x4008_1234,
        data: 0x3F40_0020,
        code: 0x400D_0020,
        version: "1.5.0",
        project: "paperminder",
        described: true,
        hashed: true,
    };
    pub const S2: Self =
        Self { chip: 2, entry: 0x4002_4000, data: 0x3F00_0020, code: 0x4008_0020, ..Self::ESP32 };
    pub const C3: Self =
        Self { chip: 5, entry: 0x4038_0000, data: 0x3C00_0020, code: 0x4200_0020, ..Self::ESP32 };
    pub const S3: Self =
        Self { chip: 9, entry: 0x4037_7000, data: 0x3C00_0020, code: 0x4200_0020, ..Self::ESP32 };

    /// 4 MB of flash, DIO, 80 MHz.
    pub fn build(&self) -> Vec<u8> {
        let mut head = vec![0xE9, 3, 2, 0x2F];
        head.extend(self.entry.to_le_bytes());
        head.extend([0xEE, 0, 0, 0]);
        head.extend(self.chip.to_le_bytes());
        head.extend([0; 9]);
        head.push(u8::from(self.hashed));
        let mut data = noise(400);
        if self.described {
            data[..256].fill(0);
            put(&mut data, 0, 0xABCD_5432);
            data[16..16 + self.version.len()].copy_from_slice(self.version.as_bytes());
            data[48..48 + self.project.len()].copy_from_slice(self.project.as_bytes());
        }
        let segments = [(self.data, data), (0x3FFB_0000, noise(100)), (self.code, noise(500))];
        let mut image = part(&head, &segments);
        if self.hashed {
            let hash = Sha256::digest(&image);
            image.extend(hash);
        }
        image
    }
}

/// With a signature of RSA-2048 behind it. Nobody checks it here, so it is noise.
pub fn sign(mut image: Vec<u8>) -> Vec<u8> {
    image.extend(noise(256));
    image.extend([0, 1, 0, 0]);
    image
}

/// With a Secure Boot signature behind it.
pub fn secure_boot(mut image: Vec<u8>) -> Vec<u8> {
    image.resize(image.len().next_multiple_of(4096), 0xFF);
    image.extend([0xE7, 2, 0, 0]);
    image.extend(noise(4092));
    image
}

/// As `gzip -9` makes it.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// By hand: stored blocks, and every optional part of the header.
pub fn gzip_by_hand(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1F, 0x8B, 8, 0b0001_1110, 1, 2, 3, 4, 0, 3];
    out.extend([3, 0, b'a', 0, b'b']);
    out.extend(b"firmware.bin\0by hand\0\x12\x34");
    let blocks = bytes.chunks(1000).count();
    for (index, block) in bytes.chunks(1000).enumerate() {
        out.push(u8::from(index + 1 == blocks));
        out.extend((block.len() as u16).to_le_bytes());
        out.extend((!(block.len() as u16)).to_le_bytes());
        out.extend(block);
    }
    out.extend(crc_gzip(bytes).to_le_bytes());
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}
