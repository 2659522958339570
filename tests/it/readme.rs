//! What the documents for people say of settings, commands, files and metrics is so.

use std::collections::BTreeSet;

use clap::Parser as _;
use paperminder_ota::config::SETTINGS;
use paperminder_ota::simulate;

use crate::markdown::{anchors, blocks, code_spans, commands, documents, links, read, root};

/// What stands in code: spans of the prose, and lines of blocks.
fn code(text: &str) -> Vec<String> {
    let lines = blocks(text).into_iter().flat_map(|block| {
        block.text.lines().map(|line| line.trim_start_matches("$ ").to_owned()).collect::<Vec<_>>()
    });
    code_spans(text).into_iter().chain(lines).collect()
}

/// Words of a text that begin like a metric of ours.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("paperminder_") || word.starts_with("http_server_"));
    ours.filter(|word| *word != "paperminder_ota").map(str::to_owned).collect()
}

#[test]
fn the_table_of_settings_is_that_of_the_server() {
    let readme = read("README.md");
    let table = readme.split("\n### Configuration\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<(&str, &str)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`'));
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let (standard, ours): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(name, _)| name.starts_with("AWS_") || name.starts_with("OTEL_"));
    let expected: Vec<_> = SETTINGS.iter().map(|setting| (setting.name, setting.default)).collect();
    assert_eq!(ours, expected);
    assert_eq!(standard.len(), 2);
}

#[test]
fn every_make_target_exists() {
    let makefile = read("Makefile");
    let exists = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let mut named = BTreeSet::new();
    for path in documents() {
        for code in code(&read(&path)) {
            let Some(target) = code.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next())
            else {
                continue;
            };
            assert!(exists(target), "{}: `make {target}` is in no Makefile", path.display());
            named.insert(target.to_owned());
        }
    }
    for target in ["demo", "dev", "test", "ci", "prepare"] {
        assert!(named.contains(target), "`make {target}` is explained nowhere");
    }
}

#[test]
fn every_example_of_simulate_is_understood() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        _args: simulate::Args,
    }
    let mut examples = 0;
    for path in documents() {
        for line in code(&read(path)) {
            let Some(options) = line.strip_prefix("cargo run -- simulate") else { continue };
            let options = options.split('#').next().unwrap_or_default().split_whitespace();
            match Cli::try_parse_from(std::iter::once("simulate").chain(options)) {
                Err(error) if error.kind() != clap::error::ErrorKind::DisplayHelp => {
                    panic!("{line}: {error}")
                }
                _ => examples += 1,
            }
        }
    }
    assert!(examples > 4);
}

#[test]
fn every_link_leads_somewhere() {
    for path in documents() {
        let text = read(&path);
        for link in links(&text) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} is not there", path.display());
            let known = anchor.is_empty() || anchors(&read(&target)).iter().any(|known| known == anchor);
            assert!(known, "{}: {link} has no such heading", path.display());
        }
    }
}

#[test]
fn every_file_that_is_named_exists() {
    for path in documents() {
        let spans = code_spans(&read(&path));
        let files = spans.iter().filter(|span| {
            ["src/", "tests/", "docs/", "migrations/", "scripts/"]
                .iter()
                .any(|folder| span.starts_with(folder))
                && !span.contains(['<', ' ', '*'])
                && !span.contains("YYYY")
        });
        for file in files {
            assert!(root().join(file).exists(), "{}: {file} is not there", path.display());
        }
    }
}

#[test]
fn every_metric_that_is_named_exists() {
    const ROLES: [&str; 2] = ["paperminder_owner", "paperminder_server"];
    let mut described: BTreeSet<_> = read("src/telemetry/metrics.rs")
        .split("describe_")
        .skip(1)
        .filter_map(|rest| rest.split_once('!')?.1.split('"').nth(1).map(str::to_owned))
        .collect();
    assert!(described.len() > 5, "{described:?}");
    let own = metrics(&read("src/stats/figures.rs"));
    assert!(own.len() > 5, "{own:?}");
    described.extend(own);
    let mut named = BTreeSet::new();
    for path in documents() {
        // Roles of PostgreSQL are named alike.
        for metric in metrics(&read(&path)).into_iter().filter(|name| !ROLES.contains(&name.as_str())) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| metric.strip_suffix(part));
            let exists = described.contains(&metric) || base.is_some_and(|base| described.contains(base));
            assert!(exists, "{}: {metric} is no metric", path.display());
            named.insert(metric);
        }
    }
    assert!(!named.is_empty());
}

#[test]
fn every_status_and_reason_is_in_the_guide() {
    use paperminder_ota::{rollouts, updates};
    let spans = code_spans(&read("docs/guide.md"));
    let rollout = rollouts::Status::ALL.iter().map(|status| status.as_str());
    let update = updates::Status::ALL.iter().map(|status| status.as_str());
    let reasons = updates::Reason::ALL.iter().map(|reason| reason.as_str());
    for word in rollout.chain(update).chain(reasons) {
        assert!(spans.iter().any(|span| span == word), "`{word}` is explained nowhere");
    }
}

#[test]
fn the_quick_start_is_that_of_the_guide() {
    let scripts = |path: &str| -> Vec<String> {
        let blocks = blocks(&read(path));
        blocks.iter().filter(|block| block.info == "bash").flat_map(|block| commands(&block.text)).collect()
    };
    let guide = scripts("docs/guide.md");
    let strange: Vec<_> = scripts("README.md")
        .into_iter()
        .filter(|command| command.starts_with("curl") && !command.ends_with("/api/rollouts/1"))
        .filter(|command| !guide.contains(command))
        .collect();
    assert!(strange.is_empty(), "these are not in the guide, so no test runs them: {strange:#?}");
}
