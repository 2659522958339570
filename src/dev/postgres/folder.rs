//! Where the data lies and whose it is.
//!
//! The folder given by the caller holds `data/` (PostgreSQL's own), `postgres.log` (of the latest run) and `lock`.
//! PostgreSQL refuses to run as root, so root runs it as somebody else, who must be able to reach the folder. Under
//! `/root` nobody can; then the folder becomes a symlink into `/var/tmp`, so that people still find it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::Error;

/// How long a previous server may take to write its last checkpoint.
const PREDECESSOR: Duration = Duration::from_secs(60);

/// The user that the server runs as, when that is not the user that we run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The folder, reachable, owned by the right user and held by this process alone.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// `None` when the server simply runs as we do.
    pub(super) account: Option<Account>,
    /// Says that a run is going on; released by the kernel when this process ends.
    _owner: File,
}

impl Folder {
    /// Blocking; `me` is the effective user id of this process.
    pub(super) fn open(wanted: &Path, me: u32) -> Result<Self, Error> {
        let wanted = std::path::absolute(wanted).map_err(|e| Error::io("look up", wanted, e))?;
        let (path, account) = match me {
            0 => as_root(&wanted)?,
            _ => (as_ourselves(&wanted, me)?, None),
        };
        let lock = path.join("lock");
        let owner = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock)
            .map_err(|e| Error::io("open", &lock, e))?;
        match owner.try_lock() {
            Ok(()) => Ok(Self { path, account, _owner: owner }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { folder: wanted }),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &lock, e)),
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// The major version that wrote the data, `None` when there is none yet.
    pub(super) fn data_major(&self) -> Result<Option<u32>, Error> {
        let file = self.data().join("PG_VERSION");
        match std::fs::read_to_string(&file) {
            Ok(text) => match text.trim().split('.').next().and_then(|major| major.parse().ok()) {
                Some(major) => Ok(Some(major)),
                None => Err(Error::NotADatabase { data: self.data() }),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // `initdb` works in another folder that is renamed when it is done, so this is not our doing.
                match is_empty(&self.data()) {
                    true => Ok(None),
                    false => Err(Error::NotADatabase { data: self.data() }),
                }
            }
            Err(e) => Err(Error::io("read", &file, e)),
        }
    }

    /// Opens the log for a new run. Every process of a server inherits the open log and with it the lock on it, so
    /// having the lock proves that no server of an earlier run is left, better than any file with a process id does.
    pub(super) fn open_log(&self) -> Result<File, Error> {
        let path = self.log();
        let failed = |doing, e| Error::io(doing, &path, e);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| failed("open", e))?;
        let deadline = Instant::now() + PREDECESSOR;
        loop {
            match log.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Predecessor { data: self.data(), log: path });
                }
                Err(TryLockError::Error(e)) => return Err(failed("lock", e)),
            }
        }
        log.set_len(0).map_err(|e| failed("empty", e))?;
        self.forget_dead_server()?;
        Ok(log)
    }

    /// Removes a `postmaster.pid` that a killed server left. PostgreSQL does so itself unless the process id is in use
    /// again, and in a container, where ids start from 1 every time, it usually is. A server that somebody started by
    /// hand on this folder does answer, and is left alone.
    fn forget_dead_server(&self) -> Result<(), Error> {
        let path = self.data().join("postmaster.pid");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        // Its lines: process id, data folder, start time, port, socket folder, listen address, …
        let mut lines = text.lines().skip(3);
        if let (Some(port), Some(sockets)) = (lines.next(), lines.next())
            && !sockets.is_empty()
            && UnixStream::connect(Path::new(sockets).join(format!(".s.PGSQL.{port}"))).is_ok()
        {
            return Err(Error::Foreign { data: self.data() });
        }
        std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))
    }

    /// Runs `command` as the server's user, in a folder that this user can be in.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }
}

fn as_ourselves(wanted: &Path, me: u32) -> Result<PathBuf, Error> {
    create(wanted)?;
    let owner = std::fs::metadata(wanted).map_err(|e| Error::io("look at", wanted, e))?.uid();
    if owner != me {
        return Err(Error::NotOurs { folder: wanted.to_path_buf(), owner });
    }
    restrict(wanted)?;
    Ok(wanted.to_path_buf())
}

fn as_root(wanted: &Path) -> Result<(PathBuf, Option<Account>), Error> {
    let look = |e| Error::io("look at", wanted, e);
    let elsewhere = Path::new("/var/tmp").join(format!("paperminder-ota-{}", short_hash(wanted)));
    if std::fs::read_link(wanted).is_ok_and(|target| target == elsewhere) {
        return Ok((elsewhere.clone(), Some(in_var_tmp(&elsewhere)?)));
    }
    create(wanted)?;
    let path = wanted.canonicalize().map_err(look)?;
    if !is_empty(&path) && !path.join("lock").exists() {
        // We are about to give it to another user, so be sure that it is what we think.
        return Err(Error::NotADatabase { data: path });
    }
    let found = std::fs::metadata(&path).map_err(look)?;
    // What a user's own `dev` made stays that user's, so that `sudo` once does not lock them out for good.
    let account = match found.uid() {
        0 => service_account()?,
        uid => Account { uid, gid: found.gid() },
    };
    if reachable(&path, account)? {
        return Ok((path, Some(account)));
    }
    if !is_empty(&path) {
        return Err(Error::Unreachable { folder: path, uid: account.uid });
    }
    let account = in_var_tmp(&elsewhere)?;
    std::fs::remove_dir(&path).map_err(|e| Error::io("remove", &path, e))?;
    symlink(&elsewhere, wanted).map_err(|e| Error::io("link", wanted, e))?;
    Ok((elsewhere, Some(account)))
}

/// The substitute for a folder that only root can reach. Its name can be guessed and /var/tmp is everybody's, so take
/// nothing that somebody else has put there.
fn in_var_tmp(place: &Path) -> Result<Account, Error> {
    let account = service_account()?;
    create(place)?;
    let found = std::fs::symlink_metadata(place).map_err(|e| Error::io("look at", place, e))?;
    if !found.is_dir() || ![0, account.uid].contains(&found.uid()) {
        return Err(Error::NotOurs { folder: place.to_path_buf(), owner: found.uid() });
    }
    match reachable(place, account)? {
        true => Ok(account),
        false => Err(Error::Unreachable { folder: place.to_path_buf(), uid: account.uid }),
    }
}

/// `postgres`, whom the packages create for this, else `nobody`.
fn service_account() -> Result<Account, Error> {
    let id = |flag: &str, user: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, user]).stderr(Stdio::null()).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    ["postgres", "nobody"]
        .iter()
        .find_map(|user| Some(Account { uid: id("-u", user)?, gid: id("-g", user)? }))
        .filter(|account| account.uid != 0)
        .ok_or(Error::NoAccount)
}

/// Makes the folder the account's and says whether it can work there. The kernel is asked, not the permission bits:
/// access lists and mount options count too.
fn reachable(folder: &Path, account: Account) -> Result<bool, Error> {
    chown(folder, Some(account.uid), Some(account.gid)).map_err(|e| Error::io("give away", folder, e))?;
    restrict(folder)?;
    let status = Command::new("/bin/sh")
        .args(["-c", r#"test -w "$1" && test -x "$1""#, "sh"])
        .arg(folder)
        .current_dir("/")
        .uid(account.uid)
        .gid(account.gid)
        .status()
        .map_err(|e| Error::io("run", Path::new("/bin/sh"), e))?;
    Ok(status.success())
}

fn restrict(folder: &Path) -> Result<(), Error> {
    std::fs::set_permissions(folder, Permissions::from_mode(0o700))
        .map_err(|e| Error::io("restrict", folder, e))
}

fn create(folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
    }
    DirBuilder::new().mode(0o700).create(folder).map_err(|e| Error::io("create", folder, e))
}

/// Also true of what is not there.
fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn short_hash(path: &Path) -> String {
    let mut hash = hex::encode(Sha256::digest(path.as_os_str().as_encoded_bytes()));
    hash.truncate(12);
    hash
}
