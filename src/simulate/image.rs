//! Images that pass for real ones: laid out as the ESP8266 core's build writes them, filled with noise.
//!
//! Tests and the demonstration need firmware of any size without shipping a vendor's binary. The noise is
//! incompressible, so nothing on the way (a proxy that compresses, a file system that does) flatters a measurement.

use crc::{CRC_32_MPEG_2, Crc};

use super::chance::Noise;

/// Where the sketch begins: the boot loader has the first flash sector to itself.
const SKETCH: usize = 4096;
/// The length word and the CRC word stand in the first bytes of the sketch's first segment.
const LENGTH_AT: usize = SKETCH + 16;
const CRC_AT: usize = LENGTH_AT + 4;
/// The boot loader's two segments, about as big as the real ones.
const EBOOT_TEXT: usize = 2400;
const EBOOT_RODATA: usize = 480;
/// RAM segments of the sketch after its flash-mapped code: (address, length).
const RAM_SEGMENTS: [(u32, usize); 4] =
    [(0x4010_0000, 1024), (0x4010_0400, 512), (0x3FFE_8000, 256), (0x3FFE_8100, 256)];
/// Nothing smaller holds both headers, all segments and the padding.
pub const SMALLEST: usize = 8192;

/// An ESP8266 image of exactly `size` bytes; the same `seed` gives the same bytes.
///
/// Sizes are raised to [`SMALLEST`] and rounded up to 16, because the checksum ends each part on a 16-byte line:
/// any other length could not come out of a real build.
#[must_use]
pub fn esp8266_image(size: usize, seed: u64) -> Vec<u8> {
    let size = size.max(SMALLEST).next_multiple_of(16);
    let mut noise = Noise::new(seed);
    let mut image = Vec::with_capacity(size);

    part(&mut image, 0x4010_F000, &[(0x4010_F000, EBOOT_TEXT), (0x3FFE_8000, EBOOT_RODATA)], &mut noise);
    image.resize(SKETCH, 0xAA);

    let ram: usize = RAM_SEGMENTS.iter().map(|(_, length)| 8 + length).sum();
    // Header 8, first segment's header 8, and a last line of 16 that ends in the checksum.
    let code = size - SKETCH - 16 - ram - 16;
    let mut segments = vec![(0x4020_1010, code)];
    segments.extend(RAM_SEGMENTS);
    part(&mut image, 0x4010_0000, &segments, &mut noise);

    put(&mut image, LENGTH_AT, 0);
    put(&mut image, CRC_AT, 0);
    let crc = Crc::<u32>::new(&CRC_32_MPEG_2).checksum(&image);
    let length = u32::try_from(image.len()).unwrap_or(u32::MAX);
    put(&mut image, LENGTH_AT, length);
    put(&mut image, CRC_AT, crc);
    image
}

/// One part: header, segments, zeros, and the XOR of all segment bytes at the end of a 16-byte line.
fn part(image: &mut Vec<u8>, entry: u32, segments: &[(u32, usize)], noise: &mut Noise) {
    let start = image.len();
    let count = u8::try_from(segments.len()).unwrap_or(u8::MAX);
    // Flash mode DIO (2), 40 MHz and 4 MB (0x40): what most boards of this kind are built for.
    image.extend([0xE9, count, 2, 0x40]);
    image.extend(entry.to_le_bytes());
    let mut checksum = 0xEF_u8;
    for &(address, length) in segments {
        image.extend(address.to_le_bytes());
        image.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        let data = image.len();
        noise.fill(image, length);
        checksum = image[data..].iter().fold(checksum, |sum, byte| sum ^ byte);
    }
    let end = (image.len() - start + 1).next_multiple_of(16) - 1;
    image.resize(start + end, 0);
    image.push(checksum);
}

fn put(image: &mut [u8], at: usize, word: u32) {
    image[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(image: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
    }

    /// Bit by bit, most significant bit first, as the boot loader does it: shares nothing with the `crc` crate.
    fn crc_bitwise(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            for shift in (0..8).rev() {
                let bit = ((crc >> 31) as u8 ^ (byte >> shift)) & 1;
                crc <<= 1;
                if bit == 1 {
                    crc ^= 0x04C1_1DB7;
                }
            }
        }
        crc
    }

    /// Walks the segments of the part at `start` and returns (end of part, XOR checksum holds).
    fn walk(image: &[u8], start: usize) -> (usize, bool) {
        assert_eq!(image[start], 0xE9);
        let mut at = start + 8;
        let mut sum = 0xEF_u8;
        for _ in 0..image[start + 1] {
            let length = word(image, at + 4) as usize;
            at += 8;
            sum = image[at..at + length].iter().fold(sum, |sum, byte| sum ^ byte);
            at += length;
        }
        let end = start + (at - start + 1).next_multiple_of(16);
        (end, image[end - 1] == sum)
    }

    #[test]
    fn crc_bitwise_knows_the_published_check_value() {
        assert_eq!(crc_bitwise(b"123456789"), 0x0376_E6E7);
    }

    #[test]
    fn headers_length_and_crc_hold_for_all_sizes() {
        for size in [1, 8192, 8208, 10_000, 65_536, 400_000] {
            let mut image = esp8266_image(size, 7);
            assert_eq!(image.len(), size.max(SMALLEST).next_multiple_of(16));
            assert_eq!(image[..4], [0xE9, 2, 2, 0x40]);
            assert_eq!(image[SKETCH], 0xE9);
            assert_eq!(image[SKETCH + 1], 5);
            assert_eq!(word(&image, LENGTH_AT) as usize, image.len());
            let stored = word(&image, CRC_AT);
            put(&mut image, LENGTH_AT, 0);
            put(&mut image, CRC_AT, 0);
            assert_eq!(stored, crc_bitwise(&image));
        }
    }

    #[test]
    fn the_boot_loaders_checksum_holds_and_the_segments_end_where_the_image_does() {
        let image = esp8266_image(100_000, 3);
        let (end, holds) = walk(&image, 0);
        assert!(holds);
        assert!(image[end..SKETCH].iter().all(|byte| *byte == 0xAA));
        let (end, _) = walk(&image, SKETCH);
        assert_eq!(end, image.len());
    }

    #[test]
    fn noise_depends_on_the_seed_alone() {
        assert_eq!(esp8266_image(20_000, 1), esp8266_image(20_000, 1));
        assert_ne!(esp8266_image(20_000, 1), esp8266_image(20_000, 2));
    }
}
