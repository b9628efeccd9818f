//! Locks of the operating system's file system, and which process holds them.
//!
//! The lock itself is the operating system's (`flock` on Unix) and ends with the process. Who
//! holds it is for error messages only, so it may be missing but must not be wrong:
//! - this process keeps a list of its own locks;
//! - the holder of an exclusive lock writes its process id into the file, in decimal with a line
//!   feed, and cuts the file to nothing before it releases the lock. A process that was killed
//!   leaves its id behind, so the id is read only while a process holds an exclusive lock.
//!
//! A reader may find no lock file, on a medium that is or was read-only, and must not make one. It
//! locks the directory, which takes nothing but a directory; so the holder of an exclusive lock
//! locks the directory as well.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::fork::Owner;
use super::{FsLock, LockMode, explain_link};
use crate::error::{Error, LockHolder, Result};
use crate::util::mutants::mutated;

/// Locks that this process holds, once for each, and in a child those that its parent held. Guarded
/// over asking the system for a lock and giving it back, which never waits, so that the list and
/// the locks agree; never over reading or writing a file.
static HELD: Mutex<Vec<(Owner, FileIdentity)>> = Mutex::new(Vec::new());

/// Longest content of a lock file that is read: a 32-bit number and a line feed.
const PID_LEN_BYTES_MAX: usize = 11;

/// Which file it is, whatever the path.
#[cfg(unix)]
type FileIdentity = (u64, u64);
#[cfg(not(unix))]
type FileIdentity = std::path::PathBuf;

#[cfg(unix)]
fn identity(file: &File, _path: &Path) -> io::Result<FileIdentity> {
    use std::os::unix::fs::MetadataExt;
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(_file: &File, path: &Path) -> io::Result<FileIdentity> {
    path.canonicalize()
}

/// As [`Fs::lock`](super::Fs::lock).
pub(super) fn lock(path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
    let failed = |e| Error::io("lock", path, e);
    let file = open(path, mode)?;
    let identity = identity(&file, path).map_err(failed)?;
    match take(&file, mode, &identity).map_err(failed)? {
        Answer::Taken => {
            let mut lock = StdLock {
                file,
                dir: None,
                path: path.to_path_buf(),
                owner: Owner::this_process(),
                mode,
                identity,
            };
            if mode == LockMode::Exclusive {
                // Releases the first lock if the second is refused.
                lock.dir = lock_parent(path)?;
                // Best effort: the lock holds without a name in it.
                let _ = write_pid(&lock.file);
            }
            Ok(Box::new(lock))
        }
        Answer::OfThisProcess => Err(Error::locked(path, LockHolder::ThisProcess)),
        Answer::OfAnother { exclusive } => {
            // By now the lock may be this process': that is not who refused it.
            let pid = exclusive.then(|| read_pid(&file)).flatten();
            let pid = pid.filter(|pid| *pid != std::process::id());
            Err(Error::locked(path, LockHolder::OtherProcess { pid }))
        }
    }
}

/// What the system says to one who asks for a lock.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Taken,
    OfThisProcess,
    OfAnother { exclusive: bool },
}

/// Asks for a lock and notes it in the list, in one step for all threads of this process.
fn take(file: &File, mode: LockMode, identity: &FileIdentity) -> io::Result<Answer> {
    let mut held = HELD.lock();
    let locked = match mode {
        LockMode::Exclusive => file.try_lock(),
        LockMode::Shared => file.try_lock_shared(),
    };
    match locked {
        Ok(()) => {
            held.push((Owner::this_process(), identity.to_owned()));
            Ok(Answer::Taken)
        }
        Err(TryLockError::WouldBlock) if is_held(&held, identity) => Ok(Answer::OfThisProcess),
        Err(TryLockError::WouldBlock) => {
            let shared = mode == LockMode::Exclusive && file.try_lock_shared().is_ok();
            if shared {
                // Shared locks are in the way, and whatever the file says is left from before.
                let _ = file.unlock();
            }
            Ok(Answer::OfAnother { exclusive: !shared })
        }
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// True if this process holds a lock on that file.
fn is_held(held: &[(Owner, FileIdentity)], identity: &FileIdentity) -> bool {
    let is_own = |owner: &Owner| {
        owner.is_this_process() || mutated!("locks-of-the-parent-taken-for-the-childs")
    };
    held.iter()
        .any(|(owner, other)| other == identity && is_own(owner))
}

/// As [`Fs::lock_dir`](super::Fs::lock_dir).
pub(super) fn lock_dir(path: &Path) -> Result<Option<Box<dyn FsLock>>> {
    let locked = take_dir(path, path, LockMode::Shared)?;
    Ok(locked.map(|(file, identity)| {
        Box::new(StdLock {
            file,
            dir: None,
            path: path.to_path_buf(),
            owner: Owner::this_process(),
            mode: LockMode::Shared,
            identity,
        }) as _
    }))
}

/// The directory of a lock file, locked exclusively, so that readers exclude a writer also where
/// they found no lock file; it is unlocked with the lock.
fn lock_parent(path: &Path) -> Result<Option<(File, FileIdentity)>> {
    match path.parent() {
        Some(parent) if !mutated!("directory-not-locked") => {
            take_dir(parent, path, LockMode::Exclusive)
        }
        _ => Ok(None),
    }
}

/// Locks the directory `dir`; an error names `path`. `None` if the system cannot lock a directory,
/// as on some network file systems.
fn take_dir(dir: &Path, path: &Path, mode: LockMode) -> Result<Option<(File, FileIdentity)>> {
    let Some((file, identity)) = open_dir(dir) else {
        return Ok(None);
    };
    // What holds a lock on a directory leaves no name.
    match take(&file, mode, &identity) {
        Ok(Answer::Taken) => Ok(Some((file, identity))),
        Ok(Answer::OfThisProcess) => Err(Error::locked(path, LockHolder::ThisProcess)),
        Ok(Answer::OfAnother { .. }) => {
            Err(Error::locked(path, LockHolder::OtherProcess { pid: None }))
        }
        Err(_) => Ok(None),
    }
}

/// A directory as a file that can be locked, where the system has such.
#[cfg(unix)]
fn open_dir(path: &Path) -> Option<(File, FileIdentity)> {
    let file = File::open(path).ok()?;
    let identity = identity(&file, path).ok()?;
    Some((file, identity))
}

#[cfg(not(unix))]
fn open_dir(_path: &Path) -> Option<(File, FileIdentity)> {
    None
}

fn open(path: &Path, mode: LockMode) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    if mode == LockMode::Exclusive {
        options.write(true).create(true).truncate(false);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    }
    options
        .open(path)
        .map_err(|e| Error::io("open", path, explain_link(e)))
}

fn write_pid(mut file: &File) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

/// The process that holds an exclusive lock on `file`, as it says there.
fn read_pid(file: &File) -> Option<u32> {
    use std::io::Read;
    let mut content = String::new();
    file.take(PID_LEN_BYTES_MAX as u64 + 1)
        .read_to_string(&mut content)
        .ok()?;
    content.strip_suffix('\n')?.parse().ok()
}

#[derive(Debug)]
struct StdLock {
    file: File,
    /// Its directory, locked exclusively.
    dir: Option<(File, FileIdentity)>,
    path: PathBuf,
    owner: Owner,
    mode: LockMode,
    identity: FileIdentity,
}

impl FsLock for StdLock {
    fn check(&self) -> Result<()> {
        if !mutated!("forked-child-holds-the-lock") {
            self.owner.check_exactly()?;
        }
        // A lock belongs to a file, not to its name.
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let path = &self.path;
            let is_ours = match std::fs::symlink_metadata(path) {
                Ok(found) => (found.dev(), found.ino()) == self.identity,
                Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                Err(e) => return Err(Error::io("stat", path, e)),
            };
            if !is_ours {
                let path = path.clone();
                return Err(Error::LockLost { path });
            }
        }
        Ok(())
    }
}

impl Drop for StdLock {
    fn drop(&mut self) {
        if self.owner.check_exactly().is_err() && !mutated!("forked-child-unlocks") {
            // The lock is the parent's. Closing this process's copy of the descriptor leaves it.
            return;
        }
        if self.mode == LockMode::Exclusive {
            let _ = self.file.set_len(0);
        }
        let mut held = HELD.lock();
        // Closing would not do: a child that another thread is just starting holds a copy of the
        // descriptor until it executes its program, and the lock with it.
        let _ = self.file.unlock();
        if let Some((dir, _)) = &self.dir {
            let _ = dir.unlock();
        }
        let dir_identity = self.dir.as_ref().map(|(_, identity)| identity);
        for identity in [Some(&self.identity), dir_identity].into_iter().flatten() {
            let is_own = |(owner, other): &(Owner, _)| *owner == self.owner && other == identity;
            if let Some(at) = held.iter().position(is_own) {
                held.swap_remove(at);
            }
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    const PATH_VARIABLE: &str = "HEDGEROW_TEST_LOCK";
    const MODE_VARIABLE: &str = "HEDGEROW_TEST_LOCK_MODE";

    fn holder(path: &Path, mode: LockMode) -> LockHolder {
        match lock(path, mode) {
            Err(Error::Locked { holder, .. }) => holder,
            other => panic!("{other:?}"),
        }
    }

    /// The body of the other process: does nothing in an ordinary run.
    #[test]
    fn other_process() {
        let Some(path) = std::env::var_os(PATH_VARIABLE) else {
            return;
        };
        let shared = std::env::var_os(MODE_VARIABLE).is_some();
        let mode = if shared {
            LockMode::Shared
        } else {
            LockMode::Exclusive
        };
        let _lock = lock(Path::new(&path), mode).unwrap();
        println!("\nlocked");
        // Until the parent kills this process or goes away itself.
        let _ = std::io::stdin().read_line(&mut String::new());
    }

    fn start_other(path: &Path, shared: bool) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "fs::lock::tests::other_process", "--nocapture"])
            .env(PATH_VARIABLE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if shared {
            command.env(MODE_VARIABLE, "shared");
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(io::Result::ok).any(|line| line == "locked"));
        child
    }

    #[test]
    fn a_lock_of_this_process_is_told_from_another_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("LOCK");
        let other_modes = [LockMode::Exclusive, LockMode::Shared];

        let own = lock(&path, LockMode::Exclusive).unwrap();
        for mode in other_modes {
            assert_eq!(holder(&path, mode), LockHolder::ThisProcess);
        }
        drop(own);
        assert_eq!(std::fs::read(&path).unwrap(), b"", "a release leaves no id");

        let own = [LockMode::Shared; 2].map(|mode| lock(&path, mode).unwrap());
        for shared in own {
            assert_eq!(holder(&path, LockMode::Exclusive), LockHolder::ThisProcess);
            drop(shared);
        }

        let mut child = start_other(&path, false);
        let pid = Some(child.id());
        for mode in other_modes {
            assert_eq!(holder(&path, mode), LockHolder::OtherProcess { pid });
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = std::fs::read_to_string(&path).unwrap();
        assert_eq!(left, format!("{}\n", child.id()), "a kill leaves the id");

        // Which is not taken for that of a reader.
        let mut child = start_other(&path, true);
        let unknown = LockHolder::OtherProcess { pid: None };
        assert_eq!(holder(&path, LockMode::Exclusive), unknown);
        assert!(lock(&path, LockMode::Shared).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lock(&path, LockMode::Exclusive).is_ok());
    }

    /// A store on a file system that hangs must not keep other stores from being opened.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_lock_file_that_cannot_be_read_keeps_no_other_lock_waiting() {
        use std::io::Write as _;
        use std::time::Duration;

        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("LOCK");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // Held as by another process: it is not in the list.
        let mut other = File::options().read(true).write(true).open(&path).unwrap();
        other.try_lock().unwrap();
        let refused = std::thread::spawn({
            let path = path.clone();
            move || holder(&path, LockMode::Exclusive)
        });
        // Once a byte is gone, the reader waits for the rest.
        other.write_all(b"1").unwrap();
        while rustix::io::ioctl_fionread(&other).unwrap() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let second = home.path().join("SECOND");
        let opened = std::thread::spawn(move || lock(&second, LockMode::Exclusive).is_ok());
        for _ in 0..60_000 {
            if opened.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(
            opened.is_finished(),
            "a lock waits for a file that is none of its own"
        );
        assert!(opened.join().unwrap());
        other.write_all(&[b'1'; PID_LEN_BYTES_MAX]).unwrap();
        let unknown = LockHolder::OtherProcess { pid: None };
        assert_eq!(refused.join().unwrap(), unknown);
    }

    #[test]
    fn a_reader_without_a_lock_file_excludes_writers_and_no_readers() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("LOCK");
        let readers = [0; 2].map(|_| lock_dir(home.path()).unwrap().unwrap());
        assert!(!path.exists(), "a reader makes nothing");
        for reader in readers {
            let refused = holder(&path, LockMode::Exclusive);
            assert_eq!(refused, LockHolder::ThisProcess);
            reader.check().unwrap();
            drop(reader);
        }
        let writer = lock(&path, LockMode::Exclusive).unwrap();
        assert!(lock_dir(home.path()).is_err_and(|error| error.is_locked()));
        drop(writer);
        lock_dir(home.path()).unwrap().unwrap();

        let mut child = start_other(&path, false);
        match lock_dir(home.path()) {
            Err(Error::Locked { holder, .. }) => {
                assert_eq!(holder, LockHolder::OtherProcess { pid: None });
            }
            other => panic!("{other:?}"),
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let held = HELD.lock();
        let own = identity(&File::open(home.path()).unwrap(), home.path()).unwrap();
        assert!(!is_held(&held, &own), "what is released is forgotten");
    }

    #[test]
    fn a_lock_file_that_says_something_else_names_no_process() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("LOCK");
        for content in ["", "12", "-1\n", "99999999999\n", "12\n\n", "\u{fc}\n"] {
            std::fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!(read_pid(&file), None, "{content:?}");
        }
        std::fs::write(&path, "4294967295\n").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(read_pid(&file), Some(u32::MAX));
    }
}
