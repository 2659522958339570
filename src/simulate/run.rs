//! The command line's way in: options as a person gives them, and a run from start to summary.

use std::{net::IpAddr, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Behaviour, Error, Fleet, FleetOptions, Limits, Mode, Odds, Pace, PrinterOptions, Summary,
    chance::Noise,
    options::made_up,
    show::{Display, table},
};

/// Connect simulated printers to a server and let them live.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Server the printers connect to; a path prefix is kept
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8000")]
    pub server: String,
    /// How many printers
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub printers: u64,
    /// `polite` follows the protocol's document; `device` does what unchanged ESP8266 firmware does: it loses its
    /// socket when the download starts, loads by HTTP/1.0 and proves the update by reconnecting
    #[arg(long, value_enum, default_value_t = Mode::Polite)]
    pub mode: Mode,
    /// User that the printers belong to; given several times, the printers are dealt out among them
    #[arg(long = "user", value_name = "USER_ID", default_value = "demo")]
    pub users: Vec<String>,
    /// API key that all printers send; each has its own unless given
    #[arg(long, value_name = "KEY", env = "PRINTER_API_KEY", hide_env_values = true)]
    pub api_key: Option<SecretString>,
    /// Firmware version that the printers run at first
    #[arg(long, value_name = "VERSION", default_value = "1.0.0")]
    pub version_from: String,
    /// Update channel: stable, beta or canary
    #[arg(long, value_name = "CHANNEL", default_value = "stable", value_parser = ["stable", "beta", "canary"])]
    pub channel: String,
    /// Platform: esp8266, esp32, esp32-s2, esp32-s3 or esp32-c3; not sent unless given
    #[arg(long, value_name = "PLATFORM", value_parser = ["esp8266", "esp32", "esp32-s2", "esp32-s3", "esp32-c3"])]
    pub platform: Option<String>,
    /// Share of attempts whose download breaks off, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub fail_rate: f64,
    /// Share of offers that are declined, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub decline_rate: f64,
    /// Share of attempts whose image arrives corrupt (MD5 mismatch), 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub corrupt_rate: f64,
    /// Share of attempts after which the printer never comes back, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub brick_rate: f64,
    /// Share of attempts after which the printer comes back with its old version, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub rollback_rate: f64,
    /// Load images no faster than this
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    pub slow_bytes_per_second: Option<u32>,
    /// Repeat reports and send them in the wrong order
    #[arg(long)]
    pub chaos: bool,
    /// Ignore update messages longer than this, as a sketch with a small JSON document does (often 256 or 512)
    #[arg(long, value_name = "BYTES")]
    pub json_limit: Option<usize>,
    /// First connections per second; without it all printers come at once
    #[arg(long, value_name = "PER_SECOND")]
    pub connect_rate: Option<f64>,
    /// Number that decides which printers fail and how; the same seed, the same run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Stop after this time (`90`, `90s`, `5m`, `2h`); without it, run until interrupted
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Stop with success as soon as all printers run this version, and with failure if they do not in the end
    #[arg(long, value_name = "VERSION")]
    pub until_version: Option<String>,
    /// Milliseconds between attempts to connect
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub reconnect_ms: u64,
    /// Milliseconds that a reboot takes
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    pub reboot_ms: u64,
    /// Local addresses to connect from, in turn (such as 127.0.0.2,127.0.0.3); one address has ports for some
    /// 28,000 printers
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub source_ips: Vec<IpAddr>,
}

impl Args {
    fn fleet(&self) -> Result<FleetOptions, Error> {
        let odds = Odds {
            decline: self.decline_rate,
            fail: self.fail_rate,
            corrupt: self.corrupt_rate,
            brick: self.brick_rate,
            rollback: self.rollback_rate,
            stumble: 0.0,
        };
        odds.check()?;
        let shared = |text: &Option<String>| text.as_deref().map(Arc::<str>::from);
        let platform = shared(&self.platform);
        let (server, version) = (Arc::from(self.server.as_str()), Arc::from(self.version_from.as_str()));
        let channel: Arc<str> = Arc::from(self.channel.as_str());
        let users: Vec<Arc<str>> = self.users.iter().map(|user| Arc::from(user.as_str())).collect();
        let template = PrinterOptions::new(&self.server, 0);
        let mut seeds = Noise::new(self.seed);
        let mut options = FleetOptions::of(self.printers, |index| {
            let mut printer = PrinterOptions::new("", index);
            printer.server = Arc::clone(&server);
            printer.firmware_version = Arc::clone(&version);
            if let Some(user) = users.get(usize::try_from(index).unwrap_or(0) % users.len().max(1)) {
                printer.identity.user_id = Arc::clone(user);
                printer.identity.printer_id = Some(made_up(user, &printer.identity.name));
            }
            printer.identity.channel = Arc::clone(&channel);
            printer.identity.platform.clone_from(&platform);
            if let Some(key) = &self.api_key {
                printer.identity.api_key = Some(key.clone());
            }
            printer.mode = self.mode;
            printer.behaviour = Behaviour::Odds(odds);
            printer.seed = seeds.next();
            printer.chaos = self.chaos;
            printer.slow_bytes_per_second = self.slow_bytes_per_second;
            printer.progress = Arc::clone(&template.progress);
            printer.limits = Limits { json: self.json_limit, ..Limits::default() };
            printer.pace = Pace {
                reconnect: Duration::from_millis(self.reconnect_ms),
                reboot: Duration::from_millis(self.reboot_ms),
                ..Pace::default()
            };
            printer
        });
        options.connect_rate = self.connect_rate;
        options.source_ips.clone_from(&self.source_ips);
        Ok(options)
    }
}

/// Runs a fleet until its version is reached, its time is up or `shutdown` is cancelled, and prints what came of it.
///
/// # Errors
/// When an option makes no sense, or `until_version` was not reached: then the process should not exit with 0.
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<Summary, Error> {
    let fleet = Fleet::start(args.fleet()?)?;
    let began = Instant::now();
    let reached =
        |summary: &Summary| args.until_version.as_ref().is_some_and(|version| summary.all_run(version));
    // Whoever is bricked will never run it: once all others do, there is nothing left to wait for.
    let hopeless = |summary: &Summary| {
        let left = (summary.printers as u64).saturating_sub(summary.bricked);
        let runs = |version: &String| summary.running(version) as u64 == left;
        summary.bricked > 0 && args.until_version.as_ref().is_some_and(runs)
    };
    let mut display = Display::new();
    let mut glances = interval(Duration::from_millis(200));
    let over = async {
        match args.duration {
            Some(duration) => sleep_until(began + duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = &mut over => break,
            _ = glances.tick() => {
                let summary = fleet.snapshot();
                display.show(&summary, began.elapsed());
                if reached(&summary) || hopeless(&summary) {
                    break;
                }
            }
        }
    }
    display.end();
    let summary = fleet.stop().await;
    println!("{}", table(&summary, began.elapsed()));
    if summary.connects == 0 && summary.connect_failures > 0 {
        return Err(Error::Server(args.server, "no printer could connect; is it running there?"));
    }
    match &args.until_version {
        Some(version) if !reached(&summary) => Err(Error::Unreached {
            version: version.clone(),
            running: summary.running(version),
            printers: summary.printers,
        }),
        _ => Ok(summary),
    }
}

/// `90`, `90s`, `5m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.trim().strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.trim().chars().last()),
        None => (text.trim(), None),
    };
    let seconds = match unit {
        Some('m') => 60,
        Some('h') => 3600,
        _ => 1,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is no time: write 90, 90s, 5m or 2h"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Cli::try_parse_from(format!("simulate {line}").split_whitespace()).unwrap().args
    }

    #[test]
    fn options_reach_the_printers() {
        let args = args(
            "--server ws://h:1 -n 3 --mode device --user a --user b --fail-rate 0.5 --duration 2m \
             --source-ips 127.0.0.2,127.0.0.3 --version-from 1.2.3 --platform esp32",
        );
        assert_eq!(args.duration, Some(Duration::from_secs(120)));
        let fleet = args.fleet().unwrap();
        let users: Vec<_> = fleet.printers.iter().map(|printer| &*printer.identity.user_id).collect();
        assert_eq!(users, ["a", "b", "a"]);
        assert_eq!(fleet.source_ips.len(), 2);
        let printer = &fleet.printers[2];
        assert_eq!((printer.mode, &*printer.firmware_version), (Mode::Device, "1.2.3"));
        assert_eq!(printer.identity.platform.as_deref(), Some("esp32"));
        assert_eq!(printer.behaviour, Behaviour::Odds(Odds { fail: 0.5, ..Odds::default() }));
        assert_ne!(fleet.printers[0].seed, fleet.printers[1].seed);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(args("--fail-rate 0.7 --decline-rate 0.7").fleet().is_err());
        assert!(Cli::try_parse_from(["simulate", "--duration", "soon"]).is_err());
        assert!(Cli::try_parse_from(["simulate", "--printers", "0"]).is_err());
    }
}
