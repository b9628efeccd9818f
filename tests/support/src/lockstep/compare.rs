//! Comparisons of a store with its model, and the stories that they end with.

use hedgerow::Scan;

use super::edit::key;
use super::op::Move;

/// How a run ends early: what differed.
pub type Outcome<T = ()> = Result<T, String>;

/// An error of the store, as the reason why a run ends.
pub(super) fn failed<T>(what: &str, result: hedgerow::Result<T>) -> Outcome<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

pub(super) fn agree<T: PartialEq + std::fmt::Debug>(
    what: impl FnOnce() -> String,
    found: &T,
    expected: &T,
) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let mut found = format!("{found:?}");
    let mut expected = format!("{expected:?}");
    for text in [&mut found, &mut expected] {
        if text.len() > 2000 {
            *text = format!(
                "{} ... ({} bytes)",
                String::from_utf8_lossy(&text.as_bytes()[..2000]),
                text.len()
            );
        }
    }
    Err(format!(
        "{}\n  found    {found}\n  expected {expected}",
        what()
    ))
}

/// Moves two scans alike and compares what they yield.
pub(super) fn walk_together(mut found: Scan, mut expected: Scan, moves: &[Move]) -> Outcome {
    for step in moves {
        match *step {
            Move::Front(count) => {
                for _ in 0..count {
                    let item = failed("scan", found.next().transpose())?;
                    let wanted = failed("scan of the model", expected.next().transpose())?;
                    agree(|| "next of a scan".into(), &item, &wanted)?;
                    if wanted.is_none() {
                        break;
                    }
                }
            }
            Move::Back(count) => {
                for _ in 0..count {
                    let item = failed("scan", found.next_back().transpose())?;
                    let wanted = failed("scan of the model", expected.next_back().transpose())?;
                    agree(|| "next_back of a scan".into(), &item, &wanted)?;
                    if wanted.is_none() {
                        break;
                    }
                }
            }
            Move::Keys(count) => {
                for _ in 0..count {
                    let item = failed("scan", found.next_key())?;
                    let wanted = failed("scan of the model", expected.next_key())?;
                    agree(|| "next_key of a scan".into(), &item, &wanted)?;
                    if wanted.is_none() {
                        break;
                    }
                }
            }
            Move::BackKeys(count) => {
                for _ in 0..count {
                    let item = failed("scan", found.next_back_key())?;
                    let wanted = failed("scan of the model", expected.next_back_key())?;
                    agree(|| "next_back_key of a scan".into(), &item, &wanted)?;
                    if wanted.is_none() {
                        break;
                    }
                }
            }
            Move::Seek(number) => {
                found.seek(key(number));
                expected.seek(key(number));
            }
            Move::SeekBack(number) => {
                found.seek_back(key(number));
                expected.seek_back(key(number));
            }
        }
    }
    Ok(())
}
