//! Good images, strangers and damaged images with their exact verdicts, and what holds for all bytes.

mod damage;
mod images;
mod properties;
mod verdicts;

use super::*;

fn version() -> Version {
    "1.5.0".parse().unwrap()
}

/// The verdict on a file that comes in one slice.
fn inspect(platform: Platform, bytes: &[u8]) -> Result<Findings, Refusal> {
    let mut inspector = Inspector::new(platform, &version());
    inspector.update(bytes)?;
    inspector.finish()
}

/// The verdict on a file that comes in slices of the given sizes, over and over.
fn inspect_in(platform: Platform, bytes: &[u8], sizes: &[usize]) -> Result<Findings, Refusal> {
    let mut inspector = Inspector::new(platform, &version());
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let (slice, behind) = rest.split_at(sizes.next().map_or(1, |size| *size).clamp(1, rest.len()));
        inspector.update(slice)?;
        rest = behind;
    }
    inspector.finish()
}

/// The sentence of a refusal.
fn sentence(platform: Platform, bytes: &[u8]) -> String {
    match inspect(platform, bytes) {
        Ok(findings) => format!("passed: {findings:?}"),
        Err(refusal) => refusal.to_string(),
    }
}

/// What is found in the image of a core since 3.0.
fn good_8266() -> Findings {
    let image = images::esp8266(images::Core::Since30);
    Findings {
        format: Format::Plain,
        platform: Platform::Esp8266,
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

/// The word at `at` as findings write it.
fn crc_of(image: &[u8], at: usize) -> String {
    format!("0x{:02x}{:02x}{:02x}{:02x}", image[at + 3], image[at + 2], image[at + 1], image[at])
}
