//! Reading an existing log.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use super::cut::Head;
use super::segment::{
    Activation, ActivationState, HEADER_LEN_BYTES, NUMBER_END, Name, bears_witness, parse_name,
    segment_path, segment_seed,
};
use super::streamed::check_value_file;
use crate::error::{Error, Result};
use crate::fs::{Fs, LockGuard, OpenMode, read_all_into};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::values::{FileKind, ValueFiles};

mod loaded;
mod reopen;

pub(crate) use loaded::LogRecord;
use loaded::{Buffer, Expected, Loaded};

/// Takes records that follow one another, all of one segment.
pub(crate) type Visit<'a> = dyn FnMut(&[LogRecord<'_>]) -> Result<()> + 'a;

/// The next segment is read while the records of one are visited, if it is longer than this.
const READ_AHEAD_FROM_BYTES: u64 = 1 << 20;

/// A log that is being read. Changes nothing on disk before [`into_log`](Self::into_log).
#[derive(Debug)]
pub(crate) struct Recovery {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    store_id: u64,
    /// From the oldest segment to the newest active one (WL3).
    chain: Vec<Found>,
    /// Active segments that no later one names: left by a failed activation, or from before a chain
    /// began.
    strays: Vec<Found>,
    /// Prepared segments that no activation names.
    blanks: Vec<Found>,
    temporaries: Vec<PathBuf>,
    /// What has left the log, and holds values.
    value_files: Vec<FoundValues>,
    /// Is told of them, and of segments.
    values: Option<Arc<ValueFiles>>,
    /// Highest number in use (WL2).
    number_max: u64,
    /// Last sequence number, once replay has found it.
    last: Option<SeqNo>,
    /// Highest sequence number that anything read says was durable (WL4).
    witnessed: SeqNo,
    /// Everything up to here was durable, as others know.
    durable: SeqNo,
    /// Where the log ends, if that is in its newest segment.
    open_end: Option<OpenEnd>,
    /// Segments with records that were replayed: index in the chain, and where the records end.
    replayed: Vec<(usize, usize)>,
    /// The bytes of the segment that the log ends in, which is going to be asked for again, with
    /// its index in the chain.
    kept: Option<(usize, Vec<u8>)>,
    /// Memory of a segment that was visited, for another one.
    spare: Option<Vec<u8>>,
    /// What replay found was made durable, names excepted.
    is_durable: bool,
    /// The names of its segments, too.
    are_names_durable: bool,
    guard: LockGuard,
}

#[derive(Debug)]
struct Found {
    number: u64,
    path: PathBuf,
    len_bytes: u64,
    /// It was longer once.
    is_cut: bool,
    is_sparse: bool,
    state: ActivationState,
    /// Records from here on are void: a later segment begins here (WL5).
    limit: SeqNo,
}

/// Where the log ends in its newest segment.
#[derive(Debug, Clone, Copy)]
struct OpenEnd {
    /// Behind the last record.
    at: usize,
    /// Nothing but zeros follows.
    is_clean: bool,
}

/// A file with the name of one that has left the log.
#[derive(Debug)]
struct FoundValues {
    number: u64,
    path: PathBuf,
    len_bytes: u64,
    kind: FileKind,
}

impl Found {
    fn activation(&self) -> Option<&Activation> {
        match &self.state {
            ActivationState::Active(activation) => Some(activation),
            _ => None,
        }
    }

    /// First sequence number that counts here.
    fn first(&self) -> SeqNo {
        self.activation()
            .map_or(self.limit, |a| a.first.min(self.limit))
    }
}

/// Above every sequence number: no later segment cuts.
const NO_LIMIT: SeqNo = SeqNo(u64::MAX);

impl Recovery {
    /// Reads the headers of the log of store `store_id` in `dir`, which may be empty or missing.
    pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, store_id: u64) -> Result<Self> {
        let mut recovery = Self {
            dir: dir.to_path_buf(),
            store_id,
            chain: Vec::new(),
            strays: Vec::new(),
            blanks: Vec::new(),
            temporaries: Vec::new(),
            value_files: Vec::new(),
            values: None,
            number_max: 0,
            last: None,
            witnessed: SeqNo::ZERO,
            durable: SeqNo::ZERO,
            open_end: None,
            replayed: Vec::new(),
            kept: None,
            spare: None,
            is_durable: false,
            are_names_durable: false,
            guard: LockGuard::default(),
            fs,
        };
        let mut found = recovery.read_headers()?;
        found.sort_by_key(|segment| segment.number);
        // A rename never leaves both names.
        let is_segment = |number| found.binary_search_by_key(&number, |it| it.number).is_ok();
        if let Some(file) = recovery.value_files.iter().find(|it| is_segment(it.number)) {
            let what = "there is a segment of the log of that number, too";
            return Err(Error::corruption(&file.path, 0, what));
        }
        recovery.link(found)?;
        Ok(recovery)
    }

    /// Tells `values` of every file that values may lie in, now and later.
    pub(crate) fn announce_to(&mut self, values: &Arc<ValueFiles>) {
        let segments = self.chain.iter().chain(&self.strays);
        for segment in segments {
            values.add_segment(segment.number, &segment.path, segment.len_bytes);
        }
        for file in &self.value_files {
            values.add_value_file(file.number, &file.path, file.len_bytes, file.kind);
        }
        self.values = Some(Arc::clone(values));
    }

    /// From now on a segment is made only while the store's lock is held.
    pub(crate) fn guard_by(&mut self, guard: LockGuard) {
        self.guard = guard;
    }

    /// First sequence number that the log goes back to; `None` if it has no active segment.
    pub(crate) fn first_seq(&self) -> Option<SeqNo> {
        let active = |segment: &&Found| segment.activation().is_some();
        self.chain.iter().find(active).map(Found::first)
    }

    fn read_headers(&mut self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        if !self.fs.exists(&self.dir)? {
            return Ok(found);
        }
        for name in self.fs.read_dir(&self.dir)? {
            let path = self.dir.join(&name);
            let parsed = parse_name(&name);
            if let Some(Name::Temporary(number) | Name::Segment(number) | Name::Values(number)) =
                parsed
                && number >= NUMBER_END
                && !mutated!("segment-numbers-wrap")
            {
                return Err(Error::corruption(
                    &path,
                    0,
                    "no segment of the log has so high a number: the file is not the store's",
                ));
            }
            match parsed {
                // Not a file of the log: it is left alone.
                None => {}
                Some(Name::Temporary(number)) => {
                    self.number_max = self.number_max.max(number);
                    self.temporaries.push(path);
                }
                Some(Name::Values(number)) => {
                    self.number_max = self.number_max.max(number);
                    self.value_files.push(self.read_value_header(path, number)?);
                }
                Some(Name::Segment(number)) => {
                    self.number_max = self.number_max.max(number);
                    found.push(self.read_header(path, number)?);
                }
            }
        }
        Ok(found)
    }

    /// Damage of the header concerns no value. But a file without one may be anybody's.
    fn read_value_header(&self, path: PathBuf, number: u64) -> Result<FoundValues> {
        let file = self.fs.open(&path, OpenMode::Read)?;
        let kind = match check_value_file(&*file, self.store_id, number) {
            Err(error) if error.is_corruption() => FileKind::Foreign,
            kind => kind?,
        };
        Ok(FoundValues {
            number,
            len_bytes: file.len()?,
            path,
            kind,
        })
    }

    fn read_header(&self, path: PathBuf, number: u64) -> Result<Found> {
        let file = self.fs.open(&path, OpenMode::Read)?;
        let head = Head::read(&*file, self.store_id, number)?;
        Ok(Found {
            number,
            path,
            len_bytes: head.len_bytes,
            is_cut: head.is_cut(),
            is_sparse: head.header.is_sparse,
            state: head.state,
            limit: NO_LIMIT,
        })
    }

    /// Follows the chain from its newest end, then computes what later segments cut off.
    fn link(&mut self, mut found: Vec<Found>) -> Result<()> {
        let mut wanted = found
            .iter()
            .rev()
            .find(|segment| segment.activation().is_some())
            .map_or(0, |segment| segment.number);
        while wanted != 0 {
            let Ok(at) = found.binary_search_by_key(&wanted, |segment| segment.number) else {
                let older = found
                    .iter()
                    .any(|s| s.number < wanted && s.activation().is_some());
                if older {
                    return Err(Error::corruption(
                        &segment_path(&self.dir, wanted),
                        0,
                        "a segment from the middle of the log is missing",
                    ));
                }
                // Retired, and everything older with it.
                break;
            };
            let segment = found.remove(at);
            wanted = match segment.activation() {
                Some(activation) => activation.previous,
                // Its activation was lost, and with it the name of its
                // predecessor, which is the next older one.
                None => found[..at]
                    .iter()
                    .rev()
                    .find(|older| older.activation().is_some())
                    .map_or(0, |older| older.number),
            };
            self.chain.push(segment);
        }
        self.chain.reverse();
        for segment in found {
            match segment.activation() {
                Some(_) => self.strays.push(segment),
                None => self.blanks.push(segment),
            }
        }
        let mut limit = NO_LIMIT;
        for segment in self.chain.iter_mut().rev() {
            segment.limit = limit;
            if let Some(activation) = segment.activation() {
                limit = limit.min(activation.first);
            }
        }
        Ok(())
    }

    /// Visits every valid record in commit order; those that end below `from` may be left out. A
    /// torn tail ends the log silently; damage is [`Error::Corruption`], and so is a log that ends
    /// before `durable`, up to which it was durable as others know. Returns the last sequence
    /// number in the log; if it holds no record, the one before the first that its newest segment
    /// announces; zero for a new log.
    pub(crate) fn replay(
        &mut self,
        from: SeqNo,
        durable: SeqNo,
        visit: &mut Visit<'_>,
    ) -> Result<SeqNo> {
        // The next number expected, once it is known from the oldest segment.
        let mut expected: Option<SeqNo> = None;
        let mut witnessed = SeqNo::ZERO;
        let mut ahead = None;
        self.replayed.clear();
        self.durable = durable;
        self.open_end = None;
        for index in 0..self.chain.len() {
            let segment = &self.chain[index];
            let Some(activation) = segment.activation() else {
                continue;
            };
            if activation.first >= segment.limit {
                // Void as a whole.
                continue;
            }
            // By WL5 the next living segment begins at this one's limit, so going on means that
            // the numbers fit.
            debug_assert!(expected.is_none_or(|expected| expected == activation.first));
            let limit = segment.limit;
            if limit <= from {
                expected = Some(limit);
                continue;
            }
            let (loaded, next) = self.visit_segment(index, ahead.take(), from, visit)?;
            ahead = next;
            self.replayed.push((index, loaded.end));
            witnessed = witnessed.max(loaded.witnessed);
            expected = Some(loaded.expected);
            if loaded.expected == limit {
                self.spare = Some(loaded.bytes);
                continue;
            }
            // The log ends here, or the rest is damaged.
            let last = loaded.expected.prev();
            self.open_end = self.end_in(index, &loaded)?;
            self.kept = Some((index, loaded.bytes));
            self.witnessed = witnessed;
            self.last = Some(last);
            return Ok(last);
        }
        // No active segment at all.
        let last = expected.map_or(SeqNo::ZERO, SeqNo::prev);
        if last < durable || self.later_witness(self.chain.len(), last.next())? {
            return Err(Error::corruption(
                &self.dir,
                0,
                format!(
                    "the segment that holds sequence number {} is missing",
                    last.next()
                ),
            ));
        }
        self.last = Some(last);
        Ok(last)
    }

    /// Visits the records of the segment at `index` of the chain, which is active; it is `ready` if
    /// it was loaded before. Returns it, and the one after it if that was loaded meanwhile.
    fn visit_segment(
        &mut self,
        index: usize,
        ready: Option<Loaded>,
        from: SeqNo,
        visit: &mut Visit<'_>,
    ) -> Result<(Loaded, Option<Loaded>)> {
        let next = self.chain.get(index + 1);
        let wants_next = next.is_some_and(|next| Self::is_loaded_ahead(next, from));
        let (mine, others) = self.buffers(index, (ready.is_none(), wants_next));
        let recovery = &*self;
        // Both the disk and the engines have work, if both have much of it.
        thread::scope(|scope| {
            let load_next = |memory| move || recovery.load(index + 1, memory, from);
            // Where the system gives no thread, this one loads it in its turn.
            let spawn = |memory| thread::Builder::new().spawn_scoped(scope, load_next(memory));
            let reader = others.and_then(|memory| spawn(memory).ok());
            let loaded = match (ready, mine) {
                (Some(ready), _) => Ok(ready),
                (None, memory) => {
                    let memory = memory.unwrap_or(Buffer::Free(Vec::new()));
                    recovery.load(index, memory, from)
                }
            };
            let visited = loaded.and_then(|loaded| {
                visit(&loaded.records())?;
                Ok(loaded)
            });
            let join = |reader: ScopedJoinHandle<'_, _>| reader.join();
            let next = reader.map(|it| join(it).unwrap_or_else(|panic| resume_unwind(panic)));
            Ok((visited?, next.transpose()?))
        })
    }

    /// True if `segment`, which comes next, is worth to be loaded while another one is visited.
    fn is_loaded_ahead(segment: &Found, from: SeqNo) -> bool {
        let first = segment.activation().map(|activation| activation.first);
        segment.len_bytes > READ_AHEAD_FROM_BYTES
            && segment.limit > from
            && first.is_some_and(|first| first < segment.limit)
    }

    /// Memory for the segment at `index` of the chain and for the one after it, where they are
    /// wanted.
    fn buffers(
        &mut self,
        index: usize,
        (wants_this, wants_next): (bool, bool),
    ) -> (Option<Buffer>, Option<Buffer>) {
        let mut buffer = |wanted: usize| {
            if let Some((_, bytes)) = self.kept.take_if(|(at, _)| *at == wanted) {
                return Buffer::Read(bytes);
            }
            let is_later = |(at, _): &mut (usize, _)| *at != index && *at != index + 1;
            let spare = self.spare.take();
            let free = spare.or_else(|| Some(self.kept.take_if(is_later)?.1));
            Buffer::Free(free.unwrap_or_default())
        };
        let this = wants_this.then(|| buffer(index));
        (this, wants_next.then(|| buffer(index + 1)))
    }

    /// Reads the segment at `index` of the chain, which is active, and finds its records.
    fn load(&self, index: usize, buffer: Buffer, from: SeqNo) -> Result<Loaded> {
        let segment = &self.chain[index];
        let bytes = match buffer {
            Buffer::Read(bytes) => bytes,
            Buffer::Free(memory) => self.read_segment(segment, memory)?,
        };
        let expected = Expected {
            number: segment.number,
            seed: segment_seed(self.store_id, segment.number),
            first: segment.first(),
            limit: segment.limit,
            synced: segment.activation().map_or(SeqNo::ZERO, |it| it.synced),
        };
        Ok(Loaded::new(&expected, bytes, from))
    }

    /// All bytes of a segment, in `memory`. Not through a map, whatever the options say: a medium
    /// that cannot be read is an error with file and offset here, and everything is read once only.
    fn read_segment(&self, segment: &Found, memory: Vec<u8>) -> Result<Vec<u8>> {
        let file = self.fs.open(&segment.path, OpenMode::Read)?;
        // The length was compared with the file's when the header was read.
        read_all_into(&*file, segment.len_bytes, memory)
    }

    /// The log ends in the segment at `index` of the chain, of which `loaded` is all that is
    /// intact: an error if the rest is damaged. Later segments and what follows in this one may
    /// know (WL4). Returns the end of the records if it is the newest segment.
    fn end_in(&self, index: usize, loaded: &Loaded) -> Result<Option<OpenEnd>> {
        let (segment, next) = (&self.chain[index], loaded.expected);
        let seed = segment_seed(self.store_id, segment.number);
        let end = loaded.end.min(loaded.bytes.len());
        let is_clean = is_zero(&loaded.bytes[end..]);
        let is_damaged = next <= self.durable
            || !is_clean && bears_witness(&loaded.bytes, loaded.end, seed, next)
            || self.later_witness(index + 1, next)?;
        if is_damaged && !mutated!("damage-taken-for-a-torn-tail") {
            let what = format!(
                "the record of sequence number {next}, which was durable, is damaged or missing"
            );
            return Err(Error::corruption(&segment.path, loaded.end as u64, what));
        }
        let is_newest = index + 1 == self.chain.len();
        Ok(is_newest.then_some(OpenEnd { at: end, is_clean }))
    }

    /// Bytes of the segments that hold records from `from` on.
    pub(crate) fn bytes_from(&self, from: SeqNo) -> u64 {
        let counts = |s: &&Found| s.activation().is_some() && s.limit > from;
        self.chain.iter().filter(counts).map(|s| s.len_bytes).sum()
    }

    /// True if anything in the chain from `index` on, or in a segment whose activation was lost,
    /// says that `expected` was durable.
    fn later_witness(&self, index: usize, expected: SeqNo) -> Result<bool> {
        for segment in &self.chain[index..] {
            let announced = segment.activation().is_some_and(|a| a.synced >= expected);
            if announced || self.has_witness(segment, expected)? {
                return Ok(true);
            }
        }
        for segment in &self.blanks {
            if self.has_witness(segment, expected)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_witness(&self, segment: &Found, expected: SeqNo) -> Result<bool> {
        let seed = segment_seed(self.store_id, segment.number);
        if segment.state == ActivationState::Blank {
            // Nearly always never used. Its first record shows it, without reading the whole
            // segment.
            let file = self.fs.open(&segment.path, OpenMode::Read)?;
            let mut head = [0; 40];
            let at = HEADER_LEN_BYTES as u64;
            if segment.len_bytes < at + head.len() as u64 {
                return Ok(false);
            }
            file.read_exact_at(&mut head, at)?;
            if head == [0; 40] {
                return Ok(false);
            }
        }
        let bytes = self.read_segment(segment, Vec::new())?;
        Ok(bears_witness(&bytes, HEADER_LEN_BYTES, seed, expected))
    }
}

/// True if there is nothing but zeros. A comparison of the bytes with themselves, one further on,
/// is what processors are fastest at: the end of a log may be 64 MiB of them.
fn is_zero(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((first, rest)) => *first == 0 && *rest == bytes[..rest.len()],
        None => true,
    }
}
