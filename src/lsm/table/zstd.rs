//! zstd, in a build that has it.
//!
//! A block is one frame of zstd that states the length of its content. Without the feature `zstd`
//! nothing asks for packing, since options that do are refused, and no table with such blocks is
//! opened; a block that turns up nevertheless is damage.

#[cfg(feature = "zstd")]
mod built {
    use std::cell::RefCell;

    use zstd_safe::{CCtx, CParameter, DCtx};

    use super::super::block::Damage;

    thread_local! {
        /// What decompression works in, 100 KB: a new one for each block would cost more than the
        /// block.
        static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    }

    /// Compresses one body after the other.
    pub(crate) struct Packer(CCtx<'static>);

    impl Packer {
        /// `None` if memory is lacking: blocks are compressed with LZ4 then.
        pub(crate) fn new(level: u8) -> Option<Self> {
            let mut context = CCtx::try_create()?;
            let level = CParameter::CompressionLevel(level.into());
            context.set_parameter(level).ok()?;
            Some(Self(context))
        }

        /// Compresses `body` into `output`, which has room for [`bound`] bytes; returns how many
        /// it took.
        pub(crate) fn pack(&mut self, body: &[u8], output: &mut [u8]) -> Option<usize> {
            self.0.compress2(output, body).ok()
        }
    }

    /// Bytes that a body may take, compressed.
    pub(crate) fn bound(body_len: usize) -> usize {
        zstd_safe::compress_bound(body_len)
    }

    /// Checks what can be known of `compressed` before there is memory for its content, which
    /// should be `body_len` bytes.
    pub(crate) fn check(compressed: &[u8], body_len: usize) -> Result<(), Damage> {
        match zstd_safe::get_frame_content_size(compressed) {
            Ok(Some(len)) if len == body_len as u64 => Ok(()),
            _ => Err("the compressed block and its zstd frame state different lengths"),
        }
    }

    /// Decompresses into `body`; returns how many bytes there were.
    pub(crate) fn unpack(compressed: &[u8], body: &mut [u8]) -> Option<usize> {
        CONTEXT.with_borrow_mut(|context| {
            if context.is_none() {
                *context = DCtx::try_create();
            }
            context.as_mut()?.decompress(body, compressed).ok()
        })
    }
}

#[cfg(not(feature = "zstd"))]
mod built {
    use super::super::block::Damage;

    /// There is none.
    pub(crate) enum Packer {}

    impl Packer {
        pub(crate) fn new(_level: u8) -> Option<Self> {
            None
        }

        pub(crate) fn pack(&mut self, _body: &[u8], _output: &mut [u8]) -> Option<usize> {
            match *self {}
        }
    }

    pub(crate) fn bound(_body_len: usize) -> usize {
        0
    }

    pub(crate) fn check(_compressed: &[u8], _body_len: usize) -> Result<(), Damage> {
        Err("the block is compressed with zstd, and this build has not the Cargo feature `zstd`")
    }

    pub(crate) fn unpack(_compressed: &[u8], _body: &mut [u8]) -> Option<usize> {
        None
    }
}

pub(super) use built::{Packer, bound, check, unpack};
