use super::images::{
    Core, Esp32 as Made, crc_gzip, crc_mpeg, esp8266, gzip, gzip_by_hand, put, secure_boot, sign,
};
use super::*;
use crate::words::Platform::{Esp32C3, Esp32S2, Esp32S3, Esp8266};

const ESP32: Platform = Platform::Esp32;

fn good_8266() -> Findings {
    let image = esp8266(Core::Since30);
    Findings {
        format: Format::Plain,
        platform: Esp8266,
        flash_size: 1 << 20,
        flash_mode: FlashMode::Dout,
        flash_frequency: 80,
        segments: 3,
        entry_point: "0x40100080".into(),
        embedded_version: None,
        project_name: None,
        crc: Some(crc_of(&image, 4116)),
        sha256_appended: false,
        signed: false,
        unpacked_size: 5440,
        warnings: vec![],
    }
}

fn good_esp32(platform: Platform, entry_point: &str) -> Findings {
    Findings {
        platform,
        flash_size: 4 << 20,
        flash_mode: FlashMode::Dio,
        entry_point: entry_point.into(),
        embedded_version: Some("1.5.0".into()),
        project_name: Some("paperminder".into()),
        crc: None,
        sha256_appended: true,
        unpacked_size: 1088,
        ..good_8266()
    }
}

fn crc_of(image: &[u8], at: usize) -> String {
    format!("0x{:02x}{:02x}{:02x}{:02x}", image[at + 3], image[at + 2], image[at + 1], image[at])
}

#[test]
fn the_tests_own_checksums_know_the_published_check_values() {
    assert_eq!(crc_mpeg(b"123456789"), 0x0376_E6E7);
    assert_eq!(crc_gzip(b"123456789"), 0xCBF4_3926);
}

#[test]
fn good_images_pass_with_what_they_say() {
    let new = esp8266(Core::Since30);
    let middle = esp8266(Core::Since26);
    let middle_crc = Some(crc_of(&middle, 4092));
    let no_crc = "the image has no CRC, because it was built with an ESP8266 core before 2.6: a checksum of one byte \
                  is all that could be checked; build it with a core since 3.0";
    let old = Findings { crc: None, warnings: vec![no_crc.into()], ..good_8266() };
    let esp32 = good_esp32(ESP32, "0x40081234");
    let packed = Findings { format: Format::Gzip, ..good_8266() };
    let signed = |findings: &Findings| Findings { signed: true, ..findings.clone() };

    let table = [
        (Esp8266, new.clone(), good_8266()),
        (Esp8266, middle.clone(), Findings { crc: middle_crc.clone(), ..good_8266() }),
        (Esp8266, esp8266(Core::Before26), old.clone()),
        (Esp8266, sign(new.clone()), signed(&good_8266())),
        (Esp8266, sign(middle), Findings { crc: middle_crc, signed: true, ..good_8266() }),
        (Esp8266, sign(esp8266(Core::Before26)), signed(&old)),
        (Esp8266, gzip(&new), packed.clone()),
        (Esp8266, gzip_by_hand(&new), packed.clone()),
        (Esp8266, sign(gzip(&new)), signed(&packed)),
        (
            Esp8266,
            gzip(&sign(new)),
            Findings {
                warnings: vec![
                    "the signature is inside of the gzip, where printers do not look for it: sign after compressing"
                        .into(),
                ],
                ..packed
            },
        ),
        (ESP32, Made::ESP32.build(), esp32.clone()),
        (Esp32S2, Made::S2.build(), good_esp32(Esp32S2, "0x40024000")),
        (Esp32S3, Made::S3.build(), good_esp32(Esp32S3, "0x40377000")),
        (Esp32C3, Made::C3.build(), good_esp32(Esp32C3, "0x40380000")),
        (ESP32, secure_boot(Made::ESP32.build()), signed(&esp32)),
    ];
    for (index, (platform, image, expected)) in table.into_iter().enumerate() {
        assert_eq!(inspect(platform, &image), Ok(expected.clone()), "image {index}");
        assert_eq!(inspect_in(platform, &image, &[1]), Ok(expected), "image {index}, byte by byte");
    }
}

#[test]
fn esp32_images_that_say_less_or_something_else_pass_with_a_warning() {
    let warnings = |image: &Made| inspect(ESP32, &image.build()).unwrap().warnings;
    let base = Made::ESP32;
    let other = "the image says that it is version v1.4.0-3-gabc, but it is uploaded as 1.5.0";
    assert_eq!(warnings(&Made { version: "v1.5.0", ..base }), Vec::<String>::new());
    assert_eq!(warnings(&Made { version: "v1.4.0-3-gabc", ..base }), [other]);
    let library = Made { version: "9036908-dirty", project: "esp32-arduino-lib-builder", ..base };
    assert_eq!(warnings(&library), Vec::<String>::new());
    assert_eq!(inspect(ESP32, &library.build()).unwrap().embedded_version.as_deref(), Some("9036908-dirty"));
    assert_eq!(
        warnings(&Made { described: false, hashed: false, ..base }),
        [
            "the image has no SHA-256: a checksum of one byte is all that could be checked; build it without \
             --dont-append-digest",
            "the image has no application description at offset 32: make sure that it is an application",
        ]
    );
}

#[test]
fn files_of_another_kind_are_told_by_name() {
    let table: [(&[u8], &str); 12] = [
        (b"", "the file is empty; send the compiled image"),
        (
            b"\x7FELF\x01\x01\x01",
            "the file is an ELF file, it begins with 7F 45 4C 46; send the .bin file that the build makes from it \
             (elf2bin, or esptool elf2image)",
        ),
        (
            b"PK\x03\x04\x14\0\0\0\x08\0",
            "the file is a ZIP archive, it begins with 50 4B 03 04; unpack it and send the .bin file inside",
        ),
        (
            b"\r\n<!DOCTYPE html><html><body>Sign in</body></html>",
            "the file is a web page (HTML or XML), it begins with 0D 0A 3C 21; the download that fetched it got an \
             error or a login page: look into it, and fetch the .bin file again",
        ),
        (
            b"{\"message\":\"Not Found\"}",
            "the file is JSON text, it begins with 7B 22 6D 65; the download that fetched it got an answer in its \
             place: look into it, and fetch again",
        ),
        (
            b":020000040000FA\r\n:10",
            "the file is an Intel HEX file, it begins with 3A 30 32 30; send the .bin file of the same build",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "the file is a pointer of Git LFS, it begins with 76 65 72 73; run `git lfs pull` and send the file that \
             it points to",
        ),
        (
            &[0xEA, 4, 0, 0],
            "the file is an image of Espressif's own ESP8266 SDK (version 2), it begins with EA; send the .bin file \
             of a build with the Arduino core",
        ),
        (
            &[0xFF; 5000],
            "the file is a dump of flash, or an image merged with its boot loader, it begins with FF FF FF FF; send \
             the application's .bin file alone",
        ),
        (
            b"\xFD7zXZ\0\0",
            "the file is compressed with xz, it begins with FD 37 7A 58; unpack it and send the .bin file, as it is \
             or as a gzip",
        ),
        (
            &[0x7F],
            "the byte at offset 0 is 0x7F, but an image begins with 0xE9; send the .bin file that the build makes \
             for updates over the air",
        ),
        (
            &[0; 64],
            "the byte at offset 0 is 0x00, but an image begins with 0xE9; send the .bin file that the build makes \
             for updates over the air",
        ),
    ];
    for (bytes, expected) in table {
        for platform in Platform::ALL {
            assert_eq!(sentence(*platform, bytes), expected);
        }
        let inside = sentence(Esp8266, &gzip(bytes));
        assert_eq!(inside, format!("inside of the gzip, {expected}"));
    }
}

#[test]
fn an_elf_file_is_refused_long_before_its_end() {
    let mut inspector = Inspector::new(Esp8266, &version());
    let refused = inspector.update(b"\x7FELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x5E\0\x01\0\0\0");
    assert!(matches!(refused, Err(Refusal::Foreign { what: "an ELF file", .. })), "{refused:?}");
    assert_eq!(inspector.update(b"more"), refused);
    assert_eq!(inspector.finish().map(drop), refused);
}

#[test]
fn an_image_for_another_platform_is_told_with_the_one_that_it_is_for() {
    let new = esp8266(Core::Since30);
    let s3 = Made::S3.build();
    assert_eq!(
        sentence(Esp8266, &s3),
        "the image is for esp32-s3, but it is uploaded for esp8266; upload it with platform=esp32-s3, or send the \
         build for esp8266"
    );
    let wrong = |found, declared| Err(Refusal::WrongPlatform { found, declared });
    assert_eq!(inspect(ESP32, &new), wrong(Esp8266, ESP32));
    assert_eq!(inspect(Esp32C3, &s3), wrong(Esp32S3, Esp32C3));
    assert_eq!(inspect(Esp8266, &gzip(&s3)), wrong(Esp32S3, Esp8266));
    let unsupported = "the file is a gzip, and esp32-s3 printers cannot unpack one; send the image unpacked";
    assert_eq!(sentence(Esp32S3, &gzip(&s3)), unsupported);
    assert_eq!(
        sentence(Esp8266, &Made { chip: 13, ..Made::C3 }.build()),
        "the image is for the ESP32-C6 (chip id 13 at offset 12), and there is no platform for that chip; send a \
         build for one of esp8266, esp32, esp32-s2, esp32-s3, esp32-c3"
    );
}

#[test]
fn the_declaration_may_come_after_the_bytes() {
    let declared_late = |image: &[u8], platform| {
        let mut inspector = Inspector::undeclared();
        inspector.update(image)?;
        inspector.declare(platform, &version())?;
        inspector.finish()
    };
    let (new, esp32) = (esp8266(Core::Since30), Made { version: "1.4.0", ..Made::ESP32 });
    assert_eq!(declared_late(&new, Esp8266), Ok(good_8266()));
    let wrong = Refusal::WrongPlatform { found: Esp8266, declared: ESP32 };
    assert_eq!(declared_late(&new, ESP32), Err(wrong.clone()));
    assert_eq!(declared_late(&gzip(&new), ESP32), Err(wrong));
    assert_eq!(
        declared_late(&new[..1], ESP32).map_err(|refusal| refusal.to_string()),
        inspect(ESP32, &new[..1]).map_err(|refusal| refusal.to_string())
    );
    assert_eq!(
        declared_late(&esp32.build(), ESP32).unwrap().warnings,
        ["the image says that it is version 1.4.0, but it is uploaded as 1.5.0"]
    );
    // A gzip is no image of an ESP32, whatever is declared.
    let mut inspector = Inspector::undeclared();
    assert_eq!(inspector.update(&gzip(&esp32.build())), Ok(()));
    assert_eq!(inspector.finish(), Err(Refusal::GzipUnsupported { platform: ESP32 }));
}

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
        (good[..20].to_vec(), "the file ends after 20 bytes, in the header of the image; it was cut off or damaged on its way, send it again".to_owned()),
        (good[..300].to_vec(), "the file ends after 300 bytes, in segment 1 of 2 of the boot loader, which goes on to offset 716; it was cut off or damaged on its way, send it again".into()),
        (good[..4000].to_vec(), "the file ends after 4000 bytes, in the first flash sector, before the sketch's header at offset 4096; it was cut off or damaged on its way, send it again".into()),
        (good[..4100].to_vec(), "the file ends after 4100 bytes, in the sketch's header; it was cut off or damaged on its way, send it again".into()),
        (good[..5000].to_vec(), "the file ends after 5000 bytes, in segment 1 of 3 of the sketch, which goes on to offset 5012; it was cut off or damaged on its way, send it again".into()),
        (good[..good.len() - 1].to_vec(), "the file ends after 5439 bytes, in the last line of the sketch, which holds its checksum; it was cut off or damaged on its way, send it again".into()),
        ([&good[..], b"\n"].concat(), "the image ends at offset 5440, but the file goes on for 1 bytes; send the image alone, not a dump of the flash or several files in one".into()),
        ([&good[..], &[0; 260]].concat(), "the image ends at offset 5440, but the file goes on for 260 bytes; send the image alone, not a dump of the flash or several files in one".into()),
        ([&old[..], &[0; 260]].concat(), "the image ends at offset 5440, but the file goes on for 260 bytes; send the image alone, not a dump of the flash or several files in one".into()),
        (long, "the length word at offset 4112 says 9999 bytes, but the file has 5440; it was cut off, added to or damaged, build it or send it again".into()),
        (flipped, format!("the CRC at offset 4116 is {stored}, but the bytes give {computed:#010x}; the file is damaged, build it or send it again")),
        (with(&good, 1, 3), "the boot loader at offset 0 has 3 segments, but that of the ESP8266 Arduino core has 2 (1 before core 3.0); send the .bin file of an Arduino build".into()),
        (with(&good, 2, 4), "the flash mode at offset 2 is 4, which is not 0 to 3; the file is damaged, build it again".into()),
        (with(&good, 3, 0x23), "the flash frequency (low half) at offset 3 is 3, which is not 0, 1, 2 or 15; the file is damaged, build it again".into()),
        (with(&good, 3, 0x7F), "the flash size (high half) at offset 3 is 7, which is not a size that flash chips have; the file is damaged, build it again".into()),
        (with(&good, 100, !good[100]), format!("the checksum of the boot loader at offset 799 is {:#04X}, but its segments give {:#04X}; the file is damaged, build it or send it again", good[799], !good[799])),
        (with(&good, 4096, 0), "the byte at offset 4096 is 0x00, but the sketch begins with 0xE9; send the .bin file that the build makes for updates over the air".into()),
        (with(&good, 4097, 17), "the sketch's count of segments at offset 4097 is 17, which is not 1 to 16; the file is damaged, build it again".into()),
        (longer_segment, "segment 1 of the sketch, at offset 4104, claims 33554432 bytes where at most 16777216 can be; the file is damaged, build it again".into()),
        (with(&good, 13, 0x20), "segment 1 of the boot loader, at offset 8, claims 8380 bytes where at most 4079 can be; the file is damaged, build it again".into()),
        (with(&old, 5000, !old[5000]), format!("the checksum of the sketch at offset 5439 is {:#04X}, but its segments give {:#04X}; the file is damaged, build it or send it again", old[5439], !old[5439])),
    ];
    for (image, expected) in table {
        assert_eq!(sentence(Esp8266, &image), expected);
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
        (good[..30].to_vec(), "the file ends after 30 bytes, in the header of segment 1 of 3 of the image; it was cut off or damaged on its way, send it again".to_owned()),
        (good[..1080].to_vec(), "the file ends after 1080 bytes, in the SHA-256 behind the image; it was cut off or damaged on its way, send it again".into()),
        ([&good[..], &[0xFF; 100]].concat(), "the image ends at offset 1088, but the file goes on for 100 bytes; send the image alone, not a dump of the flash or several files in one".into()),
        (with(2, 0), format!("the SHA-256 at offset 1056 is {hash}, but the bytes before it give {changed}; the file is damaged, or was changed after the build: build it or send it again")),
        (with(300, !good[300]), format!("the checksum of the image at offset 1055 is {:#04X}, but its segments give {:#04X}; the file is damaged, build it or send it again", good[1055], !good[1055])),
        (with(1, 0), "the count of segments at offset 1 is 0, which is not 1 to 16; the file is damaged, build it again".into()),
        (with(23, 7), "the mark of an appended SHA-256 at offset 23 is 7, which is not 0 or 1; the file is damaged, build it again".into()),
        (ram.build(), "no segment of the image is mapped from flash, so it is a boot loader and not an application; send the application's .bin file".into()),
    ];
    for (image, expected) in table {
        assert_eq!(sentence(ESP32, &image), expected);
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
    let method = "the gzip cannot be unpacked at about offset 2: its header names a method that does not exist; compress the image again";
    let table = [
        (good[..5].to_vec(), "the file ends after 5 bytes, in the header of the gzip; it was cut off or damaged on its way, send it again".to_owned()),
        (good[..20].to_vec(), "the file ends after 20 bytes, in the header of the gzip; it was cut off or damaged on its way, send it again".into()),
        (good[..2000].to_vec(), "the file ends after 2000 bytes, in the data of the gzip; it was cut off or damaged on its way, send it again".into()),
        (good[..size - 3].to_vec(), format!("the file ends after {} bytes, in the last 8 bytes of the gzip, its CRC and size; it was cut off or damaged on its way, send it again", size - 3)),
        ([&good[..], &good[..]].concat(), format!("the image ends at offset {size}, but the file goes on for {size} bytes; send the image alone, not a dump of the flash or several files in one")),
        (with(2, 7), method.into()),
        (with(3, 0xFF), method.into()),
        (with(size - 8, good[size - 8] ^ 1), format!("the CRC at offset {} is {stored:#010x}, but the bytes give {crc:#010x}; the file is damaged, build it or send it again", size - 8)),
        (with(size - 4, good[size - 4] ^ 1), format!("the gzip cannot be unpacked at about offset {}: it unpacks to another size than it says; compress the image again", size - 4)),
        // The first block's length, which no longer agrees with its complement.
        (with(39, !good[39]), "the gzip cannot be unpacked at about offset 38: its data are damaged; compress the image again".into()),
        (gzip(&good), "inside of the gzip, the file is another gzip, it begins with 1F 8B; compress the image once".into()),
        (gzip(&image[..5000]), "inside of the gzip, the file ends after 5000 bytes, in segment 1 of 3 of the sketch, which goes on to offset 5012; it was cut off or damaged on its way, send it again".into()),
    ];
    for (file, expected) in table {
        assert_eq!(sentence(Esp8266, &file), expected);
    }
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    // Two segments of almost 16 MiB each are a structure that holds, until the bound.
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
        Err("the gzip unpacks to more than 16777216 bytes, more than any printer's flash; compress the image alone"
            .to_owned())
    );
}

#[test]
fn findings_survive_json_and_their_words_stay() {
    let findings = inspect(ESP32, &Made::ESP32.build()).unwrap();
    let json = serde_json::to_value(&findings).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "format": "plain", "platform": "esp32", "flash_size": 4_194_304, "flash_mode": "dio",
            "flash_frequency": 80, "segments": 3, "entry_point": "0x40081234", "embedded_version": "1.5.0",
            "project_name": "paperminder", "crc": null, "sha256_appended": true, "signed": false,
            "unpacked_size": 1088, "warnings": []
        })
    );
    assert_eq!(serde_json::from_value::<Findings>(json).unwrap(), findings);
}
