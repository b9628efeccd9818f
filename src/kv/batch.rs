//! Batches: operations that become visible and durable together.
//!
//! A batch is encoded as it is filled, in the form that the log stores
//! (docs/format.md, "Batch"), so committing copies nothing:
//!
//! ```text
//! payload := group*
//! group   := 0x00 keyspace:varint  op*
//! op      := 0x01 key_len:varint value_len:varint key value     put
//!          | 0x02 key_len:varint key                            delete
//!          | 0x03 start_len:varint end_len:varint start end     delete [start, end)
//!          | 0x04 start_len:varint start                        delete [start, ..)
//!          | 0x05 key_len:varint operand_len:varint key operand merge
//! ```
//!
//! A [`Batch`] holds the operations of one group, without its heading, which is put in front
//! when the batch is committed. Beside them it has when puts expire. Where values expire, they are
//! logged with a stamp ([`crate::resolve`]): the batch is written anew before it is committed.

use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::format::coding::{MAX_VARINT_LEN_BYTES, Malformed, Reader, encode_varint, put_varint};
use crate::resolve::to_unix_ms;
use crate::types::{
    KeyBounds, KeyRange, KeyspaceId, MAX_BATCH_LEN_BYTES, MAX_KEY_LEN_BYTES, MAX_VALUE_LEN_BYTES,
    Op, SeqNo,
};

/// Tag of a group heading.
const TAG_KEYSPACE: u8 = 0;
/// Tag of a put.
const TAG_PUT: u8 = 1;
/// Tag of a delete.
const TAG_DELETE: u8 = 2;
/// Tag of a range delete with an end.
const TAG_DELETE_RANGE: u8 = 3;
/// Tag of a range delete without an end.
const TAG_DELETE_FROM: u8 = 4;
/// Tag of a merge.
const TAG_MERGE: u8 = 5;

/// An operand is stored with what it goes over, and with its stamp.
const MAX_OPERAND_LEN_BYTES: usize = MAX_VALUE_LEN_BYTES - 64;
/// A bound can be one byte longer than a key: see [`KeyRange`].
const MAX_BOUND_LEN_BYTES: usize = MAX_KEY_LEN_BYTES + 1;

/// Operations on one keyspace that are committed together.
///
/// Later operations win over earlier ones. A batch may be committed to any
/// [`Kv`](crate::Kv); for one commit over several keyspaces, of either engine, see
/// [`WriteBatch`](crate::WriteBatch).
///
/// Limits (key, value and batch length) are checked as operations are added and
/// reported when the batch is written; nothing is written then.
///
/// ```
/// use hedgerow::{Batch, Durability, Kv, KvRead, Model};
/// let kv = Model::new();
/// let mut batch = Batch::new();
/// batch.put(b"ada", b"1815");
/// batch.delete(b"bob");
/// batch.delete_range("x"..);
/// kv.write_with(batch, Durability::Sync)?;
/// assert!(kv.contains_key(b"ada")?);
///
/// let mut large = Batch::with_capacity(64 << 10);
/// large.put(b"bob", b"1970");
/// assert_eq!((large.len(), large.is_empty()), (1, false));
/// assert!(large.len_bytes() >= b"bob1970".len());
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ops: u64,
    violation: Option<Error>,
    stamps: Stamps,
    has_merges: bool,
    /// Puts that say when they expire: which operation, rising, and when.
    expiries: Vec<(u64, Expiry)>,
}

/// When a put expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// So many milliseconds after it is committed.
    After(u64),
    /// Milliseconds since 1970.
    At(u64),
}

impl Expiry {
    pub(crate) fn after(ttl: Duration) -> Self {
        Self::After(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn at(time: SystemTime) -> Self {
        Self::At(to_unix_ms(time))
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `bytes` encoded bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push(&Op::Put {
            key: key.as_ref(),
            value: value.as_ref(),
        });
    }

    /// Sets the key that consists of `prefix`, the number of the commit and `suffix` to `value`.
    ///
    /// The number is the one that the commit returns, in eight bytes, big-endian: so keys with the
    /// same prefix are in the order of their commits, and a reader that has seen one of them will
    /// never find a new one before it. It is put in when the commit gets its place in the order, so
    /// that appending to a log of events needs no counter that every writer would have to read.
    /// All that a commit writes has the same number; `suffix` tells its keys apart.
    ///
    /// ```
    /// use hedgerow::{Batch, Kv, Model};
    /// let kv = Model::new();
    /// let mut batch = Batch::new();
    /// batch.put_versionstamped_key("event/", "", "it rains");
    /// batch.put_versionstamped_value("last event", "", "");
    /// let seq = kv.write(batch)?;
    /// let key = [b"event/", &seq.0.to_be_bytes()[..]].concat();
    /// assert_eq!(kv.get(key)?.unwrap(), "it rains");
    /// assert_eq!(kv.get("last event")?.unwrap(), seq.0.to_be_bytes());
    /// # Ok::<(), hedgerow::Error>(())
    /// ```
    pub fn put_versionstamped_key(
        &mut self,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) {
        let (prefix, value) = (prefix.as_ref(), value.as_ref());
        let key = with_gap(prefix, suffix.as_ref());
        if self.push_put(&key, value) {
            let key_at = self.bytes.len() - value.len() - key.len();
            self.stamps.places.push(key_at + prefix.len());
            self.stamps.in_keys = true;
        }
    }

    /// Sets `key` to the value that consists of `prefix`, the number of the commit and `suffix`:
    /// see [`Batch::put_versionstamped_key`].
    pub fn put_versionstamped_value(
        &mut self,
        key: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
    ) {
        let prefix = prefix.as_ref();
        let value = with_gap(prefix, suffix.as_ref());
        if self.push_put(key.as_ref(), &value) {
            let value_at = self.bytes.len() - value.len();
            self.stamps.places.push(value_at + prefix.len());
        }
    }

    /// Removes `key`, which may be absent.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.push(&Op::Delete { key: key.as_ref() });
    }

    /// Sets `key` to `value`, which expires `ttl` after the commit. See
    /// [`Kv::put_with_ttl`](crate::Kv::put_with_ttl).
    pub fn put_with_ttl(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl: Duration) {
        self.put_expiring(key.as_ref(), value.as_ref(), Expiry::after(ttl));
    }

    /// Sets `key` to `value`, which expires at `time`. See
    /// [`Kv::put_until`](crate::Kv::put_until).
    pub fn put_until(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, time: SystemTime) {
        self.put_expiring(key.as_ref(), value.as_ref(), Expiry::at(time));
    }

    /// Merges `operand` into the value of `key`. See [`Kv::merge`](crate::Kv::merge).
    pub fn merge(&mut self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) {
        self.push(&Op::Merge {
            key: key.as_ref(),
            operand: operand.as_ref(),
        });
    }

    pub(crate) fn put_expiring(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        self.expiries.push((self.ops, expiry));
        self.push(&Op::Put { key, value });
    }

    /// Removes every key in `bounds`. Empty or inverted bounds remove nothing.
    pub fn delete_range(&mut self, bounds: impl KeyBounds) {
        let range = KeyRange::new(&bounds);
        if !range.is_empty() {
            self.push(&Op::DeleteRange {
                start: &range.start,
                end: range.end.as_deref(),
            });
        }
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.ops as usize
    }

    /// True if there are no operations.
    pub fn is_empty(&self) -> bool {
        self.ops == 0
    }

    /// Encoded length, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all operations, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ops = 0;
        self.violation = None;
        self.stamps = Stamps::default();
        self.has_merges = false;
        self.expiries.clear();
    }

    /// Puts the number of the commit where it belongs. Again with another number, if that becomes
    /// known later.
    pub(crate) fn stamp(&mut self, commit: SeqNo) {
        for at in &self.stamps.places {
            self.bytes[*at..*at + STAMP_LEN_BYTES].copy_from_slice(&commit.0.to_be_bytes());
        }
    }

    /// Where the number of the commit belongs in the encoding, rising.
    pub(crate) fn stamps(&self) -> &[usize] {
        &self.stamps.places
    }

    /// True if a key is not known before the number of the commit is.
    pub(crate) fn has_stamped_keys(&self) -> bool {
        self.stamps.in_keys
    }

    /// Adds the operations of another batch, which keeps to the limits, as this one does with them.
    pub(crate) fn append(&mut self, other: &Self) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ops += other.ops;
        let places = other.stamps.places.iter().map(|at| base + at);
        self.stamps.places.extend(places);
        self.stamps.in_keys |= other.stamps.in_keys;
        let base = self.ops - other.ops;
        let expiries = other.expiries.iter();
        self.expiries
            .extend(expiries.map(|(number, expiry)| (base + number, *expiry)));
        self.has_merges |= other.has_merges;
    }

    /// Adds `op`, which stands for the put `of` that is encoded up to `end` of `other`, with the
    /// number of the commit where that has it.
    pub(crate) fn push_for(&mut self, op: &Op<'_>, other: &Self, (of, end): (&Op<'_>, usize)) {
        let before = self.ops;
        self.push(op);
        if self.ops == before || other.stamps.places.is_empty() {
            return;
        }
        let (key, value) = op_payload(op);
        let (_, old_value) = op_payload(of);
        let (value_at, old_value_at) = (self.bytes.len() - value.len(), end - old_value.len());
        let (key_at, old_key_at) = (value_at - key.len(), old_value_at - key.len());
        let places = &other.stamps.places;
        let first = places.partition_point(|at| *at < old_key_at);
        for at in places[first..].iter().take_while(|at| **at < end) {
            let is_in_key = *at < old_value_at;
            self.stamps.in_keys |= is_in_key;
            self.stamps.places.push(match is_in_key {
                true => key_at + (at - old_key_at),
                false => value_at + (at - old_value_at),
            });
        }
    }

    /// Takes what was added after the batch had `len_bytes` and `len` operations.
    pub(crate) fn truncate(&mut self, len_bytes: usize, len: usize) {
        self.bytes.truncate(len_bytes);
        self.ops = len as u64;
        let kept = self.stamps.places.partition_point(|at| *at < len_bytes);
        self.stamps.places.truncate(kept);
        self.stamps.in_keys &= !self.stamps.places.is_empty();
        let before = |(number, _): &(u64, _)| *number < len as u64;
        self.expiries
            .truncate(self.expiries.partition_point(before));
    }

    /// Adds a put; true if it keeps to the limits.
    fn push_put(&mut self, key: &[u8], value: &[u8]) -> bool {
        let before = self.ops;
        self.push(&Op::Put { key, value });
        self.ops > before
    }

    pub(crate) fn push(&mut self, op: &Op<'_>) {
        if self.violation.is_some() {
            return;
        }
        if let Err(violation) = check_op(op).and_then(|()| check_batch_len(self.bytes.len(), op)) {
            self.violation = Some(violation);
            return;
        }
        encode_op(&mut self.bytes, op);
        self.ops += 1;
        self.has_merges |= matches!(op, Op::Merge { .. });
    }

    /// The first limit that an operation exceeded, if any.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.violation {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// True if there is a merge among the operations.
    pub(crate) fn has_merges(&self) -> bool {
        self.has_merges
    }

    /// The puts that say when they expire: which operation, rising, and when.
    pub(crate) fn expiries(&self) -> &[(u64, Expiry)] {
        &self.expiries
    }

    /// The encoded operations, without a group heading.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// The operation that begins at `at` in the encoding.
    pub(crate) fn op_at(&self, at: usize) -> Op<'_> {
        let mut reader = Reader::new(&self.bytes[at..]);
        decode_next(&mut reader)
    }

    /// The operations in the order they were added.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Op<'_>> {
        self.iter_with_ends().map(|(op, _)| op)
    }

    /// The operations in the order they were added, and where each ends in the encoding. A value is
    /// the last part of its operation.
    pub(crate) fn iter_with_ends(&self) -> impl Iterator<Item = (Op<'_>, usize)> {
        let mut reader = Reader::new(&self.bytes);
        std::iter::from_fn(move || {
            (!reader.is_empty()).then(|| (decode_next(&mut reader), reader.position()))
        })
    }
}

/// What the number of a commit takes in a key or a value.
pub(crate) const STAMP_LEN_BYTES: usize = size_of::<u64>();

/// Where the number of the commit belongs in the encoding of a batch.
#[derive(Debug, Clone, Default)]
struct Stamps {
    /// Rising.
    places: Vec<usize>,
    /// Some of them are in keys.
    in_keys: bool,
}

/// `prefix` and `suffix`, with room for the number of a commit between them.
fn with_gap(prefix: &[u8], suffix: &[u8]) -> Vec<u8> {
    [prefix, &[0; STAMP_LEN_BYTES], suffix].concat()
}

/// The next operation of a batch.
fn decode_next<'a>(reader: &mut Reader<'a>) -> Op<'a> {
    let tag = reader.u8().expect("encoded by push");
    decode_op(reader, tag).expect("encoded by push")
}

/// Refuses operations beyond the limits of keys and values.
pub(crate) fn check_op(op: &Op<'_>) -> Result<()> {
    let check_key = |key: &[u8]| {
        if key.len() > MAX_KEY_LEN_BYTES {
            return Err(Error::invalid(format!(
                "a key of {} bytes is longer than {MAX_KEY_LEN_BYTES}",
                key.len()
            )));
        }
        Ok(())
    };
    let check_bound = |bound: &[u8]| {
        if bound.len() > MAX_BOUND_LEN_BYTES {
            return Err(Error::invalid(format!(
                "a range bound of {} bytes is longer than {MAX_KEY_LEN_BYTES}",
                bound.len()
            )));
        }
        Ok(())
    };
    match op {
        Op::Put { key, value } => {
            check_key(key)?;
            if value.len() > MAX_VALUE_LEN_BYTES {
                return Err(Error::invalid(format!(
                    "a value of {} bytes is longer than {MAX_VALUE_LEN_BYTES}",
                    value.len()
                )));
            }
            Ok(())
        }
        Op::Delete { key } => check_key(key),
        Op::Merge { key, operand } => {
            check_key(key)?;
            if operand.len() > MAX_OPERAND_LEN_BYTES {
                return Err(Error::invalid(format!(
                    "an operand of {} bytes is longer than {MAX_OPERAND_LEN_BYTES}",
                    operand.len()
                )));
            }
            Ok(())
        }
        Op::DeleteRange { start, end } => {
            check_bound(start)?;
            end.map_or(Ok(()), check_bound)
        }
    }
}

/// Refuses an operation that would make the batch too long.
pub(crate) fn check_batch_len(len: usize, op: &Op<'_>) -> Result<()> {
    let op_len = match op {
        Op::Put { key, value } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
        Op::Merge { key, operand } => key.len() + operand.len(),
        Op::DeleteRange { start, end } => start.len() + end.map_or(0, <[u8]>::len),
    };
    // 32 bytes cover a group heading, the tag and two lengths.
    if len + op_len + 32 > MAX_BATCH_LEN_BYTES {
        return Err(Error::invalid(format!(
            "a batch is longer than {MAX_BATCH_LEN_BYTES} bytes"
        )));
    }
    Ok(())
}

/// Appends a group heading. Commits write it in parts of their own, and are compared with this.
#[cfg(any(test, feature = "internals"))]
pub(crate) fn encode_keyspace(out: &mut Vec<u8>, keyspace: KeyspaceId) {
    out.push(TAG_KEYSPACE);
    put_varint(out, u64::from(keyspace.0));
}

/// Appends an operation.
pub(crate) fn encode_op(out: &mut Vec<u8>, op: &Op<'_>) {
    match op {
        Op::Put { key, value } => {
            out.push(TAG_PUT);
            put_varint(out, key.len() as u64);
            put_varint(out, value.len() as u64);
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        Op::Delete { key } => {
            out.push(TAG_DELETE);
            put_varint(out, key.len() as u64);
            out.extend_from_slice(key);
        }
        Op::Merge { key, operand } => {
            out.push(TAG_MERGE);
            put_varint(out, key.len() as u64);
            put_varint(out, operand.len() as u64);
            out.extend_from_slice(key);
            out.extend_from_slice(operand);
        }
        Op::DeleteRange {
            start,
            end: Some(end),
        } => {
            out.push(TAG_DELETE_RANGE);
            put_varint(out, start.len() as u64);
            put_varint(out, end.len() as u64);
            out.extend_from_slice(start);
            out.extend_from_slice(end);
        }
        Op::DeleteRange { start, end: None } => {
            out.push(TAG_DELETE_FROM);
            put_varint(out, start.len() as u64);
            out.extend_from_slice(start);
        }
    }
}

/// The encoded bytes before an operation's key, on the stack.
pub(crate) struct OpHeading {
    bytes: [u8; 1 + 5 + 1 + 2 * MAX_VARINT_LEN_BYTES],
    len: usize,
}

impl OpHeading {
    /// The heading of a group.
    pub(crate) fn group(keyspace: KeyspaceId) -> Self {
        let mut heading = Self {
            bytes: [0; _],
            len: 0,
        };
        heading.byte(TAG_KEYSPACE);
        heading.varint(u64::from(keyspace.0));
        heading
    }

    /// The heading of a group and of its one operation: with the two slices of [`op_payload`]
    /// behind it, the payload that [`Batch`] would have made.
    pub(crate) fn new(keyspace: KeyspaceId, op: &Op<'_>) -> Self {
        let mut heading = Self::group(keyspace);
        heading.byte(match op {
            Op::Put { .. } => TAG_PUT,
            Op::Delete { .. } => TAG_DELETE,
            Op::Merge { .. } => TAG_MERGE,
            Op::DeleteRange { end: Some(_), .. } => TAG_DELETE_RANGE,
            Op::DeleteRange { end: None, .. } => TAG_DELETE_FROM,
        });
        let (a, b) = op_payload(op);
        heading.varint(a.len() as u64);
        let has_two = matches!(
            op,
            Op::Put { .. } | Op::Merge { .. } | Op::DeleteRange { end: Some(_), .. }
        );
        if has_two {
            heading.varint(b.len() as u64);
        }
        heading
    }

    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn varint(&mut self, value: u64) {
        let mut encoded = [0; MAX_VARINT_LEN_BYTES];
        let len = encode_varint(&mut encoded, value);
        self.bytes[self.len..self.len + len].copy_from_slice(&encoded[..len]);
        self.len += len;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The byte strings of an operation, in the order of its encoding.
pub(crate) fn op_payload<'a>(op: &Op<'a>) -> (&'a [u8], &'a [u8]) {
    match *op {
        Op::Put { key, value } => (key, value),
        Op::Delete { key } => (key, &[]),
        Op::Merge { key, operand } => (key, operand),
        Op::DeleteRange { start, end } => (start, end.unwrap_or(&[])),
    }
}

/// Decodes the operation that `tag` begins.
fn decode_op<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<Op<'a>, Malformed> {
    match tag {
        TAG_PUT => {
            let key_len = reader.len(MAX_KEY_LEN_BYTES)?;
            let value_len = reader.len(MAX_VALUE_LEN_BYTES)?;
            Ok(Op::Put {
                key: reader.take(key_len)?,
                value: reader.take(value_len)?,
            })
        }
        TAG_MERGE => {
            let key_len = reader.len(MAX_KEY_LEN_BYTES)?;
            let operand_len = reader.len(MAX_VALUE_LEN_BYTES)?;
            Ok(Op::Merge {
                key: reader.take(key_len)?,
                operand: reader.take(operand_len)?,
            })
        }
        TAG_DELETE => {
            let key_len = reader.len(MAX_KEY_LEN_BYTES)?;
            Ok(Op::Delete {
                key: reader.take(key_len)?,
            })
        }
        TAG_DELETE_RANGE => {
            let start_len = reader.len(MAX_BOUND_LEN_BYTES)?;
            let end_len = reader.len(MAX_BOUND_LEN_BYTES)?;
            Ok(Op::DeleteRange {
                start: reader.take(start_len)?,
                end: Some(reader.take(end_len)?),
            })
        }
        TAG_DELETE_FROM => {
            let start_len = reader.len(MAX_BOUND_LEN_BYTES)?;
            Ok(Op::DeleteRange {
                start: reader.take(start_len)?,
                end: None,
            })
        }
        _ => Err(Malformed),
    }
}

/// Decodes a log payload: every operation with its keyspace, in order, and where it ends. A value
/// is the last part of its operation.
///
/// `Err` holds the byte offset within the payload at which it is malformed.
pub(crate) fn decode_payload<'a>(
    payload: &'a [u8],
    mut visit: impl FnMut(KeyspaceId, Op<'a>, usize) -> Result<()>,
) -> Result<Result<(), usize>> {
    let mut reader = Reader::new(payload);
    let mut keyspace = None;
    while !reader.is_empty() {
        let at = reader.position();
        let Ok(tag) = reader.u8() else {
            return Ok(Err(at));
        };
        if tag == TAG_KEYSPACE {
            match reader.varint().ok().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => keyspace = Some(KeyspaceId(id)),
                None => return Ok(Err(at)),
            }
        } else {
            match (keyspace, decode_op(&mut reader, tag)) {
                (Some(keyspace), Ok(op)) => visit(keyspace, op, reader.position())?,
                _ => return Ok(Err(at)),
            }
        }
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_commit_is_put_where_it_belongs() {
        let mut batch = Batch::new();
        batch.put("k", "v");
        batch.put_versionstamped_key("a", "z", "value");
        let (len_bytes, len) = (batch.len_bytes(), batch.len());
        assert!(batch.has_stamped_keys());
        batch.put_versionstamped_value("b", "<", ">");
        batch.put_versionstamped_key(vec![0; MAX_KEY_LEN_BYTES], "", "");
        assert!(batch.check().is_err());
        batch.violation = None;
        assert_eq!((batch.len(), batch.stamps().len()), (3, 2));
        let puts = |batch: &mut Batch, number: u64| {
            batch.stamp(SeqNo(number));
            let put = |op: Op<'_>| match op {
                Op::Put { key, value } => (key.to_vec(), value.to_vec()),
                other => panic!("{other:?} was not put"),
            };
            batch.iter().map(put).collect::<Vec<_>>()
        };
        let between = |a: &[u8], number: u64, b: &[u8]| [a, &number.to_be_bytes(), b].concat();
        let expected = |number| {
            [
                (b"k".to_vec(), b"v".to_vec()),
                (between(b"a", number, b"z"), b"value".to_vec()),
                (b"b".to_vec(), between(b"<", number, b">")),
            ]
        };
        assert_eq!(puts(&mut batch, 7), expected(7));
        assert_eq!(puts(&mut batch, u64::MAX - 1), expected(u64::MAX - 1));

        let mut both = Batch::new();
        both.put_versionstamped_value("first", "", "");
        both.append(&batch);
        let found = puts(&mut both, 300);
        assert_eq!(found[0], (b"first".to_vec(), between(b"", 300, b"")));
        assert_eq!(found[1..], expected(300));
        batch.truncate(len_bytes, len);
        assert_eq!(puts(&mut batch, 8), expected(8)[..2]);
        batch.truncate(0, 0);
        assert!(batch.is_empty() && !batch.has_stamped_keys());
        both.clear();
        assert!(both.stamps().is_empty() && !both.has_stamped_keys());
    }

    #[test]
    fn payloads_round_trip() {
        let mut batch = Batch::new();
        batch.put(b"", b"");
        batch.put(b"key", vec![7; 300]);
        batch.delete(b"gone");
        batch.delete_range("a".."b");
        batch.delete_range("z"..);
        batch.delete_range("b".."a");
        batch.merge(b"sum", b"one more");
        assert_eq!(batch.len(), 6);

        let mut payload = Vec::new();
        encode_keyspace(&mut payload, KeyspaceId(300));
        payload.extend_from_slice(batch.encoded());
        let mut seen = Vec::new();
        decode_payload(&payload, |keyspace, op, _| {
            assert_eq!(keyspace, KeyspaceId(300));
            seen.push(op);
            Ok(())
        })
        .unwrap()
        .unwrap();
        assert_eq!(seen, batch.iter().collect::<Vec<_>>());

        for cut in 0..payload.len() {
            let mut ops = 0;
            let _ = decode_payload(&payload[..cut], |_, _, _| {
                ops += 1;
                Ok(())
            });
            assert!(ops < 6);
        }
    }

    #[test]
    fn limits_are_kept_and_reported() {
        let mut batch = Batch::new();
        batch.put(vec![0; MAX_KEY_LEN_BYTES], b"");
        assert!(batch.check().is_ok());
        batch.put(vec![0; MAX_KEY_LEN_BYTES + 1], b"");
        assert!(batch.check().is_err());
        batch.clear();
        assert!(batch.check().is_ok());
        batch.delete_range(..=vec![0xFF; MAX_KEY_LEN_BYTES]);
        assert!(batch.check().is_ok());
    }

    #[test]
    fn one_operation_is_encoded_like_a_batch_of_one() {
        let ops = [
            Op::Put {
                key: b"key",
                value: &[7; 200],
            },
            Op::Put {
                key: b"",
                value: b"",
            },
            Op::Delete { key: b"key" },
            Op::Merge {
                key: b"key",
                operand: &[7; 200],
            },
            Op::DeleteRange {
                start: b"a",
                end: Some(b"b"),
            },
            Op::DeleteRange {
                start: b"a",
                end: None,
            },
        ];
        for op in ops {
            let mut expected = Vec::new();
            encode_keyspace(&mut expected, KeyspaceId(70_000));
            encode_op(&mut expected, &op);
            let (a, b) = op_payload(&op);
            let heading = OpHeading::new(KeyspaceId(70_000), &op);
            assert_eq!([heading.as_bytes(), a, b].concat(), expected);
        }
    }
}
