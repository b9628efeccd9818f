//! Opening a store: lock, catalogue, WAL manifest, engines, log, ready.
//!
//! Recovery is part of every open; there is no other. Each engine comes back with what it had
//! persisted, and the log's records above that are fed to it by the [replay](super::replay). A log
//! that fits into the write buffers is applied while nothing is written; engines persist parts of a
//! longer one. Either way a crash inside recovery leaves what a recovery can begin with.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Store;
use super::catalog::{CATALOG_FILE, CATALOG_TEMPORARY, Catalog, keyspace_dir, parse_keyspace_dir};
use super::catalog_replay::CatalogReplay;
use super::catalog_state::CatalogState;
use super::commit::Pipeline;
use super::coordinator::Coordinator;
use super::engines::{EngineMaker, is_engine_file, remove_strays};
use super::keyspaces::{Keyspaces, remove_leftover_files};
use super::replay::Replay;
use super::shared::Shared;
use super::wal_manifest::{
    OpenWalManifest, WAL_MANIFEST_FILE, WAL_MANIFEST_TEMPORARY, WalManifest,
};
use crate::cache::BlockCache;
use crate::engine::SnapshotTracker;
use crate::error::{Error, Result};
use crate::fs::{Fs, FsLock, GuardedFs, LockGuard, LockMode, OpenFiles};
use crate::options::Options;
use crate::resolve::StoreClock;
use crate::trace::Recorder;
use crate::types::SeqNo;
use crate::util::gate::Gate;
use crate::util::mutants::mutated;
use crate::values::ValueFiles;
use crate::wal::WalConfig;
use crate::{trace, wal};

const LOCK_FILE: &str = "LOCK";
pub(super) const LOG_DIR: &str = "wal";

/// Opens, recovers and starts the store in `dir`.
pub(crate) fn open(dir: &Path, mut options: Options) -> Result<Arc<Store>> {
    options.check()?;
    if let Some(fs) = options.fs.for_this_process() {
        options.fs = fs;
    }
    let fs = Arc::clone(&options.fs);
    // Once: the working directory may change while the store is open.
    let dir = &*fs.absolute(dir)?;
    if let Some(recording) = &options.recording {
        trace::check_path(&fs.absolute(&recording.path)?, dir)?;
    }
    let (lock, made) = take_lock(&*fs, dir, &options)?;
    let lock = lock.map(Arc::from);
    let lock_guard = lock.as_ref().map_or_else(LockGuard::default, LockGuard::by);
    let unguarded = fs;
    let fs: Arc<dyn Fs> = Arc::new(GuardedFs::new(Arc::clone(&unguarded), lock_guard.clone()));
    options.fs = Arc::clone(&fs);
    let (catalog, is_new) = match Catalog::load(&*fs, dir)? {
        Some(catalog) => (catalog, false),
        // What was made in vain is unmade, the lock file among it.
        None => {
            let catalog = create(&*unguarded, dir, &made, &options, &lock_guard)?;
            (catalog, true)
        }
    };
    let log_dir = dir.join(LOG_DIR);
    let mut recovery = wal::Recovery::open(Arc::clone(&fs), &log_dir, catalog.store_id)?;
    let wal_manifest = WalManifest::load(&*fs, dir, catalog.store_id)?;
    if !mutated!("wal-manifest-ignored") {
        wal_manifest.check_log(&log_dir, recovery.first_seq())?;
    }
    check_catalog(dir, &catalog, &wal_manifest)?;
    let end = mutated!("end-of-the-log-ignored", SeqNo::ZERO, wal_manifest.end);
    // C3: the catalogue has no change that the log did not hold durably.
    let end = end.max(catalog.seq);
    let open_files = Arc::new(OpenFiles::new(options.max_open_files));
    let values = Arc::new(ValueFiles::new(
        Arc::clone(&fs),
        Arc::clone(&open_files),
        &log_dir,
        catalog.store_id,
        options.mmap_reads,
    ));
    recovery.announce_to(&values);
    let mut changes = CatalogReplay::begin(dir, &log_dir, &catalog);
    let found = recovery.replay(SeqNo::ZERO, end, &mut |records| changes.visit(records))?;
    let (current, mut oldest_unstored) = changes.finish();
    if !options.read_only && mutated!("leftovers-removed-before-recovery") {
        remove_leftovers(&*fs, dir, &catalog)?;
    }

    let coordinator = Arc::new(Coordinator::default());
    let clock = StoreClock::new(Arc::clone(&options.clock));
    let snapshot_tracker = Arc::new(SnapshotTracker::with_clock(Arc::new(clock)));
    let cache = Arc::new(BlockCache::new(options.cache_bytes));
    let keyspaces = Arc::new(Keyspaces::default());
    let gate = Arc::new(Gate::new());
    let maker = EngineMaker {
        options: &options,
        dir,
        store_id: catalog.store_id,
        wal_manifest: &wal_manifest,
        gate: &gate,
        cache: &cache,
        open_files: &open_files,
        values: &values,
        snapshot_tracker: &snapshot_tracker,
        coordinator: &coordinator,
    };
    let mut have_strays = Vec::new();
    let opened = current
        .entries()
        .map(|entry| Ok(Arc::new(maker.open(entry, &mut have_strays)?)));
    keyspaces.begin(opened.collect::<Result<_>>()?);
    let is_proven = catalog.seq <= wal_manifest.catalog;
    if !is_proven {
        // Nothing proves that the catalogue that was read is on the disk: a sync of its name may
        // have failed in an earlier process. The log keeps what the older one lacks.
        oldest_unstored = Some(wal_manifest.catalog.next());
    }
    let replay = Replay {
        log_dir: &log_dir,
        keyspaces: &keyspaces,
        stored: catalog.seq,
        next_id: current.next_id(),
        snapshot_tracker: &snapshot_tracker,
        coordinator: &coordinator,
        values: &values,
        read_only: options.read_only,
    };
    let last = replay.run(&mut recovery, found, end)?;
    for keyspace in keyspaces.all().iter() {
        keyspace.resolver.recovered();
    }
    snapshot_tracker.publish(last);
    let mut wal_manifest = OpenWalManifest::found(wal_manifest);
    let pipeline = if options.read_only {
        None
    } else {
        let config = WalConfig {
            segment_bytes: options.log_segment_bytes,
            use_mmap: options.mmap_log,
        };
        let is_first = catalog.seq == SeqNo::ZERO && wal_manifest.content == WalManifest::default();
        if is_first && !is_new && !mutated!("first-catalogue-not-written-again") {
            // Likewise for the one that made the store, without which nothing of it can be read.
            catalog.store(&*fs, dir, &lock_guard)?;
        }
        recovery.guard_by(lock_guard.clone());
        if recovery.lacks_witness(config, last) {
            let store = |new: &WalManifest| new.store(&*fs, dir, catalog.store_id, &lock_guard);
            wal_manifest = note_recovered(&mut recovery, wal_manifest, last, store)?;
        }
        let (writer, log) = recovery.into_log(config, last)?;
        coordinator.attach_log(Arc::clone(&log));
        let pipeline = Pipeline::new(
            writer,
            log,
            last,
            Arc::clone(&coordinator),
            Arc::clone(&snapshot_tracker),
            Arc::clone(&keyspaces),
            Arc::clone(&values),
        );
        Some(pipeline.staging_batches_of(options.large_batch_ops))
    };
    if !options.read_only {
        // Not before: nothing is removed that a recovery which fails could need, nor because of a
        // record that was not durable (C2).
        for keyspace in keyspaces.all().iter() {
            keyspace.engine.recovered()?;
            if have_strays.contains(&keyspace.id) {
                let keyspace_dir = keyspace_dir(dir, keyspace.id);
                remove_strays(&*fs, &keyspace_dir, keyspace.options.engine())?;
            }
        }
        remove_leftovers(&*fs, dir, &current)?;
        // All tables are open, and hold what they refer to. Best effort, as above.
        while let Ok(true) = values.remove_unheld() {}
    }
    // Last, so that an open that fails leaves no trace behind.
    let recorder = match &options.recording {
        // A trace lies elsewhere.
        Some(recording) => Some(Recorder::start(&unguarded, recording)?),
        None => None,
    };
    if let Some(recorder) = &recorder {
        for keyspace in keyspaces.all().iter() {
            keyspace.declare_to(recorder);
        }
    }
    let shared = Shared::new(
        options,
        dir.to_path_buf(),
        coordinator,
        snapshot_tracker,
        cache,
        open_files,
        values,
        keyspaces,
        CatalogState::new(catalog, current, oldest_unstored, is_proven),
        lock_guard,
        wal_manifest,
        pipeline,
        recorder,
        gate,
    );
    Store::start(shared, lock)
}

/// Makes the log durable up to `last`, where it ends, and says so in the WAL manifest. It goes on
/// in its last segment then: one that is made anew after each kill would do as a witness, too, but
/// such a store would take another megabyte each time.
fn note_recovered(
    recovery: &mut wal::Recovery,
    wal_manifest: OpenWalManifest,
    last: SeqNo,
    store: impl Fn(&WalManifest) -> Result<()>,
) -> Result<OpenWalManifest> {
    recovery.make_durable()?;
    let end = last;
    let new = WalManifest {
        end,
        ..wal_manifest.content
    };
    mutated!("recovered-end-not-noted", Ok(()), store(&new))?;
    recovery.note_durable(last);
    Ok(OpenWalManifest::written(new))
}

/// The lock of a directory, unless it needs none.
type DirLock = Option<Box<dyn FsLock>>;

/// Locks the directory, making it first if that is wanted. Returns what was made, too, with all
/// above it: the directory itself first.
fn take_lock(fs: &dyn Fs, dir: &Path, options: &Options) -> Result<(DirLock, Vec<PathBuf>)> {
    let mut made = Vec::new();
    if !fs.exists(&dir.join(CATALOG_FILE))? {
        let vacant = check_vacant(fs, dir);
        let is_damaged = vacant.as_ref().is_err_and(Error::is_corruption);
        if !is_damaged && (options.read_only || !options.create_if_missing) {
            let error = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no store here");
            return Err(Error::io("open", dir, error));
        }
        vacant?;
        for above in dir.ancestors() {
            if fs.exists(above)? {
                break;
            }
            made.push(above.to_path_buf());
        }
        fs.create_dir_all(dir)?;
    }
    let path = dir.join(LOCK_FILE);
    if options.read_only {
        // A store on a read-only medium may have no lock file. A writer makes one, and must not
        // come while this one reads.
        let lock = match fs.exists(&path)? {
            true => Some(fs.lock(&path, LockMode::Shared)?),
            false => fs.lock_dir(dir)?,
        };
        return Ok((lock, made));
    }
    Ok((Some(fs.lock(&path, LockMode::Exclusive)?), made))
}

/// What is in a directory that a store may be made in, beside what a creation left that was cut
/// short: operating systems put it into a fresh volume, and people into an empty directory.
const FRESH: [&str; 9] = [
    "lost+found",
    ".DS_Store",
    ".Spotlight-V100",
    ".Trashes",
    ".fseventsd",
    "System Volume Information",
    "$RECYCLE.BIN",
    ".gitkeep",
    ".gitignore",
];

/// An error unless a store can be made in `dir`, which has no catalogue: a store that lost it is
/// damaged, and a directory with other files is probably a mistyped path.
fn check_vacant(fs: &dyn Fs, dir: &Path) -> Result<()> {
    if !fs.exists(dir)? {
        return Ok(());
    }
    let without_catalog = |name: &str| {
        Err(Error::corruption(
            &dir.join(CATALOG_FILE),
            0,
            format!("the catalogue is missing, but {name} of a store is there"),
        ))
    };
    let names = fs.read_dir(dir)?;
    // A store that was ever opened has a segment of its log.
    if names.iter().any(|name| name == LOG_DIR) {
        let segments = fs.read_dir(&dir.join(LOG_DIR))?;
        let is_ours = |name: &&String| name.ends_with(".log") || name.ends_with(".val");
        if let Some(name) = segments.iter().find(is_ours) {
            return without_catalog(&format!("{LOG_DIR}/{name}"));
        }
    }
    let ours = [
        LOCK_FILE,
        LOG_DIR,
        CATALOG_TEMPORARY,
        WAL_MANIFEST_FILE,
        WAL_MANIFEST_TEMPORARY,
    ];
    for name in &names {
        let name = name.as_str();
        if parse_keyspace_dir(name).is_some() {
            return without_catalog(name);
        }
        let is_fresh = FRESH.contains(&name) || name.starts_with(".Trash-");
        if !is_fresh && !ours.contains(&name) {
            return Err(Error::invalid(format!(
                "{} is neither empty nor a store: it holds {name:?}",
                dir.display()
            )));
        }
    }
    Ok(())
}

/// Makes an empty store. The catalogue comes last: with it the directory is a store. `made` are
/// the directories that were made for it.
fn create(
    fs: &dyn Fs,
    dir: &Path,
    made: &[PathBuf],
    options: &Options,
    guard: &LockGuard,
) -> Result<Catalog> {
    debug_assert!(!options.read_only, "take_lock refuses a missing store");
    fs.create_dir_all(&dir.join(LOG_DIR))?;
    fs.sync_dir(dir)?;
    if let Err(error) = sync_above(fs, dir) {
        // The sync may have lost the names, which a later one would not bring to the disk: so they
        // are made anew by the next attempt.
        if !mutated!("directory-of-a-failed-creation-stays") {
            unmake(fs, dir, made);
        }
        return Err(error);
    }
    // RandomState is seeded by the operating system; no other randomness is needed.
    let store_id = RandomState::new().build_hasher().finish();
    let catalog = Catalog::new(store_id);
    // Without this one the store would be damaged (H3).
    WalManifest::default().store(fs, dir, store_id, guard)?;
    catalog.store(fs, dir, guard)?;
    Ok(catalog)
}

/// Removes what was made of a store, as far as that is possible: `made` are its directory and what
/// is above it.
fn unmake(fs: &dyn Fs, dir: &Path, made: &[PathBuf]) {
    if made.is_empty() {
        return;
    }
    let _ = fs.remove_dir(&dir.join(LOG_DIR));
    let _ = fs.remove_file(&dir.join(LOCK_FILE));
    for dir in made {
        let _ = fs.remove_dir(dir);
    }
}

/// Makes the names on the way to `dir` durable: any of them may be new.
fn sync_above(fs: &dyn Fs, dir: &Path) -> Result<()> {
    for (distance, above) in dir.ancestors().skip(1).enumerate() {
        let is_here = above.as_os_str().is_empty();
        match fs.sync_dir(if is_here { Path::new(".") } else { above }) {
            // A directory that may not even be listed is none that we have made something in.
            Err(Error::Io { source, .. })
                if distance > 0 && source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                break;
            }
            other => other?,
        }
    }
    Ok(())
}

/// An error if the catalogue is of an earlier moment than the WAL manifest (H5): the log may lack
/// changes that it does not have, and it would have keyspaces removed.
fn check_catalog(dir: &Path, catalog: &Catalog, wal_manifest: &WalManifest) -> Result<()> {
    if mutated!("older-catalogue-goes-unnoticed") {
        return Ok(());
    }
    let older = |what: String| {
        let other = dir.join(WAL_MANIFEST_FILE);
        let what = format!("the catalogue is older than {}: {what}", other.display());
        Err(Error::corruption(&dir.join(CATALOG_FILE), 0, what))
    };
    if catalog.seq < wal_manifest.catalog {
        return older(format!(
            "its last change of keyspaces is operation {}, there it is {}",
            catalog.seq, wal_manifest.catalog
        ));
    }
    match wal_manifest.watermarks.last() {
        Some((id, _)) if id.0 >= catalog.next_id() => older(format!(
            "its next keyspace is {}, there keyspace {id} is known",
            catalog.next_id()
        )),
        _ => Ok(()),
    }
}

/// Removes directories of keyspaces that were dropped, or whose making a power loss has undone, and
/// a catalogue or a WAL manifest that was being written.
fn remove_leftovers(fs: &dyn Fs, dir: &Path, catalog: &Catalog) -> Result<()> {
    for name in fs.read_dir(dir)? {
        if name == CATALOG_TEMPORARY || name == WAL_MANIFEST_TEMPORARY {
            let _ = fs.remove_file(&dir.join(name));
            continue;
        }
        let Some(id) = parse_keyspace_dir(&name) else {
            continue;
        };
        if catalog.entry(id).is_none() {
            // The catalogue that was read may not be durable, after a kill; and the one that is may
            // list what is removed here, without the log's record of its drop.
            fs.sync_dir(dir)?;
            // Best effort: space is lost if it fails, nothing else, and the next open tries again.
            let _ = remove_leftover_files(fs, &dir.join(name), is_engine_file);
        }
    }
    Ok(())
}
