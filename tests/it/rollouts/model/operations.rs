//! What may happen, as data: generated, shrunk and printed.

use paperminder_ota::rollouts::plan::AbortAction;
use paperminder_ota::words::{Channel, Platform};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// What there is to install: version, channel, platform, mandatory, least version that may take it.
pub type ReleaseSpec = (&'static str, Channel, Platform, bool, Option<&'static str>);
pub const RELEASES: &[ReleaseSpec] = &[
    ("1.0.0", Channel::Stable, Platform::Esp8266, false, None),
    ("1.1.0", Channel::Stable, Platform::Esp8266, false, None),
    ("1.1.0", Channel::Beta, Platform::Esp8266, false, None),
    ("1.2.0", Channel::Stable, Platform::Esp8266, true, None),
    ("1.3.0", Channel::Stable, Platform::Esp8266, false, Some("1.1.0")),
    ("2.0.0", Channel::Beta, Platform::Esp8266, false, Some("1.2.0")),
    ("1.0.0", Channel::Stable, Platform::Esp32, false, None),
    ("1.2.0", Channel::Stable, Platform::Esp32, false, None),
    ("1.3.0", Channel::Canary, Platform::Esp32, false, Some("1.2.0")),
];
/// What a printer may run; of one there is no release.
pub const VERSIONS: &[&str] = &["1.0.0", "1.1.0", "1.2.0", "1.3.0", "2.0.0", "1.0.5"];
pub const PRINTERS: u8 = 10;
pub const USERS: u8 = 3;

/// A printer at the start.
#[derive(Clone, Debug)]
pub struct PrinterSpec {
    pub platform: Platform,
    pub channel: Channel,
    pub auto_update: bool,
    pub runs: &'static str,
}

/// What a printer runs when it says who it is.
#[derive(Clone, Copy, Debug)]
pub enum Runs {
    Same,
    /// What it was last offered.
    Offered,
    Other(&'static str),
}

/// What a printer says about an update.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    Progress(i32),
    Complete,
    Failed,
    Declined,
}

/// The version that a report names.
#[derive(Clone, Copy, Debug)]
pub enum About {
    Nothing,
    Offered,
    Other(&'static str),
}

/// How an offer ends that a printer deals with from beginning to end.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// As the ESP8266 does: the socket drops, and it is back on the new version.
    Installs,
    /// The same, but it says so first.
    Completes,
    Fails,
    Declines,
    /// Back on the old version.
    RollsBack,
    /// Never heard of again.
    Bricks,
}

/// Whom a rollout is for.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    pub all: bool,
    pub users: Option<Vec<u8>>,
    pub printers: Option<Vec<u8>>,
    pub channels: Option<Vec<Channel>>,
    pub min: Option<&'static str>,
    pub max: Option<&'static str>,
}

impl TargetSpec {
    pub fn everyone() -> Self {
        Self { all: true, users: None, printers: None, channels: None, min: None, max: None }
    }
}

/// How a rollout spreads.
#[derive(Clone, Debug)]
pub enum Spread {
    Immediate,
    Gradual(u8),
    /// Scheduled so many seconds from now.
    Scheduled(u64),
    /// First of each step, and the failure threshold.
    Steps(u32, u8),
}

/// A rollout to be.
#[derive(Clone, Debug)]
pub struct RolloutSpec {
    pub version: &'static str,
    pub channel: Option<Channel>,
    pub target: TargetSpec,
    pub spread: Spread,
    pub max_in_flight: Option<u32>,
    pub rate: Option<u32>,
    pub abort_on: Option<AbortAction>,
    pub allow_downgrade: bool,
    pub max_attempts: u32,
    pub ends_in: Option<u64>,
}

/// What leads to a turn of an engine.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// Printers that became ready; hints are still on their way.
    Ready,
    /// All that, and the hints so far.
    Heard,
    /// Its timer.
    Timer,
}

/// Which rollout, of those that there are.
pub type Nth = u8;

/// One step.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A printer opens a socket to one of the replicas and subscribes. It may have another one still.
    Connect(u8, usize, Runs),
    /// It says again who it is on the same socket.
    Again(u8, Runs),
    /// It follows another channel, or changes its mind about updates, with the next subscribe.
    Mind(u8, Channel, bool),
    /// It says something, on its newest socket or on the one before.
    Report(u8, bool, Said, About),
    /// A socket ends: the newest or the one before, let go by the printer or not.
    Lose(u8, bool, bool),
    /// What waits for the printer is written.
    Deliver(u8),
    /// What waits for the printer cannot be written.
    Stuck(u8),
    /// A printer deals with its offer.
    Course(u8, usize, Outcome),
    Create(usize, Box<RolloutSpec>),
    Pause(usize, Nth),
    Resume(usize, Nth),
    Cancel(usize, Nth),
    Percentage(usize, Nth, u8),
    Advance(usize, Nth),
    Retry(usize, Nth),
    Undo(usize, Nth, Option<&'static str>),
    Delete(usize, Nth),
    Force(u8, &'static str, bool),
    /// A release is withdrawn or restored.
    Amend(usize, bool),
    /// So many seconds pass.
    Pass(u64),
    /// A replica's engine takes a turn.
    Turn(usize, Turn),
    /// The steward looks: at what had news, or at everything.
    Look(bool),
    Expire(usize),
    Fold,
}

pub fn printer() -> impl Strategy<Value = PrinterSpec> {
    let platform = prop_oneof![4 => Just(Platform::Esp8266), 1 => Just(Platform::Esp32)];
    let runs = prop_oneof![4 => Just("1.0.0"), 2 => select(VERSIONS)];
    (platform, channel(), prop::bool::weighted(0.8), runs).prop_map(
        |(platform, channel, auto_update, runs)| PrinterSpec { platform, channel, auto_update, runs },
    )
}

fn channel() -> impl Strategy<Value = Channel> {
    prop_oneof![3 => Just(Channel::Stable), 1 => Just(Channel::Beta), 1 => Just(Channel::Canary)]
}

fn who() -> impl Strategy<Value = u8> {
    0..PRINTERS
}

fn replica() -> impl Strategy<Value = usize> {
    0..2usize
}

fn runs() -> impl Strategy<Value = Runs> {
    prop_oneof![3 => Just(Runs::Same), 3 => Just(Runs::Offered), 1 => select(VERSIONS).prop_map(Runs::Other)]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        2 => select(&[-1, 0, 50, 100][..]).prop_map(Said::Progress),
        2 => Just(Said::Complete),
        2 => Just(Said::Failed),
        1 => Just(Said::Declined),
    ]
}

fn about() -> impl Strategy<Value = About> {
    prop_oneof![3 => Just(About::Nothing), 2 => Just(About::Offered), 1 => select(VERSIONS).prop_map(About::Other)]
}

pub fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Installs),
        2 => Just(Outcome::Completes),
        2 => Just(Outcome::Fails),
        1 => Just(Outcome::Declines),
        2 => Just(Outcome::RollsBack),
        1 => Just(Outcome::Bricks),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![2 => Just(Turn::Ready), 2 => Just(Turn::Heard), 1 => Just(Turn::Timer)]
}

fn target() -> impl Strategy<Value = TargetSpec> {
    let version = || option::weighted(0.2, select(VERSIONS));
    let users = option::weighted(0.25, vec(0..USERS, 1..3));
    let printers = option::weighted(0.25, vec(who(), 1..6));
    let channels = option::weighted(0.2, vec(channel(), 1..3));
    (prop::bool::weighted(0.6), users, printers, channels, version(), version()).prop_map(
        |(all, users, printers, channels, min, max)| TargetSpec { all, users, printers, channels, min, max },
    )
}

pub fn rollout() -> impl Strategy<Value = RolloutSpec> {
    let spread = prop_oneof![
        4 => Just(Spread::Immediate),
        2 => (0..=100u8).prop_map(Spread::Gradual),
        1 => (1..100u64).prop_map(Spread::Scheduled),
        3 => (1..4u32, select(&[10, 40, 90][..])).prop_map(|(first, fails)| Spread::Steps(first, fails)),
    ];
    let version = select(&["1.0.0", "1.1.0", "1.2.0", "1.2.0", "1.3.0", "1.3.0", "2.0.0"][..]);
    let few = || option::weighted(0.3, 1..4u32);
    let abort_on = option::weighted(0.2, select(AbortAction::ALL));
    let channel = option::weighted(0.15, channel());
    let rest = (prop::bool::weighted(0.3), 1..4u32, option::weighted(0.1, 1..3000u64));
    (version, channel, target(), spread, few(), few(), abort_on, rest).prop_map(
        |(version, channel, target, spread, max_in_flight, rate, abort_on, (down, max_attempts, ends_in))| {
            RolloutSpec {
                version,
                channel,
                target,
                spread,
                max_in_flight,
                rate,
                abort_on,
                allow_downgrade: down,
                max_attempts,
                ends_in,
            }
        },
    )
}

pub fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let nth = || any::<Nth>();
    let by_printers = prop_oneof![
        5 => (who(), replica(), runs()).prop_map(|(p, r, runs)| Connect(p, r, runs)),
        1 => (who(), runs()).prop_map(|(p, runs)| Again(p, runs)),
        1 => (who(), channel(), any::<bool>()).prop_map(|(p, channel, auto)| Mind(p, channel, auto)),
        5 => (who(), prop::bool::weighted(0.85), said(), about()).prop_map(|(p, n, said, about)| Report(p, n, said, about)),
        3 => (who(), prop::bool::weighted(0.7), any::<bool>()).prop_map(|(p, newest, let_go)| Lose(p, newest, let_go)),
        3 => who().prop_map(Deliver),
        2 => who().prop_map(Stuck),
        8 => (who(), replica(), outcome()).prop_map(|(p, r, outcome)| Course(p, r, outcome)),
    ];
    let by_operators = prop_oneof![
        6 => (replica(), rollout()).prop_map(|(r, spec)| Create(r, Box::new(spec))),
        2 => (replica(), nth()).prop_map(|(r, n)| Pause(r, n)),
        3 => (replica(), nth()).prop_map(|(r, n)| Resume(r, n)),
        1 => (replica(), nth()).prop_map(|(r, n)| Cancel(r, n)),
        2 => (replica(), nth(), 0..=100u8).prop_map(|(r, n, to)| Percentage(r, n, to)),
        1 => (replica(), nth()).prop_map(|(r, n)| Advance(r, n)),
        3 => (replica(), nth()).prop_map(|(r, n)| Retry(r, n)),
        1 => (replica(), nth(), option::of(select(&["1.0.0", "1.1.0"][..]))).prop_map(|(r, n, to)| Undo(r, n, to)),
        1 => (replica(), nth()).prop_map(|(r, n)| Delete(r, n)),
        2 => (who(), select(VERSIONS), any::<bool>()).prop_map(|(p, version, down)| Force(p, version, down)),
        2 => (0..RELEASES.len(), any::<bool>()).prop_map(|(release, deprecated)| Amend(release, deprecated)),
    ];
    let by_itself = prop_oneof![
        3 => select(&[1, 30, 61, 400, 700, 2000][..]).prop_map(Pass),
        6 => (replica(), turn()).prop_map(|(r, why)| Turn(r, why)),
        3 => any::<bool>().prop_map(Look),
        2 => replica().prop_map(Expire),
        1 => Just(Fold),
    ];
    prop_oneof![5 => by_printers, 2 => by_operators, 4 => by_itself]
}
