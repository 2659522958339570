//! The printers' line: `/ws/{user_id}`.
//!
//! One task a socket. It reads the printer's messages, writes them down, and writes the engine's offers out, each
//! behind the fence. What printers really do is stranger than the protocol: the socket dies when a download starts,
//! the reboot comes before `firmware_complete`, and after an outage everybody is back every 500 ms. So refusing is
//! cheap, frames are small, every wait has a limit, and a socket that drops after an offer is good news.

mod pace;
pub mod session;
mod socket;
pub mod wire;

pub use socket::routes;
