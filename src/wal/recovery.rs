//! Reading an existing log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::{Inheritance, Log, Resumed};
use super::segment::{
    Activation, ActivationState, HEADER_LEN_BYTES, NUMBER_END, Name, bears_witness, claimed_record,
    decode_header, parse_name, record_at, segment_path, segment_seed,
};
use super::segment_chain::LiveSegment;
use super::segment_factory::FIRST_LEN_BYTES;
use super::writer::Writer;
use super::{LockGuard, WalConfig, discard_file};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, FsLock, OpenMode, read_all};
use crate::types::SeqNo;
use crate::util::mutants::mutated;

/// Takes a record: its first and last sequence number and its payload.
pub(crate) type Visit<'a> = dyn FnMut(SeqNo, SeqNo, &[u8]) -> Result<()> + 'a;

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
    guard: LockGuard,
}

#[derive(Debug)]
struct Found {
    number: u64,
    path: PathBuf,
    len_bytes: u64,
    state: ActivationState,
    /// Records from here on are void: a later segment begins here (WL5).
    limit: SeqNo,
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
            number_max: 0,
            last: None,
            witnessed: SeqNo::ZERO,
            durable: SeqNo::ZERO,
            open_end: None,
            replayed: Vec::new(),
            guard: LockGuard::default(),
            fs,
        };
        let mut found = recovery.read_headers()?;
        found.sort_by_key(|segment| segment.number);
        recovery.link(found)?;
        Ok(recovery)
    }

    /// From now on a segment is made only while `lock`, the store's, is held.
    pub(crate) fn guard_by(&mut self, lock: &Arc<dyn FsLock>) {
        self.guard = LockGuard::by(lock);
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
            if let Some(Name::Temporary(number) | Name::Segment(number)) = parsed
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
                Some(Name::Segment(number)) => {
                    self.number_max = self.number_max.max(number);
                    found.push(self.read_header(path, number)?);
                }
            }
        }
        Ok(found)
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

    /// Visits every valid record in commit order, with its first and last sequence number; those
    /// that end below `from` may be left out. A torn tail ends the log silently; damage is
    /// [`Error::Corruption`], and so is a log that ends before `durable`, up to which it was
    /// durable as others know. Returns the last sequence number in the log; if it holds no record,
    /// the one before the first that its newest segment announces; zero for a new log.
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
            let bytes = self.read_segment(segment)?;
            let read = self.read_records(segment, activation, &bytes, from, visit)?;
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
            let is_damaged = next <= durable
                || bears_witness(&bytes, at, seed, next)
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
            self.witnessed = witnessed;
            self.last = Some(next.prev());
            let end = at.min(bytes.len());
            if index + 1 == self.chain.len() && bytes[end..].iter().all(|byte| *byte == 0) {
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

    /// Visits the records of one segment up to its limit.
    fn read_records(
        &self,
        segment: &Found,
        activation: &Activation,
        bytes: &[u8],
        from: SeqNo,
        visit: &mut Visit<'_>,
    ) -> Result<ReadRecords> {
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
                visit(record.first, record.last, record.payload)?;
            }
            read.expected = record.last.next();
            read.end = record.next_at;
            read.witnessed = read.witnessed.max(record.synced);
        }
        Ok(read)
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

    /// Begins writing after `last`, which is what [`replay`](Self::replay) returned, or more if an
    /// engine holds more than the log does: then nothing in the log counts any longer. Always in a
    /// new segment (WL5); old ones stay until they are retired.
    pub(crate) fn into_log(self, config: WalConfig, last: SeqNo) -> Result<(Writer, Arc<Log>)> {
        let found = self.last.expect("replay comes first");
        assert!(last >= found, "recovered records are not cut off");
        self.fs.create_dir_all(&self.dir)?;
        if let Some(parent) = self.dir.parent() {
            // Even if the directory was there: the process that created it may have ended before
            // this.
            self.fs.sync_dir(parent)?;
        }
        if !mutated!("recovered-tail-not-synced") {
            self.make_durable()?;
        }
        self.fs.sync_dir(&self.dir)?;
        let previous = match self.chain.last() {
            Some(newest) if last == found => newest.number,
            _ => 0,
        };
        let resumed = self.resumable(config, last);
        if let Some(resumed) = &resumed {
            self.claim(resumed)?;
        }
        let mut live = self.inherited(last);
        if resumed.is_some() {
            live.pop_back();
        }
        let mut blanks = self.blanks;
        let usable = blanks
            .iter()
            .position(|blank| blank.len_bytes == config.segment_len());
        let spare = usable.map(|at| blanks.swap_remove(at).path);
        let (log, active) = Log::start(
            Arc::clone(&self.fs),
            &self.dir,
            self.store_id,
            config,
            Inheritance {
                live,
                spare,
                next_number: self.number_max + 1,
                last,
                previous,
                resumed,
                guard: self.guard,
            },
        )?;
        // Only now that a higher number is durable, or that they took no record, may files be
        // removed (WL2).
        for path in self
            .temporaries
            .iter()
            .chain(blanks.iter().map(|blank| &blank.path))
        {
            discard_file(&*self.fs, path)?;
        }
        let at = resumed.map_or(HEADER_LEN_BYTES as u64, |resumed| resumed.end_bytes);
        Ok((Writer::new(Arc::clone(&log), active, at, last), log))
    }

    /// The newest segment, if the log may go on in it (WL7).
    fn resumable(&self, config: WalConfig, last: SeqNo) -> Option<Resumed> {
        let segment = self.chain.last()?;
        let end_bytes = self.open_end? as u64;
        let is_known_durable = self.durable >= last || mutated!("log-goes-on-behind-a-torn-tail");
        // An activation that was lost leaves records behind that only its number tells apart.
        let is_newest = self
            .blanks
            .iter()
            .all(|blank| blank.state == ActivationState::Blank);
        let rest = segment.len_bytes.saturating_sub(end_bytes);
        (self.last == Some(last)
            && is_known_durable
            && is_newest
            && segment.len_bytes <= config.segment_len()
            && rest <= FIRST_LEN_BYTES)
            .then(|| Resumed {
                number: segment.number,
                len_bytes: segment.len_bytes,
                first: segment.first().min(last.next()),
                end_bytes,
            })
    }

    /// Writes the activation and the zeros of the segment again, durably: the one may be in memory
    /// only, after a kill, and the others may have no space on the disk.
    fn claim(&self, resumed: &Resumed) -> Result<()> {
        let path = segment_path(&self.dir, resumed.number);
        let file = self.fs.open(&path, OpenMode::ReadWrite)?;
        rewrite(&*file, 0, HEADER_LEN_BYTES)?;
        rewrite(
            &*file,
            resumed.end_bytes as usize,
            resumed.len_bytes as usize,
        )?;
        file.sync_data()
    }

    /// Makes what replay found durable, since the new segment is going to say so. After a kill it
    /// may exist in memory only; after a failed sync the operating system may even consider it
    /// clean and never write it. So what nothing proves to be durable is written again, unchanged,
    /// before it is synced.
    fn make_durable(&self) -> Result<()> {
        for (index, segment) in self.chain.iter().enumerate() {
            if mutated!("every-segment-taken-for-durable") || self.is_proven(segment) {
                continue;
            }
            let file = self.fs.open(&segment.path, OpenMode::ReadWrite)?;
            let replayed = self.replayed.iter().find(|(at, _)| *at == index);
            if let Some((_, end)) = replayed
                && let Some(start) = self.first_unproven(segment, *end)?
                && !mutated!("recovered-tail-not-rewritten")
            {
                rewrite(&*file, 0, HEADER_LEN_BYTES)?;
                rewrite(&*file, start, *end)?;
            }
            file.sync_data()?;
        }
        Ok(())
    }

    /// Up to where records were durable, as something says.
    fn proven(&self) -> SeqNo {
        self.witnessed.max(self.durable)
    }

    /// True if the segment has records and all were durable, and with them its activation: the
    /// sync that made them so was one of the whole file.
    fn is_proven(&self, segment: &Found) -> bool {
        let last = segment.limit.prev().min(self.last.unwrap_or(SeqNo::ZERO));
        segment.first() <= last && last <= self.proven()
    }

    /// Where the first record begins that nothing proves to be durable.
    fn first_unproven(&self, segment: &Found, end: usize) -> Result<Option<usize>> {
        if segment.limit <= self.proven() {
            return Ok(None);
        }
        let bytes = self.read_segment(segment)?;
        let mut at = HEADER_LEN_BYTES;
        while at < end
            && let Some(record) = claimed_record(&bytes, at)
            && record.last <= self.proven()
        {
            at = record.next_at;
        }
        Ok((at < end).then_some(at))
    }

    /// The old segments as the log will retire them. Strays come first: a segment of the
    /// chain must not be gone while something older than it is there (WL3).
    fn inherited(&self, last: SeqNo) -> VecDeque<LiveSegment> {
        let next = last.next();
        self.strays
            .iter()
            .map(|segment| (segment, SeqNo::ZERO))
            .chain(self.chain.iter().map(|s| (s, s.first().min(next))))
            .map(|(segment, first)| LiveSegment {
                number: segment.number,
                path: segment.path.clone(),
                len_bytes: segment.len_bytes,
                first,
                is_anchored: true,
            })
            .collect()
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

/// Writes the bytes from `start` to `end` again as they are.
fn rewrite(file: &dyn File, start: usize, end: usize) -> Result<()> {
    let mut buffer = vec![0; (end - start).min(64 << 10)];
    let (mut at, end) = (start as u64, end as u64);
    let end = end.min(file.len()?);
    while at < end {
        let len = (end - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..len], at)?;
        file.write_all_at(&buffer[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
