//! Reading an existing log.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::segment::{
    Activation, ActivationState, HEADER_LEN_BYTES, NUMBER_END, Name, RECORD_HEADER_LEN_BYTES,
    bears_witness, decode_header, parse_name, record_at, segment_path, segment_seed,
};
use super::streamed::check_value_file;
use super::writer::PayloadPlace;
use crate::error::{Error, Result};
use crate::fs::{Fs, LockGuard, OpenMode, read_all};
use crate::types::SeqNo;
use crate::util::mutants::mutated;
use crate::values::{FileKind, ValueFiles};

mod reopen;

/// Takes records that follow one another, all of one segment.
pub(crate) type Visit<'a> = dyn FnMut(&[LogRecord<'_>]) -> Result<()> + 'a;

/// A record of the log: the operations from `first` to `last`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogRecord<'a> {
    pub(crate) first: SeqNo,
    pub(crate) last: SeqNo,
    pub(crate) payload: &'a [u8],
    /// Where the payload is.
    pub(crate) place: PayloadPlace,
}

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
    /// The newest segment, if nothing but zeros follows its last record: where they begin.
    open_end: Option<usize>,
    /// Segments with records that were replayed: index in the chain, and where the records end.
    replayed: Vec<(usize, usize)>,
    /// The bytes of a segment that was read and is going to be asked for again, with its index in
    /// the chain: the one after that which is being replayed, or the last one.
    kept: Option<(usize, Vec<u8>)>,
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
    is_sparse: bool,
    state: ActivationState,
    /// Records from here on are void: a later segment begins here (WL5).
    limit: SeqNo,
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
        let len_bytes = file.len()?;
        if len_bytes < HEADER_LEN_BYTES as u64 {
            return Err(Error::corruption(
                &path,
                len_bytes,
                "the segment is cut off within its header",
            ));
        }
        let mut bytes = [0; HEADER_LEN_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let (header, state) = decode_header(&path, self.store_id, &bytes)?;
        if header.number != number {
            return Err(Error::corruption(
                &path,
                24,
                format!("the header names segment {:016x}", header.number),
            ));
        }
        if header.len_bytes != len_bytes {
            return Err(Error::corruption(
                &path,
                len_bytes.min(header.len_bytes),
                format!(
                    "the segment has {len_bytes} bytes instead of {}",
                    header.len_bytes
                ),
            ));
        }
        Ok(Found {
            number,
            path,
            len_bytes,
            is_sparse: header.is_sparse,
            state,
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
        self.replayed.clear();
        self.durable = durable;
        self.open_end = None;
        for (index, segment) in self.chain.iter().enumerate() {
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
            if segment.limit <= from {
                expected = Some(segment.limit);
                continue;
            }
            let bytes = match self.kept.take_if(|(at, _)| *at == index) {
                Some((_, bytes)) => bytes,
                None => self.read_segment(segment)?,
            };
            let (records, read) = self.read_records(segment, activation, &bytes, from);
            let is_kept = |at: usize| self.kept.as_ref().is_some_and(|(kept, _)| *kept == at);
            let is_worth_it = |next: &&Found| next.len_bytes > READ_AHEAD_FROM_BYTES;
            let next_segment = self.chain.get(index + 1).filter(is_worth_it);
            match next_segment.filter(|_| !is_kept(index + 1)) {
                None => visit(&records)?,
                // Both the disk and the engines have work, if both have much of it.
                Some(next) => {
                    let read = thread::scope(|scope| {
                        let reader = scope.spawn(|| self.read_segment(next));
                        let visited = visit(&records);
                        let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
                        visited.and(read)
                    });
                    self.kept = Some((index + 1, read?));
                }
            }
            drop(records);
            let (next, at) = (read.expected, read.end);
            self.replayed.push((index, at));
            witnessed = witnessed.max(read.witnessed);
            expected = Some(next);
            if next == segment.limit {
                continue;
            }
            // The log ends here, or the rest is damaged. Later segments and
            // what follows in this one may know (WL4).
            let seed = segment_seed(self.store_id, segment.number);
            let end = at.min(bytes.len());
            let is_open_end = is_zero(&bytes[end..]);
            let is_damaged = next <= durable
                || !is_open_end && bears_witness(&bytes, at, seed, next)
                || self.later_witness(index + 1, next)?;
            if is_damaged && !mutated!("damage-taken-for-a-torn-tail") {
                return Err(Error::corruption(
                    &segment.path,
                    at as u64,
                    format!(
                        "the record of sequence number {next}, which was durable, is damaged or missing"
                    ),
                ));
            }
            self.kept = Some((index, bytes));
            self.witnessed = witnessed;
            self.last = Some(next.prev());
            if index + 1 == self.chain.len() && is_open_end {
                self.open_end = Some(end);
            }
            return Ok(next.prev());
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

    /// The records of one segment up to its limit, but for those that end below `from`.
    fn read_records<'a>(
        &self,
        segment: &Found,
        activation: &Activation,
        bytes: &'a [u8],
        from: SeqNo,
    ) -> (Vec<LogRecord<'a>>, ReadRecords) {
        let mut records = Vec::new();
        let seed = segment_seed(self.store_id, segment.number);
        let mut read = ReadRecords {
            expected: activation.first,
            end: HEADER_LEN_BYTES,
            witnessed: activation.synced,
        };
        while read.expected < segment.limit
            && let Some(record) = record_at(bytes, read.end, seed)
            && record.first == read.expected
            && record.last < segment.limit
        {
            if record.last >= from {
                records.push(LogRecord {
                    first: record.first,
                    last: record.last,
                    payload: record.payload,
                    place: PayloadPlace {
                        segment: segment.number,
                        offset: (read.end + RECORD_HEADER_LEN_BYTES) as u64,
                    },
                });
            }
            read.expected = record.last.next();
            read.end = record.next_at;
            read.witnessed = read.witnessed.max(record.synced);
        }
        (records, read)
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
        let bytes = self.read_segment(segment)?;
        Ok(bears_witness(&bytes, HEADER_LEN_BYTES, seed, expected))
    }

    /// All bytes of a segment. Not through a map, whatever the options say: a medium that cannot be
    /// read is an error with file and offset here, and everything is read once only.
    fn read_segment(&self, segment: &Found) -> Result<Vec<u8>> {
        let file = self.fs.open(&segment.path, OpenMode::Read)?;
        // The length was compared with the file's when the header was read.
        read_all(&*file, segment.len_bytes)
    }
}

/// How far the records of a segment go.
struct ReadRecords {
    /// The number expected next,
    expected: SeqNo,
    /// and where it was not found.
    end: usize,
    witnessed: SeqNo,
}

/// True if there is nothing but zeros. A comparison of the bytes with themselves, one further on,
/// is what processors are fastest at: the end of a log may be 64 MiB of them.
fn is_zero(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((first, rest)) => *first == 0 && *rest == bytes[..rest.len()],
        None => true,
    }
}
