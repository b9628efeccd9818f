//! The simulated file system stands in for the real one: with the same seed, the store asks both
//! for the same operations in the same order, and gets the same answers.
//!
//! So what is shown on the simulated disk is shown for the sequence of calls that the operating
//! system gets. One thread, and no memory maps, which would bypass the calls. Reads are left out:
//! which blocks are cached depends on hashes that differ from run to run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use hedgerow::fs::{File, Fs, FsLock, LockMode, MapSource, OpenMode, SimFs, StdFs};
use hedgerow::{Compression, Error, Result};
use support::image::Image;
use support::lockstep::{Op, Run, Setting, draw};
use support::random::Random;

/// Writes down every operation below a directory, with its answer.
#[derive(Debug, Clone)]
struct Recorder {
    inner: Arc<dyn Fs>,
    root: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn note<T>(&self, op: &str, path: &Path, detail: &str, result: Result<T>) -> Result<T> {
        // The directories above are not the same ones.
        if let Ok(path) = path.strip_prefix(&self.root) {
            let answer = match &result {
                Ok(_) => "ok".to_owned(),
                Err(Error::Io { source, .. }) => format!("{:?}", source.kind()),
                Err(error) => format!("{error:?}"),
            };
            let line = format!("{op} {}{detail}: {answer}", path.display());
            self.lines.lock().unwrap().push(line);
        }
        result
    }

    fn file(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(RecordedFile {
            recorder: self.clone(),
            inner,
        })
    }
}

impl Fs for Recorder {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        let opened = self.inner.open(path, mode);
        let opened = self.note("open", path, &format!(" {mode:?}"), opened)?;
        Ok(self.file(opened))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let made = self.inner.create_dir_all(path);
        self.note("create directory", path, "", made)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        let names = self.inner.read_dir(path);
        let found = format!(" {:?}", names.as_ref().ok());
        self.note("read directory", path, &found, names)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let found = self.inner.exists(path);
        let answer = format!(" {:?}", found.as_ref().ok());
        self.note("exists", path, &answer, found)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let renamed = self.inner.rename(from, to);
        let to = format!(" to {}", to.file_name().unwrap().display());
        self.note("rename", from, &to, renamed)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let removed = self.inner.remove_file(path);
        self.note("remove", path, "", removed)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let removed = self.inner.remove_dir(path);
        self.note("remove directory", path, "", removed)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let synced = self.inner.sync_dir(path);
        self.note("sync directory", path, "", synced)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
        let locked = self.inner.lock(path, mode);
        self.note("lock", path, &format!(" {mode:?}"), locked)
    }
}

#[derive(Debug)]
struct RecordedFile {
    recorder: Recorder,
    inner: Arc<dyn File>,
}

impl RecordedFile {
    fn note<T>(&self, op: &str, detail: &str, result: Result<T>) -> Result<T> {
        self.recorder.note(op, self.inner.path(), detail, result)
    }
}

impl File for RecordedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        let len = self.inner.len();
        let answer = format!(" {:?}", len.as_ref().ok());
        self.note("length", &answer, len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let written = self.inner.write_all_at(buf, offset);
        self.note("write", &format!(" {} at {offset}", buf.len()), written)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let set = self.inner.set_len(len);
        self.note("set length", &format!(" {len}"), set)
    }

    fn sync_data(&self) -> Result<()> {
        let synced = self.inner.sync_data();
        self.note("sync", "", synced)
    }

    fn map_source(&self) -> Option<MapSource<'_>> {
        self.note("map", "", Ok(())).ok();
        None
    }
}

/// What the store asked of a file system, and the names and lengths that it left.
fn life(seed: u64, inner: Arc<dyn Fs>, root: &Path) -> (Vec<String>, Vec<(PathBuf, usize)>) {
    let recorder = Recorder {
        inner,
        root: root.to_path_buf(),
        lines: Arc::default(),
    };
    let path = root.join("store");
    let mut random = Random::new(seed);
    let mut setting = Setting::draw(&mut random, path.clone(), None);
    setting.options = setting
        .options
        .background_threads(0)
        .background_sync_ms(0)
        .fs(Arc::new(recorder.clone()));
    // References to values have checksums in them that begin with the number of the store, which is
    // random: how well they can be compressed is, too.
    let [lsm, _] = &mut setting.keyspaces;
    *lsm = lsm
        .clone()
        .compression(Compression::None)
        .last_level_compression(Compression::None);
    let mut run = Run::start(setting).expect("the store opens");
    for at in 0..1500 {
        let op = draw(&mut random);
        if matches!(op, Op::ChangeOption(..)) {
            continue;
        }
        run.step(&op)
            .unwrap_or_else(|reason| panic!("seed {seed:#x}, operation {at}, {op:?}: {reason}"));
    }
    run.finish()
        .unwrap_or_else(|reason| panic!("seed {seed:#x}, at the end: {reason}"));
    let image = Image::of(&*recorder.inner, &path);
    let files = image.files.into_iter();
    let lengths = files.map(|(path, bytes)| (path, bytes.len())).collect();
    let lines = std::mem::take(&mut *recorder.lines.lock().unwrap());
    (lines, lengths)
}

/// Set in the child process.
const ALONE: &str = "HEDGEROW_ALONE";

/// In a process of its own: when a B-tree may use a page again depends on the readers of the whole
/// process, so on other tests.
#[test]
fn the_store_asks_the_real_and_the_simulated_disk_for_the_same() {
    if std::env::var_os(ALONE).is_none() {
        let name = "same_operations::the_store_asks_the_real_and_the_simulated_disk_for_the_same";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{told}");
        assert!(told.contains("1 passed"), "{told}");
        return;
    }
    for seed in 0..3 {
        let home = tempfile::tempdir().unwrap();
        let (real, real_files) = life(seed, Arc::new(StdFs::new()), home.path());
        let root = Path::new("/home");
        let sim = SimFs::new();
        sim.create_dir_all(root).unwrap();
        let (simulated, simulated_files) = life(seed, Arc::new(sim), root);
        for at in 0..real.len().min(simulated.len()) {
            let (real, simulated) = (
                &real[at.saturating_sub(8)..=at],
                &simulated[at.saturating_sub(8)..=at],
            );
            assert_eq!(real, simulated, "seed {seed}, up to call {at}");
        }
        assert_eq!(real.len(), simulated.len(), "seed {seed}");
        assert_eq!(real_files, simulated_files, "seed {seed}");
        let writes = real
            .iter()
            .filter(|line| line.starts_with("write "))
            .count();
        assert!(real.len() > 1000 && writes > 300, "seed {seed}: {writes}");
    }
}
