//! `demo`: the whole story on real parts, in some ten seconds.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use md5::{Digest, Md5};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::dev::{World, environment};
use super::{Fatal, runtime};
use crate::shutdown::Shutdown;
use crate::simulate::{Fleet, FleetOptions, Mode, PrinterOptions, Summary, image::esp8266_image};
use crate::telemetry;

const FROM: &str = "1.4.0";
const TO: &str = "1.5.0";
const STEPS: [u8; 3] = [10, 50, 100];
/// Bytes of the image.
const SIZE: usize = 480 << 10;
/// Longest wait for one step.
const STEP_WITHIN: Duration = Duration::from_secs(60);

/// What may be changed about the demonstration.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many printers; every other one is an unchanged device, which says nothing and proves itself by reconnecting
    #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=2000))]
    printers: u64,
}

/// Runs the story and tells how it went.
pub fn demo(args: &Args) -> Result<ExitCode, Fatal> {
    let filter = environment("RUST_LOG").unwrap_or_else(|| "warn".into());
    let telemetry = telemetry::init(crate::config::LogFormat::Text, &filter)?;
    let code = runtime()?.block_on(async {
        // A fresh world each time, beside the one that `dev` keeps, and gone afterwards.
        std::fs::create_dir_all(".dev")?;
        let folder = tempfile::Builder::new().prefix("demo-").tempdir_in(".dev")?;
        eprintln!("starting PostgreSQL, S3 and the server");
        let anywhere = |name: &str| match name {
            "AUTH" => None,
            "LISTEN_ADDR" | "INTERNAL_ADDR" => Some("127.0.0.1:0".to_owned()),
            _ => environment(name),
        };
        let story = async {
            let world = World::start(folder.path(), &anywhere).await?;
            let told = tell(&world, args.printers).await;
            world.stop().await?;
            told
        };
        let told = tokio::select! {
            told = story => told?,
            _ = Shutdown::signalled() => return Err("interrupted".into()),
        };
        println!("{}", told.table());
        match told.complaints() {
            complaints if complaints.is_empty() => {
                println!("Every printer was confirmed on {TO} with the right MD5.");
                Ok(ExitCode::SUCCESS)
            }
            complaints => Err(complaints.join("; ").into()),
        }
    });
    telemetry.flush();
    code
}

/// How it went.
struct Told {
    md5: String,
    steps: Vec<(u8, i64, Duration)>,
    rollout: Value,
    fleet: Summary,
    took: Duration,
}

/// REST, as a release pipeline would use it.
struct Rest {
    client: reqwest::Client,
    base: String,
}

impl Rest {
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Fatal> {
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        if status.is_success() {
            Ok(serde_json::from_str(&text)?)
        } else {
            Err(format!("the server answered {status}: {text}").into())
        }
    }

    async fn get(&self, path: &str) -> Result<Value, Fatal> {
        self.send(self.client.get(format!("{}{path}", self.base))).await
    }
}

async fn tell(world: &World, printers: u64) -> Result<Told, Fatal> {
    let started = Instant::now();
    let rest = Rest { client: reqwest::Client::new(), base: format!("http://{}", world.app.address) };
    let image = esp8266_image(SIZE, 15);
    let md5 = hex::encode(Md5::digest(&image));

    let line = format!("ws://{}", world.app.address);
    let fleet = Fleet::start(FleetOptions::of(printers, |index| PrinterOptions {
        firmware_version: FROM.into(),
        mode: if index % 2 == 0 { Mode::Polite } else { Mode::Device },
        slow_bytes_per_second: Some(600_000),
        pace: crate::simulate::Pace { reboot: Duration::from_millis(800), ..Default::default() },
        ..PrinterOptions::new(&line, index)
    }))?;
    fleet.wait_until(STEP_WITHIN, |fleet| fleet.subscribes >= printers).await?;
    eprintln!("{printers} printers on {FROM} are connected");

    let file = Part::bytes(image).file_name(format!("paperminder-{TO}.bin"));
    let form =
        Form::new().part("file", file).text("version", TO).text("release_notes", "Prints on both sides");
    let firmware =
        rest.send(rest.client.post(format!("{}/api/firmware/upload", rest.base)).multipart(form)).await?;
    eprintln!(
        "{TO} is released: {} bytes, MD5 {}",
        firmware["file_size"],
        firmware["md5"].as_str().unwrap_or("?")
    );

    let wanted = json!({"firmware_version": TO, "target": {"channels": ["stable"]}, "rollout_type": "gradual", "rollout_percentage": STEPS[0]});
    let rollout = rest.send(rest.client.post(format!("{}/api/rollouts", rest.base)).json(&wanted)).await?;
    let path = format!("/api/rollouts/{}", rollout["number"]);
    let bar = ProgressBar::new(printers).with_style(
        ProgressStyle::with_template("  {prefix:>4} [{bar:40}] {pos}/{len} confirmed  {msg}")?
            .progress_chars("=> "),
    );
    let mut steps = Vec::new();
    for percentage in STEPS {
        let step = Instant::now();
        let patch = rest
            .client
            .patch(format!("{}{path}", rest.base))
            .json(&json!({"rollout_percentage": percentage}));
        rest.send(patch).await?;
        bar.set_prefix(format!("{percentage}%"));
        let confirmed = settle(&rest, &path, percentage, &fleet, &bar).await?;
        steps.push((percentage, confirmed, step.elapsed()));
        let line = format!(
            "{percentage:>4}%  {confirmed} of {printers} confirmed after {:.1} s",
            step.elapsed().as_secs_f64()
        );
        bar.suspend(|| eprintln!("{line}"));
    }
    bar.finish_and_clear();
    let rollout = rest.get(&path).await?;
    Ok(Told { md5, steps, rollout, fleet: fleet.stop().await, took: started.elapsed() })
}

/// Waits until every printer whose bucket is below `percentage` is confirmed, and at 100 until the rollout rests.
async fn settle(
    rest: &Rest,
    path: &str,
    percentage: u8,
    fleet: &Fleet,
    bar: &ProgressBar,
) -> Result<i64, Fatal> {
    let ids = fleet.printers().iter().filter_map(|printer| printer.id().parse().ok());
    let expected = ids.filter(|id| crate::printers::bucket(id) < percentage).count() as i64;
    let deadline = Instant::now() + STEP_WITHIN;
    loop {
        let rollout = rest.get(&format!("{path}?limit=1")).await?;
        let confirmed = rollout["confirmed_count"].as_i64().unwrap_or_default();
        bar.set_position(confirmed.unsigned_abs());
        bar.set_message(format!(
            "{} downloading",
            fleet.snapshot().downloads_started.saturating_sub(fleet.snapshot().downloads_ok)
        ));
        if confirmed >= expected && (percentage < 100 || rollout["status"] == "completed") {
            return Ok(confirmed);
        }
        if Instant::now() > deadline {
            return Err(format!(
                "only {confirmed} of {expected} printers were confirmed in {} s: {rollout}",
                STEP_WITHIN.as_secs()
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Told {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        for (percentage, confirmed, took) in &self.steps {
            table.add_row([
                format!("step {percentage} %"),
                format!("{confirmed} confirmed, {:.1} s", took.as_secs_f64()),
            ]);
        }
        let number = |name: &str| self.rollout[name].to_string();
        table.add_row([
            "rollout".into(),
            format!(
                "{} of {} completed, {} failed, {}",
                number("completed_count"),
                number("total_targets"),
                number("failed_count"),
                self.rollout["status"].as_str().unwrap_or("?")
            ),
        ]);
        table.add_row([
            "printers on 1.5.0".into(),
            format!("{} of {}", self.fleet.running(TO), self.fleet.printers),
        ]);
        table.add_row([
            "downloads".into(),
            format!("{} with MD5 {}, {} MiB", self.fleet.downloads_ok, self.md5, self.fleet.bytes >> 20),
        ]);
        table.add_row([
            "offers".into(),
            format!("{} sent, {} double", self.fleet.offers, self.fleet.double_offers),
        ]);
        table.add_row(["time".into(), format!("{:.1} s", self.took.as_secs_f64())]);
        table
    }

    /// What did not go as promised.
    fn complaints(&self) -> Vec<String> {
        let printers = self.fleet.printers;
        let checks = [
            (
                self.rollout["confirmed_count"] == json!(printers),
                "not every printer was confirmed by the server",
            ),
            (self.rollout["status"] == "completed", "the rollout is not completed"),
            (self.fleet.all_run(TO), "not every printer runs the new version"),
            (self.fleet.downloads_ok >= printers as u64, "not every printer downloaded the image"),
            (self.fleet.md5_mismatches == 0, "an image arrived with the wrong MD5"),
            (self.fleet.double_offers == 0, "a printer was offered two updates at once"),
        ];
        checks.iter().filter(|(holds, _)| !holds).map(|(_, complaint)| (*complaint).to_owned()).collect()
    }
}
