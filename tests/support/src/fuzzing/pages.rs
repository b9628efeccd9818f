//! Target for the nodes of the B-tree: hostile images are refused or can be used, and what changes
//! a leaf agrees with a map.

use std::collections::BTreeMap;

use hedgerow::internals::page::{self, Leaf, LeafMut, LeafSplit, PageValue};

use super::{Bytes, Flags};
use crate::random::Source;

/// Size of the pages.
const PAGE: usize = 1024;
const SEED: u64 = 5;
/// Most changes of one leaf.
const MAX_CHANGES: u32 = 200;

/// Images of nodes. The input is the front of the image, the back of it (where records are), and
/// changes; or, with the other flag, changes of a new leaf only.
pub fn btree_page(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    let mut source = Bytes(bytes);
    if flags.other() {
        change(page::new_leaf(PAGE), source);
        return;
    }
    let mut image = unpack(&mut source, PAGE);
    if flags.repaired() {
        page::write_checksum(&mut image, SEED);
        assert_eq!(page::check(&image, SEED), Ok(()));
    } else if page::check(&image, SEED).is_err() {
        return;
    }
    if page::validate(&image).is_err() {
        return;
    }
    page::walk(&image, source.short());
    // A leaf.
    if image[4] == 1 {
        change(image.into(), source);
    }
}

/// An image of one page from its front and its back, both after their lengths.
pub fn unpack(source: &mut Bytes<'_>, page_size: usize) -> Vec<u8> {
    let front_len = usize::from(source.u16()).min(page_size);
    let front = source.take(front_len);
    let back_len = usize::from(source.u16()).min(page_size - front.len());
    let back = source.take(back_len);
    let mut image = vec![0; page_size];
    image[..front.len()].copy_from_slice(front);
    image[page_size - back.len()..].copy_from_slice(back);
    image
}

/// The opposite of [`unpack`]: leaves out the longest run of zeros.
pub fn pack(image: &[u8]) -> Vec<u8> {
    let (mut best, mut at) = (0..0, 0);
    for run in image.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
        if run[0] == 0 && run.len() > best.len() {
            best = at..at + run.len();
        }
        at += run.len();
    }
    let (front, back) = (&image[..best.start], &image[best.end..]);
    let len = |part: &[u8]| (part.len() as u16).to_be_bytes();
    [&len(front)[..], front, &len(back), back].concat()
}

/// The inline entries of a leaf; `None` if a value is elsewhere.
fn entries(image: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let leaf = Leaf::from_image(image);
    let mut entries = BTreeMap::new();
    for i in 0..leaf.len() {
        let mut key = Vec::new();
        leaf.write_key(i, &mut key);
        assert_eq!(leaf.search(&key), Ok(i), "a key is not where it is");
        match leaf.value(i) {
            PageValue::Inline(value) => entries.insert(key, value.to_vec()),
            PageValue::Overflow(..) | PageValue::Apart(_) => return None,
        };
    }
    assert_eq!(entries.len(), leaf.len(), "a key stands there twice");
    Some(entries)
}

/// Changes a leaf and a map alike.
fn change(mut image: Box<[u8]>, mut source: Bytes<'_>) {
    let Some(mut expected) = entries(&image) else {
        return;
    };
    let mut count = 0;
    while !source.is_empty() && count < MAX_CHANGES {
        count += 1;
        let how = source.byte();
        // Keys near those that are there, which are inside the fences more often than not.
        let mut key = match expected.len() as u64 {
            0 => Vec::new(),
            len if how & 1 == 0 => {
                let at = source.below(len) as usize;
                expected.keys().nth(at).expect("below the length").clone()
            }
            _ => Vec::new(),
        };
        let more = usize::from(source.byte() % 12);
        key.extend_from_slice(source.take(more));
        let leaf = Leaf::from_image(&image);
        if !leaf.covers(&key) {
            assert!(!expected.contains_key(&key));
            continue;
        }
        let found = leaf.search(&key);
        assert_eq!(found.is_ok(), expected.contains_key(&key));
        if how & 6 == 6 {
            if let Ok(at) = found {
                LeafMut::from_image(&mut image).remove(at);
                expected.remove(&key);
            }
        } else {
            let len = usize::from(source.byte());
            let value = vec![how; len];
            let mut leaf = LeafMut::from_image(&mut image);
            let (at, replaces, fits) = match found {
                Ok(at) => (at, true, leaf.set_value(at, &value)),
                Err(at) => (at, false, leaf.insert(at, &key, &value)),
            };
            if !fits {
                image = split(&image, at, replaces, &key, &value, &mut expected);
                continue;
            }
            expected.insert(key, value);
        }
        assert_eq!(page::validate(&image), Ok(()), "after change {count}");
        assert_eq!(entries(&image).as_ref(), Some(&expected));
    }
}

/// Splits a full leaf, checks both halves, and goes on with the one that has the key.
fn split(
    image: &[u8],
    at: usize,
    replaces: bool,
    key: &[u8],
    value: &[u8],
    expected: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> Box<[u8]> {
    expected.insert(key.to_vec(), value.to_vec());
    match page::split_leaf(image, at, replaces, key, value, PAGE) {
        LeafSplit::One(image) => {
            assert_eq!(page::validate(&image), Ok(()));
            assert_eq!(entries(&image).as_ref(), Some(&*expected));
            image
        }
        LeafSplit::Two(left, separator, right) => {
            assert_eq!(page::validate(&left), Ok(()));
            assert_eq!(page::validate(&right), Ok(()));
            let above = expected.split_off(&separator);
            assert_eq!(entries(&left).as_ref(), Some(&*expected), "left half");
            assert_eq!(entries(&right).as_ref(), Some(&above), "right half");
            if key < &separator[..] {
                left
            } else {
                *expected = above;
                right
            }
        }
    }
}
