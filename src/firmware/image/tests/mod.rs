//! Good and bad images with their exact verdicts ([`verdicts`]), and what holds for all bytes ([`properties`]).

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
