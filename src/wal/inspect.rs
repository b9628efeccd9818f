//! What the files of a log say of themselves.

use std::path::Path;

use super::cut::Head;
use super::segment::{
    ActivationState, HEADER_LEN_BYTES, Name, parse_name, record_at, segment_seed,
};
use crate::error::Result;
use crate::fs::{File, Fs, OpenMode, read_all};
use crate::types::SeqNo;

/// A file of the log.
#[derive(Debug)]
pub(crate) struct SegmentFacts {
    pub(crate) name: String,
    pub(crate) len_bytes: u64,
    pub(crate) state: SegmentState,
}

/// What a file of the log is used for.
#[derive(Debug)]
pub(crate) enum SegmentState {
    /// In the making, or waiting to be used again.
    Spare,
    /// Made in advance, and never used.
    Prepared,
    /// Holds records, from `first` on.
    Used {
        first: SeqNo,
        /// Everything up to here was durable when the segment was begun.
        synced: SeqNo,
        /// What was read of them, if that was asked for.
        records: Option<Records>,
    },
    /// Cannot be read, and why.
    Damaged(String),
}

/// Records of a segment, from its beginning up to where nothing intact follows.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) count: u64,
    /// The last operation; the one before the first, if there is no record.
    pub(crate) last: SeqNo,
    /// Where they end in the file.
    pub(crate) end_bytes: u64,
}

/// The files of the log of store `store_id` in `dir`, by name; their records, too, if
/// `with_records`. Reads nothing but the files, so it works beside a writer: a file that goes away
/// meanwhile is left out.
pub(crate) fn segments_in(
    fs: &dyn Fs,
    dir: &Path,
    store_id: u64,
    with_records: bool,
) -> Result<Vec<SegmentFacts>> {
    if !fs.exists(dir)? {
        return Ok(Vec::new());
    }
    let mut names = fs.read_dir(dir)?;
    names.sort();
    let mut segments = Vec::new();
    for name in names {
        let Some(kind) = parse_name(&name) else {
            continue;
        };
        let file = match fs.open(&dir.join(&name), OpenMode::Read) {
            Err(error) if error.is_not_found() => continue,
            opened => opened?,
        };
        let len_bytes = file.len()?;
        let state = match kind {
            Name::Temporary(_) => SegmentState::Spare,
            // Not a file of the log any more.
            Name::Values(_) => continue,
            Name::Segment(number) => match read_state(&*file, store_id, number, with_records) {
                Ok(state) => state,
                Err(error) if error.is_corruption() => SegmentState::Damaged(error.to_string()),
                Err(error) => return Err(error),
            },
        };
        segments.push(SegmentFacts {
            name,
            len_bytes,
            state,
        });
    }
    Ok(segments)
}

fn read_state(
    file: &dyn File,
    store_id: u64,
    number: u64,
    with_records: bool,
) -> Result<SegmentState> {
    let Head {
        state, len_bytes, ..
    } = Head::read(file, store_id, number)?;
    let activation = match state {
        ActivationState::Blank => return Ok(SegmentState::Prepared),
        ActivationState::Torn => return Ok(SegmentState::Damaged("torn activation".into())),
        ActivationState::Active(activation) => activation,
    };
    let records = if with_records {
        let bytes = read_all(file, len_bytes)?;
        Some(count_records(
            &bytes,
            segment_seed(store_id, number),
            activation.first,
        ))
    } else {
        None
    };
    Ok(SegmentState::Used {
        first: activation.first,
        synced: activation.synced,
        records,
    })
}

fn count_records(bytes: &[u8], seed: u64, first: SeqNo) -> Records {
    let mut next = first;
    let mut end = HEADER_LEN_BYTES;
    let mut count = 0;
    while let Some(record) = record_at(bytes, end, seed)
        && record.first == next
    {
        next = record.last.next();
        end = record.next_at;
        count += 1;
    }
    Records {
        count,
        last: next.prev(),
        end_bytes: end as u64,
    }
}
