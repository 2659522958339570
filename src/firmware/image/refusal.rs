//! Why a file is no image for these printers: what was found, where, and what to do about it.

use crate::words::Platform;

/// A file that must not become a release. Its `Display` is a sentence for the person who uploaded it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No bytes at all.
    #[error("the file is empty; send the compiled image")]
    Empty,
    /// A file of another kind, known by how it begins.
    #[error("the file is {what}, it begins with {found}; {remedy}")]
    Foreign {
        /// What it is.
        what: &'static str,
        /// Its first bytes in hex.
        found: String,
        /// What to send instead.
        remedy: &'static str,
    },
    /// An image's header does not begin as it must.
    #[error(
        "the byte at offset {at} is {found:#04X}, but {part} begins with 0xE9; send the .bin file that the build \
         makes for updates over the air"
    )]
    Magic {
        /// Whose header.
        part: &'static str,
        /// Where.
        at: u64,
        /// The byte.
        found: u8,
    },
    /// The file ends too early.
    #[error(
        "the file ends after {length} bytes, in {place}; it was cut off or damaged on its way, send it again"
    )]
    Truncated {
        /// Size of the file.
        length: u64,
        /// Where the end came.
        place: String,
    },
    /// The file goes on behind the image.
    #[error(
        "the image ends at offset {end}, but the file only at {length}; send the image alone, not a dump of the flash \
         or several files in one"
    )]
    Trailing {
        /// Where the image ends.
        end: u64,
        /// Size of the file.
        length: u64,
    },
    /// An image for another platform than declared.
    #[error(
        "the image is for {found}, but it is uploaded for {declared}; upload it with platform={found}, or send the \
         build for {declared}"
    )]
    WrongPlatform {
        /// What it looks like.
        found: Platform,
        /// What the upload says.
        declared: Platform,
    },
    /// An image for a chip that no platform stands for.
    #[error(
        "the image is for {chip} (chip id {id} at offset 12), and there is no platform for that chip; send a build \
         for one of esp8266, esp32, esp32-s2, esp32-s3, esp32-c3"
    )]
    Chip {
        /// The chip's name, or what is said in its place.
        chip: &'static str,
        /// The id.
        id: u16,
    },
    /// A field of a header has a value that no build writes.
    #[error(
        "the {field} at offset {at} is {found}, which is not {allowed}; the file is damaged, build it again"
    )]
    Header {
        /// Which field.
        field: &'static str,
        /// Where.
        at: u64,
        /// Its value.
        found: u8,
        /// What it may be.
        allowed: String,
    },
    /// The boot loader's header has a count of segments that no core writes.
    #[error(
        "the boot loader at offset 0 has {found} segments, but that of the ESP8266 Arduino core has 2 (1 before core \
         3.0); send the .bin file of an Arduino build"
    )]
    BootLoader {
        /// The count.
        found: u8,
    },
    /// The boot loader's segments go on into the sketch.
    #[error(
        "the segments of the boot loader do not end before offset 4096, where the sketch begins; the file is damaged, \
         build it again"
    )]
    Overrun,
    /// A segment that cannot be.
    #[error(
        "segment {number} of {part}, at offset {at}, claims {length} bytes where at most {room} can be; the file is \
         damaged, build it again"
    )]
    Segment {
        /// Whose segment.
        part: &'static str,
        /// Counted from 1.
        number: u8,
        /// Offset of its header.
        at: u64,
        /// The length that it claims.
        length: u64,
        /// The most that there is room for.
        room: u64,
    },
    /// The XOR checksum of a part.
    #[error(
        "the checksum of {part} at offset {at} is {stored:#04X}, but its segments give {computed:#04X}; the file is \
         damaged, build it or send it again"
    )]
    Checksum {
        /// Whose.
        part: &'static str,
        /// Where.
        at: u64,
        /// In the file.
        stored: u8,
        /// Of the file.
        computed: u8,
    },
    /// The length word of an ESP8266 image.
    #[error(
        "the length word at offset {at} says {stored} bytes, but the file has {length}; it was cut off, added to or \
         damaged, build it or send it again"
    )]
    Length {
        /// Where.
        at: u64,
        /// In the file.
        stored: u64,
        /// Of the file.
        length: u64,
    },
    /// The CRC word of an ESP8266 image, or the one that ends a gzip.
    #[error(
        "the CRC at offset {at} is {stored:#010x}, but the bytes give {computed:#010x}; the file is damaged, build it \
         or send it again"
    )]
    Crc {
        /// Where.
        at: u64,
        /// In the file.
        stored: u32,
        /// Of the file.
        computed: u32,
    },
    /// The SHA-256 behind an ESP32 image.
    #[error(
        "the SHA-256 at offset {at} is {stored}, but the bytes before it give {computed}; the file is damaged, or was \
         changed after the build: build it or send it again"
    )]
    Sha256 {
        /// Where.
        at: u64,
        /// In the file.
        stored: String,
        /// Of the file.
        computed: String,
    },
    /// An ESP32 image that maps nothing from flash.
    #[error(
        "no segment of the image is mapped from flash, so it is a boot loader and not an application; send the \
         application's .bin file"
    )]
    NoApplication,
    /// A gzip for printers that cannot unpack one.
    #[error("the file is a gzip, and {platform} printers cannot unpack one; send the image unpacked")]
    GzipUnsupported {
        /// Whose.
        platform: Platform,
    },
    /// A gzip that cannot be unpacked.
    #[error("the gzip cannot be unpacked at about offset {at}: {why}; compress the image again")]
    Gzip {
        /// Where.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A gzip that unpacks to more than any flash holds.
    #[error(
        "the gzip unpacks to more than {limit} bytes, more than any printer's flash; compress the image alone"
    )]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// A fault of the image inside of a gzip. Offsets are those of the unpacked bytes.
    #[error("inside of the gzip, {0}")]
    Inside(Box<Refusal>),
}
