//! What several writers did to a store, and which states it may be in after a crash.
//!
//! Writers say what they are about to commit and, when it has returned, which sequence number it
//! got. Those numbers are the order of commits, which is complete when all writers have ended; only
//! then are images held against it. Until then an image remembers what was promised before it was
//! taken and what had begun after.
//!
//! A store is known by the digest of each keyspace: the sum of the digests of its entries, so that
//! a commit changes it by what it changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};

use hedgerow::{Db, Result, SeqNo, Value};

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// What a store holds, by name of the keyspace.
pub type Contents = BTreeMap<String, Map>;

/// A change of one keyspace.
#[derive(Debug, Clone)]
pub enum Edit {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

fn digest_of(key: &[u8], value: &[u8]) -> u64 {
    let mut digest = 0xCBF2_9CE4_8422_2325_u64 ^ (key.len() as u64) << 32;
    for chunk in key.chunks(8).chain(value.chunks(8)) {
        let mut word = [chunk.len() as u8; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        digest = (digest ^ u64::from_le_bytes(word))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(31);
    }
    digest ^ digest >> 29
}

/// The digest of what a scan yields, whose keys must rise.
pub fn digest_of_scan(scan: impl Iterator<Item = Result<(Value, Value)>>) -> Result<u64> {
    let mut digest = 0_u64;
    let mut last: Option<Vec<u8>> = None;
    for item in scan {
        let (key, value) = item?;
        assert!(last.is_none_or(|last| last.as_slice() < &*key), "keys rise");
        digest = digest.wrapping_add(digest_of(&key, &value));
        last = Some(key.to_vec());
    }
    Ok(digest)
}

/// The same of a scan that is read from both ends in turn, until they meet.
pub fn digest_from_both_ends(
    mut scan: impl DoubleEndedIterator<Item = Result<(Value, Value)>>,
) -> Result<u64> {
    let mut digest = 0_u64;
    let (mut low, mut high): (Option<Value>, Option<Value>) = (None, None);
    let mut is_from_front = true;
    loop {
        let item = match is_from_front {
            true => scan.next(),
            false => scan.next_back(),
        };
        let Some((key, value)) = item.transpose()? else {
            // Nothing is left for the other end either.
            let rest = scan.next().or_else(|| scan.next_back());
            assert!(rest.is_none(), "a scan that has ended goes on");
            return Ok(digest);
        };
        let is_above = low.as_ref().is_none_or(|low| **low < *key);
        let is_below = high.as_ref().is_none_or(|high| *key < **high);
        assert!(is_above && is_below, "both ends come closer");
        digest = digest.wrapping_add(digest_of(&key, &value));
        let end = if is_from_front { &mut low } else { &mut high };
        *end = Some(key);
        is_from_front = !is_from_front;
    }
}

/// The digest of each keyspace of a store.
pub type Found = BTreeMap<String, u64>;

pub fn digests_of(db: &Db) -> Result<Found> {
    let mut found = Found::new();
    for info in db.keyspaces() {
        let keyspace = db.existing_keyspace(&info.name)?.expect("it is listed");
        found.insert(info.name, digest_of_scan(keyspace.iter())?);
    }
    Ok(found)
}

struct Commit {
    edits: Vec<(String, Edit)>,
    /// None while it runs, and for good if the store refused it.
    seq: Option<SeqNo>,
}

/// When a keyspace was made and dropped, by the clock.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    making: u64,
    made: Option<u64>,
    dropping: Option<u64>,
    dropped: Option<u64>,
    /// What had been acknowledged when it began to be dropped.
    acknowledged: SeqNo,
}

/// What is promised at a moment, and what has begun by another one.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Commits up to here are there.
    floor: SeqNo,
    /// None of the commits that begin later is.
    begun: usize,
    clock: u64,
}

/// What was seen of a store between two marks.
#[derive(Debug, Clone, Copy)]
pub struct Between(pub Mark, pub Mark);

#[derive(Default)]
struct Events {
    clock: u64,
    commits: Vec<Commit>,
    lives: BTreeMap<String, Life>,
    acknowledged: SeqNo,
    durable: SeqNo,
}

/// Collects what happens.
pub struct History {
    initial: Contents,
    events: Mutex<Events>,
}

/// A commit that was begun.
#[derive(Debug)]
pub struct Begun(usize);

impl History {
    /// Of a store that holds this.
    pub fn new(initial: Contents) -> Self {
        Self {
            initial,
            events: Mutex::default(),
        }
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        let mut events = self.events.lock().expect("no panic under this lock");
        events.clock += 1;
        events
    }

    pub fn begin(&self, edits: Vec<(String, Edit)>) -> Begun {
        let mut events = self.events();
        events.commits.push(Commit { edits, seq: None });
        Begun(events.commits.len() - 1)
    }

    pub fn acknowledge(&self, begun: Begun, seq: SeqNo, is_synced: bool) {
        let mut events = self.events();
        events.commits[begun.0].seq = Some(seq);
        events.acknowledged = events.acknowledged.max(seq);
        if is_synced {
            events.durable = events.durable.max(seq);
        }
    }

    /// Up to where commits have been acknowledged.
    pub fn acknowledged(&self) -> SeqNo {
        self.events().acknowledged
    }

    /// The store has said so.
    pub fn durable(&self, upto: SeqNo) {
        let mut events = self.events();
        events.durable = events.durable.max(upto);
    }

    pub fn making(&self, name: &str) {
        let mut events = self.events();
        let making = events.clock;
        let life = Life {
            making,
            ..Life::default()
        };
        events.lives.insert(name.to_owned(), life);
    }

    pub fn made(&self, name: &str) {
        let mut events = self.events();
        let clock = events.clock;
        events.lives.get_mut(name).expect("it was begun").made = Some(clock);
    }

    pub fn dropping(&self, name: &str) {
        let mut events = self.events();
        let (clock, acknowledged) = (events.clock, events.acknowledged);
        let life = events.lives.entry(name.to_owned()).or_insert(Life {
            made: Some(0),
            ..Life::default()
        });
        life.dropping = Some(clock);
        life.acknowledged = acknowledged;
    }

    pub fn dropped(&self, name: &str) {
        let mut events = self.events();
        let clock = events.clock;
        events.lives.get_mut(name).expect("it was begun").dropped = Some(clock);
    }

    fn mark(&self, floor: impl FnOnce(&Events) -> SeqNo) -> Mark {
        let events = self.events();
        Mark {
            floor: floor(&events),
            begun: events.commits.len(),
            clock: events.clock,
        }
    }

    /// What survives a power loss from now on.
    pub fn mark_durable(&self) -> Mark {
        self.mark(|events| events.durable)
    }

    /// What a reader sees from now on, and what survives a kill.
    pub fn mark_visible(&self) -> Mark {
        self.mark(|events| events.acknowledged)
    }

    /// The order of commits, when all have ended.
    pub fn complete(self) -> Order {
        let events = self.events.into_inner().expect("no panic under the lock");
        let mut commits: Vec<(SeqNo, usize, Commit)> = Vec::new();
        for (begun, commit) in events.commits.into_iter().enumerate() {
            if let Some(seq) = commit.seq {
                commits.push((seq, begun, commit));
            }
        }
        commits.sort_by_key(|(seq, begun, _)| (*seq, *begun));
        Order::new(self.initial, events.lives, commits)
    }
}

/// The states that a store went through.
pub struct Order {
    initial: Contents,
    lives: BTreeMap<String, Life>,
    /// The number of each commit, and how many had to have begun for it and those before it.
    places: Vec<(SeqNo, usize)>,
    commits: Vec<Commit>,
    /// Of each keyspace, the digest after so many commits, where it changes.
    digests: BTreeMap<String, Vec<(usize, u64)>>,
}

impl Order {
    fn new(
        initial: Contents,
        lives: BTreeMap<String, Life>,
        ordered: Vec<(SeqNo, usize, Commit)>,
    ) -> Self {
        let mut maps = initial.clone();
        let mut digests = BTreeMap::new();
        for (name, map) in &maps {
            let sum = map
                .iter()
                .fold(0_u64, |sum, (k, v)| sum.wrapping_add(digest_of(k, v)));
            digests.insert(name.clone(), vec![(0, sum)]);
        }
        let mut places = Vec::new();
        let mut commits = Vec::new();
        let mut needed = 0;
        for (at, (seq, begun, commit)) in ordered.into_iter().enumerate() {
            needed = needed.max(begun + 1);
            places.push((seq, needed));
            for (name, edit) in &commit.edits {
                let map = maps.entry(name.clone()).or_default();
                let known = digests.entry(name.clone()).or_insert_with(|| vec![(0, 0)]);
                let sum = known.last().expect("at least one").1;
                let sum = sum.wrapping_add(apply(map, edit));
                match known.last_mut() {
                    Some((after, last)) if *after == at + 1 => *last = sum,
                    _ => known.push((at + 1, sum)),
                }
            }
            commits.push(commit);
        }
        Self {
            initial,
            lives,
            places,
            commits,
            digests,
        }
    }

    /// How many commits there were.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The digest of a keyspace after so many commits.
    fn digest(&self, name: &str, after: usize) -> u64 {
        let Some(known) = self.digests.get(name) else {
            return 0;
        };
        let count = known.partition_point(|(at, _)| *at <= after);
        known[count - 1].1
    }

    /// How many commits there are at least and at most.
    fn bounds(&self, between: &Between) -> (usize, usize) {
        let floor = between.0.floor;
        let low = self.places.partition_point(|(seq, _)| *seq <= floor);
        let high = self
            .places
            .partition_point(|(_, needed)| *needed <= between.1.begun);
        (low, high)
    }

    /// After how many commits a keyspace was as it was found.
    pub fn check_one(&self, name: &str, digest: u64, between: &Between) -> Result<usize, String> {
        let (low, high) = self.bounds(between);
        (low..=high)
            .rev()
            .find(|after| self.digest(name, *after) == digest)
            .ok_or_else(|| format!("{name} was never so after {low} to {high} commits"))
    }

    /// As [`check`](Self::check), for some of the keyspaces, which all stay.
    pub fn check_part(&self, found: &Found, between: &Between) -> Result<usize, String> {
        let (low, high) = self.bounds(between);
        (low..=high)
            .rev()
            .find(|after| self.is(found, *after))
            .ok_or_else(|| {
                format!("{found:?} were never so together after {low} to {high} commits")
            })
    }

    fn is(&self, found: &Found, after: usize) -> bool {
        found
            .iter()
            .all(|(name, digest)| self.digest(name, after) == *digest)
    }

    /// After how many commits the store was as it was found. Keyspaces that were being made or
    /// dropped are there or not; they do not go before what was acknowledged.
    pub fn check(&self, found: &Found, between: &Between) -> Result<usize, String> {
        let (mut low, high) = self.bounds(between);
        let names = self.initial.keys().chain(self.lives.keys());
        for name in names.chain(found.keys()) {
            let is_there = found.contains_key(name);
            let life = match (self.lives.get(name), self.initial.contains_key(name)) {
                (Some(life), _) => *life,
                (None, true) if is_there => continue,
                (None, true) => return Err(format!("keyspace {name} is missing")),
                (None, false) => return Err(format!("keyspace {name} is extra")),
            };
            let before = |event: Option<u64>| event.is_some_and(|at| at < between.0.clock);
            let began = |event: Option<u64>| event.is_some_and(|at| at < between.1.clock);
            let cannot_be = before(life.dropped) || !began(Some(life.making));
            let must_be = before(life.made) && !began(life.dropping);
            if is_there && cannot_be {
                return Err(format!("keyspace {name} is extra: {life:?} at {between:?}"));
            }
            if !is_there && must_be {
                return Err(format!(
                    "keyspace {name} is missing: {life:?} at {between:?}"
                ));
            }
            if !is_there && before(life.made) {
                let acknowledged = life.acknowledged;
                low = low.max(self.places.partition_point(|(seq, _)| *seq <= acknowledged));
            }
        }
        (low..=high)
            .rev()
            .find(|after| self.is(found, *after))
            .ok_or_else(|| format!("it was never so after {low} to {high} commits"))
    }

    /// What the store held after so many commits, of the keyspaces that were found.
    pub fn contents(&self, after: usize, found: &Found) -> Contents {
        let mut contents: Contents = found
            .keys()
            .map(|name| {
                (
                    name.clone(),
                    self.initial.get(name).cloned().unwrap_or_default(),
                )
            })
            .collect();
        for commit in &self.commits[..after] {
            for (name, edit) in &commit.edits {
                if let Some(map) = contents.get_mut(name) {
                    apply(map, edit);
                }
            }
        }
        contents
    }

    /// How a store differs from both ends of what is right.
    pub fn explain(&self, db: &Db, found: &Found, between: &Between) -> String {
        let (low, high) = self.bounds(between);
        let mut text = String::new();
        for after in [low, high] {
            let _ = write!(text, "\n  against {after} of {} commits:", self.len());
            for (name, expected) in self.contents(after, found) {
                let keyspace = match db.existing_keyspace(&name) {
                    Ok(Some(keyspace)) => keyspace,
                    _ => continue,
                };
                let entries: Result<Map> = keyspace
                    .iter()
                    .map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec())))
                    .collect();
                let Ok(held) = entries else { continue };
                for key in expected.keys().chain(held.keys()) {
                    let what = match (held.get(key), expected.get(key)) {
                        (None, Some(_)) => "is missing",
                        (Some(_), None) => "is extra",
                        (a, b) if a != b => "has another value",
                        _ => continue,
                    };
                    let _ = write!(
                        text,
                        "\n    {name}: {:?} {what}",
                        String::from_utf8_lossy(key)
                    );
                }
            }
        }
        text
    }
}

/// Makes the change, and says by how much the digest changes.
fn apply(map: &mut Map, edit: &Edit) -> u64 {
    let gone = |removed: Option<(Vec<u8>, Vec<u8>)>| {
        removed.map_or(0, |(key, value)| digest_of(&key, &value))
    };
    match edit {
        Edit::Put(key, value) => {
            let old = gone(map.remove_entry(key));
            map.insert(key.clone(), value.clone());
            digest_of(key, value).wrapping_sub(old)
        }
        Edit::Delete(key) => gone(map.remove_entry(key)).wrapping_neg(),
        Edit::DeleteRange(low, high) => {
            let keys: Vec<_> = map
                .range(low.clone()..high.clone())
                .map(|(key, _)| key.clone())
                .collect();
            keys.iter().fold(0_u64, |sum, key| {
                sum.wrapping_sub(gone(map.remove_entry(key)))
            })
        }
    }
}
