//! The stored form of a block's body, and back.
//!
//! A compressed block is the length of its body and what the compressor made of it. Whatever the
//! compressor: the body is at most [`MAX_RATIO`] times as long, so that a reader can refuse a
//! length that the bytes present do not make plausible (LT7) before it takes memory for it.

use std::sync::Arc;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::block::{Damage, MAX_PACKED_LEN_BYTES};
use super::footer::{FRAME_LEN_BYTES, Frame, tag};
use super::zstd;
use crate::cache::CachedBlock;
use crate::format::coding::get_u32;
use crate::options::Compression;
use crate::util::mutants::mutated;

/// A byte of LZ4 adds at most so many bytes of output. zstd knows no such bound, so what it makes
/// even shorter is compressed with LZ4 instead.
const MAX_RATIO: usize = 255;

/// Compresses the bodies of a table's blocks.
pub(crate) struct Packer {
    compression: Compression,
    lz4: CompressTable,
    zstd: Option<zstd::Packer>,
}

impl Packer {
    /// Compresses with `compression`, which is available.
    pub(crate) fn new(compression: Compression) -> Self {
        Self {
            compression,
            lz4: CompressTable::default(),
            zstd: match compression {
                Compression::Zstd { level } => zstd::Packer::new(level),
                Compression::None | Compression::Lz4 => None,
            },
        }
    }

    /// Appends `body` to `out`, compressed if that saves an eighth: less would not be worth the
    /// time of decompressing it. Returns the frame's tag.
    pub(crate) fn pack(&mut self, body: &[u8], out: &mut Vec<u8>) -> u8 {
        if self.compression != Compression::None && body.len() <= MAX_PACKED_LEN_BYTES {
            for tag in [tag::ZSTD, tag::LZ4] {
                if self.pack_with(tag, body, out) {
                    return tag;
                }
            }
        }
        out.extend_from_slice(body);
        tag::PLAIN
    }

    /// Appends `body` in the form of `tag`, if that is worth it.
    fn pack_with(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> bool {
        let at = out.len();
        let bound = match (tag, &self.zstd) {
            (tag::ZSTD, Some(_)) => zstd::bound(body.len()),
            (tag::ZSTD, None) => return false,
            _ => get_maximum_output_size(body.len()),
        };
        out.resize(at + 4 + bound, 0);
        let (length, output) = out[at..].split_at_mut(4);
        length.copy_from_slice(&(body.len() as u32).to_le_bytes());
        let packed = match (tag, &mut self.zstd) {
            (tag::ZSTD, Some(zstd)) => zstd.pack(body, output),
            _ => compress_into_with_table(body, output, &mut self.lz4).ok(),
        };
        let is_worth = |len: usize| {
            4 + len <= body.len() - body.len() / 8
                && (body.len() / MAX_RATIO <= len || mutated!("block-shorter-than-readers-accept"))
        };
        match packed.filter(|len| is_worth(*len)) {
            Some(len) => {
                out.truncate(at + 4 + len);
                true
            }
            None => {
                out.truncate(at);
                false
            }
        }
    }
}

/// The uncompressed form of a stored block whose checksum was verified: a frame's length of
/// bytes without meaning, then the body.
pub(crate) fn unpack(frame: Frame, stored: &[u8]) -> Result<CachedBlock, Damage> {
    match frame.tag {
        _ if frame.parameter != 0 => Err("the block has an unknown parameter"),
        tag::PLAIN => Ok(CachedBlock::from(stored)),
        tag => decompress(tag, &stored[FRAME_LEN_BYTES..]),
    }
}

/// Decompresses the bytes after the frame of a compressed block.
pub(crate) fn decompress(tag: u8, payload: &[u8]) -> Result<CachedBlock, Damage> {
    if tag != tag::LZ4 && tag != tag::ZSTD {
        return Err("the block has an unknown encoding");
    }
    let Some((length, compressed)) = payload.split_first_chunk::<4>() else {
        return Err("the compressed block is too short");
    };
    let body_len = get_u32(length, 0) as usize;
    // A larger length is a lie, and is not trusted with an allocation.
    if body_len > MAX_PACKED_LEN_BYTES || body_len / MAX_RATIO > compressed.len() {
        return Err("the compressed block states an impossible length");
    }
    if tag == tag::ZSTD {
        zstd::check(compressed, body_len)?;
    }
    let mut block: CachedBlock = std::iter::repeat_n(0, FRAME_LEN_BYTES + body_len).collect();
    let bytes = Arc::get_mut(&mut block).expect("the new block is not shared");
    let body = &mut bytes[FRAME_LEN_BYTES..];
    let unpacked = match tag {
        tag::ZSTD => zstd::unpack(compressed, body),
        _ => lz4_flex::block::decompress_into(compressed, body).ok(),
    };
    match unpacked {
        Some(len) if len == body_len => Ok(block),
        _ => Err("the compressed block does not decompress"),
    }
}
