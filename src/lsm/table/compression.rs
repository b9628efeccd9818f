//! The uncompressed form of a stored block.

use std::sync::Arc;

use super::block::{Damage, MAX_PACKED_LEN_BYTES};
use super::footer::{FRAME_LEN_BYTES, Frame, tag};
use crate::cache::CachedBlock;
use crate::format::coding::get_u32;

/// The uncompressed form of a stored block whose checksum was verified: a frame's length of
/// bytes without meaning, then the body.
pub(crate) fn unpack(frame: Frame, stored: &[u8]) -> Result<CachedBlock, Damage> {
    let payload = &stored[FRAME_LEN_BYTES..];
    match frame.tag {
        _ if frame.parameter != 0 => Err("the block has an unknown parameter"),
        tag::PLAIN => Ok(CachedBlock::from(stored)),
        tag::LZ4 => decompress(payload),
        _ => Err("the block has an unknown encoding"),
    }
}

/// Decompresses the bytes after the frame of a compressed block.
pub(crate) fn decompress(payload: &[u8]) -> Result<CachedBlock, Damage> {
    let Some((length, compressed)) = payload.split_first_chunk::<4>() else {
        return Err("the compressed block is too short");
    };
    let body_len = get_u32(length, 0) as usize;
    // A byte of LZ4 adds at most 255 bytes of output, so a larger length is a lie, and is not
    // trusted with an allocation.
    if body_len > MAX_PACKED_LEN_BYTES || body_len / 255 > compressed.len() {
        return Err("the compressed block states an impossible length");
    }
    let mut block: CachedBlock = std::iter::repeat_n(0, FRAME_LEN_BYTES + body_len).collect();
    let bytes = Arc::get_mut(&mut block).expect("the new block is not shared");
    match lz4_flex::block::decompress_into(compressed, &mut bytes[FRAME_LEN_BYTES..]) {
        Ok(len) if len == body_len => Ok(block),
        _ => Err("the compressed block does not decompress"),
    }
}
