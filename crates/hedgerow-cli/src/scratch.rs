//! Directories for stores that live no longer than a command.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io, thread};

use tempfile::TempDir;

use crate::failure::{Failure, Result};

/// Every directory that was made: what [`remove_all`] removes.
static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A new directory within `within`, or within the system's temporary directory. It is removed when
/// it goes out of scope, on every way out.
pub fn directory(prefix: &str, within: Option<&Path>) -> Result<TempDir> {
    let within = within.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let made = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(&within)
        .map_err(|source| Failure::io("making a directory in", &within, source))?;
    // Absolute, should the process change its directory.
    let path = std::path::absolute(made.path()).unwrap_or_else(|_| made.path().to_path_buf());
    MADE.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(path);
    Ok(made)
}

/// Removes every directory that is still there, for a process that ends without leaving the scopes
/// it is in. Threads that still write there may make files while it is removed: it is tried a few
/// times, for a tenth of a second at most.
pub fn remove_all() {
    let made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    for dir in made.iter() {
        for _ in 0..10 {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    thread::sleep(Duration::from_millis(10));
                }
                _ => break,
            }
        }
    }
}
