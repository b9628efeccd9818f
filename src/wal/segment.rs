//! The bytes of a segment file (docs/format.md, "Log segment"): names, header, activation, records.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::checksum::{checksum, seed_of};
use crate::format::coding::{get_u32, get_u64};
use crate::format::framing::{
    FRAME_HEADER_LEN_BYTES, FrameSearch, frame_at, frame_header, frame_len,
};
use crate::types::SeqNo;
use crate::util::mutants::mutated;

pub(crate) const MAGIC: [u8; 8] = *b"HEDGELOG";
pub(crate) const VERSION: u32 = 2;

/// Header, activation and cut note; records follow.
pub(crate) const HEADER_LEN_BYTES: usize = 128;
/// Where the activation stands. In the sector of the header, which is rewritten with the same bytes
/// when the sector is, so that tearing it loses the activation at most.
pub(crate) const ACTIVATION_AT: usize = 64;
const ACTIVATION_LEN_BYTES: usize = 32;
/// Where the cut note stands, behind the activation: see [`super::cut`].
pub(super) const CUT_NOTE_AT: usize = ACTIVATION_AT + ACTIVATION_LEN_BYTES;
pub(super) const CUT_NOTE_LEN_BYTES: usize = HEADER_LEN_BYTES - CUT_NOTE_AT;
/// Records begin at multiples of this, so that a search for them has few places to look.
pub(crate) const ALIGN_BYTES: usize = 8;
/// First, last and synced sequence number, in front of the payload proper.
const META_LEN_BYTES: usize = 24;
/// What a record needs besides its payload.
pub(crate) const RECORD_HEADER_LEN_BYTES: usize = FRAME_HEADER_LEN_BYTES + META_LEN_BYTES;

/// See [`Header::opened_active`].
const FLAG_OPENED_ACTIVE: u64 = 1;
/// See [`Header::is_sparse`].
const FLAG_SPARSE: u64 = 2;

/// The part of a segment's header that is durable before the segment is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    /// Length of the file as it was made.
    pub(crate) len_bytes: u64,
    /// The segment came into being with its activation (recovery makes it so); a torn activation
    /// cannot be explained by a power loss then.
    pub(crate) opened_active: bool,
    /// The file's bytes were not allocated before the segment was used: only those that were
    /// written since are stored to through a map, and it is not used again.
    pub(crate) is_sparse: bool,
}

/// Written when a segment becomes the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Activation {
    /// First sequence number in the segment; overrules records of older segments from there on.
    pub(crate) first: SeqNo,
    /// Number of the segment before this one; zero at the start of a chain.
    pub(crate) previous: u64,
    /// Everything up to here was durable.
    pub(crate) synced: SeqNo,
}

/// What the activation's place in a header holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActivationState {
    /// Never activated, or the activation did not reach the disk.
    Blank,
    /// Something else than an activation.
    Torn,
    Active(Activation),
}

/// Seed of all checksums in segment `number` of a store (WL2).
pub(crate) fn segment_seed(store_id: u64, number: u64) -> u64 {
    let ids = [store_id, number];
    seed_of(mutated!("log-records-unsalted", &ids[..1], &ids))
}

/// The header of a segment, with or without its activation.
pub(crate) fn encode_header(
    store_id: u64,
    header: &Header,
    activation: Option<&Activation>,
) -> [u8; HEADER_LEN_BYTES] {
    let mut out = [0; HEADER_LEN_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&store_id.to_le_bytes());
    out[24..32].copy_from_slice(&header.number.to_le_bytes());
    out[32..40].copy_from_slice(&header.len_bytes.to_le_bytes());
    let flag = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
    let flags =
        flag(header.opened_active, FLAG_OPENED_ACTIVE) | flag(header.is_sparse, FLAG_SPARSE);
    out[40..48].copy_from_slice(&flags.to_le_bytes());
    let sum = header_checksum(VERSION, &out);
    out[12..16].copy_from_slice(&sum.to_le_bytes());
    if let Some(activation) = activation {
        let bytes = encode_activation(store_id, header.number, activation);
        out[ACTIVATION_AT..CUT_NOTE_AT].copy_from_slice(&bytes);
    }
    out
}

fn header_checksum(version: u32, bytes: &[u8]) -> u32 {
    let seed = seed_of(&[u64::from(version)]);
    checksum(seed, &bytes[16..ACTIVATION_AT])
}

/// What follows the header.
pub(crate) fn encode_activation(
    store_id: u64,
    number: u64,
    activation: &Activation,
) -> [u8; ACTIVATION_LEN_BYTES] {
    let mut out = [0; ACTIVATION_LEN_BYTES];
    out[8..16].copy_from_slice(&activation.first.0.to_le_bytes());
    out[16..24].copy_from_slice(&activation.previous.to_le_bytes());
    out[24..32].copy_from_slice(&activation.synced.0.to_le_bytes());
    let sum = checksum(segment_seed(store_id, number), &out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Decodes a header. A segment's name becomes durable after its header did, so under a segment's
/// name nothing but a valid header is in order.
pub(crate) fn decode_header(
    path: &Path,
    store_id: u64,
    bytes: &[u8; HEADER_LEN_BYTES],
) -> Result<(Header, ActivationState)> {
    if bytes[..8] != MAGIC {
        return Err(Error::corruption(path, 0, "this is not a log segment"));
    }
    let version = get_u32(bytes, 8);
    if version != VERSION && get_u32(bytes, 12) == header_checksum(VERSION, bytes) {
        // Everything else is as this version has it.
        let what = format!("the version of the segment reads {version}");
        return Err(Error::corruption(path, 8, what));
    }
    Error::check_version(path, version, VERSION)?;
    if get_u32(bytes, 12) != header_checksum(VERSION, bytes) {
        return Err(Error::corruption(path, 12, "wrong checksum of the header"));
    }
    let owner = get_u64(bytes, 16);
    if owner != store_id {
        return Err(Error::corruption(
            path,
            16,
            format!("the segment belongs to store {owner:016x}, this is store {store_id:016x}"),
        ));
    }
    let header = Header {
        number: get_u64(bytes, 24),
        len_bytes: get_u64(bytes, 32),
        opened_active: get_u64(bytes, 40) & FLAG_OPENED_ACTIVE != 0,
        is_sparse: get_u64(bytes, 40) & FLAG_SPARSE != 0,
    };
    let state = decode_activation(store_id, header.number, &bytes[ACTIVATION_AT..CUT_NOTE_AT]);
    if header.opened_active && !matches!(state, ActivationState::Active(_)) {
        return Err(Error::corruption(
            path,
            ACTIVATION_AT as u64,
            "the activation of the segment is not intact",
        ));
    }
    Ok((header, state))
}

fn decode_activation(store_id: u64, number: u64, bytes: &[u8]) -> ActivationState {
    if bytes.iter().all(|byte| *byte == 0) {
        return ActivationState::Blank;
    }
    let activation = Activation {
        first: SeqNo(get_u64(bytes, 8)),
        previous: get_u64(bytes, 16),
        synced: SeqNo(get_u64(bytes, 24)),
    };
    let intact = get_u32(bytes, 0) == checksum(segment_seed(store_id, number), &bytes[4..])
        && activation.first > SeqNo::ZERO
        && activation.first <= SeqNo::MAX
        && activation.previous < number
        && activation.synced < activation.first;
    if intact {
        ActivationState::Active(activation)
    } else {
        ActivationState::Torn
    }
}

/// The bytes in front of a record's payload, which is `parts` joined.
pub(crate) fn encode_record_header(
    seed: u64,
    offset: u64,
    first: SeqNo,
    last: SeqNo,
    synced: SeqNo,
    parts: &[&[u8]],
) -> [u8; RECORD_HEADER_LEN_BYTES] {
    let mut out = [0; RECORD_HEADER_LEN_BYTES];
    let meta = &mut out[FRAME_HEADER_LEN_BYTES..];
    meta[..8].copy_from_slice(&first.0.to_le_bytes());
    meta[8..16].copy_from_slice(&last.0.to_le_bytes());
    meta[16..].copy_from_slice(&synced.0.to_le_bytes());
    let frame = frame_header(seed, offset, &out[FRAME_HEADER_LEN_BYTES..], parts);
    out[..FRAME_HEADER_LEN_BYTES].copy_from_slice(&frame);
    out
}

/// A record that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) first: SeqNo,
    pub(crate) last: SeqNo,
    pub(crate) synced: SeqNo,
    pub(crate) payload: &'a [u8],
    /// Where the next record would begin.
    pub(crate) next_at: usize,
}

/// True if a record may hold the operations from `first` to `last`: another must be able to follow
/// it.
pub(crate) fn can_hold(first: SeqNo, last: SeqNo) -> bool {
    SeqNo::ZERO < first && first <= last && last < SeqNo::MAX
}

/// The place of the record after one that ends at `end`.
pub(crate) fn align(end: usize) -> usize {
    end.next_multiple_of(ALIGN_BYTES)
}

/// The record at `at` of a segment's bytes, if there is an intact one.
pub(crate) fn record_at(bytes: &[u8], at: usize, seed: u64) -> Option<Record<'_>> {
    record_in(bytes, at, seed, at as u64)
}

/// The record at `at` of a piece of a segment, which lies at `offset` of the file, if there is an
/// intact one.
pub(crate) fn record_in(bytes: &[u8], at: usize, seed: u64, offset: u64) -> Option<Record<'_>> {
    // Cheap refusals first: most places hold no record.
    let record = claimed_record(bytes, at)?;
    if !mutated!("log-checksum-ignored") {
        frame_at(bytes, at, seed, offset)?;
    }
    Some(record)
}

/// The length that a record at the beginning of `bytes` claims to have.
pub(crate) fn claimed_len(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..FRAME_HEADER_LEN_BYTES)?;
    Some(FRAME_HEADER_LEN_BYTES as u64 + u64::from(get_u32(header, 4)))
}

/// What the bytes at `at` claim to be, before the checksum is looked at.
pub(crate) fn claimed_record(bytes: &[u8], at: usize) -> Option<Record<'_>> {
    let len = frame_len(bytes, at)?;
    if len < META_LEN_BYTES {
        return None;
    }
    let meta = at + FRAME_HEADER_LEN_BYTES;
    let (first, last, synced) = claimed_numbers(&bytes[at..])?;
    Some(Record {
        first,
        last,
        synced,
        payload: &bytes[meta + META_LEN_BYTES..meta + len],
        next_at: align(meta + len),
    })
}

/// First, last and synced sequence number of what claims to be a record at the beginning of
/// `bytes`, if they can be those of one.
pub(crate) fn claimed_numbers(bytes: &[u8]) -> Option<(SeqNo, SeqNo, SeqNo)> {
    let meta = bytes.get(FRAME_HEADER_LEN_BYTES..RECORD_HEADER_LEN_BYTES)?;
    let [first, last, synced] = [0, 8, 16].map(|at| SeqNo(get_u64(meta, at)));
    (synced < first && can_hold(first, last)).then_some((first, last, synced))
}

/// True if an intact record at or behind `from` says that `expected` was durable (WL4). Records of
/// the segment's earlier lives are older than `expected` and fall to the cheap test. Values may
/// claim to be such records wherever they like, which costs little for each of them.
pub(crate) fn bears_witness(bytes: &[u8], from: usize, seed: u64, expected: SeqNo) -> bool {
    let mut search = FrameSearch::new(bytes);
    let mut at = align(from);
    while at + RECORD_HEADER_LEN_BYTES <= bytes.len() {
        if claimed_record(bytes, at).is_some_and(|claim| claim.synced >= expected)
            && search.is_intact_at(at, seed, at as u64)
        {
            return true;
        }
        at += ALIGN_BYTES;
    }
    false
}

/// Numbers of segments are below this. A store does not live to reach it, so a file that has such
/// a number is not the log's, and a number above it could not follow.
pub(crate) const NUMBER_END: u64 = 1 << 62;

/// What a file name in the log's directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    /// A segment in the making, or one waiting to be used again.
    Temporary(u64),
    /// A segment that has left the log, because engines refer to values in it.
    Values(u64),
}

/// Reads a file name; `None` for files that are not the log's.
pub(crate) fn parse_name(name: &str) -> Option<Name> {
    let (digits, extension) = name.split_once('.')?;
    if digits.len() != 16
        || !digits
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    let number = u64::from_str_radix(digits, 16).ok()?;
    match extension {
        // Zero says "none" in an activation.
        "log" if number > 0 => Some(Name::Segment(number)),
        "tmp" => Some(Name::Temporary(number)),
        "val" if number > 0 => Some(Name::Values(number)),
        _ => None,
    }
}

pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

pub(crate) fn temporary_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.tmp"))
}

pub(crate) fn values_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.val"))
}
