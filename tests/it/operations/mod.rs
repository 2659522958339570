//! What whoever runs the server does with it: the first start, upgrades and the way back, checks, figures, a backup and its
//! restore.

mod backup;
mod doctor;
mod figures;
mod rotation;
mod starting;
mod upgrade;

use std::process::Stdio;
use std::time::Duration;

use tokio::time::timeout;

use crate::support::weed;

/// Longest run of a command.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with exactly these settings in its environment.
#[derive(Clone)]
struct Program(Vec<(String, String)>);

/// How a command ended, and all that it said.
#[derive(Debug)]
struct Ran {
    ok: bool,
    said: String,
}

impl Program {
    /// On this database and S3 endpoint, whose administrator it is.
    fn on(database: String, endpoint: &str) -> Self {
        Self(Vec::new())
            .with("DATABASE_URL", &database)
            .with("AWS_ENDPOINT_URL_S3", endpoint)
            .with("AWS_ACCESS_KEY_ID", weed::ADMIN.0)
            .with("AWS_SECRET_ACCESS_KEY", weed::ADMIN.1)
            .with("LISTEN_ADDR", "127.0.0.1:0")
            .with("INTERNAL_ADDR", "127.0.0.1:0")
            .with("DRAIN_SECONDS", "0")
            .with("LOG_FORMAT", "json")
    }

    /// Another value for this setting.
    fn with(mut self, name: &str, value: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_paperminder-ota"));
        command.args(args).env_clear().envs(self.settings()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    async fn run(&self, args: &[&str]) -> Ran {
        let output = timeout(PATIENCE, self.command(args).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{args:?} does not end")).unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        Ran { ok: output.status.success(), said }
    }
}

impl Ran {
    /// It went well, and said this.
    #[track_caller]
    fn well(&self, text: &str) -> &Self {
        assert!(self.ok, "{}", self.said);
        self.says(text)
    }

    /// It went wrong, and said this.
    #[track_caller]
    fn badly(&self, text: &str) -> &Self {
        assert!(!self.ok, "{}", self.said);
        self.says(text)
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        assert!(self.said.contains(text), "`{text}` is missing in:\n{}", self.said);
        self
    }
}
