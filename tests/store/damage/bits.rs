//! Every bit flipped, and every length cut to, in files of each kind.
//!
//! At effort 10 and above all of them, otherwise a sample. Whatever refuses to open a store must
//! name the file that was changed.
//!
//! A manifest that is cut looks like one whose last edit was torn by a crash, and describes the
//! tree of an earlier moment. The log makes up for that where it still goes back so far; where it
//! does not, the WAL manifest shows it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::rig::{effort, figure};

use super::*;

const THREADS: usize = 2;
/// One change in so many is tried at effort 1.
const SAMPLED: usize = 151;

/// The kinds of files that a store has.
const KINDS: [&str; 8] = [
    "catalogue",
    "WAL manifest",
    "log segment",
    "value file",
    "CURRENT",
    "manifest",
    "table",
    "B-tree file",
];

fn kind_of(path: &Path) -> &'static str {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    match name {
        "CATALOG" => "catalogue",
        "WAL-MANIFEST" => "WAL manifest",
        "CURRENT" => "CURRENT",
        "tree.hdb" => "B-tree file",
        _ if name.starts_with("MANIFEST-") => "manifest",
        _ if name.starts_with("TABLE-") => "table",
        _ if name.ends_with(".log") => "log segment",
        _ if name.ends_with(".val") => "value file",
        _ => panic!("what is {name}?"),
    }
}

/// The file of a kind that is worth most, and the places in it.
struct Target {
    kind: &'static str,
    path: PathBuf,
    places: Vec<Range<usize>>,
}

/// Bytes of each kind whose bits are flipped, where the file has as many.
const COVERED: usize = 2560;

fn target(sample: &Sample, kind: &'static str) -> Target {
    let used = |bytes: &[u8]| {
        bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1)
    };
    let (path, len) = sample
        .image
        .data_files()
        .filter(|(path, _)| kind_of(path) == kind)
        .map(|(path, bytes)| (path.clone(), used(bytes)))
        .max_by_key(|(_, used)| *used)
        .expect("a file of each kind");
    let places = match kind {
        // Both meta pages, then nodes and whatever follows.
        "B-tree file" => vec![0..256, 1024..1280, 2048..(2048 + COVERED - 512).min(len)],
        // Blocks at the front, what describes them at the end.
        _ if len > COVERED => vec![0..COVERED / 2, len - COVERED / 2..len],
        _ => vec![0..len / 2, len / 2..len],
    };
    Target { kind, path, places }
}

/// A change of one file.
#[derive(Debug, Clone, Copy)]
enum Change {
    Flip(usize, u32),
    Cut(usize),
}

/// A file system for a damaged store: in memory, or real and mapped.
fn place(number: usize, mapped: bool) -> (Arc<dyn Fs>, PathBuf) {
    if !mapped {
        return (Arc::new(SimFs::new()), "/store".into());
    }
    // In memory if there is such a thing: nothing here is about the disk.
    let shared = Path::new("/dev/shm");
    let base = if shared.is_dir() {
        shared.to_path_buf()
    } else {
        std::env::temp_dir()
    };
    let name = format!("hedgerow-damage-{}-{number}", std::process::id());
    (Arc::new(StdFs::new()), base.join(name))
}

fn try_one(
    sample: &Sample,
    path: &Path,
    change: Change,
    number: usize,
    mapped: bool,
) -> Result<Fate, String> {
    let mut image = sample.image.clone();
    let bytes = image.files.get_mut(path).expect("a file");
    match change {
        Change::Flip(at, bit) => bytes[at] ^= 1 << bit,
        Change::Cut(len) => bytes.truncate(len),
    }
    let (fs, root) = place(number, mapped);
    let outcome = suffer(sample, &image, fs, &root);
    if mapped {
        std::fs::remove_dir_all(&root).expect("the store is closed");
    }
    let cuts_manifest = matches!(change, Change::Cut(_)) && kind_of(path) == "manifest";
    match (outcome?, change) {
        // A manifest cut between two records names tables that are gone.
        (Fate::Refused(file), _) if cuts_manifest && file.parent().is_some() => {
            let dir = path.parent().expect("a directory");
            if file.parent().is_some_and(|parent| parent.ends_with(dir)) {
                Ok(Fate::Refused(file))
            } else {
                Err(format!("{} was named instead", file.display()))
            }
        }
        (Fate::Refused(file), _) if !file.ends_with(path) => {
            Err(format!("{} was named instead", file.display()))
        }
        (fate, _) => Ok(fate),
    }
}

fn sweep(sample: &Sample, target: &Target, changes: &[Change], mapped: bool) -> Tally {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Tally::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(change) = changes.get(number) else {
                        return;
                    };
                    let fate = try_one(sample, &target.path, *change, number, mapped);
                    let mut results = results.lock().unwrap();
                    match fate {
                        Ok(fate) => results.0.count(&fate),
                        Err(law) => results.1.push(format!("{change:?}: {law}")),
                    }
                }
            });
        }
    });
    let (tally, failures) = results.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} (mapped: {mapped}): {} of {} changes: {:#?}",
        target.path.display(),
        failures.len(),
        changes.len(),
        &failures[..failures.len().min(20)]
    );
    tally
}

fn chosen(changes: Vec<Change>) -> Vec<Change> {
    let stride = if effort() >= 10 { 1 } else { SAMPLED };
    changes.into_iter().step_by(stride).collect()
}

/// The sample in which a kind of file is longest.
fn shape_for(kind: &str) -> Shape {
    match kind {
        "catalogue" => Shape::ManyKeyspaces,
        "manifest" => Shape::ManyFlushes,
        "WAL manifest" => Shape::ShortLog,
        "value file" => Shape::ValueFiles,
        _ => Shape::Mixed,
    }
}

fn is_mapped(kind: &str) -> bool {
    matches!(kind, "table" | "B-tree file" | "log segment" | "value file")
}

#[test]
fn every_bit_of_every_kind_of_file() {
    let mut flipped = 0;
    for kind in KINDS {
        let sample = shaped(61, shape_for(kind));
        let target = target(&sample, kind);
        let bytes: usize = target.places.iter().map(ExactSizeIterator::len).sum();
        let all = target
            .places
            .iter()
            .cloned()
            .flatten()
            .flat_map(|at| (0..8).map(move |bit| Change::Flip(at, bit)))
            .collect();
        let changes = chosen(all);
        for mapped in [false, true] {
            if mapped && !is_mapped(kind) {
                continue;
            }
            let tally = sweep(&sample, &target, &changes, mapped);
            report(format_args!(
                "flipped bits of a {kind} (mapped: {mapped}): {tally:?}"
            ));
            flipped += changes.len() as u64;
        }
        if effort() >= 10 {
            // Those two are shorter, and covered whole.
            let is_short = matches!(kind, "CURRENT" | "WAL manifest");
            assert!(is_short || bytes >= 2048, "{kind}: {bytes} bytes");
            figure(
                &format!("bytes with every bit flipped: {}", target.kind),
                bytes as u64,
            );
        }
    }
    figure("flipped bits", flipped);
}

#[test]
fn every_length_of_every_kind_of_file() {
    let mut cuts = 0;
    for kind in KINDS {
        let mut shapes = vec![shape_for(kind), Shape::ShortLog];
        if kind == "value file" {
            shapes.pop();
        }
        shapes.dedup();
        for shape in shapes {
            let sample = shaped(62, shape);
            let target = target(&sample, kind);
            let end = sample.image.files[&target.path].len();
            let last = target.places.last().expect("a place").end;
            // Behind the last byte that is not zero one length is as good as another.
            let lengths = (0..last.min(end)).chain((last..end).step_by(997));
            let changes = chosen(lengths.map(Change::Cut).collect());
            let tally = sweep(&sample, &target, &changes, false);
            report(format_args!("lengths of a {kind}, {shape:?}: {tally:?}"));
            cuts += changes.len() as u64;
        }
    }
    figure("truncated files", cuts);
}
