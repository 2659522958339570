//! The commands.

mod audit;
#[cfg(feature = "dev")]
mod demo;
#[cfg(feature = "dev")]
mod dev;
mod doctor;
mod gc;
mod healthcheck;
mod hold;
mod key;
mod seed;
mod serve;
mod simulate;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::SETTINGS;

/// Over-the-air updates for PaperMinder printers.
#[derive(Parser)]
#[command(name = "paperminder-ota", version = crate::version::program(), max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a replica, configured from the environment
    #[command(after_help = settings())]
    Serve(serve::Before),
    /// Bring the database's schema up to date; any number may do it at once
    Migrate(serve::Migrate),
    /// Ask the replica on this machine whether it is ready: exit code 1 when it is not
    Healthcheck {
        /// Only whether it lives
        #[arg(long)]
        live: bool,
    },
    /// Try what the server stands on, with its own settings, and say what is wrong and what to do
    ///
    /// Settings, database, bucket, URLs of printers, and whether every release has its image. Best run where the server
    /// runs. Exit code 1 when something is wrong.
    Doctor,
    /// Remove what no release names from the bucket: objects and open multipart uploads of uploads that broke off
    ///
    /// Needs the settings of `serve` for the database and S3 only; the bucket's folders `firmware/` and `staging/` must
    /// belong to this database alone. The servers do the same by themselves (GC_EVERY_SECONDS). Exit code 1 when
    /// something stays that should go.
    Gc(gc::Args),
    /// Pause every rollout, as before the first replica starts on a restored database; needs DATABASE_URL only
    ///
    /// What was paused or cancelled after the backup was made would otherwise go on. Each is resumed by itself, by REST.
    Hold,
    /// Make, list and revoke the keys of REST; needs DATABASE_URL only
    #[command(subcommand)]
    Key(key::What),
    /// Check the trail of changes; needs DATABASE_URL only
    #[command(subcommand)]
    Audit(audit::What),
    /// Run the server with its own PostgreSQL and S3, without configuration; data is kept in .dev/
    ///
    /// REST and sockets are on 127.0.0.1:8000 (LISTEN_ADDR), health and metrics on 127.0.0.1:9000 (INTERNAL_ADDR), and
    /// authentication is off (AUTH). The other settings of `serve` hold here too. Ctrl-C stops everything.
    #[cfg(feature = "dev")]
    Dev,
    /// Watch the whole story: a release reaches simulated printers in three steps, on a server of its own
    ///
    /// Exit code 0 only if every printer was confirmed on the new version with the right MD5. Nothing is left running.
    #[cfg(feature = "dev")]
    Demo(demo::Args),
    /// Connect simulated printers to a server, or fill a database with them
    Simulate(Box<simulate::Choice>),
    /// Write a valid ESP8266 image to standard output, to try uploads with; it boots on nothing
    Image {
        /// Bytes
        #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(8192..=16_000_000))]
        size: u32,
        /// Another number, another image
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Print the OpenAPI document
    Openapi,
}

/// The table of settings, for `serve --help`.
fn settings() -> String {
    let lines = SETTINGS.iter().map(|setting| {
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!(" [default: {}]", setting.default)
        };
        format!("  {}\n          {}{default}\n", setting.name, setting.meaning)
    });
    format!(
        "Environment:\n{}  AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …\n          as everywhere: the AWS SDK reads them\n  \
         OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, …\n          as everywhere: traces are exported when the endpoint is set\n",
        lines.collect::<String>()
    )
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(before) => serve::serve(before),
        Command::Migrate(args) => serve::migrate(&args),
        Command::Healthcheck { live } => healthcheck::healthcheck(live),
        Command::Doctor => doctor::doctor(),
        Command::Gc(args) => gc::gc(&args),
        Command::Hold => hold::hold(),
        Command::Key(what) => key::key(&what),
        Command::Audit(what) => audit::audit(&what),
        #[cfg(feature = "dev")]
        Command::Dev => dev::dev(),
        #[cfg(feature = "dev")]
        Command::Demo(args) => demo::demo(&args),
        Command::Simulate(args) => simulate::simulate(*args),
        Command::Image { size, seed } => image(size, seed),
        Command::Openapi => {
            print!("{}", crate::docs::document());
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn image(size: u32, seed: u64) -> Result<ExitCode, Fatal> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        return Err("an image is not for a terminal; write it to a file, as in `paperminder-ota image > firmware.bin`".into());
    }
    out.write_all(&crate::simulate::image::esp8266_image(size as usize, seed))?;
    Ok(ExitCode::SUCCESS)
}

/// An error that ends the process: only its sentence is shown.
type Fatal = Box<dyn std::error::Error + Send + Sync>;

/// A runtime for a command.
fn runtime() -> Result<tokio::runtime::Runtime, Fatal> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
