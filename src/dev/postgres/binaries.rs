//! Which PostgreSQL to run: the programs that this machine has.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// The oldest release that the migrations are written for.
const OLDEST: u32 = 14;

/// A folder that holds both `initdb` and `postgres`, of one major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    /// The first in PATH, else what `pg_config` names, else the newest in the places where packages put servers
    /// (Debian keeps them out of PATH). When there is data already, only its own major version can open it.
    pub(super) fn find(data_major: Option<u32>) -> Result<Self, Error> {
        Self::choose(candidates(), data_major)
    }

    fn choose(found: Vec<Self>, data_major: Option<u32>) -> Result<Self, Error> {
        let Some(first) = found.first().cloned() else { return Err(Error::NotInstalled) };
        let fits = |b: &&Self| b.major >= OLDEST && data_major.is_none_or(|major| major == b.major);
        match (found.iter().find(fits), data_major) {
            (Some(binaries), _) => Ok(binaries.clone()),
            (None, Some(major)) if major >= OLDEST => {
                Err(Error::OtherMajor { data: major, found: first.major, folder: first.folder })
            }
            (None, _) => Err(Error::TooOld { found: first.major, folder: first.folder }),
        }
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }
}

fn candidates() -> Vec<Binaries> {
    // PATH is how programs are found, not a setting of this server, so it is not `config`'s.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    folders.extend(output_of(Command::new("pg_config").arg("--bindir")).map(PathBuf::from));

    let mut found: Vec<Binaries> = folders.iter().filter_map(|folder| inspect(folder)).collect();
    let mut packaged: Vec<Binaries> = package_folders().iter().filter_map(|folder| inspect(folder)).collect();
    packaged.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    found.append(&mut packaged);
    found
}

/// Debian and Ubuntu; the PostgreSQL project's RPMs; Alpine; Homebrew on both processors; Postgres.app.
fn package_folders() -> Vec<PathBuf> {
    const PLACES: [(&str, &str, &str); 6] = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/libexec", "postgresql", ""),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ];
    let mut folders = Vec::new();
    for (parent, prefix, below) in PLACES {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                folders.push(entry.path().join(below));
            }
        }
    }
    folders
}

fn inspect(folder: &Path) -> Option<Binaries> {
    if !folder.join("initdb").is_file() {
        return None;
    }
    let version = output_of(Command::new(folder.join("postgres")).arg("--version"))?;
    Some(Binaries { folder: folder.to_path_buf(), major: major(&version)? })
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` is 15, and so is `15beta1`.
fn major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(std::process::Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(major: u32) -> Binaries {
        Binaries { folder: PathBuf::from(format!("/pg/{major}")), major }
    }

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        assert_eq!(major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major("mysqld 8"), None);
    }

    #[test]
    fn the_first_that_is_new_enough_is_taken() {
        assert_eq!(Binaries::choose(vec![at(12), at(16), at(17)], None).unwrap(), at(16));
        assert!(matches!(Binaries::choose(vec![], None), Err(Error::NotInstalled)));
        let refusal = Binaries::choose(vec![at(12)], None).unwrap_err();
        assert!(matches!(refusal, Error::TooOld { found: 12, .. }), "{refusal}");
    }

    #[test]
    fn data_is_opened_by_its_own_major_version_only() {
        assert_eq!(Binaries::choose(vec![at(17), at(15)], Some(15)).unwrap(), at(15));
        let refusal = Binaries::choose(vec![at(17)], Some(15)).unwrap_err();
        assert!(matches!(refusal, Error::OtherMajor { data: 15, found: 17, .. }), "{refusal}");
    }
}
