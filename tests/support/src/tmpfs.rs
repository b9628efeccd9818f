//! A small file system of its own, to fill.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A mounted tmpfs; unmounted when it goes out of scope.
#[derive(Debug)]
pub struct Tmpfs {
    dir: TempDir,
}

impl Tmpfs {
    /// One of `kib` KiB, or `None` where mounting is not allowed: then the test says so by `name`.
    pub fn mount(name: &str, kib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            use std::io::Write;
            let line =
                format!("{name}: not run, since no tmpfs can be mounted here (it takes root)\n");
            let _ = std::io::stdout().lock().write_all(line.as_bytes());
            return None;
        }
        Some(Self { dir })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives or takes room. False, and nothing changes, if more than `kib` KiB are in use.
    pub fn resize(&self, kib: u64) -> bool {
        Command::new("mount")
            .args(["-o", &format!("remount,size={kib}k")])
            .arg(self.dir.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Takes all the room there is (to 64 KiB or so), as another program would that wrote a large
    /// file, but without the memory for one.
    pub fn fill_up(&self) {
        let used_kib = || -> u64 {
            let lens = self.files().into_iter().map(|path| path.metadata());
            lens.flatten().map(|meta| meta.len().div_ceil(1024)).sum()
        };
        // A process that uses it may be writing.
        while !self.resize(used_kib() + 64) {}
    }

    /// All files below.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut todo = vec![self.path().to_path_buf()];
        while let Some(dir) = todo.pop() {
            // Another process may be removing it.
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    todo.push(path.clone());
                }
                files.push(path);
            }
        }
        files
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a store that a failed test left open must not keep it.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
    }
}
