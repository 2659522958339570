//! A model test of the rollout engine: random operations of printers, operators and time against the real code on real
//! PostgreSQL, two replicas of it, and after every step everything that must always hold.
//!
//! - [`operations`] says what may happen, [`world`] does it, one thing after the other, so a case that fails fails again
//!   and shrinks. Printers talk to the server's own sessions ([`fleet`]); only the wire is missing.
//! - [`race`] lets go of the order: everything at once, and the same invariants at every moment.
//! - [`reference`] counts and decides once more, slowly, printer by printer; [`check`] compares.
//!
//! `PROPTEST_CASES` runs more cases, `PROPTEST_RNG_SEED` others.

mod check;
mod fleet;
mod operations;
mod race;
mod reference;
mod rows;
mod wanted;
mod world;

use paperminder_ota::words::{Channel, Platform};
use proptest::collection::vec;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use sqlx::PgPool;

use crate::support::config;
use operations::{Operation, Runs};
use world::{Ground, World};

/// Cases unless the environment says otherwise.
const CASES: u32 = 12;
/// Operations of one case, after its printers connected.
const STEPS: usize = 80;

#[sqlx::test]
async fn whatever_happens_the_invariants_hold(pool: PgPool) {
    let config = config(&pool, "http://127.0.0.1:1", Ground::settings());
    tokio::task::spawn_blocking(move || run(config)).await.unwrap();
}

/// A second try that is taken back leaves the printer where the first one left it.
#[sqlx::test]
async fn a_second_try_that_never_left_is_as_if_it_had_not_been(pool: PgPool) {
    use operations::{Outcome, RolloutSpec, Spread, TargetSpec, Turn};
    let ground = Ground::new(config(&pool, "http://127.0.0.1:1", Ground::settings())).await;
    let printer = operations::PrinterSpec {
        platform: Platform::Esp8266,
        channel: Channel::Stable,
        auto_update: true,
        runs: "1.0.0",
    };
    let rollout = RolloutSpec {
        version: "1.1.0",
        channel: None,
        target: TargetSpec::everyone(),
        spread: Spread::Immediate,
        max_in_flight: None,
        rate: None,
        abort_on: None,
        allow_downgrade: false,
        max_attempts: 2,
        ends_in: None,
    };
    let mut world = World::new(&ground, &[printer]).await;
    for operation in [
        Operation::Connect(0, 0, Runs::Same),
        Operation::Create(0, Box::new(rollout)),
        Operation::Turn(0, Turn::Timer),
        Operation::Course(0, 0, Outcome::Fails),
        Operation::Pass(61),
        Operation::Turn(0, Turn::Timer),
        Operation::Pause(0, 0),
        Operation::Deliver(0),
        Operation::Resume(1, 0),
        Operation::Turn(0, Turn::Timer),
        Operation::Course(0, 0, Outcome::Fails),
        Operation::Retry(0, 0),
        Operation::Turn(0, Turn::Heard),
    ] {
        world.step(&operation).await.map_err(|why| format!("{operation:?}: {why}")).unwrap();
    }
    world.comes_to_rest().await.unwrap();
}

/// Printers that moved to another replica and want nothing any more leave a limit's only place to those that do.
#[sqlx::test]
async fn a_half_open_socket_takes_nobodys_place(pool: PgPool) {
    use operations::{RolloutSpec, Spread, TargetSpec, Turn};
    let ground = Ground::new(config(&pool, "http://127.0.0.1:1", Ground::settings())).await;
    let printer = operations::PrinterSpec {
        platform: Platform::Esp8266,
        channel: Channel::Stable,
        auto_update: true,
        runs: "1.0.0",
    };
    let rollout = RolloutSpec {
        version: "1.1.0",
        channel: None,
        target: TargetSpec::everyone(),
        spread: Spread::Immediate,
        max_in_flight: Some(1),
        rate: None,
        abort_on: None,
        allow_downgrade: false,
        max_attempts: 1,
        ends_in: None,
    };
    let mut world = World::new(&ground, &vec![printer; usize::from(operations::PRINTERS)]).await;
    let mut operations = vec![Operation::Connect(0, 0, Runs::Same)];
    for printer in 1..operations::PRINTERS {
        operations.extend([
            Operation::Connect(printer, 0, Runs::Same),
            Operation::Mind(printer, Channel::Stable, false),
            Operation::Connect(printer, 1, Runs::Same),
        ]);
    }
    operations.push(Operation::Create(0, Box::new(rollout)));
    // Whatever the order in which the replica looks at them.
    operations.extend(std::iter::repeat_n(Operation::Turn(0, Turn::Timer), operations::PRINTERS.into()));
    for operation in operations {
        world.step(&operation).await.map_err(|why| format!("{operation:?}: {why}")).unwrap();
    }
    world.step(&Operation::Course(0, 0, operations::Outcome::Installs)).await.unwrap();
    world.comes_to_rest().await.unwrap();
}

/// Proptest is not asynchronous, so it has a thread and a runtime of its own.
fn run(config: paperminder_ota::config::Config) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ground = runtime.block_on(Ground::new(config));
    let defaults = Config::default();
    #[expect(clippy::disallowed_methods, reason = "proptest reads it the same way")]
    let given = |name: &str| std::env::var(name).is_ok();
    let mut runner = TestRunner::new(Config {
        cases: if given("PROPTEST_CASES") { defaults.cases } else { CASES },
        rng_seed: if given("PROPTEST_RNG_SEED") { defaults.rng_seed } else { RngSeed::Fixed(7) },
        failure_persistence: None,
        max_shrink_time: if given("PROPTEST_MAX_SHRINK_TIME") { defaults.max_shrink_time } else { 120_000 },
        ..defaults
    });
    let printers = vec(operations::printer(), usize::from(operations::PRINTERS));
    let strategy = (printers, operations::rollout(), vec(operations::operation(), STEPS / 2..STEPS));
    let outcome = runner.run(&strategy, |(printers, first, operations)| {
        let case = async {
            let mut world = World::new(&ground, &printers).await;
            let connect = |printer| Operation::Connect(printer, usize::from(printer % 2), Runs::Same);
            let first = Operation::Create(0, Box::new(first));
            let start = (0..operations::PRINTERS).map(connect).chain([first]).collect::<Vec<_>>();
            for (index, operation) in start.iter().chain(&operations).enumerate() {
                world
                    .step(operation)
                    .await
                    .map_err(|why| format!("after step {index}, {operation:?}: {why}"))?;
            }
            world.comes_to_rest().await.map_err(|why| format!("at rest: {why}"))
        };
        runtime.block_on(case).map_err(|why: String| TestCaseError::fail(why))
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
