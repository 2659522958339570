//! Somebody who works through the guide at a keyboard, and compares what is answered with what is printed.

#![expect(clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, VecDeque};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use paperminder_ota::simulate::image::esp8266_image;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::markdown::{Block, blocks, commands, read};
use crate::support::Server;

/// A section of the guide, and a desk with the files that it names.
pub struct Pupil {
    desk: TempDir,
    /// The commands still to come, each with the answer that the guide shows for it.
    lessons: VecDeque<(String, Option<Value>)>,
}

/// What a command said.
#[must_use]
pub struct Said {
    command: String,
    status: u16,
    body: Value,
}

impl Pupil {
    pub fn of(section: &str, server: &Server) -> Self {
        Self::with(lessons(|block| block.section == section), server)
    }

    /// Only for one part of it.
    pub fn of_part(section: &str, part: &str, server: &Server) -> Self {
        Self::with(lessons(|block| block.section == section && block.part == part), server)
    }

    fn with(lessons: VecDeque<(String, Option<Value>)>, server: &Server) -> Self {
        let desk = tempfile::tempdir().unwrap();
        // The commands name localhost:8000, and so they stay: curl itself is told where that is. The status goes to
        // stderr, so that a command may pipe its answer into jq.
        let port = server.app().address.port();
        let curlrc = format!(
            "connect-to = \"localhost:8000:127.0.0.1:{port}\"\nnoproxy = \"*\"\nsilent\nshow-error\nmax-time = 60\n\
             write-out = \"%{{stderr}}%{{http_code}}\"\n"
        );
        std::fs::write(desk.path().join(".curlrc"), curlrc).unwrap();
        std::fs::create_dir(desk.path().join("to")).unwrap();
        for name in ["firmware.bin", "firmware-1.5.0.bin", "to/paperminder-1.5.0.bin"] {
            std::fs::write(desk.path().join(name), image()).unwrap();
        }
        std::fs::write(desk.path().join("firmware-1.4.0.bin"), esp8266_image(20 << 10, 14)).unwrap();
        let build = desk.path().join("build-firmware.sh");
        std::fs::write(&build, "#!/bin/sh\ncp firmware.bin paperminder-1.5.0.bin\n").unwrap();
        std::fs::set_permissions(&build, Permissions::from_mode(0o755)).unwrap();
        Self { desk, lessons }
    }

    /// Runs the next command, which must hold `part`, and compares what it says with what the guide shows.
    pub async fn run(&mut self, part: &str) -> Said {
        let (command, shown) =
            self.lessons.pop_front().unwrap_or_else(|| panic!("no command with {part} is left"));
        assert!(command.contains(part), "the next command should hold {part}:\n{command}");
        // A path that stands for the reader's own; everything else is run as it is printed.
        let typed = command.replace("/path/to/", &format!("{}/to/", self.desk.path().display()));
        let mut bash = Command::new("bash");
        bash.args(["-c", watched(&typed)]).current_dir(self.desk.path()).env("CURL_HOME", self.desk.path());
        let output = bash.kill_on_drop(true).output().await.unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // A stream without an end is watched for a while (28: the time is over).
        let watched = command.contains("--max-time") && output.status.code() == Some(28);
        assert!(output.status.success() || watched, "{command}\n{stdout}\n{stderr}");
        let status = match command.contains("curl") {
            true => stderr
                .trim()
                .lines()
                .last()
                .unwrap_or_default()
                .parse()
                .unwrap_or_else(|_| panic!("{command}\n{stdout}\n{stderr}")),
            false => 200,
        };
        let body = serde_json::from_str(&stdout).unwrap_or_else(|_| Value::from(stdout.trim()));
        if let Some(shown) = shown.filter(|_| (200..300).contains(&status)) {
            let mut wrong = Vec::new();
            compare("$", &shown, &body, &mut wrong);
            let real = serde_json::to_string_pretty(&body).unwrap();
            assert!(wrong.is_empty(), "the guide's answer differs: {wrong:#?}\n{command}\n{real}");
        }
        Said { command, status, body }
    }

    /// Every command was run.
    pub fn done(self) {
        assert!(self.lessons.is_empty(), "commands that nobody looks at: {:#?}", self.lessons);
    }

    pub fn desk(&self) -> &Path {
        self.desk.path()
    }
}

impl Said {
    /// The body, which must have come with this status; 200 without curl.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}\n{}", self.command, self.body);
        self.body
    }
}

/// The image that the commands upload.
pub fn image() -> Vec<u8> {
    esp8266_image(20 << 10, 15)
}

/// What `watch` runs, once.
fn watched(command: &str) -> &str {
    let watch = command.strip_prefix("watch -n ").and_then(|rest| rest.split_once(" '"));
    watch.and_then(|(_, inner)| inner.strip_suffix('\'')).unwrap_or(command)
}

/// The commands of these blocks. A JSON block shows the answer to every command of the bash block before it.
fn lessons(wanted: impl Fn(&Block) -> bool) -> VecDeque<(String, Option<Value>)> {
    let all: Vec<Block> = blocks(&read("docs/guide.md")).into_iter().filter(wanted).collect();
    let mut lessons = VecDeque::new();
    for (index, block) in all.iter().enumerate().filter(|(_, block)| block.info == "bash") {
        let shown = all.get(index + 1).filter(|next| next.info == "json");
        let shown: Option<Value> = shown.map(|shown| serde_json::from_str(&shown.text).expect(&shown.text));
        lessons.extend(commands(&block.text).into_iter().map(|command| (command, shown.clone())));
    }
    assert!(!lessons.is_empty(), "there are no such commands");
    lessons
}

/// Same keys, same kinds of values; null may stand for anything.
fn compare(path: &str, shown: &Value, real: &Value, wrong: &mut Vec<String>) {
    const REASONS: [&str; 5] =
        ["not_older", "runs_it", "auto_update_off", "no_release_for_platform", "below_min_upgrade_version"];
    match (shown, real) {
        (Value::Null, _) | (_, Value::Null) => {}
        // A map by reason, of which one answer has these and another those.
        (Value::Object(shown), Value::Object(real)) if path.ends_with(".excluded") => {
            let unknown = shown.keys().chain(real.keys()).filter(|key| !REASONS.contains(&key.as_str()));
            wrong.extend(unknown.map(|key| format!("{path}.{key} is no reason")));
        }
        (Value::Object(shown), Value::Object(real)) => {
            let keys: BTreeSet<_> = shown.keys().chain(real.keys()).collect();
            for key in keys {
                match (shown.get(key), real.get(key)) {
                    (Some(shown), Some(real)) => compare(&format!("{path}.{key}"), shown, real, wrong),
                    (None, _) => wrong.push(format!("{path}.{key} is not shown")),
                    (_, None) => wrong.push(format!("{path}.{key} is not answered")),
                }
            }
        }
        (Value::Array(shown), Value::Array(real)) => match (shown.first(), real.first()) {
            (Some(shown), Some(_)) => {
                real.iter().for_each(|real| compare(&format!("{path}[]"), shown, real, wrong));
            }
            (Some(_), None) => wrong.push(format!("{path} is empty")),
            (None, _) => {}
        },
        _ if std::mem::discriminant(shown) == std::mem::discriminant(real) => {}
        _ => wrong.push(format!("{path} is shown as {shown} and answered as {real}")),
    }
}
