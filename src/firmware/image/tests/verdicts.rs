use super::images::{
    Core, Esp32 as Made, crc_gzip, crc_mpeg, esp8266, gzip, gzip_by_hand, secure_boot, sign,
};
use super::*;
use crate::words::Platform::{Esp32C3, Esp32S2, Esp32S3, Esp8266};

const ESP32: Platform = Platform::Esp32;

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
