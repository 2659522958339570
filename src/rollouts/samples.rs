//! Rollouts, releases and printers for this room's unit tests.

use std::collections::HashSet;

use chrono::TimeDelta;

use super::plan::{Approval, OnEnd, Span};
use super::{Catalog, Offering, Plan, ReleaseBrief, Rollout, RolloutType, Status, Target};
use crate::auth::Scope;
use crate::clock::Time;
use crate::ids::{FirmwareId, PrinterRef, RolloutId};
use crate::printers::{Cohort, Downloads, Facts};
use crate::storage::ObjectKey;
use crate::version::Version;
use crate::words::{Channel, Platform};

pub fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub fn now() -> Time {
    chrono::DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

/// On stable, for the ESP8266, running 1.4.0, in bucket 42.
pub fn printer() -> Facts {
    Facts {
        printer: PrinterRef::generate(),
        printer_id: "printer-abc".parse().unwrap(),
        user_id: "user-123".parse().unwrap(),
        bucket: 42,
        cohort: Cohort {
            platform: Platform::Esp8266,
            version: version("1.4.0"),
            auto_update: true,
            channel: Channel::Stable,
            installed: None,
        },
        previous: None,
        downloads: Downloads::default(),
        time_zone: None,
        shared_key: false,
    }
}

/// The same with another cohort.
pub fn printer_with(change: impl FnOnce(&mut Cohort)) -> Facts {
    let mut printer = printer();
    change(&mut printer.cohort);
    printer
}

pub fn release(text: &str, channel: Channel) -> ReleaseBrief {
    ReleaseBrief {
        id: FirmwareId::generate(),
        version: version(text),
        channel,
        platform: Platform::Esp8266,
        mandatory: false,
        min_upgrade_version: None,
        deprecated: false,
        size: 0,
        key: ObjectKey::stored("k".into()),
        md5: String::new(),
    }
}

/// Active, immediate, for everyone.
pub fn rollout(text: &str) -> Rollout {
    Rollout {
        id: RolloutId::generate(),
        number: 1,
        firmware: None,
        version: version(text),
        channel: None,
        target: Target { all: true, ..Target::default() },
        rollout_type: RolloutType::Immediate,
        percentage: 100,
        scheduled_for: None,
        max_attempts: 3,
        status: Status::Active,
        epoch: 1,
        revision: 1,
        created_at: now(),
        updated_at: now(),
        started_at: Some(now()),
        allow_downgrade: false,
        template: None,
        steps: None,
        step: 0,
        stage: 0,
        stage_started_at: Some(now()),
        judged_from: 0,
        abort_on: None,
        confirm_within: Span::of_secs(600),
        stuck_after: None,
        max_in_flight: None,
        rate: None,
        ends_at: None,
        on_end: OnEnd::Stop,
        reason: None,
        detail: None,
        approval: Approval::NotRequired,
        approval_comment: None,
        approval_at: None,
        rolls_back: None,
        windows: None,
        reach: Scope::default(),
        own_keys_only: false,
        created_by: None,
        creator: None,
    }
}

/// These rollouts, and a stable release for each besides `releases`.
pub fn plan(rollouts: Vec<Rollout>, mut releases: Vec<ReleaseBrief>) -> Plan {
    for rollout in &rollouts {
        if releases.iter().all(|release| release.version != rollout.version) {
            releases.push(release(&rollout.version.to_string(), Channel::Stable));
        }
    }
    let offerings = rollouts.into_iter().map(|rollout| Offering { rollout, slots: None }).collect();
    Plan::new(offerings, Catalog::new(releases, HashSet::new()), Default::default())
}
