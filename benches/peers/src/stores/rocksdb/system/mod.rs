//! The RocksDB of the operating system, through its C interface: the functions that the crate
//! `rocksdb` calls for the same operations.

mod api;

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::{self, NonNull};

use hedgerow::{Compression, Durability};
use hedgerow_bench::{Direction, Error, Result, Target, TargetOptions};

use self::api::{Api, Batch, Db, Iter, ReadOptions, WriteOptions};
use super::{BLOOM_BITS_PER_KEY, settings, wait_for_compactions};

/// `rocksdb_lz4_compression` and `rocksdb_no_compression` of c.h.
const LZ4: i32 = 4;
const NO_COMPRESSION: i32 = 0;

/// An object that RocksDB made, and that its function destroys.
struct Owned<T> {
    object: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes over what a function has returned; `None` if it returned none.
    ///
    /// # Safety
    ///
    /// `destroy` is the function for objects like this one, and nothing else destroys it.
    unsafe fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        let object = NonNull::new(object)?;
        Some(Self { object, destroy })
    }

    fn get(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new`.
        unsafe { (self.destroy)(self.get()) }
    }
}

/// A RocksDB database with one column family.
pub struct RocksDbSystem {
    api: &'static Api,
    // Closed before the options go.
    db: Owned<Db>,
    write: Owned<WriteOptions>,
    read: Owned<ReadOptions>,
    settings: String,
}

// SAFETY: c.h and db.h promise that a database may be used by several threads at once, and that
// options are only read by the calls that take them; nothing here changes them after `open`.
unsafe impl Send for RocksDbSystem {}
// SAFETY: as above.
unsafe impl Sync for RocksDbSystem {}

impl RocksDbSystem {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path, options: &TargetOptions) -> Result<Box<dyn Target>> {
        let api = api::load()?;
        let made = || Error::store("RocksDB could not allocate");
        let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(Error::store)?;
        // SAFETY: every object is of the type that the function asks for, and alive. The table
        // options take over the filter policy and share the cache; the database copies its options.
        unsafe {
            let table = Owned::new(
                (api.block_based_options_create)(),
                api.block_based_options_destroy,
            )
            .ok_or_else(made)?;
            let cache = Owned::new(
                (api.cache_create_lru)(options.cache_bytes as usize),
                api.cache_destroy,
            )
            .ok_or_else(made)?;
            (api.block_based_options_set_block_cache)(table.get(), cache.get());
            let filter = (api.filterpolicy_create_bloom_full)(BLOOM_BITS_PER_KEY);
            (api.block_based_options_set_filter_policy)(table.get(), filter);

            let db = Owned::new((api.options_create)(), api.options_destroy).ok_or_else(made)?;
            (api.options_set_create_if_missing)(db.get(), 1);
            (api.options_set_block_based_table_factory)(db.get(), table.get());
            (api.options_set_write_buffer_size)(db.get(), options.write_buffer_bytes as usize);
            (api.options_set_max_background_jobs)(db.get(), options.background_threads as i32);
            (api.options_set_level_compaction_dynamic_level_bytes)(db.get(), 1);
            let compression = match options.compression {
                Compression::Lz4 => LZ4,
                _ => NO_COMPRESSION,
            };
            (api.options_set_compression)(db.get(), compression);

            let write = Owned::new((api.writeoptions_create)(), api.writeoptions_destroy)
                .ok_or_else(made)?;
            let sync = options.durability == Durability::Sync;
            (api.writeoptions_set_sync)(write.get(), sync.into());
            let read =
                Owned::new((api.readoptions_create)(), api.readoptions_destroy).ok_or_else(made)?;

            let opened = checked(api, |error| (api.open)(db.get(), name.as_ptr(), error))?;
            Ok(Box::new(Self {
                api,
                db: Owned::new(opened, api.close).ok_or_else(made)?,
                write,
                read,
                settings: settings(path, options),
            }))
        }
    }

    fn property(&self, name: &str) -> Result<u64> {
        let name = CString::new(name).map_err(Error::store)?;
        let mut value = 0;
        // SAFETY: the database is open, and the call writes nothing but the value. Where it fails,
        // the database has no such property, which counts as nothing to do.
        unsafe { (self.api.property_int)(self.db.get(), name.as_ptr(), &mut value) };
        Ok(value)
    }
}

/// Calls a function that reports its error through a pointer, and takes the error.
fn checked<T>(api: &Api, call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T> {
    let mut error = ptr::null_mut();
    let result = call(&mut error);
    if error.is_null() {
        return Ok(result);
    }
    // SAFETY: RocksDB has set it to a text that ends with a zero byte and is ours to free.
    let text = unsafe { CStr::from_ptr(error) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: as above; the text has been copied.
    unsafe { (api.free)(error.cast()) };
    Err(Error::store(text))
}

/// The bytes behind a pointer and a length that a function of RocksDB returned.
///
/// # Safety
///
/// `pointer` is null, or `len` bytes behind it stay unchanged for `'a`.
unsafe fn bytes<'a>(pointer: *const c_char, len: usize) -> &'a [u8] {
    if pointer.is_null() {
        return &[];
    }
    // SAFETY: by the contract of this function.
    unsafe { std::slice::from_raw_parts(pointer.cast(), len) }
}

fn text(bytes: &[u8]) -> *const c_char {
    bytes.as_ptr().cast()
}

impl Target for RocksDbSystem {
    fn name(&self) -> &str {
        "rocksdb-system"
    }

    fn settings(&self) -> String {
        self.settings.clone()
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let (db, options) = (self.db.get(), self.write.get());
        // SAFETY: the call reads key and value, and keeps neither.
        checked(self.api, |error| unsafe {
            (self.api.put)(
                db,
                options,
                text(key),
                key.len(),
                text(value),
                value.len(),
                error,
            );
        })
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        // SAFETY: each entry is copied into the batch, which lives until the end of the function.
        let batch: Owned<Batch> = unsafe {
            let batch = (self.api.writebatch_create)();
            Owned::new(batch, self.api.writebatch_destroy)
                .ok_or_else(|| Error::store("RocksDB could not allocate"))?
        };
        for (key, value) in entries {
            // SAFETY: as above.
            unsafe {
                (self.api.writebatch_put)(
                    batch.get(),
                    text(key),
                    key.len(),
                    text(value),
                    value.len(),
                );
            }
        }
        // SAFETY: database, options and batch are alive.
        checked(self.api, |error| unsafe {
            (self.api.write)(self.db.get(), self.write.get(), batch.get(), error);
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        // SAFETY: the call reads the key and does not keep it.
        checked(self.api, |error| unsafe {
            (self.api.delete)(self.db.get(), self.write.get(), text(key), key.len(), error);
        })
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let (db, options) = (self.db.get(), self.read.get());
        // SAFETY: the call reads the key and does not keep it.
        let pinned = checked(self.api, |error| unsafe {
            (self.api.get_pinned)(db, options, text(key), key.len(), error)
        })?;
        // SAFETY: a slice that was pinned is destroyed by this function.
        let Some(pinned) = (unsafe { Owned::new(pinned, self.api.pinnableslice_destroy) }) else {
            return Ok(false);
        };
        let mut len = 0;
        // SAFETY: the value stays where it is until the slice is destroyed, after `read`.
        read(unsafe {
            let value = (self.api.pinnableslice_value)(pinned.get(), &mut len);
            bytes(value, len)
        });
        Ok(true)
    }

    fn scan(
        &self,
        start: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        let api = self.api;
        // SAFETY: the iterator is destroyed at the end of this function, before the database is
        // closed; key and value stay where they are until it moves.
        unsafe {
            let iter: Owned<Iter> = Owned::new(
                (api.create_iterator)(self.db.get(), self.read.get()),
                api.iter_destroy,
            )
            .ok_or_else(|| Error::store("RocksDB could not allocate"))?;
            let iter = iter.get();
            match (start, direction) {
                (Some(start), Direction::Forward) => {
                    (api.iter_seek)(iter, text(start), start.len());
                }
                (Some(start), Direction::Reverse) => {
                    (api.iter_seek_for_prev)(iter, text(start), start.len());
                }
                (None, Direction::Forward) => (api.iter_seek_to_first)(iter),
                (None, Direction::Reverse) => (api.iter_seek_to_last)(iter),
            }
            let mut seen = 0;
            while seen < limit && (api.iter_valid)(iter) != 0 {
                let (mut key_len, mut value_len) = (0, 0);
                let key = (api.iter_key)(iter, &mut key_len);
                let value = (api.iter_value)(iter, &mut value_len);
                visit(bytes(key, key_len), bytes(value, value_len));
                seen += 1;
                if seen < limit {
                    match direction {
                        Direction::Forward => (api.iter_next)(iter),
                        Direction::Reverse => (api.iter_prev)(iter),
                    }
                }
            }
            checked(api, |error| (api.iter_get_error)(iter, error))?;
            Ok(seen)
        }
    }

    fn wait_idle(&self) -> Result<()> {
        wait_for_compactions(|name| self.property(name))
    }
}
