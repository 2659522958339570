use super::images::{Core, Esp32 as Made, crc_gzip, crc_mpeg, esp8266, gzip, gzip_by_hand, put};
use super::*;
use crate::words::Platform::{Esp32, Esp8266};

// How the sentences end: with the remedy.
const CUT: &str = "; it was cut off or damaged on its way, send it again";
const SURPLUS: &str = "; send the image alone, not a dump of the flash or several files in one";
const RESEND: &str = "; the file is damaged, build it or send it again";
const REBUILD: &str = "; the file is damaged, build it again";
const REPACK: &str = "; compress the image again";
const LENGTH: &str = "; it was cut off, added to or damaged, build it or send it again";
const ARDUINO: &str = "; send the .bin file of an Arduino build";

#[test]
fn damaged_esp8266_images_are_refused_with_the_place_and_the_remedy() {
    let good = esp8266(Core::Since30);
    let old = esp8266(Core::Before26);
    let with = |base: &[u8], at: usize, byte: u8| {
        let mut image = base.to_vec();
        image[at] = byte;
        image
    };
    let mut flipped = good.clone();
    flipped[5000] ^= 1;
    put(&mut flipped, 4112, 0);
    put(&mut flipped, 4116, 0);
    let computed = crc_mpeg(&flipped);
    let stored = good_8266().crc.unwrap();
    let mut flipped = good.clone();
    flipped[5000] ^= 1;
    let mut long = good.clone();
    put(&mut long, 4112, 9999);
    let mut longer_segment = good.clone();
    put(&mut longer_segment, 4108, 0x0200_0000);
    let table = [
        (good[..20].to_vec(), "the file ends after 20 bytes, in the header of the image".to_owned(), CUT),
        (
            good[..300].to_vec(),
            "the file ends after 300 bytes, in segment 1 of 2 of the boot loader, which goes on \
             to offset 716"
                .into(),
            CUT,
        ),
        (
            good[..4000].to_vec(),
            "the file ends after 4000 bytes, in the first flash sector, before the sketch's \
             header at offset 4096"
                .into(),
            CUT,
        ),
        (good[..4100].to_vec(), "the file ends after 4100 bytes, in the sketch's header".into(), CUT),
        (
            good[..5000].to_vec(),
            "the file ends after 5000 bytes, in segment 1 of 3 of the sketch, which goes on to \
             offset 5012"
                .into(),
            CUT,
        ),
        (
            good[..good.len() - 1].to_vec(),
            "the file ends after 5439 bytes, in the last line of the sketch, which holds its \
             checksum"
                .into(),
            CUT,
        ),
        (
            [&good[..], b"\n"].concat(),
            "the image ends at offset 5440, but the file only at 5441".into(),
            SURPLUS,
        ),
        (
            [&good[..], &[0; 260]].concat(),
            "the image ends at offset 5440, but the file only at 5700".into(),
            SURPLUS,
        ),
        (
            [&old[..], &[0; 260]].concat(),
            "the image ends at offset 5440, but the file only at 5700".into(),
            SURPLUS,
        ),
        (long, "the length word at offset 4112 says 9999 bytes, but the file has 5440".into(), LENGTH),
        (flipped, format!("the CRC at offset 4116 is {stored}, but the bytes give {computed:#010x}"), RESEND),
        (
            with(&good, 1, 3),
            "the boot loader at offset 0 has 3 segments, but that of the ESP8266 Arduino core \
             has 2 (1 before core 3.0)"
                .into(),
            ARDUINO,
        ),
        (with(&good, 2, 4), "the flash mode at offset 2 is 4, which is not 0 to 3".into(), REBUILD),
        (
            with(&good, 3, 0x23),
            "the flash frequency (low half) at offset 3 is 3, which is not 0, 1, 2 or 15".into(),
            REBUILD,
        ),
        (
            with(&good, 3, 0x7F),
            "the flash size (high half) at offset 3 is 7, which is not a size that flash chips \
             have"
                .into(),
            REBUILD,
        ),
        (
            with(&good, 100, !good[100]),
            format!(
                "the checksum of the boot loader at offset 799 is {:#04X}, but its segments give \
             {:#04X}",
                good[799], !good[799]
            ),
            RESEND,
        ),
        (
            with(&good, 4096, 0),
            "the byte at offset 4096 is 0x00, but the sketch begins with 0xE9; send the .bin \
             file that the build makes for updates over the air"
                .into(),
            "",
        ),
        (
            with(&good, 4097, 17),
            "the sketch's count of segments at offset 4097 is 17, which is not 1 to 16".into(),
            REBUILD,
        ),
        (
            longer_segment,
            "segment 1 of the sketch, at offset 4104, claims 33554432 bytes where at most \
             16777216 can be"
                .into(),
            REBUILD,
        ),
        (
            with(&good, 13, 0x20),
            "segment 1 of the boot loader, at offset 8, claims 8380 bytes where at most 4079 can \
             be"
            .into(),
            REBUILD,
        ),
        (
            with(&old, 5000, !old[5000]),
            format!(
                "the checksum of the sketch at offset 5439 is {:#04X}, but its segments give {:#04X}",
                old[5439], !old[5439]
            ),
            RESEND,
        ),
    ];
    for (image, found, remedy) in table {
        assert_eq!(sentence(Esp8266, &image), format!("{found}{remedy}"));
    }
}

#[test]
fn a_boot_loader_that_runs_into_the_sketch_is_refused() {
    // Its first segment ends so late that the second one's header would stand in the sketch.
    let mut image = esp8266(Core::Since30);
    put(&mut image, 12, 4078);
    assert_eq!(inspect(Esp8266, &image), Err(Refusal::Overrun));
}

#[test]
fn damaged_esp32_images_are_refused_with_the_place_and_the_remedy() {
    let good = Made::ESP32.build();
    let with = |at: usize, byte: u8| {
        let mut image = good.clone();
        image[at] = byte;
        image
    };
    let hash = hex::encode(&good[1056..]);
    assert_eq!(hash, "c5fcc1cf5c23a0d6869b7d4dd9356ea3285ea78c9aec3378b2b3614e82fbbd58");
    let changed = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&with(2, 0)[..1056]));
    let ram = Made { data: 0x3FFF_0018, code: 0x4008_0400, ..Made::ESP32 };
    let table = [
        (
            good[..30].to_vec(),
            "the file ends after 30 bytes, in the header of segment 1 of 3 of the image".to_owned(),
            CUT,
        ),
        (
            good[..1080].to_vec(),
            "the file ends after 1080 bytes, in the SHA-256 behind the image".into(),
            CUT,
        ),
        (
            [&good[..], &[0xFF; 100]].concat(),
            "the image ends at offset 1088, but the file only at 1188".into(),
            SURPLUS,
        ),
        (
            with(2, 0),
            format!(
                "the SHA-256 at offset 1056 is {hash}, but the bytes before it give {changed}; the \
             file is damaged, or was changed after the build: build it or send it again"
            ),
            "",
        ),
        (
            with(300, !good[300]),
            format!(
                "the checksum of the image at offset 1055 is {:#04X}, but its segments give {:#04X}",
                good[1055], !good[1055]
            ),
            RESEND,
        ),
        (with(1, 0), "the count of segments at offset 1 is 0, which is not 1 to 16".into(), REBUILD),
        (
            with(23, 7),
            "the mark of an appended SHA-256 at offset 23 is 7, which is not 0 or 1".into(),
            REBUILD,
        ),
        (
            ram.build(),
            "no segment of the image is mapped from flash, so it is a boot loader and not an \
             application; send the application's .bin file"
                .into(),
            "",
        ),
    ];
    for (image, found, remedy) in table {
        assert_eq!(sentence(Esp32, &image), format!("{found}{remedy}"));
    }
}

#[test]
fn damaged_gzips_are_refused() {
    let image = esp8266(Core::Since30);
    let good = gzip_by_hand(&image);
    let (size, crc) = (good.len(), crc_gzip(&image));
    let with = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] = byte;
        file
    };
    let stored = crc ^ 0x01;
    let method = "the gzip cannot be unpacked at about offset 2: its header names a method that does \
             not exist; compress the image again";
    let table = [
        (good[..5].to_vec(), "the file ends after 5 bytes, in the header of the gzip".to_owned(), CUT),
        (good[..20].to_vec(), "the file ends after 20 bytes, in the header of the gzip".into(), CUT),
        (good[..2000].to_vec(), "the file ends after 2000 bytes, in the data of the gzip".into(), CUT),
        (
            good[..size - 3].to_vec(),
            format!(
                "the file ends after {} bytes, in the last 8 bytes of the gzip, its CRC and size",
                size - 3
            ),
            CUT,
        ),
        (
            [&good[..], &good[..]].concat(),
            format!("the image ends at offset {size}, but the file only at {}", 2 * size),
            SURPLUS,
        ),
        (with(2, 7), method.into(), ""),
        (with(3, 0xFF), method.into(), ""),
        (
            with(size - 8, good[size - 8] ^ 1),
            format!("the CRC at offset {} is {stored:#010x}, but the bytes give {crc:#010x}", size - 8),
            RESEND,
        ),
        (
            with(size - 4, good[size - 4] ^ 1),
            format!(
                "the gzip cannot be unpacked at about offset {}: it unpacks to another size than it \
             says",
                size - 4
            ),
            REPACK,
        ),
        // The first block's length, which no longer agrees with its complement.
        (
            with(39, !good[39]),
            "the gzip cannot be unpacked at about offset 38: its data are damaged".into(),
            REPACK,
        ),
        (
            gzip(&good),
            "inside of the gzip, the file is another gzip, it begins with 1F 8B; compress the \
             image once"
                .into(),
            "",
        ),
        (
            gzip(&image[..5000]),
            "inside of the gzip, the file ends after 5000 bytes, in segment 1 of 3 of the \
             sketch, which goes on to offset 5012"
                .into(),
            CUT,
        ),
    ];
    for (file, found, remedy) in table {
        assert_eq!(sentence(Esp8266, &file), format!("{found}{remedy}"));
    }
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    // A segment of almost 16 MiB is a structure that holds, up to the bound.
    let mut image = esp8266(Core::Since30);
    put(&mut image, 4108, (16 << 20) - 16);
    image.resize(64 << 20, 0);
    let bomb = gzip(&image);
    assert!(bomb.len() < 128 << 10, "{}", bomb.len());
    let mut inspector = Inspector::new(Esp8266, &version());
    let refused = bomb.chunks(1000).position(|chunk| inspector.update(chunk).is_err()).unwrap();
    assert!(refused * 1000 < bomb.len() / 2, "refused at {refused} KB of {}", bomb.len());
    assert_eq!(
        inspector.finish().map_err(|refusal| refusal.to_string()),
        Err("the gzip unpacks to more than 16777216 bytes, more than any printer's flash; \
             compress the image alone"
            .to_owned())
    );
}
