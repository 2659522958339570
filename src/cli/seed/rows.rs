//! The world as rows of `copy … from stdin`, in its text format: tabs between the columns, `\N` for null.

use std::fmt::{Display, Write as _};

use chrono::TimeDelta;

use super::world::{Course, Fate, Printer, World, uuid};
use crate::clock::Time;
use crate::ids::FirmwareId;
use crate::simulate::Noise;
use crate::storage::ObjectKey;
use crate::words::Channel;

/// One line. Nothing that stands in it needs escaping.
fn line(out: &mut String, cells: &[&dyn Display]) {
    for (index, cell) in cells.iter().enumerate() {
        // A string takes everything.
        let _ = write!(out, "{}{cell}", if index == 0 { "" } else { "\t" });
    }
    out.push('\n');
}

/// A value or null.
fn or_null<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| r"\N".into(), |value| value.to_string())
}

pub const RELEASES: &str = "firmware_versions (id, version, version_key, channel, platform, object_key, file_size, md5_checksum, \
    sha256_checksum, released_at)";

pub fn releases(world: &World, out: &mut String) {
    for release in &world.releases {
        let version = &world.versions[release.version];
        let channel = release.channel.parse().unwrap_or(Channel::Stable);
        let key = ObjectKey::firmware(FirmwareId(release.id), version, channel);
        let digest = release.id.as_u128();
        let (md5, sha256) = (format!("{digest:032x}"), format!("{digest:064x}"));
        let released_at = world.waves.get(release.version).map_or(world.now, |wave| wave.started_at);
        line(
            out,
            &[
                &release.id,
                version,
                &version.key(),
                &release.channel,
                &release.platform,
                &key,
                &480_000,
                &md5,
                &sha256,
                &(released_at - TimeDelta::days(1)),
            ],
        );
    }
}

pub const ROLLOUTS: &str = "update_rollouts (id, firmware_version_id, firmware_version, target_all, rollout_type, rollout_percentage, \
    max_attempts, status, created_at, updated_at, started_at, stage_started_at, ended_at)";

pub fn rollouts(world: &World, out: &mut String) {
    for (index, wave) in world.waves.iter().enumerate() {
        let release = world.releases.iter().find(|release| release.version == index + 1);
        let (kind, percentage, status) = match wave.course {
            Course::Completed => ("immediate", 100, "completed"),
            Course::Cancelled => ("gradual", 40, "cancelled"),
            Course::HalfDone => ("gradual", 50, "active"),
        };
        let at = wave.started_at;
        let ended = (wave.course == Course::Cancelled).then(|| at + TimeDelta::days(11));
        line(
            out,
            &[
                &wave.id,
                &or_null(release.map(|release| release.id)),
                &world.versions[index + 1],
                &"t",
                &kind,
                &percentage,
                &super::world::MAX_ATTEMPTS,
                &status,
                &at,
                &at,
                &at,
                &at,
                &or_null(ended),
            ],
        );
    }
}

pub const PRINTERS: &str = "printers (id, printer_id, user_id, printer_name, bucket, platform, firmware_version, version_key, auto_update, \
    update_channel, created_at, updated_at, installed_release, \
    installed_rollout, previous_version)";

pub fn printer(world: &World, index: u64, out: &mut String) {
    let printer = world.printer(index);
    let version = &world.versions[printer.runs()];
    let by = printer.installed_by();
    let release = by.and_then(|wave| world.release(wave + 1, &printer));
    line(
        out,
        &[
            &printer.id,
            &printer.printer_id,
            &printer.user,
            &format_args!("printer-{index}"),
            &printer.bucket,
            &printer.platform,
            version,
            &version.key(),
            &printer.auto_update,
            &printer.channel,
            &printer.created_at,
            &printer.last_connected,
            &or_null(release.map(|release| release.id)),
            &or_null(by.map(|wave| world.waves[wave].id)),
            &or_null(by.map(|wave| &world.versions[printer.ran[wave]])),
        ],
    );
}

pub const UPDATES: &str = "update_history (id, rollout_id, printer, firmware_version_id, firmware_version, from_version, attempt, tries, \
    status, open, last, reason, error_message, started_at, completed_at, confirmed_at, last_activity_at, last_percent)";

/// How one attempt stands.
struct Attempt {
    status: &'static str,
    reason: Option<&'static str>,
    error: Option<&'static str>,
    percent: i32,
}

impl Attempt {
    const fn of(status: &'static str, percent: i32) -> Self {
        Self { status, reason: None, error: None, percent }
    }

    fn failed(noise: &mut Noise) -> Self {
        let (reason, error) = match noise.next() % 4 {
            0 | 1 => ("reported", "MD5 check failed"),
            2 => ("rolled_back", "The printer came back on the version before."),
            _ => ("timeout", "Nothing was heard of the printer for 30 minutes."),
        };
        Self { reason: Some(reason), error: Some(error), ..Self::of("failed", 60) }
    }
}

/// The attempts of a wave with the printer whose turn it was. Returns how many there are.
pub fn attempts(world: &World, wave: usize, turn: u64, noise: &mut Noise, out: &mut String) -> u64 {
    let (printer, at) = world.in_turn(wave, turn);
    let Some(fate) = printer.fates[wave] else { return 0 };
    for attempt in 1..=fate.attempts() {
        let how = match fate {
            Fate::Confirmed(failures) if attempt > failures => Attempt::of("completed", 100),
            Fate::Confirmed(_) | Fate::UsedUp | Fate::Failed => Attempt::failed(noise),
            Fate::Declined => Attempt { reason: Some("reported"), ..Attempt::of("declined", 0) },
            Fate::Withdrawn => Attempt { reason: Some("withdrawn"), ..Attempt::of("cancelled", 0) },
            Fate::Open => Attempt::of("downloading", 25),
        };
        // Tries follow each other within minutes, but none lies ahead.
        let since =
            if fate == Fate::Open { world.now } else { at } + TimeDelta::minutes(i64::from(attempt) * 10);
        let started_at = since.min(world.now) - TimeDelta::minutes(10);
        write(world, wave, &printer, (fate, attempt, &how), started_at, noise, out);
    }
    u64::from(fate.attempts())
}

fn write(
    world: &World,
    wave: usize,
    printer: &Printer,
    (fate, attempt, how): (Fate, u32, &Attempt),
    started_at: Time,
    noise: &mut Noise,
    out: &mut String,
) {
    let took = TimeDelta::milliseconds((40_000.0 - 60_000.0 * (1.0 - noise.share()).ln()) as i64);
    let ended = (started_at + took).min(world.now);
    let completed_at = (fate != Fate::Open).then_some(ended);
    line(
        out,
        &[
            &uuid(started_at, noise),
            &world.waves[wave].id,
            &printer.id,
            &or_null(world.release(wave + 1, printer).map(|release| release.id)),
            &world.versions[wave + 1],
            &world.versions[printer.ran[wave]],
            &attempt,
            &attempt,
            &how.status,
            &(fate == Fate::Open),
            &(attempt == fate.attempts() && fate != Fate::Withdrawn),
            &or_null(how.reason),
            &or_null(how.error),
            &started_at,
            &or_null(completed_at),
            &or_null(completed_at.filter(|_| how.status == "completed")),
            &ended,
            &how.percent,
        ],
    );
}
