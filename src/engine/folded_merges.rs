//! Merges as puts, for an engine that keeps no operands.
//!
//! Operators are the user's code, and the values that they are given may have to be read. So this
//! comes before an engine takes a lock: nothing else is applied meanwhile (E1).

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::Result;
use crate::resolve::Resolver;
use crate::types::{Op, SequencedOp, Value};

/// What the merges of a commit come to: one value for each key, since all of the commit becomes
/// visible at once.
#[derive(Debug)]
pub(crate) struct FoldedMerges<'a> {
    /// By key: the place of the last merge, whose put has the value.
    values: BTreeMap<&'a [u8], (usize, Vec<u8>)>,
}

/// The merges into one key that nothing has overwritten so far.
#[derive(Debug)]
struct Merges<'a> {
    base: Base<'a>,
    operands: Vec<&'a [u8]>,
    last: usize,
}

/// What is merged into.
#[derive(Debug)]
enum Base<'a> {
    /// What the engine has.
    Applied,
    /// What the commit itself has put, or nothing after a delete.
    Own(Option<&'a [u8]>),
}

impl<'a> FoldedMerges<'a> {
    /// Folds the merges among `ops`, in their order. `lookup` finds what the engine has, as it is
    /// stored.
    pub(crate) fn of(
        ops: &[SequencedOp<'a>],
        resolver: &Resolver,
        mut lookup: impl FnMut(&[u8]) -> Result<Option<Value>>,
    ) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (key, merges) in merges_of(ops) {
            if merges.operands.is_empty() {
                continue;
            }
            let applied;
            let base = match merges.base {
                Base::Applied => {
                    applied = lookup(key)?;
                    applied.as_deref()
                }
                Base::Own(value) => value,
            };
            let value = resolver.fold(key, base, &merges.operands);
            values.insert(key, (merges.last, value));
        }
        Ok(Self { values })
    }

    /// `ops`, of which these are the merges, with puts in the place of the last merge into each
    /// key and without the others.
    pub(crate) fn in_place<'s>(&'s self, ops: &[SequencedOp<'s>]) -> Vec<SequencedOp<'s>> {
        let folded = |(at, op): (usize, &SequencedOp<'s>)| match op.op {
            Op::Merge { key, .. } => {
                let (last, value) = self.values.get(key)?;
                let put = SequencedOp::new(op.seq, Op::Put { key, value });
                (*last == at).then_some(put)
            }
            _ => Some(*op),
        };
        ops.iter().enumerate().filter_map(folded).collect()
    }
}

/// `ops`, or what is to be applied in their place, as `folded` says.
pub(crate) fn with_folded<'s>(
    ops: &'s [SequencedOp<'s>],
    folded: Option<&'s FoldedMerges<'_>>,
) -> Cow<'s, [SequencedOp<'s>]> {
    folded.map_or(Cow::Borrowed(ops), |folded| {
        Cow::Owned(folded.in_place(ops))
    })
}

/// The keys that `ops` merge into, and what is to be folded for each.
fn merges_of<'a>(ops: &[SequencedOp<'a>]) -> BTreeMap<&'a [u8], Merges<'a>> {
    let merged = ops.iter().filter_map(|op| match op.op {
        Op::Merge { key, .. } => Some(key),
        _ => None,
    });
    let nothing = || Merges {
        base: Base::Applied,
        operands: Vec::new(),
        last: 0,
    };
    let mut all: BTreeMap<_, _> = merged.map(|key| (key, nothing())).collect();
    for (at, op) in ops.iter().enumerate() {
        match op.op {
            Op::Merge { key, operand } => {
                if let Some(merges) = all.get_mut(key) {
                    merges.operands.push(operand);
                    merges.last = at;
                }
            }
            Op::Put { key, value } => {
                if let Some(merges) = all.get_mut(key) {
                    merges.start_over(Some(value));
                }
            }
            Op::Delete { key } => {
                if let Some(merges) = all.get_mut(key) {
                    merges.start_over(None);
                }
            }
            Op::DeleteRange { start, end } => {
                for (key, merges) in all.range_mut(start..) {
                    if end.is_some_and(|end| *key >= end) {
                        break;
                    }
                    merges.start_over(None);
                }
            }
        }
    }
    all
}

impl<'a> Merges<'a> {
    fn start_over(&mut self, value: Option<&'a [u8]>) {
        self.base = Base::Own(value);
        self.operands.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::str::from_utf8;
    use std::sync::Arc;

    use super::*;
    use crate::resolve::Append;
    use crate::types::SeqNo;

    /// What is applied in the place of `ops`, as text, to an engine that has "0" under every key;
    /// and the keys that were looked up.
    fn applied(ops: &[Op<'_>]) -> (String, String) {
        let ops: Vec<_> = (1..)
            .zip(ops)
            .map(|(seq, op)| SequencedOp::new(SeqNo(seq), *op))
            .collect();
        let resolver = Resolver::new(Some(Arc::new(Append)), None, false, 0, Arc::default());
        let mut looked_up = String::new();
        let folded = FoldedMerges::of(&ops, &resolver, |key| {
            looked_up.push_str(from_utf8(key).unwrap());
            Ok(Some(Value::copy_from(b"0")))
        });
        let folded = folded.unwrap();
        let text = |bytes| from_utf8(bytes).unwrap();
        let ops = with_folded(&ops, Some(&folded));
        let lines = ops.iter().map(|op| match op.op {
            Op::Put { key, value } => format!("{} {}={}", op.seq.0, text(key), text(value)),
            Op::Delete { key } => format!("{} -{}", op.seq.0, text(key)),
            Op::DeleteRange { start, .. } => format!("{} -{}..", op.seq.0, text(start)),
            Op::Merge { .. } => String::from("a merge is left"),
        });
        (lines.collect::<Vec<_>>().join(", "), looked_up)
    }

    fn put<'a>(key: &'a str, value: &'a str) -> Op<'a> {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        Op::Put { key, value }
    }

    fn merge<'a>(key: &'a str, operand: &'a str) -> Op<'a> {
        let (key, operand) = (key.as_bytes(), operand.as_bytes());
        Op::Merge { key, operand }
    }

    fn delete(key: &str) -> Op<'_> {
        let key = key.as_bytes();
        Op::Delete { key }
    }

    fn delete_range<'a>(start: &'a str, end: Option<&'a str>) -> Op<'a> {
        let (start, end) = (start.as_bytes(), end.map(str::as_bytes));
        Op::DeleteRange { start, end }
    }

    #[test]
    fn the_last_merge_into_a_key_is_what_all_come_to() {
        let ops = [
            merge("b", "1"),
            merge("a", "2"),
            put("c", "3"),
            merge("b", "4"),
        ];
        let expected = ("2 a=02, 3 c=3, 4 b=014".into(), "ab".into());
        assert_eq!(applied(&ops), expected);
    }

    #[test]
    fn merges_go_into_what_the_commit_itself_has_done() {
        let of_one_key = [merge("a", "1"), put("a", "2"), merge("a", "3")];
        assert_eq!(
            applied(&of_one_key),
            ("2 a=2, 3 a=23".into(), String::new())
        );
        let deleted = [merge("a", "1"), delete("a"), merge("a", "2"), delete("a")];
        assert_eq!(applied(&deleted), ("2 -a, 4 -a".into(), String::new()));
        let begun_anew = [delete("a"), merge("a", "1"), merge("a", "2")];
        assert_eq!(applied(&begun_anew), ("1 -a, 3 a=12".into(), String::new()));
    }

    #[test]
    fn range_deletes_hide_what_was_merged_before_within_their_bounds() {
        let some = ["a", "b", "c", "d"].map(|key| merge(key, "1"));
        let within = [&some[..], &[delete_range("b", Some("d"))], &some].concat();
        let expected = "5 -b.., 6 a=011, 7 b=1, 8 c=1, 9 d=011";
        assert_eq!(applied(&within), (expected.into(), "ad".into()));
        let to_the_end = [&some[..], &[delete_range("c", None), merge("d", "2")]].concat();
        let expected = "1 a=01, 2 b=01, 5 -c.., 6 d=2";
        assert_eq!(applied(&to_the_end), (expected.into(), "ab".into()));
        let empty = [merge("b", "1"), delete_range("c", Some("a"))];
        assert_eq!(applied(&empty), ("1 b=01, 2 -c..".into(), "b".into()));
    }
}
