//! Whatever dies or hangs, no printer gets two offers, no limit is broken, nothing is lost: real processes of
//! `paperminder-ota serve` on one PostgreSQL, printers that are spread over them, faults, and a checker that reads
//! afterwards what happened.
//!
//! - A [`world`] starts the replicas, a load [`balancer`] in front of them, and the printers.
//! - A [`history`] is what was recorded: every row that changed, commit by commit ([`record`]), every frame that passed
//!   a printer's socket, every answer to the operator, every fault.
//! - The [`rules`] are functions of a history. Each is shown to fail by one that is [`made_up`].
//! - The scenarios do something terrible, and then ask the rules.
//!
//! A rule that is broken tells the story of the printer or rollout concerned, in the order of time.

mod balancer;
mod deaf;
mod frozen;
mod history;
mod killed;
mod limits;
mod made_up;
mod narrowed;
mod outage;
mod record;
mod rules;
mod state;
mod story;
mod twins;
mod world;
