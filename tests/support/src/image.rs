//! A whole store as bytes, to change and put back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hedgerow::fs::{Fs, OpenMode};

/// Every file of a directory tree, by its path within the tree, and the empty directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The bytes of each file, by its path.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    dirs: Vec<PathBuf>,
}

impl Image {
    /// Reads everything under `root`.
    pub fn of(fs: &dyn Fs, root: &Path) -> Self {
        let mut image = Self {
            files: BTreeMap::new(),
            dirs: Vec::new(),
        };
        image.read(fs, root, PathBuf::new());
        image
    }

    fn read(&mut self, fs: &dyn Fs, root: &Path, dir: PathBuf) {
        for name in fs.read_dir(&root.join(&dir)).expect("a directory") {
            let path = dir.join(name);
            let full = root.join(&path);
            if fs.read_dir(&full).is_ok() {
                self.read(fs, root, path);
                continue;
            }
            let file = fs.open(&full, OpenMode::Read).expect("a file");
            let mut bytes = vec![0; file.len().expect("a length") as usize];
            file.read_exact_at(&mut bytes, 0).expect("readable");
            self.files.insert(path, bytes);
        }
        self.dirs.push(dir);
    }

    /// Writes everything to `root`, which does not exist yet, durably.
    pub fn write(&self, fs: &dyn Fs, root: &Path) {
        for dir in &self.dirs {
            fs.create_dir_all(&root.join(dir)).expect("a directory");
        }
        for (path, bytes) in &self.files {
            let file = fs
                .open(&root.join(path), OpenMode::CreateNew)
                .expect("a new file");
            file.write_all_at(bytes, 0).expect("writable");
            file.sync_data().expect("a sync");
        }
        for dir in &self.dirs {
            fs.sync_dir(&root.join(dir)).expect("a sync");
        }
    }

    /// True if a file has the name of a directory of the tree.
    pub fn has_file_for_dir(&self) -> bool {
        self.dirs.iter().any(|dir| self.files.contains_key(dir))
    }

    /// The same with the directories that its files need.
    pub fn with_parents(mut self) -> Self {
        for path in self.files.keys() {
            for dir in path.ancestors().skip(1) {
                if !self.dirs.iter().any(|known| known == dir) {
                    self.dirs.push(dir.to_path_buf());
                }
            }
        }
        self
    }

    /// The files that carry data: all but the lock.
    pub fn data_files(&self) -> impl Iterator<Item = (&PathBuf, &Vec<u8>)> {
        self.files
            .iter()
            .filter(|(path, bytes)| !bytes.is_empty() && !path.ends_with("LOCK"))
    }
}
