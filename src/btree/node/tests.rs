//! Nodes against a `BTreeMap`, and against damage.

use std::collections::BTreeMap;

use super::leaf::{Leaf, LeafMut, LeafValue, Pending};
use super::pack::{self, Pack};
use super::packs::{Group, PackRef, Packs};
use super::*;
use crate::btree::node::inner::Inner;
use crate::testing::Random;
use crate::types::{PageId, SeqNo};
use crate::util::key_prefix::shortest_separator;
use crate::values::Digest;

/// Kinds of keys that have something nasty about them.
const KEY_SETS: [fn(&mut Random) -> Vec<u8>; 6] = [
    // Random, short.
    |r| {
        let len = r.index(20);
        r.bytes(len)
    },
    // Zeros and ones: heads tie although keys differ only in length. Includes the empty key.
    |r| {
        let len = r.index(12);
        (0..len).map(|_| (r.index(8) == 0) as u8).collect()
    },
    // Runs of 0xFF.
    |r| {
        let len = r.index(40);
        (0..len).map(|_| 0xFF - (r.index(6) == 0) as u8).collect()
    },
    // Numbered, behind a shared prefix.
    |r| format!("table/customer/{:08}", r.index(3000)).into_bytes(),
    // A handful of very long keys that share nearly everything, among short ones.
    |r| match r.index(3) {
        0 => {
            let mut key = vec![7; 60_000];
            key.extend_from_slice(&(r.index(9) as u16).to_be_bytes());
            key
        }
        _ => vec![r.index(9) as u8; r.index(4)],
    },
    // Longest keys, up to the limit, sharing little.
    |r| {
        let mut key = r.bytes(2);
        let len = [10, 900, 3000, 65_535][r.index(4)];
        key.resize(len, r.index(3) as u8);
        key
    },
];

/// A value of a map that mirrors a leaf. Overflow references are made from their number.
#[derive(Debug, Clone, PartialEq)]
enum Stored {
    Inline(Vec<u8>),
    Overflow(u32),
}

impl Stored {
    fn random(random: &mut Random, page_size: usize) -> Self {
        if random.index(8) == 0 {
            return Self::Overflow(random.next() as u32);
        }
        let most = [4, 100, page_size / 4][random.index(3)];
        let len = random.index(most + 1);
        Self::Inline(random.bytes(len))
    }

    fn as_value(&self) -> LeafValue<'_> {
        match self {
            Self::Inline(bytes) => LeafValue::Inline(bytes),
            Self::Overflow(n) => LeafValue::Overflow {
                page: PageId(u64::from(*n) << 9),
                len: *n,
                checksum: !*n,
            },
        }
    }
}

type Oracle = BTreeMap<Vec<u8>, Stored>;

/// Leaves in key order: the bottom of a tree, without a tree.
struct Leaves {
    images: Vec<Box<[u8]>>,
    page_size: usize,
}

impl Leaves {
    fn new(page_size: usize) -> Self {
        Self {
            images: vec![leaf::new(b"", None, page_size)],
            page_size,
        }
    }

    /// Index of the leaf that covers `key`.
    fn find(&self, key: &[u8]) -> usize {
        let covers = |image: &[u8]| Leaf::from_image(image).covers(key);
        let mut found = self.images.iter().enumerate().filter(|(_, i)| covers(i));
        let (at, _) = found.next().expect("a leaf covers every key");
        assert!(found.next().is_none(), "and only one");
        at
    }

    fn put(&mut self, key: &[u8], value: &Stored) -> usize {
        let n = self.find(key);
        let image = &mut self.images[n];
        let found = Leaf::from_image(image).search(key);
        let before = image.clone();
        let mut leaf = LeafMut::from_image(image);
        let (at, result) = match found {
            Ok(i) => (i, leaf.set_value(i, value.as_value())),
            Err(i) => (i, leaf.insert(i, key, value.as_value())),
        };
        if result == Err(Full) {
            assert_eq!(*image, before, "a full node was changed");
            let pending = Pending {
                at,
                replaces: found.is_ok(),
                key,
                value: value.as_value(),
            };
            match leaf::split(image, pending, self.page_size) {
                Rebuilt::One(grown) => self.images[n] = grown,
                Rebuilt::Two {
                    left,
                    separator,
                    right,
                } => {
                    assert!(!Leaf::from_image(&left).is_empty());
                    assert!(!Leaf::from_image(&right).is_empty());
                    assert_eq!(Leaf::from_image(&right).lower_fence(), separator);
                    self.images.splice(n..=n, [left, right]);
                    validate(&self.images[n + 1]).unwrap();
                }
            }
        }
        n
    }

    fn merge(&mut self, n: usize) {
        let Some(merged) = leaf::merge(&self.images[n], &self.images[n + 1], self.page_size) else {
            return;
        };
        self.images.splice(n..n + 2, [merged]);
    }

    /// Removes all keys in leaf `n` and gives what it covered to a neighbour.
    fn drop_leaf(&mut self, n: usize, oracle: &mut Oracle) {
        let dropped = self.images.remove(n);
        let leaf = Leaf::from_image(&dropped);
        let mut key = Vec::new();
        for i in 0..leaf.len() {
            leaf.write_key(i, &mut key);
            oracle.remove(&key);
        }
        let mut upper = Vec::new();
        if n > 0 {
            let bounded = leaf.write_upper_fence(&mut upper);
            let image = &self.images[n - 1];
            let lower = Leaf::from_image(image).lower_fence();
            let upper = bounded.then_some(&upper[..]);
            self.images[n - 1] = leaf::with_fences(image, lower, upper, self.page_size);
        } else {
            let image = &self.images[0];
            let bounded = Leaf::from_image(image).write_upper_fence(&mut upper);
            let upper = bounded.then_some(&upper[..]);
            self.images[0] = leaf::with_fences(image, leaf.lower_fence(), upper, self.page_size);
        }
    }

    fn check(&self, oracle: &Oracle) {
        let mut expected = oracle.iter();
        let mut key = Vec::new();
        let mut fence = Some(Vec::new());
        for image in &self.images {
            validate(image).unwrap();
            let leaf = Leaf::from_image(image);
            assert_eq!(Some(leaf.lower_fence()), fence.as_deref());
            let mut upper = Vec::new();
            fence = leaf.write_upper_fence(&mut upper).then_some(upper);
            assert!(leaf.has_upper_fence(fence.as_deref()));
            let other = fence
                .as_ref()
                .map_or(vec![1], |fence| [fence, &[0][..]].concat());
            assert!(!leaf.has_upper_fence(Some(&other)));
            assert_eq!(leaf.has_upper_fence(None), fence.is_none());
            assert_eq!(leaf.free_bytes() + leaf.live_bytes(), image.len());
            for i in 0..leaf.len() {
                leaf.write_key(i, &mut key);
                let (k, v) = expected.next().unwrap();
                assert_eq!((&key, leaf.value(i)), (k, v.as_value()));
                assert_eq!(leaf.search(&key), Ok(i));
                assert!(leaf.compare_key(i, &key).is_eq());
            }
        }
        assert_eq!(expected.next(), None);
        assert_eq!(fence, None);
    }
}

fn leaf_oracle_run(seed: u64, page_size: usize, key_set: fn(&mut Random) -> Vec<u8>, steps: usize) {
    let mut random = Random(seed);
    let mut leaves = Leaves::new(page_size);
    let mut oracle = Oracle::new();
    for step in 0..steps {
        let key = key_set(&mut random);
        let touched;
        match random.index(20) {
            0..13 => {
                let value = Stored::random(&mut random, page_size);
                touched = leaves.put(&key, &value);
                oracle.insert(key.clone(), value);
            }
            13..16 => {
                touched = leaves.find(&key);
                let image = &mut leaves.images[touched];
                let found = Leaf::from_image(image).search(&key);
                assert_eq!(found.is_ok(), oracle.remove(&key).is_some());
                if let Ok(i) = found {
                    LeafMut::from_image(image).remove(i);
                }
            }
            16 => {
                touched = leaves.find(&key);
                let image = &mut leaves.images[touched];
                let leaf = Leaf::from_image(image);
                let from = random.index(leaf.len() + 1);
                let to = from + random.index((leaf.len() - from).min(3) + 1);
                let mut removed = Vec::new();
                for i in from..to {
                    leaf.write_key(i, &mut removed);
                    oracle.remove(&removed);
                }
                LeafMut::from_image(image).remove_range(from..to);
            }
            17 if leaves.images.len() > 1 => {
                touched = random.index(leaves.images.len() - 1);
                leaves.merge(touched);
            }
            18 if leaves.images.len() > 4 && random.index(4) == 0 => {
                let n = random.index(leaves.images.len());
                leaves.drop_leaf(n, &mut oracle);
                touched = n.saturating_sub(1);
            }
            _ => {
                // Search from any leaf is right, whether it covers the key or not.
                touched = random.index(leaves.images.len());
                let leaf = Leaf::from_image(&leaves.images[touched]);
                let (Ok(at) | Err(at)) = leaf.search(&key);
                assert!(at == 0 || leaf.compare_key(at - 1, &key).is_lt());
                assert!(at == leaf.len() || leaf.compare_key(at, &key).is_ge());
            }
        }
        validate(&leaves.images[touched]).unwrap();
        if step % 97 == 0 || step + 1 == steps {
            leaves.check(&oracle);
        }
    }
}

#[test]
fn leaves_agree_with_a_map() {
    for page_size in [1024, 4096, 16_384, 65_536] {
        for (n, key_set) in KEY_SETS.iter().enumerate() {
            let seed = 0x1EAF + n as u64 * 1000 + page_size as u64;
            println!("seed {seed}, page size {page_size}, key set {n}");
            let steps = if n < 4 { 1500 } else { 300 };
            leaf_oracle_run(seed, page_size, *key_set, steps);
        }
    }
}

#[test]
fn ascending_inserts_fill_their_pages() {
    let mut leaves = Leaves::new(4096);
    let value = Stored::Inline(vec![1; 100]);
    for i in 0..2000 {
        leaves.put(format!("{i:016}").as_bytes(), &value);
    }
    let all = leaves.images.len();
    // A leaf is full when it is cut off; then it gets an upper fence, and with it a
    // prefix that its records no longer repeat: 13 of 130 bytes each.
    for image in &leaves.images[..all - 1] {
        assert_eq!(unit_count(image), 1);
        assert!(Leaf::from_image(image).live_bytes() * 100 >= image.len() * 85);
    }
}

/// Entries of two neighbours, of which the right one may have keys that are shorter than what all
/// keys of the left one have in common.
#[test]
fn pouring_fills_the_left_leaf_and_keeps_all_entries() {
    let page_size = 1024;
    let mut cuts = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let rest = random.index(12);
        let common = [&b"a"[..], &random.bytes(rest)].concat();
        let mut keys: Vec<Vec<u8>> = (0..4 + random.index(40))
            .map(|_| {
                let len = 1 + random.index(12);
                [&*common, &random.bytes(len)].concat()
            })
            .collect();
        keys.sort();
        keys.dedup();
        let border = [&*common, &[0xFF; 13]].concat();
        let mut short: Vec<Vec<u8>> = (0..1 + random.index(10))
            .map(|_| [&b"b"[..], &random.bytes(1)].concat())
            .collect();
        short.sort();
        short.dedup();
        let fill = |image: &mut [u8], keys: &[Vec<u8>]| {
            let mut kept = Vec::new();
            for key in keys {
                let mut leaf = LeafMut::from_image(image);
                let slot = leaf.as_leaf().len();
                if leaf.insert(slot, key, LeafValue::Inline(&[7; 20])).is_ok() {
                    kept.push(key.clone());
                }
            }
            kept
        };
        let mut left = leaf::new(&common, Some(&border), page_size);
        let mut right = leaf::new(&border, None, page_size);
        let mut all = fill(&mut left, &keys);
        all.extend(fill(&mut right, &short));
        let held = Leaf::from_image(&left).len();
        let images = match leaf::pour(&left, &right, page_size) {
            None => continue,
            Some(Rebuilt::One(image)) => vec![image],
            Some(Rebuilt::Two {
                left,
                separator,
                right,
            }) => {
                cuts += 1;
                assert!(Leaf::from_image(&left).len() > held, "seed {seed}");
                assert_eq!(Leaf::from_image(&right).lower_fence(), separator);
                vec![left, right]
            }
        };
        let mut found = Vec::new();
        for image in &images {
            assert_eq!(image.len(), page_size, "seed {seed}");
            validate(image).unwrap();
            let leaf = Leaf::from_image(image);
            for i in 0..leaf.len() {
                let mut key = Vec::new();
                leaf.write_key(i, &mut key);
                found.push(key);
            }
        }
        assert_eq!(found, all, "seed {seed}");
    }
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn a_node_with_one_huge_key_becomes_a_jumbo_and_shrinks_again() {
    let mut image = leaf::new(b"", None, 1024);
    let key = vec![b'k'; 65_535];
    let value = LeafValue::Inline(b"v");
    assert_eq!(
        LeafMut::from_image(&mut image).insert(0, &key, value),
        Err(Full)
    );
    let pending = Pending {
        at: 0,
        replaces: false,
        key: &key,
        value,
    };
    let Rebuilt::One(mut grown) = leaf::split(&image, pending, 1024) else {
        panic!("one entry cannot be split");
    };
    assert_eq!(unit_count(&grown), 65);
    validate(&grown).unwrap();
    assert_eq!(Leaf::from_image(&grown).search(&key), Ok(0));
    LeafMut::from_image(&mut grown).remove(0);
    let shrunk = leaf::with_fences(&grown, b"", None, 1024);
    assert_eq!(unit_count(&shrunk), 1);
}

fn link(n: u64) -> Link {
    Link::new(PageId(n), n as u32 * 7)
}

/// One level of inner nodes over numbered children, against the map from each child's lower
/// bound to its page.
struct Inners {
    images: Vec<Box<[u8]>>,
    page_size: usize,
}

impl Inners {
    fn find(&self, key: &[u8]) -> usize {
        let mut images = self.images.iter();
        let covers = |image: &[u8]| Inner::from_image(image).covers(key);
        images.position(|image| covers(image)).unwrap()
    }

    /// Splits the child that covers `separator` there.
    fn split_child(&mut self, separator: &[u8], child: Link) {
        let n = self.find(separator);
        let node = Inner::from_image(&self.images[n]);
        let i = node.find_child(separator);
        let left = node.child(i);
        match inner::with_split(&self.images[n], i, separator, left, child, self.page_size) {
            Rebuilt::One(image) => self.images[n] = image,
            Rebuilt::Two {
                left,
                separator,
                right,
            } => {
                assert_eq!(Inner::from_image(&right).lower_fence(), separator);
                self.images.splice(n..=n, [left, right]);
            }
        }
    }

    fn check(&self, oracle: &BTreeMap<Vec<u8>, Link>) {
        let mut expected = oracle.iter();
        let (mut lower, mut upper) = (Vec::new(), Vec::new());
        for image in &self.images {
            validate(image).unwrap();
            let node = Inner::from_image(image);
            assert_eq!(node.free_bytes() + node.live_bytes(), image.len());
            for i in 0..node.child_count() {
                node.write_child_lower(i, &mut lower);
                assert_eq!(expected.next(), Some((&lower, &node.child(i))));
                assert_eq!(node.find_child(&lower), i);
                for from in [0, i / 2, i.saturating_sub(1), i] {
                    assert_eq!(node.find_child_from(from, &lower), Some(i));
                }
                assert_eq!(node.find_child_before(&lower), i.saturating_sub(1));
                if node.write_child_upper(i, &mut upper) {
                    assert_eq!(node.find_child_before(&upper), i);
                    let below = shortest_separator(&lower, &upper).to_vec();
                    if below < upper {
                        assert_eq!(node.find_child(&below), i);
                        assert_eq!(node.find_child_from(i, &below), Some(i));
                    }
                }
            }
            if node.write_upper_fence(&mut upper) {
                assert_eq!(node.find_child_from(0, &upper), None);
            }
        }
        assert_eq!(expected.next(), None);
    }
}

fn inner_oracle_run(seed: u64, page_size: usize, key_set: fn(&mut Random) -> Vec<u8>) {
    let mut random = Random(seed);
    let mut inners = Inners {
        images: vec![inner::build(1, b"", None, &[], &[link(0)], page_size)],
        page_size,
    };
    let mut oracle = BTreeMap::from([(Vec::new(), link(0))]);
    for step in 1..500 {
        let key = key_set(&mut random);
        match random.index(10) {
            0..8 if !oracle.contains_key(&key) => {
                inners.split_child(&key, link(step));
                oracle.insert(key, link(step));
            }
            8 => {
                let n = inners.find(&key);
                let node = Inner::from_image(&inners.images[n]);
                let count = node.child_count();
                let from = random.index(count);
                let to = (from + random.index(3)).min(count);
                if to - from == count {
                    continue;
                }
                let mut bound = Vec::new();
                for i in from..to {
                    node.write_child_lower(i, &mut bound);
                    oracle.remove(&bound);
                }
                if from == 0 && to > 0 {
                    // The child after the range takes over its lower bound.
                    node.write_child_lower(to, &mut bound);
                    let page = oracle.remove(&bound).unwrap();
                    oracle.insert(node.lower_fence().to_vec(), page);
                }
                inners.images[n] = inner::without_children(&inners.images[n], from..to, page_size);
            }
            9 if inners.images.len() > 1 => {
                let n = random.index(inners.images.len() - 1);
                let (left, right) = (&inners.images[n], &inners.images[n + 1]);
                if let Some(merged) = inner::merge(left, right, page_size) {
                    inners.images.splice(n..n + 2, [merged]);
                }
            }
            _ => {
                let n = inners.find(&key);
                let node = Inner::from_image(&inners.images[n]);
                let (_, page) = oracle.range(..=key.clone()).next_back().unwrap();
                assert_eq!(node.child(node.find_child(&key)), *page);
                let i = random.index(node.child_count());
                let mut bound = Vec::new();
                node.write_child_lower(i, &mut bound);
                inner::set_child(&mut inners.images[n], i, link(step + 10_000));
                oracle.insert(bound, link(step + 10_000));
            }
        }
        if step % 29 == 0 || step == 499 {
            inners.check(&oracle);
        }
    }
}

#[test]
fn inner_nodes_agree_with_a_map() {
    for page_size in [1024, 4096, 16_384] {
        for (n, key_set) in KEY_SETS.iter().enumerate() {
            let seed = 0x1446 + n as u64 * 1000 + page_size as u64;
            println!("seed {seed}, page size {page_size}, key set {n}");
            inner_oracle_run(seed, page_size, *key_set);
        }
    }
}

#[test]
fn inner_fences_move() {
    let children = [link(1), link(2)];
    let image = inner::build(1, b"user/a", Some(b"user/c"), &[b"user/b"], &children, 1024);
    assert_eq!(Inner::from_image(&image).prefix(), b"user/");
    let wide = inner::with_fences(&image, b"", None, 1024);
    validate(&wide).unwrap();
    let node = Inner::from_image(&wide);
    assert_eq!(node.prefix(), b"");
    assert_eq!(node.find_child(b"user/azzz"), 0);
    assert_eq!(node.find_child(b"user/b"), 1);
    assert_eq!(node.child(1), link(2));
}

/// Uses everything a reader of an accepted image may use.
fn exercise(image: &[u8]) {
    let mut out = Vec::new();
    match kind(image).unwrap() {
        NodeKind::Leaf => {
            let leaf = Leaf::from_image(image);
            for i in 0..leaf.len() {
                leaf.write_key(i, &mut out);
                assert_eq!(leaf.search(&out), Ok(i));
                leaf.value(i);
            }
            leaf.write_upper_fence(&mut out);
            let mut copy = image.to_vec();
            let mut leaf = LeafMut::from_image(&mut copy);
            while !leaf.as_leaf().is_empty() {
                let longer = [9; 300];
                let _ = leaf.set_value(0, LeafValue::Inline(&longer));
                leaf.remove(leaf.as_leaf().len() / 2);
            }
            validate(&copy).unwrap();
        }
        NodeKind::Inner => {
            let node = Inner::from_image(image);
            for i in 0..node.child_count() {
                node.write_child_lower(i, &mut out);
                assert_eq!(node.find_child(&out), i);
                node.write_child_upper(i, &mut out);
                node.child(i);
                node.packed(i);
            }
            if let Some(packs) = node.packs() {
                packs.decode();
            }
        }
        NodeKind::Pack => {
            let pack = Pack::from_image(image);
            for i in 0..pack.len() {
                let key = [pack.prefix(), pack.key_suffix(i)].concat();
                assert_eq!(pack.find(&key), Some(pack.value(i)));
                assert_eq!(pack.range(&key, None), i..pack.len());
            }
            pack.spans(b"a", Some(b"b"));
        }
    }
}

fn sample_images(random: &mut Random) -> Vec<Box<[u8]>> {
    let mut leaves = Leaves::new(1024);
    let mut separators = Vec::new();
    for i in 0..60 {
        let len = random.index(30);
        let value = Stored::Inline(random.bytes(len));
        let key = format!("key/{:04}", random.index(500)).into_bytes();
        leaves.put(&key, &value);
        separators.push(format!("sep/{i:03}").into_bytes());
    }
    let separators: Vec<&[u8]> = separators.iter().map(Vec::as_slice).collect();
    let children: Vec<Link> = (0..=separators.len() as u64).map(link).collect();
    let mut images = leaves.images;
    let (seps, kids) = (&separators[..20], &children[..21]);
    images.push(inner::build(1, b"sep", Some(b"sep/5"), seps, kids, 1024));
    images.push(inner::build(2, b"", None, &separators, &children, 1024));
    images.push(inner::with_packs(
        &inner::build(1, b"sep", Some(b"sep/5"), seps, kids, 1024),
        kids,
        &some_packs(kids.len()),
        1024,
    ));
    let reference = Digest::new(1, &[7; 100]).place(3, 128);
    let mut apart = leaf::new(b"sep", Some(b"sf"), 1024);
    for (i, key) in separators.iter().take(9).enumerate() {
        let value = match i % 2 {
            0 => LeafValue::Apart(reference.as_bytes()),
            _ => LeafValue::Inline(b"value"),
        };
        LeafMut::from_image(&mut apart)
            .insert(i, key, value)
            .unwrap();
    }
    images.push(apart);
    let changes = separators.iter().enumerate();
    let changes: Vec<_> = changes
        .map(|(i, key)| {
            let value = match i % 4 {
                0 => None,
                1 => Some(leaf::Stored::Apart(reference.as_bytes())),
                _ => Some(leaf::Stored::Inline(b"value")),
            };
            (*key, value)
        })
        .collect();
    images.push(pack::build(b"sep", Some(b"sf"), &changes, SeqNo(3), 1024));
    images
}

/// Two groups with packs.
fn some_packs(count: usize) -> Packs {
    let mut packs = Packs::none(count);
    let pack = |page, first| PackRef {
        link: link(page),
        units: 1,
        first,
    };
    packs.groups.push(Group::new(5));
    for (n, group) in packs.groups.iter_mut().enumerate() {
        let page = 100 + 20 * n as u64;
        group.old = vec![pack(page, group.first), pack(page + 1, group.first + 2)];
        group.recent = vec![pack(page + 5, 0), pack(page + 6, 0)];
        (group.area.start, group.area.units, group.area.used) = (page + 5, 7, 2);
    }
    for (i, child) in packs.children.iter_mut().enumerate() {
        child.mask = i as u8 % 8;
        child.bytes = 20;
    }
    packs
}

#[test]
fn damaged_images_are_refused_or_harmless() {
    let mut random = Random(0xDA_4A6E);
    let images = sample_images(&mut random);
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut image = images[round % images.len()].to_vec();
        for _ in 0..=random.index(3) {
            // Mostly the header and the arrays, where damage is most dangerous.
            let limit = [64, 400, image.len()][random.index(3)];
            let at = random.index(limit);
            image[at] = match random.index(3) {
                0 => image[at] ^ (1 << random.index(8)),
                1 => random.next() as u8,
                _ => [0, 0xFF, 0x7F, 0x80][random.index(4)],
            };
        }
        write_checksum(&mut image, 1);
        check(&image, 1).unwrap();
        if validate(&image).is_ok() {
            accepted += 1;
            exercise(&image);
        }
    }
    // Damage to values, page ids and unused bytes is none that a structure can show.
    assert!(accepted > 0);
    for _ in 0..2000 {
        let len = [0, 3, 55, 56, 57, 1024, 2048][random.index(7)];
        let mut image = random.bytes(len);
        if len > 40 {
            image[4] = 1 + random.index(2) as u8;
            image[5] = image[4] - 1;
            image[6..12].copy_from_slice(&[0, 0, 1, 0, 0, 0]);
        }
        assert!(validate(&image).is_err());
    }
}

#[test]
fn overlapping_records_are_refused() {
    let mut image = leaf::new(b"", None, 1024);
    let mut leaf = LeafMut::from_image(&mut image);
    for (i, key) in [b"a", b"b", b"c"].into_iter().enumerate() {
        leaf.insert(i, key, LeafValue::Inline(b"12345678")).unwrap();
    }
    validate(&image).unwrap();
    // The third record, moved into the value of the first, whose bytes are made to fit.
    let slots_at = 56 + 4 * 4;
    let first = crate::format::coding::get_u32(&image, slots_at) as usize;
    let third = crate::format::coding::get_u32(&image, slots_at + 8) as usize;
    let record = image[third..third + 7].to_vec();
    image[first + 7..first + 14].copy_from_slice(&record);
    image[slots_at + 8..slots_at + 12].copy_from_slice(&(first as u32 + 7).to_le_bytes());
    assert!(validate(&image).is_err());
}

#[test]
fn checksums_bind_to_their_seed() {
    let mut image = leaf::new(b"", None, 1024);
    set_page_id(&mut image, PageId(7));
    set_last_seq(&mut image, SeqNo(9));
    write_checksum(&mut image, 1);
    check(&image, 1).unwrap();
    assert!(check(&image, 2).is_err());
    assert!(check(&image[..20], 1).is_err());
    image[1000] ^= 1;
    assert!(check(&image, 1).is_err());
    assert_eq!(
        (page_id(&image), super::header::last_seq(&image)),
        (PageId(7), SeqNo(9))
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Holds docs/format.md and the code together.
#[test]
fn golden_leaf() {
    let mut image = leaf::new(b"hedge", Some(b"hedgf"), 1024);
    let mut leaf = LeafMut::from_image(&mut image);
    leaf.insert(0, b"hedgerow", LeafValue::Inline(b"bush"))
        .unwrap();
    let extent = LeafValue::Overflow {
        page: PageId(0x0102),
        len: 0x0304,
        checksum: 0x0506,
    };
    leaf.insert(0, b"hedgehog", extent).unwrap();
    set_last_seq(&mut image, SeqNo(0x0A0B));
    set_page_id(&mut image, PageId(0x0C0D));
    write_checksum(&mut image, 42);
    validate(&image).unwrap();
    assert_eq!(hex(&image[..104]), GOLDEN_LEAF_FRONT);
    assert_eq!(hex(&image[984..]), GOLDEN_LEAF_HEAP);
    assert!(image[104..984].iter().all(|byte| *byte == 0));
}

#[test]
fn golden_inner() {
    let children = [
        Link::new(PageId(0x11), 0x0A_0B0C),
        Link::new(PageId(0x22), 0x0D_0E0F),
    ];
    let mut image = inner::build(1, b"a", None, &[b"b"], &children, 1024);
    write_checksum(&mut image, 42);
    validate(&image).unwrap();
    assert_eq!(hex(&image[..84]), GOLDEN_INNER_FRONT);
    assert_eq!(hex(&image[1019..]), GOLDEN_INNER_HEAP);
    assert!(image[84..1019].iter().all(|byte| *byte == 0));
}

const GOLDEN_LEAF_FRONT: &str = concat!(
    "759a84db",                         // checksum
    "01000000",                         // kind, level, reserved
    "01000000",                         // pages
    "0200000004000000",                 // count, capacity
    "04000000",                         // prefix length
    "0500000001000000",                 // fence lengths
    "d803000028000000",                 // heap start, live bytes
    "0b0a000000000000",                 // last_seq
    "0d0c000000000000",                 // page id
    "686564676566",                     // fences: hedge, (hedg)f
    "0000",                             // padding
    "676f6865776f72650000000000000000", // heads: (hedg)ehog, (hedg)erow, two spare
    "d8030000f20300000000000000000000", // slots
    "0000000000000000",                 // unused
);
const GOLDEN_LEAF_HEAP: &str = concat!(
    "0400",             // record 0 at 984: key length
    "00000080",         // overflow
    "65686f67",         // key
    "0201000000000000", // page
    "0403000006050000", // length, checksum
    "0400",             // record 1 at 1010: key length
    "04000000",         // value length
    "65726f77",         // key
    "62757368",         // value
);
const GOLDEN_INNER_FRONT: &str = concat!(
    "6164fe76",                         // checksum
    "02010000",                         // kind, level, reserved
    "01000000",                         // pages
    "0100000001000000",                 // count, capacity
    "00000000",                         // prefix length
    "01000000ffffffff",                 // fence lengths; no upper fence
    "fb03000005000000",                 // heap start, live bytes
    "0000000000000000",                 // last_seq
    "0000000000000000",                 // page id
    "61",                               // lower fence: a
    "000000",                           // padding
    "00000062",                         // head: b
    "fb030000",                         // slot
    "11000000000c0b0a22000000000f0e0d", // children
);
const GOLDEN_INNER_HEAP: &str = concat!(
    "01000000", // separator length
    "62",       // separator
);
