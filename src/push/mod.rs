//! Reaching printers: the sockets of this replica, and hints between replicas.
//!
//! - [`Door`] says who may open a socket at all.
//! - [`Hub`] holds a [`Line`] for every printer whose socket is here; the newest connection of a printer wins.
//! - [`Fence`] is asked right before an offer is written, so that nothing leaves after a pause or a cancel was answered.
//! - [`notify`] and [`listen`] carry ids between replicas over PostgreSQL. Rows are the truth and a notification is a
//!   hint: whoever listens reads the rows, and reads them again on a timer.

mod door;
mod fence;
mod hub;
mod listen;
mod notify;
mod refusals;

pub use door::{Door, Outside};
pub use fence::{BELIEVED, Fence, Pass};
pub use hub::{Frame, Hub, Line, Out};
pub use listen::listen;
pub use notify::{Hint, notify, notify_all};
pub use refusals::Refusals;
