//! The freelist: the free runs of a file as each checkpoint stores them, all of them.
//!
//! A run is its length and how many units lie between it and the one before, as varints. So a hole
//! takes two to four bytes, where first unit and length took sixteen: where free space is in very
//! many pieces, that is much of what a checkpoint writes. A length of zero ends the list, and zeros
//! fill it up.

use crate::btree::file::freespace::Run;
use crate::format::coding::{MAX_VARINT_LEN_BYTES, Malformed, Reader, put_varint, varint_len};

/// By how many bytes a list may grow when one run becomes shorter, or goes: the distance to the
/// next one that begins then takes a longer varint.
pub(crate) const GROWTH_BYTES: usize = MAX_VARINT_LEN_BYTES - 1;

/// Lengths of `runs`, which rise and do not overlap, and the distances between them.
fn steps(runs: &[Run]) -> impl Iterator<Item = (u64, u64)> {
    let mut end = 0;
    runs.iter().map(move |run| {
        let distance = run.start - end;
        end = run.start + run.len;
        (run.len, distance)
    })
}

/// The list of `runs`. None of them is empty.
pub(crate) fn encode(runs: &[Run]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_len(runs));
    for (len, distance) in steps(runs) {
        put_varint(&mut out, len);
        put_varint(&mut out, distance);
    }
    out
}

/// Bytes of what [`encode`] returns.
pub(crate) fn encoded_len(runs: &[Run]) -> usize {
    let bytes = steps(runs).map(|(len, distance)| varint_len(len) + varint_len(distance));
    bytes.sum()
}

/// Reads what [`encode`] wrote and zeros fill up. The runs rise and do not overlap.
pub(crate) fn decode(bytes: &[u8]) -> impl Iterator<Item = Result<Run, Malformed>> {
    let mut reader = Reader::new(bytes);
    let mut end = 0_u64;
    let mut next = move || {
        if reader.is_empty() {
            return Ok(None);
        }
        let len = reader.varint()?;
        if len == 0 {
            let rest = reader.take(reader.remaining())?;
            let is_filled_up = rest.iter().all(|byte| *byte == 0);
            return is_filled_up.then_some(None).ok_or(Malformed);
        }
        let start = end.checked_add(reader.varint()?).ok_or(Malformed)?;
        end = start.checked_add(len).ok_or(Malformed)?;
        Ok(Some(Run { start, len }))
    };
    let mut has_failed = false;
    std::iter::from_fn(move || {
        if has_failed {
            return None;
        }
        let run = next().transpose();
        has_failed = matches!(run, Some(Err(_)));
        run
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::checksum::mix64;

    fn run(start: u64, len: u64) -> Run {
        Run { start, len }
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<Run>, Malformed> {
        decode(bytes).collect()
    }

    #[test]
    fn golden_bytes() {
        let runs = [run(2, 1), run(300, 200), run(500, 7)];
        let bytes = encode(&runs);
        assert_eq!(bytes, [1, 2, 0xC8, 1, 0xA9, 2, 7, 0]);
        assert_eq!(decoded(&bytes), Ok(runs.to_vec()));
        assert_eq!(encoded_len(&runs), bytes.len());
        let filled_up = [&bytes[..], &[0; 5]].concat();
        assert_eq!(decoded(&filled_up), Ok(runs.to_vec()));
    }

    #[test]
    fn what_no_checkpoint_writes_is_an_error() {
        let end = encode(&[run(u64::MAX - 1, 1)]);
        assert!(decoded(&end).is_ok());
        let beyond = [
            // Something behind the end, half a varint, a run without a place.
            vec![1, 2, 0, 0, 1],
            vec![1, 0x80],
            vec![1],
            // Runs that end behind the last number.
            encode(&[run(u64::MAX - 1, 1)]).repeat(2),
            [&end[..], &[1, 1]].concat(),
        ];
        for bytes in beyond {
            assert_eq!(decoded(&bytes), Err(Malformed), "{bytes:?}");
        }
    }

    /// A checkpoint of a few puts wrote sixteen bytes for each.
    #[test]
    fn a_hole_between_leaves_takes_two_bytes() {
        let runs: Vec<Run> = (0..100_000).map(|n| run(2 + 40 * n, 1 + n % 8)).collect();
        assert_eq!(encode(&runs).len(), 2 * runs.len());
    }

    /// The extent is taken out of the runs before they are encoded.
    #[test]
    fn a_list_grows_by_little_when_a_run_becomes_shorter_or_goes() {
        for seed in 0..2000_u64 {
            let random = |n: u64, bits: u64| mix64(seed << 32 | n) >> (64 - bits);
            let mut end = 0;
            let runs: Vec<Run> = (0..6)
                .map(|n| {
                    let gap = random(3 * n, 1 + random(3 * n + 1, 5));
                    let run = run(end + gap, 1 + random(3 * n + 2, 1 + random(n, 4)));
                    end = run.start + run.len;
                    run
                })
                .collect();
            let before = encode(&runs).len();
            for at in 0..runs.len() {
                for taken in [1, runs[at].len / 2, runs[at].len] {
                    let mut left = runs.clone();
                    left[at] = run(runs[at].start + taken, runs[at].len - taken);
                    left.retain(|run| run.len > 0);
                    assert!(encode(&left).len() <= before + GROWTH_BYTES, "{runs:?}");
                }
            }
        }
    }
}
