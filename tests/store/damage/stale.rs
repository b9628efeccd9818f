//! Blocks, pages and files from another place or time: every one is intact by itself.

use std::path::PathBuf;

use super::*;
use crate::rig::{effort, figure};

/// What a B-tree's pages are long in the samples.
const PAGE: usize = 1024;

fn trees(sample: &Sample) -> Vec<PathBuf> {
    let files = sample.image.data_files();
    files
        .filter(|(path, _)| path.ends_with("tree.hdb"))
        .map(|(path, _)| path.clone())
        .collect()
}

/// Chunks of `len` bytes of one file change places.
fn swap_chunks(sample: &Sample, tally: &mut Tally, path: &Path, len: usize) -> u64 {
    let count = sample.image.files[path].len() / len;
    let mut random = Random::new(7);
    let mut tried = 0;
    for one in 0..count {
        for other in one + 1..count {
            if effort() < 10 && !random.one_in(1 + (count * count / 160) as u64) {
                continue;
            }
            let story = format!(
                "chunks {one} and {other} of {len} bytes of {} swapped",
                path.display()
            );
            let fate = sweep_one(sample, tally, &story, |image| {
                let bytes = image.files.get_mut(path).expect("a file");
                let (front, back) = bytes.split_at_mut(other * len);
                front[one * len..(one + 1) * len].swap_with_slice(&mut back[..len]);
            });
            assert!(
                !matches!(fate, Fate::Shorter(_)) || is_log(path),
                "{story}: {fate:?}"
            );
            tried += 1;
        }
    }
    tried
}

#[test]
fn pages_of_a_tree_swapped() {
    let sample = sample(63);
    let mut tally = Tally::default();
    let mut tried = 0;
    for path in trees(&sample) {
        tried += swap_chunks(&sample, &mut tally, &path, PAGE);
    }
    figure("swapped pages", tried);
    report(format_args!("swapped pages: {tally:?}"));
}

/// Sectors of tables, manifests and log segments change places.
#[test]
fn sectors_swapped() {
    let sample = sample(64);
    let mut tally = Tally::default();
    let mut tried = 0;
    let paths: Vec<_> = sample
        .image
        .data_files()
        .map(|(path, _)| path.clone())
        .collect();
    for path in paths {
        if is_log(&path) {
            // Most of a segment is zeros.
            let mut sample = Sample {
                image: sample.image.clone(),
                states: sample.states.clone(),
            };
            let used = sample.image.files[&path]
                .iter()
                .rposition(|byte| *byte != 0)
                .unwrap_or(0);
            let keep = (used + 1).next_multiple_of(512);
            let mut tail =
                sample.image.files[&path][keep.min(sample.image.files[&path].len())..].to_vec();
            let file = sample.image.files.get_mut(&path).expect("a file");
            file.truncate(keep);
            let chunks = keep / 512;
            let mut random = Random::new(9);
            for _ in 0..40 * effort() {
                let one = random.below(chunks as u64) as usize;
                let other = random.below(chunks as u64) as usize;
                if one == other {
                    continue;
                }
                let story = format!("sectors {one} and {other} of {} swapped", path.display());
                sweep_one(&sample, &mut tally, &story, |image| {
                    let bytes = image.files.get_mut(&path).expect("a file");
                    for at in 0..512 {
                        bytes.swap(one * 512 + at, other * 512 + at);
                    }
                    bytes.append(&mut tail.clone());
                });
                tried += 1;
            }
            tail.clear();
            continue;
        }
        if path.ends_with("tree.hdb") {
            continue;
        }
        tried += swap_chunks(&sample, &mut tally, &path, 512);
    }
    figure("swapped sectors", tried);
    report(format_args!("swapped sectors: {tally:?}"));
}

/// A store, and images of it at earlier moments: with the same files and other bytes in them. Every key is there from
/// the beginning and all values have one length, so that a tree keeps its shape and its nodes their fences.
fn moments() -> (Sample, Vec<Image>) {
    const KEYS: u32 = 60;
    let mut rig = Rig::new(Place::Memory, Sizes::Tiny).with(|options| {
        options
            .background_threads(0)
            .background_sync_ms(0)
            .durability(Durability::Sync)
    });
    let keyspaces = EngineKind::ALL.map(|engine| rig.keyspace(engine.name(), engine));
    let mut state = State::default();
    let mut states = vec![state.clone()];
    let mut random = Random::new(65);
    let mut earlier = Vec::new();
    for n in 0..8 * KEYS {
        let at = n as usize % 2;
        let key = match n / 2 {
            n if n < KEYS => n,
            _ => random.below(KEYS.into()) as u32,
        };
        let (key, value) = (key.to_be_bytes().to_vec(), random.bytes(90));
        keyspaces[at].put(&key, &value).unwrap();
        state[at].insert(key, value);
        states.push(state.clone());
        if n % KEYS == KEYS - 1 {
            rig.db().flush().unwrap();
            earlier.push(Image::of(&**rig.fs(), rig.path()));
        }
    }
    rig.db().sync().unwrap();
    drop(keyspaces);
    rig.abandon();
    let image = Image::of(&**rig.fs(), rig.path());
    (Sample { image, states }, earlier)
}

/// One page of a tree as it was earlier: a write that the disk lost and reported as done. Where the tree refers to the
/// page, reading it fails and verify names it; nothing is read that is of another moment.
#[test]
fn pages_of_a_tree_from_an_earlier_moment() {
    let (sample, earlier) = moments();
    let mut tally = Tally::default();
    for path in trees(&sample) {
        let new = &sample.image.files[&path];
        for (moment, old) in earlier.iter().enumerate() {
            let old = &old.files[&path];
            for page in 0..old.len().min(new.len()) / PAGE {
                let range = page * PAGE..(page + 1) * PAGE;
                if old[range.clone()] == new[range.clone()] {
                    continue;
                }
                let story = format!("page {page} of {} from moment {moment}", path.display());
                let fate = sweep_one(&sample, &mut tally, &story, |image| {
                    let bytes = image.files.get_mut(&path).expect("a file");
                    bytes[range.clone()].copy_from_slice(&old[range]);
                });
                // A meta page has a twin, and opening takes the newer one.
                assert!(!matches!(fate, Fate::Shorter(_)), "{story}: {fate:?}");
            }
        }
    }
    assert!(tally.reported > 0, "{tally:?}");
    report(format_args!("earlier pages: {tally:?}"));
}

/// Pages of a tree as they were earlier, any of them but the meta pages: it is enough that one of them is needed.
#[test]
fn several_pages_of_a_tree_from_an_earlier_moment() {
    let (sample, earlier) = moments();
    let mut tally = Tally::default();
    let mut random = Random::new(11);
    for path in trees(&sample) {
        for n in 0..20 * effort() {
            let old = &random.pick(&earlier).files[&path];
            let story = format!("pages of {} from earlier, choice {n}", path.display());
            let fate = sweep_one(&sample, &mut tally, &story, |image| {
                let bytes = image.files.get_mut(&path).expect("a file");
                for page in 2..old.len().min(bytes.len()) / PAGE {
                    let range = page * PAGE..(page + 1) * PAGE;
                    if random.one_in(2) {
                        bytes[range.clone()].copy_from_slice(&old[range]);
                    }
                }
            });
            assert!(!matches!(fate, Fate::Shorter(_)), "{story}: {fate:?}");
        }
    }
    assert!(tally.reported > 0, "{tally:?}");
    report(format_args!("several earlier pages: {tally:?}"));
}

/// One whole file as it was earlier.
#[test]
fn files_from_an_earlier_moment() {
    let (sample, earlier) = moments();
    let mut tally = Tally::default();
    let mut unnoticed = Vec::new();
    for (path, old) in earlier.iter().flat_map(Image::data_files) {
        let Some(new) = sample.image.files.get(path) else {
            continue;
        };
        if new == old {
            continue;
        }
        let story = format!("{} from earlier", path.display());
        let fate = sweep_one(&sample, &mut tally, &story, |image| {
            image.files.insert(path.clone(), old.clone());
        });
        if matches!(fate, Fate::Shorter(_)) {
            unnoticed.push(path.clone());
        }
    }
    // What was durable is missing, and the rest of the store cannot know: only of the log's end.
    assert!(unnoticed.iter().all(|path| is_log(path)), "{unnoticed:?}");
    report(format_args!("earlier files: {tally:?}"));
}
