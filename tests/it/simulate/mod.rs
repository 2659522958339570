//! The simulated printers against a stranger's server: they must do what printers do before they may judge ours.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cycles;
mod downloads;
mod faults;
mod stand;

use std::{sync::Arc, time::Duration};

use paperminder_ota::simulate::{
    Behaviour, Fate, Fleet, FleetOptions, Message, Mode, Pace, PrinterOptions, image::esp8266_image,
};

/// Long enough for a busy machine; nothing waits that long when all is well.
const SOON: Duration = Duration::from_secs(30);

fn image() -> Vec<u8> {
    esp8266_image(60_000, 1)
}

/// A printer in a hurry.
fn printer(server: &str, mode: Mode) -> PrinterOptions {
    let mut options = PrinterOptions::new(server, 1);
    options.mode = mode;
    options.pace =
        Pace { reconnect: Duration::from_millis(20), reboot: Duration::from_millis(20), ..Pace::default() };
    options
}

fn one(options: PrinterOptions) -> Fleet {
    Fleet::start(FleetOptions::from(vec![options])).unwrap()
}

fn fated(server: &str, mode: Mode, fates: &[Fate]) -> Fleet {
    let mut options = printer(server, mode);
    options.behaviour = Behaviour::Script(fates.to_vec());
    one(options)
}
