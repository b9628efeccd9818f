//! The file of a B-tree: whatever its meta pages lead to gets its checksum, and every link the
//! fingerprint of what it leads to.
//!
//! A node's checksum covers the fingerprints of its children, so children come first. Hostile nodes
//! may refer to each other in a circle, where no order is right: somebody up the path is referred
//! to before its checksum is known. Its fingerprint is then promised, and its checksum made to fit
//! by four bytes that the node does not use; a checksum is no signature. Each node is visited once,
//! so the work is bounded by the length of the file.

use super::{Owner, checksum, put, seed_of, u32_at, u64_at, word, write_checksum};

/// Bits of a link that hold the page; the fingerprint is above them.
const PAGE_BITS: u32 = 40;
const FINGERPRINT_BITS: usize = 24;

/// The file of a B-tree whose pages have `page_size` bytes.
pub fn tree(bytes: &mut [u8], owner: Owner, page_size: usize) {
    let pages = bytes.len() / page_size;
    let mut nodes = Nodes {
        seed: owner.pages(),
        page_size,
        visits: vec![Visit::No; pages],
        bytes,
    };
    let metas = [0, page_size];
    for at in metas {
        if let Some(root) = u64_at(nodes.bytes, at + 48) {
            nodes.write_checksums_below(root);
        }
    }
    // Nodes that nothing refers to any more, so that a store given another number has nothing left
    // of the old one.
    for page in 2..pages {
        if u64_at(nodes.bytes, page * page_size + 48) == Some(page as u64) {
            nodes.write_checksums_below(page as u64);
        }
    }
    for at in metas {
        nodes.set_fingerprint(at + 48);
    }
    for at in metas {
        meta(bytes, at, owner, page_size);
    }
}

/// A meta page, and the freelist and the table of value files that it names.
fn meta(bytes: &mut [u8], at: usize, owner: Owner, page_size: usize) {
    if bytes.len() < at + 144 {
        return;
    }
    // Where it stands, its elements and their length, and its checksum.
    for (first, elements, len, sum) in [(72, 80, 1, 60), (112, 120, 24, 108)] {
        let first = u64_at(bytes, at + first).unwrap_or_default();
        let elements = u64_at(bytes, at + elements).unwrap_or_default();
        let from = (first as usize).saturating_mul(page_size);
        let to = from.saturating_add((elements as usize).saturating_mul(len));
        if elements > 0 && to <= bytes.len() {
            write_checksum(bytes, at + sum, seed_of(&[owner.pages(), first]), from, to);
        }
    }
    let seed = seed_of(&[owner.store, owner.keyspace, word(b"HDGBTREE")]);
    write_checksum(bytes, at + 140, seed, at, at + 140);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    No,
    /// It is on the path from the root.
    Begun,
    /// So it is, and a node below it refers to it, by the checksum that it has now.
    Promised,
    Done,
}

/// A node on the path from the root.
struct Open {
    page: usize,
    /// The first byte, and the byte behind the last.
    at: usize,
    end: usize,
    /// Where the links to its children stand.
    links: Vec<usize>,
    /// How many of them have been followed.
    followed: usize,
}

struct Nodes<'a> {
    bytes: &'a mut [u8],
    seed: u64,
    page_size: usize,
    visits: Vec<Visit>,
}

/// Offsets that follow from a node's header.
struct Layout {
    slots: usize,
    slots_end: usize,
    count: usize,
    heap_start: usize,
}

impl Nodes<'_> {
    /// The page of a link, if a node may begin there.
    fn page_of(&self, link: u64) -> Option<usize> {
        let page = (link & ((1 << PAGE_BITS) - 1)) as usize;
        (2..self.visits.len()).contains(&page).then_some(page)
    }

    /// Where the node at a page ends, by its header.
    fn end_of(&self, page: usize) -> Option<usize> {
        let pages = u32_at(self.bytes, page * self.page_size + 8)? as usize;
        (1..=self.visits.len() - page)
            .contains(&pages)
            .then(|| (page + pages) * self.page_size)
    }

    fn layout(&self, at: usize) -> Layout {
        let field = |offset: usize| u32_at(self.bytes, at + offset).unwrap_or(0) as usize;
        let upper = match field(28) {
            0xFFFF_FFFF => 0,
            len => len,
        };
        let heads = at + (56 + field(24) + upper).next_multiple_of(4);
        Layout {
            slots: heads + 4 * field(16),
            slots_end: heads + 8 * field(16),
            count: field(12),
            heap_start: at + field(32),
        }
    }

    /// Writes the checksums of the node that a link leads to, and of everything below it.
    fn write_checksums_below(&mut self, link: u64) {
        let mut path: Vec<Open> = self.open(link).into_iter().collect();
        while let Some(top) = path.last_mut() {
            match top.links.get(top.followed) {
                Some(at) => {
                    top.followed += 1;
                    let link = u64_at(self.bytes, *at).unwrap_or_default();
                    path.extend(self.open(link));
                }
                None => {
                    let node = path.pop().expect("looked at");
                    self.close(&node);
                }
            }
        }
    }

    /// Begins the visit of a node, unless there was one.
    fn open(&mut self, link: u64) -> Option<Open> {
        let page = self.page_of(link)?;
        let end = self.end_of(page)?;
        match self.visits[page] {
            Visit::No => self.visits[page] = Visit::Begun,
            Visit::Begun => {
                self.visits[page] = Visit::Promised;
                return None;
            }
            Visit::Promised | Visit::Done => return None,
        }
        let at = page * self.page_size;
        let links = if self.bytes[at + 4] == 2 {
            let layout = self.layout(at);
            let links = (0..=layout.count).map(|n| layout.slots_end + 8 * n);
            let links = links.chain(self.links_to_packs(at, &layout));
            links.take_while(|link| link + 8 <= end).collect()
        } else {
            Vec::new()
        };
        Some(Open {
            page,
            at,
            end,
            links,
            followed: 0,
        })
    }

    /// Where the links to the packs of a node of level 1 stand.
    fn links_to_packs(&self, at: usize, layout: &Layout) -> impl Iterator<Item = usize> + use<> {
        let children = layout.count.saturating_add(1);
        let section = children
            .checked_mul(8)
            .and_then(|len| layout.slots_end.checked_add(len));
        let groups = u16::from_le_bytes([self.bytes[at + 6], self.bytes[at + 7]]);
        let packs = section.and_then(|section| u32_at(self.bytes, section));
        let packs = if groups == 0 { 0 } else { packs.unwrap_or(0) };
        let first = section.unwrap_or_default().saturating_add(4);
        let first = first.saturating_add(children.saturating_mul(8));
        let first = first.saturating_add(20 * usize::from(groups));
        (0..packs as usize).map(move |n| first.saturating_add(16 * n))
    }

    /// Everything below the node is right.
    fn close(&mut self, node: &Open) {
        for at in &node.links {
            self.set_fingerprint(*at);
        }
        if self.bytes[node.at + 4] == 1 {
            self.overflow_values(node);
        }
        let seed = seed_of(&[self.seed, node.page as u64]);
        if self.visits[node.page] == Visit::Promised {
            self.keep_promise(node, seed);
        }
        write_checksum(self.bytes, node.at, seed, node.at + 4, node.end);
        self.visits[node.page] = Visit::Done;
    }

    /// Gives the link at `at` the fingerprint of what it leads to.
    fn set_fingerprint(&mut self, at: usize) {
        let Some(link) = u64_at(self.bytes, at) else {
            return;
        };
        if let Some(page) = self.page_of(link)
            && self.end_of(page).is_some()
            && let Some(sum) = u32_at(self.bytes, page * self.page_size)
        {
            put(self.bytes, at + 5, &sum.to_le_bytes()[..3]);
        }
    }

    /// Changes four unused bytes of the node, so that its checksum gets the fingerprint that it was
    /// said to have. Nothing happens if it has none to spare.
    fn keep_promise(&mut self, node: &Open, seed: u64) {
        let layout = self.layout(node.at);
        let free = match self.bytes[node.at + 6..node.at + 8] {
            [0, 0] => layout.slots_end + 8 * node.links.len(),
            // Behind the packs.
            _ => node.links.last().map_or(node.end, |link| link + 16),
        };
        if free + 4 > layout.heap_start || layout.heap_start > node.end {
            return;
        }
        let promised = u32_at(self.bytes, node.at).unwrap_or_default();
        let mut low_with = |filling: u32| {
            put(self.bytes, free, &filling.to_le_bytes());
            checksum(seed, &self.bytes[node.at + 4..node.end]) << (32 - FINGERPRINT_BITS)
        };
        let empty = low_with(0);
        // Each bit of the filling flips the same bits of the checksum whatever the others are, so
        // this is a system of linear equations. By bit: what flips it and no higher one, and the
        // filling that does.
        let mut known = [(0_u32, 0_u32); 32];
        for bit in 0..32 {
            let flips = (low_with(1 << bit) ^ empty, 1 << bit);
            let (rest, filling) = reduce(&known, flips);
            if rest != 0 {
                known[rest.ilog2() as usize] = (rest, filling);
            }
        }
        let wanted = promised << (32 - FINGERPRINT_BITS) ^ empty;
        let (_, filling) = reduce(&known, (wanted, 0));
        low_with(filling);
    }

    /// The references of a leaf to values outside.
    fn overflow_values(&mut self, node: &Open) {
        let layout = self.layout(node.at);
        for n in 0..layout.count.min(node.end - node.at) {
            let slot = layout.slots + 4 * n;
            let Some(record) = u32_at(self.bytes, slot).filter(|_| slot + 4 <= node.end) else {
                return;
            };
            let record = node.at + record as usize;
            if record + 6 > node.end || u32_at(self.bytes, record + 2) != Some(1 << 31) {
                continue;
            }
            let key_len = u16::from_le_bytes([self.bytes[record], self.bytes[record + 1]]);
            let reference = record + 6 + usize::from(key_len);
            if reference + 16 > node.end {
                continue;
            }
            let page = u64_at(self.bytes, reference).unwrap_or_default();
            let len = u32_at(self.bytes, reference + 8).unwrap_or_default() as usize;
            let from = (page as usize).saturating_mul(self.page_size);
            let to = from.saturating_add(len);
            if to <= self.bytes.len() {
                let seed = seed_of(&[self.seed, page]);
                write_checksum(self.bytes, reference + 12, seed, from, to);
            }
        }
    }
}

/// Takes out of `flips` what is known, from the highest bit down.
fn reduce(known: &[(u32, u32); 32], (mut flips, mut filling): (u32, u32)) -> (u32, u32) {
    for bit in (0..32).rev() {
        if flips >> bit & 1 == 1 && known[bit].0 != 0 {
            flips ^= known[bit].0;
            filling ^= known[bit].1;
        }
    }
    (flips, filling)
}
