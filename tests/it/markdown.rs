//! As much of Markdown as the tests of the documentation need.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// A fenced block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The `##` heading that it stands under.
    pub section: String,
    /// The `###` heading below that, if there is one.
    pub part: String,
    /// What stands behind the opening fence.
    pub info: String,
    pub text: String,
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the checkout, by its path from the root.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents for people: in the root, and in `docs/`.
pub fn documents() -> Vec<PathBuf> {
    let mut found: Vec<_> = [root(), root().join("docs")]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    assert!(found.iter().any(|path| path.ends_with("README.md")) && found.len() > 2, "{found:?}");
    found
}

/// Every fenced block, in order.
pub fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut section, mut part) = (Vec::new(), String::new(), String::new());
    let mut open = None::<Block>;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                let (section, part) = (section.clone(), part.clone());
                open = Some(Block { section, part, info: info.trim().into(), text: String::new() });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {
                if let Some(name) = line.strip_prefix("## ") {
                    (section, part) = (name.trim().into(), String::new());
                } else if let Some(name) = line.strip_prefix("### ") {
                    part = name.trim().into();
                }
            }
        }
    }
    assert!(open.is_none(), "a block of code has no end: {open:?}");
    blocks
}

/// The text without its fenced blocks.
pub fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands in `backticks`, in the prose.
pub fn code_spans(text: &str) -> Vec<String> {
    prose(text).split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The targets of all links.
pub fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The anchors of all headings, as the usual renderers make them.
pub fn anchors(text: &str) -> Vec<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let name = line.trim_start_matches('#').trim().to_lowercase();
        let kept = name.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// The commands of a shell script, one by one, without the comments between them. A command goes on while its line ends
/// in a backslash or a quote is open.
pub fn commands(script: &str) -> Vec<String> {
    let (mut commands, mut command) = (Vec::new(), String::new());
    for line in script.lines() {
        if command.is_empty() && (line.trim().is_empty() || line.starts_with('#')) {
            continue;
        }
        command.push_str(line);
        if is_complete(&command) {
            commands.push(std::mem::take(&mut command));
        } else {
            command.push('\n');
        }
    }
    assert!(command.is_empty(), "a command has no end: {command}");
    commands
}

fn is_complete(command: &str) -> bool {
    let mut quote = None;
    for c in command.chars() {
        match quote {
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
    }
    quote.is_none() && !command.ends_with('\\')
}

#[test]
fn scripts_are_taken_apart_as_a_shell_would() {
    let script = "# one\ncurl a \\\n  -d '{\n# no comment\n}'\n\ncurl b | jq '.x'\n";
    assert_eq!(commands(script), ["curl a \\\n  -d '{\n# no comment\n}'", "curl b | jq '.x'"]);
}

#[test]
fn blocks_know_their_section() {
    let text = "# T\n## A b\n```bash\n# x\n```\ntext `one` [l](x.md#y)\n### c\n```json request\n{}\n```\n";
    let block = |part: &str, info: &str, text: &str| Block {
        section: "A b".into(),
        part: part.into(),
        info: info.into(),
        text: text.into(),
    };
    assert_eq!(blocks(text), [block("", "bash", "# x\n"), block("c", "json request", "{}\n")]);
    assert_eq!((code_spans(text), links(text)), (vec!["one".to_owned()], vec!["x.md#y".to_owned()]));
    assert_eq!(anchors("# A\n## 2. Two Words\n"), ["a", "2-two-words"]);
}
