//! The bytes of a trace (docs/format.md, "Workload trace"): encoding and decoding, without I/O.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use super::event::{Change, Event, Key, Lookup, Op};
use super::{KeyMode, Sampling, TraceOptions, ValueMode};
use crate::format::checksum::{checksum, mix64, seed_of};
use crate::format::coding::{Malformed, Reader, get_u32, get_u64, put_bytes, put_varint};
use crate::options::{Durability, EngineKind};
use crate::types;
use crate::types::{MAX_KEY_LEN_BYTES, MAX_KEYSPACE_NAME_LEN_BYTES};

pub(super) const MAGIC: [u8; 8] = *b"hdgrTRCE";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_LEN_BYTES: usize = 64;

/// Longest payload of a frame, compressed or not. The recorder stays far below: a block is handed
/// over at [`BLOCK_TARGET_BYTES`], and an event is cut at [`EVENT_TARGET_BYTES`].
pub(super) const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// A lane's buffer is handed over when it has this many bytes. Large enough for the compression to
/// find what keys have in common, small enough for a cache.
pub(super) const BLOCK_TARGET_BYTES: usize = 64 << 10;
/// Batches and multi-gets are cut into events of about this length.
pub(super) const EVENT_TARGET_BYTES: usize = 128 << 10;
/// Longest value of which the contents are recorded.
pub(super) const MAX_CONTENT_LEN_BYTES: usize = 64 << 10;
/// Bounds can be one byte longer than keys.
const MAX_BOUND_LEN_BYTES: usize = MAX_KEY_LEN_BYTES + 1;

// Kinds of frames.
pub(super) const FRAME_EVENTS: u8 = 1;
pub(super) const FRAME_KEYSPACE: u8 = 2;
pub(super) const FRAME_WATERMARK: u8 = 3;
pub(super) const FRAME_END: u8 = 4;
pub(super) const FRAME_COMPRESSED: u8 = 5;

// Why a trace ended.
pub(super) const END_CLOSED: u8 = 0;
pub(super) const END_LIMIT: u8 = 1;

// Kinds of events: the low half of an event's first byte; flags are above.
pub(super) const GET: u8 = 1;
pub(super) const MULTI_GET: u8 = 2;
pub(super) const WRITE: u8 = 3;
pub(super) const SCAN: u8 = 4;
pub(super) const SNAPSHOT: u8 = 5;
pub(super) const FLUSH: u8 = 6;
pub(super) const SYNC: u8 = 7;
pub(super) const COMPACT: u8 = 8;

/// get: there is a value.
pub(super) const HIT: u8 = 0x10;
/// get, multi-get, scan: of a snapshot.
pub(super) const OF_SNAPSHOT: u8 = 0x20;
/// get: without the value.
pub(super) const KEY_ONLY: u8 = 0x40;
/// write: durability sync.
pub(super) const DURABLE: u8 = 0x10;
/// write: a list of changes.
pub(super) const BATCH: u8 = 0x20;
/// scan: there is an end.
pub(super) const HAS_END: u8 = 0x10;
/// snapshot, flush, compact: of one keyspace.
pub(super) const ONE_KEYSPACE: u8 = 0x10;

// The first byte of an item of a list (changes of a batch, keys of a multi-get).
pub(super) const LIST_END: u8 = 0;
pub(super) const LIST_CONTINUED: u8 = 0xFF;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;
const DELETE_FROM: u8 = 4;
const PUT_CONTENT: u8 = 5;
const FOUND: u8 = 1;
const ABSENT: u8 = 2;

/// What a trace says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// A random number that seeds the checksums.
    pub(super) id: u64,
    /// Microseconds since 1970.
    pub(super) started_unix_us: u64,
    pub(super) keys: KeyMode,
    pub(super) values: ValueMode,
    pub(super) sampling: Sampling,
}

impl Header {
    pub(super) fn new(options: &TraceOptions, id: u64, started_unix_us: u64) -> Self {
        Self {
            id,
            started_unix_us,
            keys: options.keys,
            values: options.values,
            sampling: options.sampling,
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN_BYTES] {
        let mut out = [0; HEADER_LEN_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.id.to_le_bytes());
        out[24..32].copy_from_slice(&self.started_unix_us.to_le_bytes());
        out[32] = u8::from(self.keys == KeyMode::Hashed);
        out[33] = u8::from(self.values == ValueMode::Contents);
        let (kind, a, b) = match self.sampling {
            Sampling::All => (0, 0, 0),
            Sampling::Keys { one_in } => (1, u64::from(one_in), 0),
            Sampling::Windows {
                record_ms,
                every_ms,
            } => (2, record_ms, every_ms),
        };
        out[34] = kind;
        out[40..48].copy_from_slice(&a.to_le_bytes());
        out[48..56].copy_from_slice(&b.to_le_bytes());
        let sum = checksum(seed_of(&[u64::from(VERSION)]), &out[16..]);
        out[12..16].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Decodes the header of the version of this build; says what is wrong otherwise.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN_BYTES]) -> Result<Self, &'static str> {
        let sum = checksum(seed_of(&[u64::from(VERSION)]), &bytes[16..]);
        if sum != get_u32(bytes, 12) {
            return Err("the checksum of the header is wrong");
        }
        let (a, b) = (get_u64(bytes, 40), get_u64(bytes, 48));
        let sampling = match (bytes[34], u32::try_from(a)) {
            (0, _) => Sampling::All,
            (1, Ok(one_in)) if one_in > 0 => Sampling::Keys { one_in },
            (2, _) => Sampling::Windows {
                record_ms: a,
                every_ms: b,
            },
            _ => return Err("the sampling mode is unknown"),
        };
        let keys = match bytes[32] {
            0 => KeyMode::Contents,
            1 => KeyMode::Hashed,
            _ => return Err("the key mode is unknown"),
        };
        let values = match bytes[33] {
            0 => ValueMode::Sizes,
            1 => ValueMode::Contents,
            _ => return Err("the value mode is unknown"),
        };
        Ok(Self {
            id: get_u64(bytes, 16),
            started_unix_us: get_u64(bytes, 24),
            keys,
            values,
            sampling,
        })
    }

    /// Seed of the frame at `offset`.
    pub(super) fn seed(&self) -> u64 {
        seed_of(&[self.id])
    }
}

/// A hash of a key that is the same in every process, for sampling.
pub(super) fn sampling_hash(key: &[u8]) -> u64 {
    let mut hash = key.len() as u64;
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix64(hash.rotate_left(5) ^ u64::from_le_bytes(word));
    }
    mix64(hash.wrapping_add(0x9E37_79B9_7F4A_7C15))
}

/// Writes keys and values as the options ask for.
#[derive(Debug)]
pub(super) struct Coder {
    /// The secret of hashed keys: SipHash under a random key that dies with the recorder.
    secret: Option<RandomState>,
    contents: bool,
}

impl Coder {
    pub(super) fn new(options: &TraceOptions) -> Self {
        Self {
            secret: (options.keys == KeyMode::Hashed).then(RandomState::new),
            contents: options.values == ValueMode::Contents,
        }
    }

    /// A key or a bound. One that is longer than keys can be is cut behind the longest: it is as
    /// absent as it was, and as a bound has the same keys before and behind it.
    pub(super) fn key(&self, out: &mut Vec<u8>, key: &[u8]) {
        let key = &key[..key.len().min(MAX_BOUND_LEN_BYTES)];
        match &self.secret {
            None => put_bytes(out, key),
            Some(secret) => {
                out.extend_from_slice(&secret.hash_one(key).to_le_bytes());
                put_varint(out, key.len() as u64);
            }
        }
    }

    /// A put of a value that is not there to be recorded.
    pub(super) fn put_without_content(
        &self,
        out: &mut Vec<u8>,
        keyspace: u32,
        key: &[u8],
        len_bytes: usize,
    ) {
        out.push(PUT);
        put_varint(out, u64::from(keyspace));
        self.key(out, key);
        put_varint(out, len_bytes as u64);
    }

    pub(super) fn change(&self, out: &mut Vec<u8>, keyspace: u32, op: &types::Op<'_>) {
        match op {
            // A trace has no kind of its own for merges: what counts is how much is written where.
            types::Op::Put { key, value }
            | types::Op::Merge {
                key,
                operand: value,
            } => {
                let content = self.contents && value.len() <= MAX_CONTENT_LEN_BYTES;
                out.push(if content { PUT_CONTENT } else { PUT });
                put_varint(out, u64::from(keyspace));
                self.key(out, key);
                put_varint(out, value.len() as u64);
                if content {
                    out.extend_from_slice(value);
                }
            }
            types::Op::Delete { key } => {
                out.push(DELETE);
                put_varint(out, u64::from(keyspace));
                self.key(out, key);
            }
            types::Op::DeleteRange { start, end } => {
                out.push(if end.is_some() {
                    DELETE_RANGE
                } else {
                    DELETE_FROM
                });
                put_varint(out, u64::from(keyspace));
                self.key(out, start);
                if let Some(end) = end {
                    self.key(out, end);
                }
            }
        }
    }

    pub(super) fn lookup(&self, out: &mut Vec<u8>, key: &[u8], value_len_bytes: Option<usize>) {
        match value_len_bytes {
            Some(len) => {
                out.push(FOUND);
                self.key(out, key);
                put_varint(out, len as u64);
            }
            None => {
                out.push(ABSENT);
                self.key(out, key);
            }
        }
    }
}

/// What stands in front of the events of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeading {
    pub(super) lane: u16,
    /// Blocks of the lane before this one, dropped ones included.
    pub(super) number: u64,
    /// Events of the lane that were lost since the block before.
    pub(super) dropped: u64,
    /// Time of the first event.
    pub(super) base_us: u64,
    pub(super) events: u64,
}

impl BlockHeading {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(FRAME_EVENTS);
        for field in [
            u64::from(self.lane),
            self.number,
            self.dropped,
            self.base_us,
            self.events,
        ] {
            put_varint(out, field);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            lane: u16::try_from(reader.varint()?).map_err(|_| Malformed)?,
            number: reader.varint()?,
            dropped: reader.varint()?,
            base_us: reader.varint()?,
            events: reader.varint()?,
        })
    }
}

pub(super) fn encode_keyspace(
    out: &mut Vec<u8>,
    id: u32,
    engine: EngineKind,
    entries: u64,
    disk_bytes: u64,
    name: &str,
) {
    out.push(FRAME_KEYSPACE);
    put_varint(out, u64::from(id));
    out.push(u8::from(engine == EngineKind::BTree));
    put_varint(out, entries);
    put_varint(out, disk_bytes);
    put_bytes(out, name.as_bytes());
}

/// A keyspace as declared: number, engine, entries, bytes on disk, name.
pub(super) fn decode_keyspace(
    reader: &mut Reader<'_>,
) -> Result<(u32, EngineKind, u64, u64, String), Malformed> {
    let id = decode_id(reader)?;
    let engine = match reader.u8()? {
        0 => EngineKind::Lsm,
        1 => EngineKind::BTree,
        _ => return Err(Malformed),
    };
    let (entries, disk_bytes) = (reader.varint()?, reader.varint()?);
    let name = reader.bytes()?;
    if name.len() > MAX_KEYSPACE_NAME_LEN_BYTES {
        return Err(Malformed);
    }
    let name = std::str::from_utf8(name).map_err(|_| Malformed)?;
    Ok((id, engine, entries, disk_bytes, name.to_owned()))
}

fn decode_id(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(reader.varint()?).map_err(|_| Malformed)
}

/// Decodes the events of an uncompressed block, the byte of its kind included.
#[derive(Debug)]
pub(super) struct BlockReader<'a> {
    /// Shared with the keys and values that are cut from it.
    block: &'a Bytes,
    reader: Reader<'a>,
    keys: KeyMode,
    pub(super) heading: BlockHeading,
    time_us: u64,
    left: u64,
}

impl<'a> BlockReader<'a> {
    pub(super) fn new(block: &'a Bytes, keys: KeyMode) -> Result<Self, Malformed> {
        let mut reader = Reader::new(block);
        if reader.u8()? != FRAME_EVENTS {
            return Err(Malformed);
        }
        let heading = BlockHeading::decode(&mut reader)?;
        Ok(Self {
            block,
            reader,
            keys,
            heading,
            time_us: heading.base_us,
            left: heading.events,
        })
    }

    /// The next event; `None` at the end of the block.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Malformed> {
        if self.left == 0 {
            return if self.reader.is_empty() {
                Ok(None)
            } else {
                Err(Malformed)
            };
        }
        self.left -= 1;
        let tag = self.reader.u8()?;
        let delta_us = self.reader.varint()?;
        self.time_us = self.time_us.checked_add(delta_us).ok_or(Malformed)?;
        Ok(Some(Event {
            time_us: self.time_us,
            lane: self.heading.lane,
            op: self.op(tag)?,
        }))
    }

    fn op(&mut self, tag: u8) -> Result<Op, Malformed> {
        let flag = |bit: u8| tag & bit != 0;
        let snapshot = flag(OF_SNAPSHOT);
        Ok(match tag & 0x0F {
            GET => {
                let keyspace = decode_id(&mut self.reader)?;
                let key = self.key()?;
                if flag(KEY_ONLY) {
                    let hit = flag(HIT);
                    Op::Contains {
                        keyspace,
                        key,
                        hit,
                        snapshot,
                    }
                } else {
                    let value_len_bytes = match flag(HIT) {
                        true => Some(self.reader.varint()?),
                        false => None,
                    };
                    let lookup = Lookup {
                        key,
                        value_len_bytes,
                    };
                    Op::Get {
                        keyspace,
                        lookup,
                        snapshot,
                    }
                }
            }
            MULTI_GET => {
                let keyspace = decode_id(&mut self.reader)?;
                let mut lookups = Vec::new();
                let continued = loop {
                    let found = match self.reader.u8()? {
                        LIST_END => break false,
                        LIST_CONTINUED => break true,
                        FOUND => true,
                        ABSENT => false,
                        _ => return Err(Malformed),
                    };
                    let key = self.key()?;
                    let value_len_bytes = match found {
                        true => Some(self.reader.varint()?),
                        false => None,
                    };
                    lookups.push(Lookup {
                        key,
                        value_len_bytes,
                    });
                };
                Op::MultiGet {
                    keyspace,
                    lookups,
                    snapshot,
                    continued,
                }
            }
            WRITE => {
                let durability = match flag(DURABLE) {
                    true => Durability::Sync,
                    false => Durability::Buffered,
                };
                let mut changes = Vec::new();
                let batch = flag(BATCH);
                let continued = loop {
                    match self.reader.u8()? {
                        LIST_END if batch => break false,
                        LIST_CONTINUED if batch => break true,
                        kind => changes.push(self.change(kind)?),
                    }
                    if !batch {
                        break false;
                    }
                };
                Op::Write {
                    durability,
                    changes,
                    batch,
                    continued,
                }
            }
            SCAN => Op::Scan {
                keyspace: decode_id(&mut self.reader)?,
                start: self.key()?,
                end: match flag(HAS_END) {
                    true => Some(self.key()?),
                    false => None,
                },
                forward: self.reader.varint()?,
                backward: self.reader.varint()?,
                bytes: self.reader.varint()?,
                seeks: self.reader.varint()?,
                open_us: self.reader.varint()?,
                snapshot,
            },
            kind @ (SNAPSHOT | FLUSH | COMPACT) => {
                let keyspace = match flag(ONE_KEYSPACE) {
                    true => Some(decode_id(&mut self.reader)?),
                    false => None,
                };
                match kind {
                    SNAPSHOT => Op::Snapshot { keyspace },
                    FLUSH => Op::Flush { keyspace },
                    _ => Op::Compact { keyspace },
                }
            }
            SYNC => Op::Sync,
            _ => return Err(Malformed),
        })
    }

    fn change(&mut self, kind: u8) -> Result<Change, Malformed> {
        let keyspace = decode_id(&mut self.reader)?;
        let key = self.key()?;
        Ok(match kind {
            PUT | PUT_CONTENT => {
                let value_len_bytes = self.reader.varint()?;
                let value = match kind {
                    PUT_CONTENT => Some(self.bytes(value_len_bytes)?.into()),
                    _ => None,
                };
                Change::Put {
                    keyspace,
                    key,
                    value_len_bytes,
                    value,
                }
            }
            DELETE => Change::Delete { keyspace, key },
            DELETE_RANGE | DELETE_FROM => Change::DeleteRange {
                keyspace,
                start: key,
                end: match kind {
                    DELETE_RANGE => Some(self.key()?),
                    _ => None,
                },
            },
            _ => return Err(Malformed),
        })
    }

    fn key(&mut self) -> Result<Key, Malformed> {
        match self.keys {
            KeyMode::Contents => {
                let len = self.reader.len(MAX_BOUND_LEN_BYTES)?;
                Ok(Key::Contents(self.bytes(len as u64)?.into()))
            }
            KeyMode::Hashed => Ok(Key::Hashed {
                hash: self.reader.u64()?,
                len_bytes: self.reader.len(MAX_BOUND_LEN_BYTES)? as u32,
            }),
        }
    }

    /// The next `len` bytes, shared with the block.
    fn bytes(&mut self, len: u64) -> Result<Bytes, Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let at = self.reader.position();
        self.reader.take(len)?;
        Ok(self.block.slice(at..at + len))
    }
}
