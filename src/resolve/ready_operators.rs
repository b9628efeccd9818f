//! Merge operators that need not be registered.

use std::sync::Arc;

use super::merge_operator::MergeOperator;
use crate::format::coding::{Reader, put_bytes};

/// Operators that every store has.
pub(crate) static READY: [fn() -> Arc<dyn MergeOperator>; 4] = [
    || Arc::new(AddI64),
    || Arc::new(Append),
    || Arc::new(MaxBytes),
    || Arc::new(SetUnion),
];

/// A sum of 64-bit integers: `"add-i64"`. Associative.
///
/// Values and operands are 8 bytes, little-endian, in two's complement; others are refused. An
/// absent value is 0, and a sum wraps around at its ends.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::{AddI64, EngineKind, KeyspaceOptions, MergeOperator};
///
/// let options = KeyspaceOptions::new(EngineKind::Lsm).merge_operator(AddI64.name());
/// let visits = db.keyspace_with("visits", options)?;
/// visits.merge("ada", 2i64.to_le_bytes())?;
/// visits.merge("ada", (-5i64).to_le_bytes())?;
/// assert_eq!(AddI64::decode(&visits.get("ada")?.unwrap()), -3);
/// assert!(visits.merge("ada", "many").is_err());
/// assert!(visits.put("ada", "many").is_err());
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddI64;

impl AddI64 {
    /// The number of a value; 0 of one that has not 8 bytes.
    pub fn decode(value: &[u8]) -> i64 {
        value.try_into().map_or(0, i64::from_le_bytes)
    }

    fn check(bytes: &[u8]) -> Result<(), String> {
        match bytes.len() {
            8 => Ok(()),
            len => Err(format!("an integer of add-i64 has 8 bytes, not {len}")),
        }
    }
}

impl MergeOperator for AddI64 {
    fn name(&self) -> &str {
        "add-i64"
    }

    fn merge(&self, _key: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
        let all = value.into_iter().chain(operands.iter().copied());
        let sum = all.map(Self::decode).fold(0, i64::wrapping_add);
        sum.to_le_bytes().to_vec()
    }

    fn combine(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        Some(self.merge(key, None, operands))
    }

    fn check_operand(&self, _key: &[u8], operand: &[u8]) -> Result<(), String> {
        Self::check(operand)
    }

    fn check_value(&self, _key: &[u8], value: &[u8]) -> Result<(), String> {
        Self::check(value)
    }
}

/// The value with the operands behind it: `"append"`. Associative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Append;

impl MergeOperator for Append {
    fn name(&self) -> &str {
        "append"
    }

    fn merge(&self, _key: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
        let all = value.into_iter().chain(operands.iter().copied());
        all.flatten().copied().collect()
    }

    fn combine(&self, _key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        Some(operands.concat())
    }
}

/// The highest of the value and the operands, compared as byte strings: `"max-bytes"`. Associative.
///
/// Big-endian integers of one length are compared as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaxBytes;

impl MergeOperator for MaxBytes {
    fn name(&self) -> &str {
        "max-bytes"
    }

    fn merge(&self, _key: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
        let all = value.into_iter().chain(operands.iter().copied());
        all.max().unwrap_or_default().to_vec()
    }

    fn combine(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        Some(self.merge(key, None, operands))
    }
}

/// The union of sets of byte strings: `"set-union"`. Associative.
///
/// Values and operands are what [`SetUnion::encode`] makes; others are refused.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow::{EngineKind, KeyspaceOptions, SetUnion};
///
/// let options = KeyspaceOptions::new(EngineKind::BTree).merge_operator("set-union");
/// let tags = db.keyspace_with("tags", options)?;
/// tags.merge("elm", SetUnion::encode(["tree", "wood"]))?;
/// tags.merge("elm", SetUnion::encode(["green", "tree"]))?;
/// let stored = tags.get("elm")?.unwrap();
/// assert_eq!(SetUnion::decode(&stored).unwrap(), [b"green".as_slice(), b"tree", b"wood"]);
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetUnion;

impl SetUnion {
    /// A set: its elements in rising order, each behind its length, a LEB128 varint.
    pub fn encode<T: AsRef<[u8]>>(elements: impl IntoIterator<Item = T>) -> Vec<u8> {
        let elements: Vec<T> = elements.into_iter().collect();
        Self::encode_sorted(elements.iter().map(AsRef::as_ref).collect())
    }

    fn encode_sorted(mut elements: Vec<&[u8]>) -> Vec<u8> {
        elements.sort_unstable();
        elements.dedup();
        let mut out = Vec::with_capacity(elements.iter().map(|it| it.len() + 1).sum());
        for element in elements {
            put_bytes(&mut out, element);
        }
        out
    }

    /// The elements of a set, in rising order; `None` if the bytes are not one.
    pub fn decode(set: &[u8]) -> Option<Vec<&[u8]>> {
        let mut reader = Reader::new(set);
        let mut elements: Vec<&[u8]> = Vec::new();
        while !reader.is_empty() {
            let element = reader.bytes().ok()?;
            if elements.last().is_some_and(|last| *last >= element) {
                return None;
            }
            elements.push(element);
        }
        Some(elements)
    }

    fn check(set: &[u8]) -> Result<(), String> {
        match Self::decode(set) {
            Some(_) => Ok(()),
            None => Err("the bytes are not a set as set-union encodes them".to_owned()),
        }
    }
}

impl MergeOperator for SetUnion {
    fn name(&self) -> &str {
        "set-union"
    }

    fn merge(&self, _key: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
        let all = value.into_iter().chain(operands.iter().copied());
        Self::encode_sorted(all.filter_map(Self::decode).flatten().collect())
    }

    fn combine(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        Some(self.merge(key, None, operands))
    }

    fn check_operand(&self, _key: &[u8], operand: &[u8]) -> Result<(), String> {
        Self::check(operand)
    }

    fn check_value(&self, _key: &[u8], value: &[u8]) -> Result<(), String> {
        Self::check(value)
    }
}
