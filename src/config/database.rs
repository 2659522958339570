//! Where the database is, and its password, which may stand in a file of its own: a URL without one is no secret, and
//! whoever rotates passwords (a secrets operator, RDS) writes a password and nothing else.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::reader::Reader;

/// A PostgreSQL database and who we are there.
#[derive(Clone, Debug)]
pub struct Database {
    url: SecretString,
    password_file: Option<PathBuf>,
}

impl Database {
    /// `postgres://user:password@host:5432/database`; the password may be elsewhere.
    pub fn url(&self) -> &SecretString {
        &self.url
    }

    /// Whether the password may change while we run.
    pub fn rotates(&self) -> bool {
        self.password_file.is_some()
    }

    /// The password as the file has it now; none when it stands in the URL. The error names the file.
    pub fn password(&self) -> Result<Option<SecretString>, String> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let wrong = |why: String| format!("DATABASE_PASSWORD_FILE: {} {why}.", path.display());
        let text =
            std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err(wrong("is empty".into())) } else { Ok(Some(text.into())) }
    }
}

impl From<String> for Database {
    fn from(url: String) -> Self {
        Self { url: url.into(), password_file: None }
    }
}

/// The value may hold a password, so it is never repeated.
pub(super) fn read_database(read: &mut Reader<'_>) -> Database {
    let before = read.wrong.len();
    let url = read.secret("DATABASE_URL").unwrap_or_default();
    let text = url.expose_secret();
    let parsed = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    let database = Database { password_file: read.text("DATABASE_PASSWORD_FILE").map(PathBuf::from), url };
    match parsed {
        _ if read.wrong.len() > before => {}
        None => read.wrong.push(
            "DATABASE_URL must be set to a PostgreSQL database, as in postgres://user:password@host:5432/paperminder, or DATABASE_URL_FILE to a file with one.".into(),
        ),
        Some(url) if database.rotates() && url.password().is_some() => read.wrong.push(
            "DATABASE_URL has a password and DATABASE_PASSWORD_FILE is set too: leave one of them out.".into(),
        ),
        Some(_) => read.wrong.extend(database.password().err()),
    }
    database
}

impl Reader<'_> {
    /// A secret: under its name, or in the file that its name with `_FILE` names. What it holds is never repeated.
    pub(super) fn secret(&mut self, name: &str) -> Option<SecretString> {
        let file = format!("{name}_FILE");
        match (self.text(name), self.text(&file)) {
            (None, None) => None,
            (Some(text), None) => Some(text.into()),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {
                    self.wrong.push(format!("{file}: {path} is empty."));
                    None
                }
                Ok(text) => Some(text.trim_end_matches(['\r', '\n']).into()),
                Err(error) => {
                    self.wrong.push(format!("{file}: {path} cannot be read: {error}."));
                    None
                }
            },
            (Some(_), Some(_)) => {
                self.wrong.push(format!("{name} and {file} are both set: set one of them."));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Database, String> {
        let lookup =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let mut read = Reader { lookup: &lookup, wrong: Vec::new() };
        let database = read_database(&mut read);
        if read.wrong.is_empty() { Ok(database) } else { Err(read.wrong.join("\n")) }
    }

    fn complaint(pairs: &[(&str, &str)]) -> String {
        read(pairs).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_secret_may_stand_in_a_file_but_not_in_two_places() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, "postgres://u:swordfish@db/pm\n").unwrap();
        let config = read(&[("DATABASE_URL_FILE", path)]).unwrap();
        assert_eq!(config.url().expose_secret(), "postgres://u:swordfish@db/pm");
        let both = complaint(&[("DATABASE_URL_FILE", path), ("DATABASE_URL", "postgres://u:hunter2@db/pm")]);
        assert!(both.contains("DATABASE_URL and DATABASE_URL_FILE are both set"), "{both}");
        assert!(!both.contains("hunter2") && !both.contains("swordfish"), "{both}");
        let missing = complaint(&[("DATABASE_URL_FILE", "/nowhere/url")]);
        assert!(missing.contains("DATABASE_URL_FILE: /nowhere/url cannot be read"), "{missing}");
        std::fs::write(path, "mysql://u:swordfish@db/pm\n").unwrap();
        let wrong = complaint(&[("DATABASE_URL_FILE", path)]);
        assert!(wrong.contains("DATABASE_URL must") && !wrong.contains("swordfish"), "{wrong}");
        std::fs::write(path, "\n").unwrap();
        assert!(complaint(&[("DATABASE_URL_FILE", path)]).contains("is empty"));
    }

    #[test]
    fn a_password_may_stand_alone_in_a_file_and_change() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let url = ("DATABASE_URL", "postgres://u@db/pm");
        let pair = ("DATABASE_PASSWORD_FILE", path);
        assert!(
            complaint(&[url, pair]).contains("DATABASE_PASSWORD_FILE")
                && complaint(&[url, pair]).contains("is empty")
        );
        std::fs::write(path, "sword/fi:sh@\n").unwrap();
        let database = read(&[url, pair]).unwrap();
        assert_eq!(database.password().unwrap().unwrap().expose_secret(), "sword/fi:sh@");
        std::fs::write(path, "another").unwrap();
        assert_eq!(database.password().unwrap().unwrap().expose_secret(), "another");
        let two = complaint(&[("DATABASE_URL", "postgres://u:hunter2@db/pm"), pair]);
        assert!(two.contains("leave one of them out") && !two.contains("hunter2"), "{two}");
        let gone = complaint(&[url, ("DATABASE_PASSWORD_FILE", "/nowhere/password")]);
        assert!(gone.contains("/nowhere/password cannot be read"), "{gone}");
        assert!(!read(&[url]).unwrap().rotates());
    }
}
