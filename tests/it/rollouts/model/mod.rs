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

use proptest::collection::vec;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use sqlx::PgPool;

use crate::support::config;
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
        max_shrink_time: 120_000,
        max_shrink_iters: 2_000,
        ..defaults
    });
    let printers = vec(operations::printer(), usize::from(operations::PRINTERS));
    let strategy = (printers, vec(operations::operation(), STEPS / 2..STEPS));
    let outcome = runner.run(&strategy, |(printers, operations)| {
        let case = async {
            let mut world = World::new(&ground, &printers).await;
            for (index, operation) in operations.iter().enumerate() {
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
