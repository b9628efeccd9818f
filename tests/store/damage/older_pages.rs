//! Pages of a B-tree from an earlier moment, intact and in their places: writes that the disk
//! reported as done and lost.

use support::rig::effort;

use super::stale::{PAGE, trees};
use super::*;

/// A store, and images of it at earlier moments: with the same files and other bytes in them. Every
/// key is there from the beginning and all values have one length, so that a tree keeps its shape
/// and its nodes their fences.
fn moments() -> (Sample, Vec<Image>) {
    const KEYS: u32 = 60;
    let (mut rig, keyspaces) = sample_rig();
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
    (sample_of(rig, keyspaces, states), earlier)
}

/// One page of a tree as it was earlier: a write that the disk lost and reported as done. Where the
/// tree refers to the page, reading it fails and verify names it; nothing is read that is of
/// another moment.
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
                sweep_one(&sample, &mut tally, &story, |image| {
                    let bytes = image.files.get_mut(&path).expect("a file");
                    bytes[range.clone()].copy_from_slice(&old[range]);
                });
            }
        }
    }
    assert!(tally.reported > 0, "{tally:?}");
    report(format_args!("earlier pages: {tally:?}"));
}

/// Pages of a tree as they were earlier, any of them but the meta pages: it is enough that one of
/// them is needed.
#[test]
fn several_pages_of_a_tree_from_an_earlier_moment() {
    let (sample, earlier) = moments();
    let mut tally = Tally::default();
    let mut random = Random::new(11);
    for path in trees(&sample) {
        for n in 0..20 * effort() {
            let old = &random.pick(&earlier).files[&path];
            let story = format!("pages of {} from earlier, choice {n}", path.display());
            sweep_one(&sample, &mut tally, &story, |image| {
                let bytes = image.files.get_mut(&path).expect("a file");
                for page in 2..old.len().min(bytes.len()) / PAGE {
                    let range = page * PAGE..(page + 1) * PAGE;
                    if random.one_in(2) {
                        bytes[range.clone()].copy_from_slice(&old[range]);
                    }
                }
            });
        }
    }
    assert!(tally.reported > 0, "{tally:?}");
    report(format_args!("several earlier pages: {tally:?}"));
}
