//! PaperMinder OTA: an over-the-air update server for a fleet of small printers.

#[cfg(feature = "dev")]
pub mod dev;
