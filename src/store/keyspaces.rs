//! The keyspaces that are open, and the one place that looks them up.
//!
//! Readers and writers take the whole list with one atomic load. A [`KeyspaceChange`] replaces it
//! when the commit pipeline applies it: in commit order, between two other commits.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use super::apply_queue::ApplyQueue;
use super::backpressure::Throttle;
use super::health::Health;
use super::keyspace_gate::KeyspaceGate;
use super::staging::Staging;
use super::sweep::walk::Sweep;
use crate::engine::{Engine, Keep, SnapshotTracker, Work};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::options::{EngineKind, KeyspaceOptions, KeyspaceSettings};
use crate::resolve::{CompactionFilter, Resolver};
use crate::trace::Recorder;
use crate::types::KeyspaceId;
use crate::util::gate::Gate;
use crate::util::mutants::mutated;

/// Options of one open keyspace, shared with its engine.
#[derive(Debug)]
pub(crate) struct LiveOptions {
    engine: EngineKind,
    /// With defaults, but without the store's write buffer.
    options: Mutex<KeyspaceOptions>,
    settings: Arc<KeyspaceSettings>,
    store_write_buffer_bytes: u64,
}

impl LiveOptions {
    /// The `options` of a keyspace whose engine works with `settings`.
    pub(crate) fn new(
        options: KeyspaceOptions,
        settings: Arc<KeyspaceSettings>,
        store_write_buffer_bytes: u64,
    ) -> Self {
        Self {
            engine: options.engine,
            options: Mutex::new(options),
            settings,
            store_write_buffer_bytes,
        }
    }

    pub(crate) fn engine(&self) -> EngineKind {
        self.engine
    }

    /// Every option that concerns the engine, with the value in use.
    pub(crate) fn effective(&self) -> KeyspaceOptions {
        let mut options = self.options.lock().clone();
        options.expiry.get_or_insert(false);
        options.default_ttl.get_or_insert_default();
        options.write_buffer_bytes(self.settings.write_buffer_bytes())
    }

    /// Bytes of changes that the engine may hold in memory.
    pub(super) fn write_buffer_bytes(&self) -> u64 {
        self.settings.write_buffer_bytes()
    }

    /// True if a value of that length is stored apart from its key.
    #[inline]
    pub(super) fn stores_apart(&self, value_len: usize) -> bool {
        self.settings.stores_apart(value_len)
    }

    /// The options, without the store's write buffer.
    pub(super) fn stored(&self) -> KeyspaceOptions {
        self.options.lock().clone()
    }

    /// Gives the engine other options, from now on. Fixed ones are the same.
    pub(super) fn change(&self, options: KeyspaceOptions) {
        self.settings
            .change(&options, self.store_write_buffer_bytes);
        *self.options.lock() = options;
    }
}

/// An open keyspace: a name, a number and an engine.
#[derive(Debug)]
pub(crate) struct OpenKeyspace {
    pub(crate) id: KeyspaceId,
    name: Mutex<Arc<str>>,
    pub(crate) options: LiveOptions,
    /// What its values may do besides being there.
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) engine: Arc<dyn Engine>,
    /// A large batch that its engine does not have yet.
    pub(super) staging: Staging,
    /// Where the background work is that looks for what is to go.
    pub(super) sweep: Sweep,
    /// Commits that are to be applied to it.
    pub(super) apply_queue: ApplyQueue,
    /// Closed while a bulk load or a large batch is made a part of it.
    pub(super) keyspace_gate: KeyspaceGate,
    /// Slows its writers down.
    pub(super) throttle: Throttle,
    flush: Health,
    compact: Health,
    /// Taking values again whose files are collected.
    pub(super) collect: Health,
    files: Arc<KeyspaceFiles>,
}

/// The directory of a keyspace. It is made for the first file, and goes with the last user of the
/// files, if the keyspace was dropped.
#[derive(Debug)]
pub(crate) struct KeyspaceFiles {
    dropped: AtomicBool,
    /// The directory is there, durably.
    is_made: AtomicBool,
    /// Held by the one that makes it: another would take what that one has just put there for
    /// what an earlier attempt left.
    making: Mutex<()>,
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    is_own: fn(&str) -> bool,
    gate: Arc<Gate>,
}

impl KeyspaceFiles {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        is_own: fn(&str) -> bool,
        gate: Arc<Gate>,
    ) -> Self {
        Self {
            dropped: AtomicBool::new(false),
            is_made: AtomicBool::new(false),
            making: Mutex::new(()),
            fs,
            dir,
            is_own,
            gate,
        }
    }
}

impl Keep for KeyspaceFiles {
    fn make_dir(&self) -> Result<()> {
        if self.is_made.load(Ordering::Acquire) {
            return Ok(());
        }
        let is_apart = mutated!("keyspace-directory-made-by-two-at-once");
        let _making = (!is_apart).then(|| self.making.lock());
        if self.is_made.load(Ordering::Acquire) && !is_apart {
            return Ok(());
        }
        if self.fs.exists(&self.dir)? {
            // An attempt that failed, here or in an earlier process. A sync that failed may have
            // lost the name, which another one would not bring to the disk: so it is made anew.
            remove_leftover_files(&*self.fs, &self.dir, self.is_own)?;
        }
        self.fs.create_dir_all(&self.dir)?;
        if let Some(above) = self.dir.parent()
            && !mutated!("keyspace-directory-not-synced")
        {
            self.fs.sync_dir(above)?;
        }
        self.is_made.store(true, Ordering::Release);
        Ok(())
    }
}

impl OpenKeyspace {
    pub(crate) fn new(
        id: KeyspaceId,
        name: &str,
        options: LiveOptions,
        resolver: Arc<Resolver>,
        engine: Arc<dyn Engine>,
        files: Arc<KeyspaceFiles>,
        snapshot_tracker: Arc<SnapshotTracker>,
    ) -> Self {
        Self {
            id,
            name: Mutex::new(name.into()),
            options,
            resolver,
            engine,
            sweep: Sweep::default(),
            staging: Staging::new(snapshot_tracker),
            apply_queue: ApplyQueue::default(),
            keyspace_gate: KeyspaceGate::default(),
            throttle: Throttle::new(),
            flush: Health::default(),
            compact: Health::default(),
            collect: Health::default(),
            files,
        }
    }

    /// Its name at this moment.
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.lock())
    }

    /// How its background work of that kind fares.
    pub(super) fn health(&self, kind: Work) -> &Health {
        match kind {
            Work::Flush => &self.flush,
            Work::Compact => &self.compact,
        }
    }

    /// A job that fails, and why.
    pub(super) fn failing_job(&self) -> Option<(Work, Error)> {
        [Work::Flush, Work::Compact]
            .into_iter()
            .find_map(|kind| Some((kind, self.health(kind).error()?)))
    }

    /// Why its background work fails.
    pub(super) fn error(&self) -> Option<Error> {
        self.failing_job().map(|(_, error)| error)
    }

    /// Why its background work has failed just now, and is left alone for a while.
    pub(super) fn failing_now(&self) -> Option<Error> {
        [&self.flush, &self.compact]
            .into_iter()
            .filter(|health| health.pause().is_some())
            .find_map(Health::error)
    }

    /// As [`failing_now`](Self::failing_now), of what makes room for writes.
    pub(super) fn flush_failing_now(&self) -> Option<Error> {
        if mutated!("failing-compaction-stops-a-writer") {
            return self.failing_now();
        }
        self.flush.pause().and_then(|_| self.flush.error())
    }

    /// True if compactions may drop what a snapshot would still see in its tables.
    fn is_filtered(&self) -> bool {
        self.options.engine() == EngineKind::Lsm && self.resolver.compactions_filter()
    }

    /// Names the keyspace in a trace; again if it has another name.
    pub(crate) fn declare_to(&self, recorder: &Recorder) {
        let stats = self.engine.stats();
        recorder.declare(self.id, &self.name(), self.options.engine(), &stats);
    }

    /// Refuses use after the keyspace was dropped.
    #[inline]
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.files.dropped.load(Ordering::Relaxed) {
            return Err(Error::NoSuchKeyspace {
                name: self.name().to_string(),
            });
        }
        Ok(())
    }

    /// The record of the drop is durable (C2): the files go when the last user does.
    pub(super) fn mark_dropped(&self) {
        self.files.dropped.store(true, Ordering::Relaxed);
    }
}

impl Drop for KeyspaceFiles {
    fn drop(&mut self) {
        if !self.dropped.load(Ordering::Relaxed) {
            return;
        }
        // Best effort: what cannot be removed now is removed at the next open. After closing the
        // directory may be another instance's.
        if let Some(_stay) = self.gate.stay() {
            let _ = remove_keyspace_files(&*self.fs, &self.dir, self.is_own);
        }
    }
}

/// Removes the files of a dropped keyspace, and its directory unless something else is in it, which
/// is not the store's to remove. `is_own` knows the names that engines give their files.
pub(crate) fn remove_keyspace_files(
    fs: &dyn Fs,
    dir: &Path,
    is_own: fn(&str) -> bool,
) -> Result<()> {
    let mut is_empty = true;
    for name in fs.read_dir(dir)? {
        if is_own(&name) {
            fs.remove_file(&dir.join(name))?;
        } else {
            is_empty = false;
        }
    }
    if !is_empty {
        return Ok(());
    }
    match fs.remove_dir(dir) {
        // Names that are not UTF-8 are not listed, and are not ours either.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

/// The same, durably: another keyspace is about to have the number, and must not find the files
/// after a power loss.
pub(crate) fn remove_leftover_files(
    fs: &dyn Fs,
    dir: &Path,
    is_own: fn(&str) -> bool,
) -> Result<()> {
    remove_keyspace_files(fs, dir, is_own)?;
    if mutated!("leftovers-come-back") {
        return Ok(());
    }
    if fs.exists(dir)? {
        fs.sync_dir(dir)?;
    }
    dir.parent().map_or(Ok(()), |above| fs.sync_dir(above))
}

/// What a change of the keyspaces does to those that are open.
#[derive(Debug)]
pub(crate) enum KeyspaceChange {
    /// One more.
    Add(Arc<OpenKeyspace>),
    /// This one is dropped.
    Remove(KeyspaceId),
    /// This one has another name.
    Rename(KeyspaceId, String),
    /// This one has other options, and this filter.
    Options(
        KeyspaceId,
        KeyspaceOptions,
        Option<Arc<dyn CompactionFilter>>,
    ),
}

/// All open keyspaces of a store.
#[derive(Debug, Default)]
pub(crate) struct Keyspaces {
    /// Ordered by number.
    keyspaces: ArcSwap<Vec<Arc<OpenKeyspace>>>,
    /// Those of which a snapshot takes a view when it is registered, since a compaction may filter
    /// what it sees (X7 of [`crate::resolve`]). Almost always none.
    filtered: ArcSwap<Vec<Arc<OpenKeyspace>>>,
    /// The same ones. Locked for moments.
    names: RwLock<HashMap<Arc<str>, Arc<OpenKeyspace>>>,
}

impl Keyspaces {
    /// The keyspaces at this moment.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<OpenKeyspace>>> {
        self.keyspaces.load_full()
    }

    /// Those of them that compactions filter.
    pub(crate) fn filtered(&self) -> Arc<Vec<Arc<OpenKeyspace>>> {
        self.filtered.load_full()
    }

    /// Puts `all` in the place of the keyspaces.
    fn set(&self, all: Vec<Arc<OpenKeyspace>>) {
        self.keyspaces.store(Arc::new(all));
        self.note_filtered();
    }

    fn note_filtered(&self) {
        let all = self.keyspaces.load();
        let filtered = all.iter().filter(|open| open.is_filtered()).cloned();
        self.filtered.store(Arc::new(filtered.collect()));
    }

    /// The keyspace with that name.
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<OpenKeyspace>> {
        self.names.read().get(name).cloned()
    }

    /// The keyspace with that number.
    pub(crate) fn by_id(&self, id: KeyspaceId) -> Option<Arc<OpenKeyspace>> {
        let all = self.keyspaces.load();
        let at = all.binary_search_by_key(&id, |keyspace| keyspace.id).ok()?;
        Some(Arc::clone(&all[at]))
    }

    /// Begins with these, which are ordered by number.
    pub(super) fn begin(&self, all: Vec<Arc<OpenKeyspace>>) {
        let named = all.iter().map(|open| (open.name(), Arc::clone(open)));
        self.names.write().extend(named);
        self.set(all);
    }

    /// Makes the change. Callers exclude each other. Does no I/O as long as the caller holds the
    /// keyspace that is dropped.
    pub(crate) fn change(&self, change: &KeyspaceChange) {
        match change {
            KeyspaceChange::Add(keyspace) => {
                let mut all = self.keyspaces.load().as_ref().clone();
                let at = all.partition_point(|other| other.id < keyspace.id);
                all.insert(at, Arc::clone(keyspace));
                self.set(all);
                let named = (keyspace.name(), Arc::clone(keyspace));
                self.names.write().extend([named]);
            }
            KeyspaceChange::Remove(id) => {
                if let Some(keyspace) = self.by_id(*id) {
                    keyspace.mark_dropped();
                }
                self.forget(*id);
            }
            KeyspaceChange::Rename(id, name) => {
                let Some(keyspace) = self.by_id(*id) else {
                    return;
                };
                let name: Arc<str> = name.as_str().into();
                let mut names = self.names.write();
                let old = std::mem::replace(&mut *keyspace.name.lock(), Arc::clone(&name));
                names.remove(&old);
                names.insert(name, keyspace);
            }
            KeyspaceChange::Options(id, options, filter) => {
                if let Some(keyspace) = self.by_id(*id) {
                    let ttl = options.default_ttl_ms();
                    // Before a compaction can take it: a view that is taken late is not to miss
                    // what that drops (X7).
                    keyspace.resolver.announce_filter(filter.is_some());
                    self.note_filtered();
                    keyspace.resolver.change(ttl, filter.clone());
                    keyspace.options.change(options.clone());
                    if !mutated!("changed-options-make-no-work-due") {
                        keyspace.engine.options_changed();
                    }
                }
            }
        }
    }

    /// Takes a keyspace out, and leaves its files alone.
    fn forget(&self, id: KeyspaceId) {
        let mut all = self.keyspaces.load().as_ref().clone();
        let Ok(at) = all.binary_search_by_key(&id, |keyspace| keyspace.id) else {
            return;
        };
        let keyspace = all.remove(at);
        self.names.write().remove(&keyspace.name());
        self.set(all);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::fs::{OpenMode, SimFs};

    #[cfg(unix)]
    #[test]
    fn a_foreign_name_that_is_no_text_keeps_its_directory() {
        use std::os::unix::ffi::OsStrExt;

        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("keyspace");
        std::fs::create_dir(&dir).unwrap();
        let foreign = dir.join(std::ffi::OsStr::from_bytes(b"\xFF"));
        std::fs::write(&foreign, b"mine").unwrap();
        std::fs::write(dir.join("own"), b"").unwrap();
        let fs = crate::fs::StdFs::new();
        remove_keyspace_files(&fs, &dir, |name| name == "own").unwrap();
        assert!(foreign.exists() && !dir.join("own").exists());
    }

    #[test]
    fn a_directory_that_was_made_outlasts_a_power_loss() {
        let sim = SimFs::new();
        let dir = Path::new("/store/keyspace");
        sim.create_dir_all(dir.parent().unwrap()).unwrap();
        sim.sync_dir(Path::new("/")).unwrap();
        let files = KeyspaceFiles::new(
            Arc::new(sim.clone()),
            dir.to_path_buf(),
            |_| true,
            Arc::new(Gate::new()),
        );
        files.make_dir().unwrap();
        assert!(sim.crash().exists(dir).unwrap());
    }

    /// A file of the second user may have the name of one that an earlier attempt left, which the
    /// first removes.
    #[test]
    fn the_second_user_of_a_directory_keeps_its_file_whenever_it_comes() {
        let dir = Path::new("/keyspace");
        let create = |fs: &dyn Fs, name: &str| {
            fs.open(&dir.join(name), OpenMode::CreateNew).unwrap();
        };
        for at in 0.. {
            let sim = Arc::new(SimFs::new());
            sim.create_dir_all(dir).unwrap();
            create(&*sim, "second");
            let files = Arc::new(KeyspaceFiles::new(
                Arc::clone(&sim) as Arc<dyn Fs>,
                dir.to_path_buf(),
                |_| true,
                Arc::new(Gate::new()),
            ));
            let changes = Arc::new(AtomicUsize::new(0));
            let came = Arc::new(AtomicBool::new(false));
            sim.on_change({
                let (files, changes, came) =
                    (Arc::clone(&files), Arc::clone(&changes), Arc::clone(&came));
                move |sim, _| {
                    // It comes here if nothing keeps it waiting.
                    let is_now = changes.fetch_add(1, Ordering::Relaxed) == at;
                    if is_now && files.making.try_lock().is_some() {
                        came.store(true, Ordering::Relaxed);
                        files.make_dir().unwrap();
                        create(sim, "second");
                    }
                }
            });
            files.make_dir().unwrap();
            sim.clear_hook();
            create(&*sim, "first");
            if !came.load(Ordering::Relaxed) {
                files.make_dir().unwrap();
                create(&*sim, "second");
            }
            let mut names = sim.read_dir(dir).unwrap();
            names.sort();
            assert_eq!(names, ["first", "second"], "before change {at}");
            if changes.load(Ordering::Relaxed) <= at {
                assert!(at > 3, "only {at} changes");
                break;
            }
        }
    }

    /// A keyspace whose first flush and first load began at once lost the table of one of them.
    #[test]
    fn files_of_the_first_two_users_of_a_directory_both_stay() {
        for _ in 0..200 {
            let sim = SimFs::new();
            // Between any two steps of one, the other may take several.
            sim.on_change(|_, _| (0..20).for_each(|_| std::thread::yield_now()));
            let fs: Arc<dyn Fs> = Arc::new(sim);
            let dir = Path::new("/keyspace");
            let files = KeyspaceFiles::new(
                Arc::clone(&fs),
                dir.to_path_buf(),
                |_| true,
                Arc::new(Gate::new()),
            );
            let start = Barrier::new(4);
            std::thread::scope(|scope| {
                for n in 0..4 {
                    let (fs, files, start) = (&fs, &files, &start);
                    scope.spawn(move || {
                        start.wait();
                        files.make_dir().unwrap();
                        fs.open(&dir.join(n.to_string()), OpenMode::CreateNew)
                            .unwrap();
                    });
                }
            });
            let mut names = fs.read_dir(dir).unwrap();
            names.sort();
            assert_eq!(names, ["0", "1", "2", "3"]);
        }
    }
}
