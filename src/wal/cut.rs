//! Segments that were cut: most of what is free behind their records was given back.
//!
//! The header of a segment says how long its file was made, and one of another length is damaged.
//! One that was cut has a *cut note* behind its activation, which says how long it is since
//! (docs/format.md, "Log segment"). The note is durable before the file is cut, and a segment is
//! cut once only: so it is never written but in a file of the length that it was made with, where
//! it means nothing, and there is no moment at which a torn note does harm. A power loss leaves
//! the one length or the other.

use super::segment::{
    ALIGN_BYTES, ActivationState, CUT_NOTE_AT, CUT_NOTE_LEN_BYTES, HEADER_LEN_BYTES, Header,
    decode_header, segment_seed,
};
use crate::error::{Error, Result};
use crate::format::checksum::checksum;
use crate::format::coding::{get_u32, get_u64};
use crate::fs::File;
use crate::util::mutants::mutated;

/// So much stays free in a segment that is cut, or this part of the full length of segments if that
/// is less. The next opening goes on there, on a full disk, too.
const FREE_MAX_BYTES: u64 = 1 << 20;
const FREE_PART: u64 = 4;

/// How much of its last segment a log keeps that is not written to, where segments have
/// `full_len_bytes`.
pub(super) fn free_max_bytes(full_len_bytes: u64) -> u64 {
    let part = full_len_bytes / FREE_PART / ALIGN_BYTES as u64 * ALIGN_BYTES as u64;
    FREE_MAX_BYTES.min(part)
}

fn encode_cut_note(store_id: u64, number: u64, len_bytes: u64) -> [u8; CUT_NOTE_LEN_BYTES] {
    let mut out = [0; CUT_NOTE_LEN_BYTES];
    out[8..16].copy_from_slice(&len_bytes.to_le_bytes());
    let sum = checksum(segment_seed(store_id, number), &out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The length in a cut note, if there is one.
fn decode_cut_note(store_id: u64, number: u64, bytes: &[u8]) -> Option<u64> {
    let sum = checksum(segment_seed(store_id, number), &bytes[4..]);
    (get_u32(bytes, 0) == sum).then(|| get_u64(bytes, 8))
}

/// What the header of a segment says, and its file.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) header: Header,
    pub(super) state: ActivationState,
    /// Length of the file.
    pub(super) len_bytes: u64,
}

impl Head {
    /// Reads the header of segment `number`, or of a file that was that. An error if the file has
    /// neither the length that it was made with nor the one that it was cut to.
    pub(super) fn read(file: &dyn File, store_id: u64, number: u64) -> Result<Self> {
        let path = file.path();
        let len_bytes = file.len()?;
        if len_bytes < HEADER_LEN_BYTES as u64 {
            let what = "the segment is cut off within its header";
            return Err(Error::corruption(path, len_bytes, what));
        }
        let mut bytes = [0; HEADER_LEN_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let (header, state) = decode_header(path, store_id, &bytes)?;
        if header.number != number {
            let what = format!("the header names segment {:016x}", header.number);
            return Err(Error::corruption(path, 24, what));
        }
        let cut_to = decode_cut_note(store_id, number, &bytes[CUT_NOTE_AT..]);
        let is_cut = len_bytes < header.len_bytes
            && (cut_to == Some(len_bytes) || mutated!("any-segment-may-be-short"));
        if len_bytes != header.len_bytes && !is_cut {
            let made = header.len_bytes;
            let what = format!("the segment has {len_bytes} bytes instead of {made}");
            return Err(Error::corruption(path, len_bytes.min(made), what));
        }
        Ok(Self {
            header,
            state,
            len_bytes,
        })
    }

    /// True if the file was cut.
    pub(super) fn is_cut(&self) -> bool {
        self.len_bytes < self.header.len_bytes
    }
}

/// Writes into segment `number` that it is cut to `len_bytes`, durably; the caller does so then.
/// Returns false if it must not, because it was cut before.
pub(super) fn note_cut(
    file: &dyn File,
    store_id: u64,
    number: u64,
    len_bytes: u64,
) -> Result<bool> {
    let head = Head::read(file, store_id, number)?;
    if head.is_cut() && !mutated!("segment-cut-twice") {
        return Ok(false);
    }
    let note = encode_cut_note(store_id, number, len_bytes);
    file.write_all_at(&note, CUT_NOTE_AT as u64)?;
    mutated!(
        "segment-cut-before-its-note-is-durable",
        Ok(()),
        file.sync_data()
    )?;
    Ok(true)
}
