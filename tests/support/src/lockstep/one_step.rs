//! Reading, deciding and writing back in one step.

use hedgerow::{Kv, SeqNo, Value};

use super::edit::{Filling, KEYS, KeyNumber, key};
use crate::random::Source;

/// Something that reads and writes in one step.
#[derive(Debug, Clone, Copy)]
pub enum OneStep {
    /// `update`: the first bytes of the value and something new, or nothing.
    Update(KeyNumber, Option<Filling>),
    /// `compare_and_swap`, with the value that the key has or with another one.
    Swap(KeyNumber, bool, Option<Filling>),
    /// `put_if_absent`.
    PutIfAbsent(KeyNumber, Filling),
    /// `remove`.
    Remove(KeyNumber),
    /// `pop_first`.
    PopFirst,
    /// `pop_last`.
    PopLast,
}

/// What it gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The value before and after.
    Changed(Option<Value>, Option<Value>),
    /// The value, if it was not the one that was expected.
    Swapped(Result<(), Option<Value>>),
    Removed(Option<Value>),
    Popped(Option<(Value, Value)>),
}

impl OneStep {
    pub(super) fn draw(source: &mut impl Source) -> Self {
        let number = source.below(KEYS) as KeyNumber;
        let filling = Filling::draw(source);
        let perhaps = (!source.one_in(4)).then_some(filling);
        match source.weighted(&[6, 6, 4, 3, 1, 1]) {
            0 => Self::Update(number, perhaps),
            1 => Self::Swap(number, !source.one_in(4), perhaps),
            2 => Self::PutIfAbsent(number, filling),
            3 => Self::Remove(number),
            4 => Self::PopFirst,
            _ => Self::PopLast,
        }
    }

    /// Does it to a store whose key has the value `current`. Returns the number of the commit where
    /// the call tells it.
    pub(super) fn perform(
        self,
        kv: &impl Kv,
        current: Option<&[u8]>,
    ) -> hedgerow::Result<(Answer, Option<SeqNo>)> {
        let swapped = |swapped: Result<SeqNo, hedgerow::Mismatch>| match swapped {
            Ok(seq) => (Answer::Swapped(Ok(())), Some(seq)),
            Err(mismatch) => (Answer::Swapped(Err(mismatch.current)), None),
        };
        Ok(match self {
            Self::Update(number, filling) => {
                let update = kv.update(key(number), |old| {
                    let first = |old: &[u8]| old[..old.len().min(20)].to_vec();
                    let mut new = old.map_or_else(Vec::new, first);
                    new.extend(filling?.bytes());
                    Some(new)
                })?;
                (Answer::Changed(update.old, update.new), Some(update.seq))
            }
            Self::Swap(number, fits, filling) => {
                let other = Some(b"never written".as_slice());
                let expected = if fits { current } else { other };
                let new = filling.map(Filling::bytes);
                swapped(kv.compare_and_swap(key(number), expected, new)?)
            }
            Self::PutIfAbsent(number, filling) => {
                swapped(kv.put_if_absent(key(number), filling.bytes())?)
            }
            Self::Remove(number) => (Answer::Removed(kv.remove(key(number))?), None),
            Self::PopFirst => (Answer::Popped(kv.pop_first()?), None),
            Self::PopLast => (Answer::Popped(kv.pop_last()?), None),
        })
    }

    /// The key that it is about, in a store that has these ends.
    pub(super) fn key(self, kv: &impl Kv) -> hedgerow::Result<Option<Vec<u8>>> {
        let of = |entry: Option<(Value, Value)>| entry.map(|(key, _)| key.to_vec());
        Ok(match self {
            Self::Update(number, _)
            | Self::Swap(number, ..)
            | Self::PutIfAbsent(number, _)
            | Self::Remove(number) => Some(key(number)),
            Self::PopFirst => of(kv.first()?),
            Self::PopLast => of(kv.last()?),
        })
    }
}
