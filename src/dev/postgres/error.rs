//! What can go wrong on the way to a running server, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no PostgreSQL server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "PostgreSQL 14 or newer is needed, but `initdb` and `postgres` are neither in PATH nor in the usual places: run `scripts/setup` or install your system's PostgreSQL server package"
    )]
    NotInstalled,
    #[error("PostgreSQL {found} in {} is too old, 14 or newer is needed: run `scripts/setup` or install a newer server", folder.display())]
    TooOld { found: u32, folder: PathBuf },
    #[error("the database was made by PostgreSQL {data}, but only {found} is installed (in {}): install PostgreSQL {data}, or delete the database's folder to begin anew", folder.display())]
    OtherMajor { data: u32, found: u32, folder: PathBuf },
    #[error(
        "PostgreSQL refuses to run as root, and neither `postgres` nor `nobody` exists to run it as: create one of these users or start as an ordinary user"
    )]
    NoAccount,
    #[error("the user {uid} that PostgreSQL is to run as cannot reach {}: move the checkout to where that user can, or delete the folder to begin anew", folder.display())]
    Unreachable { folder: PathBuf, uid: u32 },
    #[error("the folder {} belongs to user {owner}, not to the one running this: start as that user or delete the folder to begin anew", folder.display())]
    NotOurs { folder: PathBuf, owner: u32 },
    #[error("{} is not empty and not a database of ours: move what is in it or choose another folder", data.display())]
    NotADatabase { data: PathBuf },
    #[error("another run already uses {}: stop that one first, or give this one a folder of its own", folder.display())]
    InUse { folder: PathBuf },
    #[error("a PostgreSQL server that was started by hand runs on {}: stop it first", data.display())]
    Foreign { data: PathBuf },
    #[error("the PostgreSQL server of an earlier run on {} is still shutting down after a minute: see {}, and stop it by hand if it hangs", data.display(), log.display())]
    Predecessor { data: PathBuf, log: PathBuf },
    #[error("`initdb` could not create a database in {}: {output}", data.display())]
    Initdb { data: PathBuf, output: String },
    #[error("PostgreSQL did not start; the end of its log {} says:\n{tail}", log.display())]
    Start { log: PathBuf, tail: String },
    #[error("PostgreSQL went away by itself; the end of its log {} says:\n{tail}", log.display())]
    Died { log: PathBuf, tail: String },
    #[error("PostgreSQL started but does not let us in: {source}; its log is {}", log.display())]
    Connect { log: PathBuf, source: sqlx::Error },
    #[error("PostgreSQL is still shutting down after {seconds} s; it will finish by itself, see {}", log.display())]
    Stop { seconds: u64, log: PathBuf },
    #[error("could not {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the preparation of the database broke off: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }
}
