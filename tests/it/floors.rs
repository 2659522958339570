//! The house keeps its floors: imports go down only. The map is in `src/lib.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From the ground up: a room may import those before it.
const ORDER: &[&str] = &[
    "ids",
    "version",
    "words",
    "clock",
    "windows", // words
    "config",
    "shutdown",
    "rates",
    "telemetry",
    "db",
    "storage",
    "http", // tools
    "audit",
    "idempotency",
    "auth",
    "push",
    "events", // shared
    "firmware",
    "printers",
    "updates",
    "links",
    "rollouts",
    "stats", // rooms
    "state",
];
/// The top floor, whose members may know each other.
const EDGES: &[&str] = &["line", "jobs", "docs", "app", "cli", "main", "lib"];
/// Strangers: they know nothing of the house.
const STRANGERS: &[&str] = &["simulate", "dev"];
/// Files and folders of a room that belong to the edges.
const EDGE_FILES: &[&str] = &["http.rs", "http", "wire.rs"];
/// Neighbours that do not know each other although their order would allow it.
const APART: &[(&str, &str)] = &[
    ("printers", "firmware"),
    ("updates", "firmware"),
    ("auth", "push"),
    ("push", "http"),
    ("push", "storage"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a file names behind `crate::`, with the lines. Tests and comments do not count.
fn imports(text: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    for (index, line) in code.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        for part in line.split("crate::").skip(1) {
            let names = part.strip_prefix('{').map_or_else(|| part.to_owned(), |list| list.replace('}', ""));
            let grouped = part.starts_with('{');
            for name in names.split(',').take(if grouped { usize::MAX } else { 1 }) {
                let name: String =
                    name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !name.is_empty() {
                    found.entry(name).or_insert(index + 1);
                }
            }
        }
    }
    found
}

/// Why this import may not be, if so.
fn complaint(file: &Path, imported: &str) -> Option<String> {
    let room = file.components().next()?.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
    let place = |name: &str| ORDER.iter().position(|known| *known == name);
    let known = place(imported).is_some() || EDGES.contains(&imported) || STRANGERS.contains(&imported);
    if !known || imported == room {
        // A macro or an item of the crate's root; rooms that the list does not know are found by their own files.
        return None;
    }
    if STRANGERS.contains(&room.as_str()) {
        return Some("must know nothing of the house".into());
    }
    let edge = EDGES.contains(&room.as_str())
        || file.components().skip(1).any(|part| EDGE_FILES.iter().any(|edge| part.as_os_str() == *edge));
    let Some(own) = place(&room) else {
        return (!edge)
            .then(|| format!("`{room}` stands on no floor: add it to the list and to the map in lib.rs"));
    };
    if APART.contains(&(room.as_str(), imported)) {
        return Some("are neighbours that do not know each other".into());
    }
    match place(imported) {
        Some(below) if below < own || edge => None,
        Some(_) => Some("is above it, or beside it".into()),
        None if edge => None,
        None => Some("is on the top floor".into()),
    }
}

#[test]
fn imports_go_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let mut complaints = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        for (imported, line) in imports(&std::fs::read_to_string(&file).unwrap()) {
            if let Some(why) = complaint(relative, &imported) {
                complaints.push(format!("src/{}:{line} imports `{imported}`: {why}", relative.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn an_import_that_goes_up_is_found() {
    let bad = [
        ("updates/offer.rs", "rollouts"),
        ("storage/s3.rs", "http"),
        ("printers/db.rs", "updates"),
        ("http/page.rs", "firmware"),
        ("updates/types.rs", "firmware"),
        ("rollouts/engine.rs", "state"),
        ("simulate/wire.rs", "ids"),
        ("nowhere/mod.rs", "ids"),
    ];
    for (file, imported) in bad {
        assert!(complaint(Path::new(file), imported).is_some(), "{file} imports {imported}");
    }
    for (file, imported) in [
        ("rollouts/http.rs", "state"),
        ("rollouts/engine.rs", "updates"),
        ("line/socket.rs", "rollouts"),
        ("app.rs", "jobs"),
    ] {
        assert_eq!(complaint(Path::new(file), imported), None, "{file} imports {imported}");
    }
    assert_eq!(
        imports("use crate::{db, ids::X};\n// crate::app\nlet x = crate::http::Y;")
            .into_keys()
            .collect::<Vec<_>>(),
        ["db", "http", "ids"]
    );
}
