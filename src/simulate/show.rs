//! What a run looks like: one line that changes on a terminal, plain lines elsewhere, a table at the end.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use super::Summary;

/// Between two plain lines: a log should not fill up with them.
const PLAIN: Duration = Duration::from_secs(5);

pub(super) struct Display {
    bar: Option<ProgressBar>,
    next: Duration,
}

impl Display {
    pub(super) fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, next: Duration::ZERO }
    }

    pub(super) fn show(&mut self, summary: &Summary, elapsed: Duration) {
        match &self.bar {
            Some(bar) => bar.set_message(line(summary)),
            None if elapsed >= self.next => {
                eprintln!("{:>5}s {}", elapsed.as_secs(), line(summary));
                self.next = elapsed + PLAIN;
            }
            None => {}
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The moment in a line; the commonest versions first, and no more of them than fit.
fn line(summary: &Summary) -> String {
    let mut versions: Vec<_> = summary.versions.iter().collect();
    versions.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let mut shown: Vec<_> =
        versions.iter().take(3).map(|(version, count)| format!("{version}: {count}")).collect();
    if versions.len() > shown.len() {
        shown.push(format!("{} more", versions.len() - shown.len()));
    }
    let mut line = format!(
        "{}/{} online, {} offered, {} installed, {} failed, {} declined; {}",
        summary.online,
        summary.printers,
        summary.offers,
        summary.downloads_ok,
        summary.downloads_failed + summary.md5_mismatches,
        summary.declined,
        shown.join(", "),
    );
    if let Some(error) = summary.last_error.as_ref().filter(|_| summary.online == 0) {
        line.push_str(&format!("; {error}"));
    }
    if summary.double_offers > 0 {
        line.push_str(&format!("; {} DOUBLE OFFERS", summary.double_offers));
    }
    line
}

pub(super) fn table(summary: &Summary, elapsed: Duration) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["After", &format!("{:.1} s", elapsed.as_secs_f64())]);
    let counts = [
        ("Printers", summary.printers as u64),
        ("Online", summary.online),
        ("Connections", summary.connects),
        ("Failed attempts to connect", summary.connect_failures),
        ("Offers", summary.offers),
        ("Downloads", summary.downloads_started),
        ("Downloads complete and right", summary.downloads_ok),
        ("MD5 mismatches", summary.md5_mismatches),
        ("Other failed downloads", summary.downloads_failed),
        ("Declined", summary.declined),
        ("Reboots", summary.reboots),
        ("Bricked", summary.bricked),
    ];
    for (name, count) in counts {
        table.add_row([name, &count.to_string()]);
    }
    for (version, count) in &summary.versions {
        table.add_row([format!("Running {version}"), count.to_string()]);
    }
    // Faults of the server, shown only when there are any.
    let faults = [
        ("Different offer during an update (a fault)", summary.double_offers),
        ("Same offer again during an update", summary.repeated_offers),
        ("Offers of the version that runs", summary.pointless_offers),
        ("Update messages too long for the printer", summary.unparsable),
        ("Messages that are none", summary.malformed),
        ("Breaches of the WebSocket protocol", summary.protocol_errors),
    ];
    for (name, count) in faults.into_iter().filter(|(_, count)| *count > 0) {
        table.add_row([name, &count.to_string()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    if let Some(error) = &summary.last_error {
        table.add_row(["Last failure", error]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_commonest_versions_and_faults() {
        let versions = [("1.0.0", 1), ("1.1.0", 7), ("1.2.0", 2), ("1.3.0", 3)];
        let versions = versions.map(|(version, count)| (version.to_owned(), count)).into();
        let summary = Summary { printers: 13, double_offers: 2, versions, ..Summary::default() };
        let line = line(&summary);
        assert!(line.ends_with("1.1.0: 7, 1.3.0: 3, 1.2.0: 2, 1 more; 2 DOUBLE OFFERS"), "{line}");
        let table = table(&summary, Duration::from_secs(1)).to_string();
        assert!(table.contains("Running 1.1.0") && !table.contains("none"), "{table}");
    }
}
