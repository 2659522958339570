//! What people send in place of an image, known by its first bytes.

use super::Refusal;
use super::parts::MAGIC;

/// Longest beginning that is looked at.
pub const HEAD: usize = 24;

const UNPACK: &str = "unpack it and send the .bin file inside";
const GZIP: &str = "unpack it and send the .bin file, as it is or as a gzip";

/// (beginning, what it is, remedy).
const KNOWN: &[(&[u8], &str, &str)] = &[
    (
        &[0x7F, b'E', b'L', b'F'],
        "an ELF file",
        "send the .bin file that the build makes from it (elf2bin, or esptool elf2image)",
    ),
    (&[b'P', b'K', 3, 4], "a ZIP archive", UNPACK),
    (&[b'P', b'K', 5, 6], "an empty ZIP archive", UNPACK),
    (&[0x1F, 0x8B], "another gzip", "compress the image once"),
    (&[0xFD, b'7', b'z', b'X', b'Z'], "compressed with xz", GZIP),
    (&[0x28, 0xB5, 0x2F, 0xFD], "compressed with zstd", GZIP),
    (b"BZh", "compressed with bzip2", GZIP),
    (&[b'7', b'z', 0xBC, 0xAF], "a 7-Zip archive", UNPACK),
    (b"UF2\n", "an UF2 file", "send the .bin file that it was made from"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS",
        "run `git lfs pull` and send the file that it points to",
    ),
    (
        &[0xEA],
        "an image of Espressif's own ESP8266 SDK (version 2)",
        "send the .bin file of a build with the Arduino core",
    ),
    (
        &[0xFF; 16],
        "a dump of flash, or an image merged with its boot loader",
        "send the application's .bin file alone",
    ),
];

/// Says what a file is that does not begin like an image.
pub fn refusal(head: &[u8]) -> Refusal {
    let Some(&first) = head.first() else { return Refusal::Empty };
    let found = |count: usize| {
        let bytes: Vec<String> = head.iter().take(count).map(|byte| format!("{byte:02X}")).collect();
        bytes.join(" ")
    };
    for &(beginning, what, remedy) in KNOWN {
        if head.starts_with(beginning) {
            return Refusal::Foreign { what, found: found(beginning.len().min(4)), remedy };
        }
    }
    let text = head.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(head).trim_ascii_start();
    let (what, remedy) = match text {
        [b'<', ..] => (
            "a web page (HTML or XML)",
            "the download that fetched it got an error or a login page: look into it, and fetch the .bin file again",
        ),
        [b'{' | b'[', b'"' | b'{' | b' ' | b'\r' | b'\n', ..] => (
            "JSON text",
            "the download that fetched it got an answer in its place: look into it, and fetch again",
        ),
        [b':', digits @ ..] if digits.len() >= 8 && digits[..8].iter().all(u8::is_ascii_hexdigit) => {
            ("an Intel HEX file", "send the .bin file of the same build")
        }
        _ => return Refusal::Magic { part: "an image", at: 0, found: first },
    };
    Refusal::Foreign { what, found: found(4), remedy }
}

/// Whether a file begins like an image.
pub fn is_image(head: &[u8]) -> bool {
    head.first() == Some(&MAGIC)
}
