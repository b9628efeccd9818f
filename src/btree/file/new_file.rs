//! The page file of a new tree: there is none before the first checkpoint.
//!
//! A keyspace that nothing was written to takes no file, and making a thousand of them costs no
//! thousand syncs. Until then reads see what the file will begin with, an empty tree. The file gets
//! its name when that is in it, durably: a page file that is there is whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::meta::{META_UNITS, Meta};
use crate::btree::node;
use crate::btree::node::{Link, leaf};
use crate::engine::{EngineContext, Keep};
use crate::error::{Error, Result};
use crate::format::checksum::{checksum, seed_of};
use crate::fs::{File, Fs, replace_file};
use crate::types::{KeyspaceId, PageId, SeqNo};

/// Name of the page file in the keyspace's directory.
pub(crate) const FILE_NAME: &str = "tree.hdb";
/// Its name while its beginning is written.
pub(crate) const TEMPORARY_NAME: &str = "tree.hdb.tmp";

/// The generation of a file as it is made: every checkpoint has a higher one.
pub(crate) const FIRST_GENERATION: u64 = 1;

/// A page file that is not there before the first checkpoint makes it.
#[derive(Debug)]
pub(crate) struct NewFile {
    fs: Arc<dyn Fs>,
    keep: Arc<dyn Keep>,
    dir: PathBuf,
    path: PathBuf,
    store_id: u64,
    keyspace: KeyspaceId,
    page_size: usize,
    is_made: AtomicBool,
}

impl NewFile {
    /// The file of a keyspace that has none.
    pub(crate) fn new(context: &EngineContext) -> Self {
        Self {
            fs: Arc::clone(&context.fs),
            keep: Arc::clone(&context.keep),
            path: context.dir.join(FILE_NAME),
            dir: context.dir.clone(),
            store_id: context.store_id,
            keyspace: context.keyspace,
            page_size: context.options.page_size_bytes as usize,
            is_made: AtomicBool::new(false),
        }
    }

    /// True once there is a file of that name.
    #[inline]
    pub(crate) fn is_made(&self) -> bool {
        self.is_made.load(Ordering::Acquire)
    }

    /// The meta pages and an empty leaf.
    fn beginning(&self) -> Vec<u8> {
        let page = PageId(META_UNITS);
        let unit = node::unit_size(self.page_size);
        let mut image = leaf::new(b"", None, self.page_size);
        node::set_page_id(&mut image, page);
        let store_seed = seed_of(&[self.store_id, u64::from(self.keyspace.0)]);
        node::write_checksum(&mut image, seed_of(&[store_seed, page.0]));
        let meta = Meta {
            page_size: self.page_size as u32,
            unit: unit as u32,
            generation: FIRST_GENERATION,
            root: Link::to(&image),
            height: 1,
            persisted_seq: SeqNo::ZERO,
            file_units: META_UNITS + (image.len() / unit) as u64,
            freelist: PageId(0),
            freelist_bytes: 0,
            freelist_checksum: checksum(seed_of(&[store_seed, 0]), &[]),
            entries: 0,
            overflow_units: 0,
            value_table: PageId(0),
            value_files: 0,
            value_table_checksum: 0,
            adds_up: true,
        };
        let encoded = meta.encode(self.store_id, self.keyspace);
        let mut bytes = vec![0; META_UNITS as usize * unit];
        for page in bytes.chunks_mut(unit) {
            page[..encoded.len()].copy_from_slice(&encoded);
        }
        bytes.extend_from_slice(&image);
        bytes
    }

    /// Makes the file, durably. Belongs to the thread that holds the checkpoint lock.
    pub(crate) fn make(&self) -> Result<()> {
        self.keep.make_dir()?;
        replace_file(&*self.fs, &self.dir, FILE_NAME, &self.beginning())?;
        self.is_made.store(true, Ordering::Release);
        Ok(())
    }

    fn not_made<T>(&self, op: &'static str) -> Result<T> {
        let error = std::io::Error::other("the page file is written to before it is made");
        Err(Error::io(op, &self.path, error))
    }
}

/// What the file begins with.
impl File for NewFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.beginning().len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let bytes = self.beginning();
        let wanted = usize::try_from(offset)
            .ok()
            .and_then(|start| bytes.get(start..start.checked_add(buf.len())?));
        match wanted {
            Some(wanted) => {
                buf.copy_from_slice(wanted);
                Ok(())
            }
            None => Err(Error::io(
                "read",
                &self.path,
                std::io::ErrorKind::UnexpectedEof.into(),
            )),
        }
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> Result<()> {
        self.not_made("write")
    }

    fn set_len(&self, _: u64) -> Result<()> {
        self.not_made("set the length of")
    }

    fn sync_data(&self) -> Result<()> {
        // Nothing was written.
        Ok(())
    }
}
