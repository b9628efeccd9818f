//! The disk: what space is left, what is cached of it, and copies.

use std::path::Path;

use crate::error::{Error, Result};

/// Bytes that may still be written under `dir`, if the platform tells.
#[cfg(unix)]
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that may still be written under `dir`, if the platform tells.
#[cfg(not(unix))]
pub fn free_bytes(_dir: &Path) -> Option<u64> {
    None
}

/// Sends everything written so far to the disk of `dir`, so that no step pays for the pages of the
/// step before, and a page that is written again counts again.
pub fn settle_disk(dir: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(dir) = std::fs::File::open(dir) {
        // Without it figures are less even, not wrong.
        let _ = rustix::fs::syncfs(&dir);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = dir;
}

/// Asks the kernel to forget the cached pages of all files under `dir`, which nobody has open.
pub fn evict(dir: &Path) -> std::io::Result<()> {
    settle_disk(dir);
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            evict(&path)?;
        } else {
            #[cfg(target_os = "linux")]
            {
                let file = std::fs::File::open(&path)?;
                let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            }
        }
    }
    Ok(())
}

/// Copies a directory with all that is under it to one that does not exist. Begins anew when a file
/// goes away meanwhile: an idle store may still prepare a log segment, which is a file that gets
/// another name.
pub fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    let mut tries_left = 100;
    loop {
        match try_copy_dir(from, to) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && tries_left > 0 => {
                tries_left -= 1;
                std::fs::remove_dir_all(to)
            }
            other => return other.map_err(|e| Error::io("copying the store to", to, e)),
        }
        .map_err(|e| Error::io("removing the copy of the store at", to, e))?;
    }
}

fn try_copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut pending = vec![(from.to_path_buf(), to.to_path_buf())];
    while let Some((from, to)) = pending.pop() {
        std::fs::create_dir(&to)?;
        for entry in std::fs::read_dir(&from)? {
            let entry = entry?;
            let copy = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                pending.push((entry.path(), copy));
            } else {
                std::fs::copy(entry.path(), copy)?;
            }
        }
    }
    Ok(())
}
