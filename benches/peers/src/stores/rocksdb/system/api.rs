//! The part of RocksDB's C interface (`rocksdb/c.h`) that the adapter calls, looked up by name in
//! a library that is loaded while the program runs.
//!
//! The declarations are those of RocksDB 7.8. RocksDB 11 still has every one of them with the same
//! arguments, so any version between the two can be measured.

use std::ffi::{OsString, c_char, c_int, c_uchar, c_void};
use std::sync::OnceLock;

use hedgerow_bench::{Error, Result};
use libloading::{Library, library_filename};

/// The environment variable that names the library, as a path or as the dynamic linker knows it.
const LIBRARY: &str = "ROCKSDB_LIBRARY";

/// Declares types of which only pointers exist here.
macro_rules! opaque {
    ($($name:ident)*) => {
        $(#[repr(C)] pub struct $name { _private: [u8; 0] })*
    };
}

opaque!(Db DbOptions TableOptions FilterPolicy Cache WriteOptions ReadOptions Batch Iter Pinned);

/// Declares the functions, and how they are found: `put` is `rocksdb_put`.
macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of a loaded library. Each asks for what `rocksdb/c.h` asks of its callers.
        pub struct Api {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// Looks up every function.
            ///
            /// # Safety
            ///
            /// `library` is RocksDB, and stays loaded as long as the result is used.
            unsafe fn find(library: &Library) -> std::result::Result<Self, libloading::Error> {
                Ok(Self {
                    $($name: {
                        let symbol = concat!("rocksdb_", stringify!($name));
                        // SAFETY: a function of that name in RocksDB has this type.
                        *unsafe { library.get(symbol)? }
                    },)*
                })
            }
        }
    };
}

functions! {
    free(*mut c_void);

    options_create() -> *mut DbOptions;
    options_destroy(*mut DbOptions);
    options_set_create_if_missing(*mut DbOptions, c_uchar);
    options_set_write_buffer_size(*mut DbOptions, usize);
    options_set_max_background_jobs(*mut DbOptions, c_int);
    options_set_level_compaction_dynamic_level_bytes(*mut DbOptions, c_uchar);
    options_set_compression(*mut DbOptions, c_int);
    options_set_block_based_table_factory(*mut DbOptions, *mut TableOptions);
    block_based_options_create() -> *mut TableOptions;
    block_based_options_destroy(*mut TableOptions);
    block_based_options_set_block_cache(*mut TableOptions, *mut Cache);
    block_based_options_set_filter_policy(*mut TableOptions, *mut FilterPolicy);
    filterpolicy_create_bloom_full(f64) -> *mut FilterPolicy;
    cache_create_lru(usize) -> *mut Cache;
    cache_destroy(*mut Cache);
    writeoptions_create() -> *mut WriteOptions;
    writeoptions_destroy(*mut WriteOptions);
    writeoptions_set_sync(*mut WriteOptions, c_uchar);
    readoptions_create() -> *mut ReadOptions;
    readoptions_destroy(*mut ReadOptions);

    open(*const DbOptions, *const c_char, *mut *mut c_char) -> *mut Db;
    close(*mut Db);
    put(
        *mut Db,
        *const WriteOptions,
        *const c_char,
        usize,
        *const c_char,
        usize,
        *mut *mut c_char
    );
    delete(*mut Db, *const WriteOptions, *const c_char, usize, *mut *mut c_char);
    write(*mut Db, *const WriteOptions, *mut Batch, *mut *mut c_char);
    property_int(*mut Db, *const c_char, *mut u64) -> c_int;

    writebatch_create() -> *mut Batch;
    writebatch_destroy(*mut Batch);
    writebatch_put(*mut Batch, *const c_char, usize, *const c_char, usize);

    get_pinned(*mut Db, *const ReadOptions, *const c_char, usize, *mut *mut c_char) -> *mut Pinned;
    pinnableslice_value(*const Pinned, *mut usize) -> *const c_char;
    pinnableslice_destroy(*mut Pinned);

    create_iterator(*mut Db, *const ReadOptions) -> *mut Iter;
    iter_destroy(*mut Iter);
    iter_valid(*const Iter) -> c_uchar;
    iter_seek_to_first(*mut Iter);
    iter_seek_to_last(*mut Iter);
    iter_seek(*mut Iter, *const c_char, usize);
    iter_seek_for_prev(*mut Iter, *const c_char, usize);
    iter_next(*mut Iter);
    iter_prev(*mut Iter);
    iter_key(*const Iter, *mut usize) -> *const c_char;
    iter_value(*const Iter, *mut usize) -> *const c_char;
    iter_get_error(*const Iter, *mut *mut c_char);
}

/// The functions of the system's RocksDB, which is loaded by the first call and never unloaded: it
/// has threads of its own, and destructors that run when the process ends.
pub fn load() -> Result<&'static Api> {
    static API: OnceLock<std::result::Result<Api, String>> = OnceLock::new();
    let api = API.get_or_init(|| {
        let name = std::env::var_os(LIBRARY).unwrap_or_else(|| library_filename("rocksdb"));
        find(&name).map_err(|error| {
            format!(
                "{} cannot be used: {error}; install RocksDB with its development files \
                 (librocksdb-dev), or name the library in the environment: \
                 {LIBRARY}=librocksdb.so.7.8",
                name.display(),
            )
        })
    });
    api.as_ref().map_err(|error| Error::store(error.as_str()))
}

fn find(name: &OsString) -> std::result::Result<Api, libloading::Error> {
    // SAFETY: the user of this program names the library, or has installed it; it is RocksDB, whose
    // initialisers set up tables of its own and nothing else.
    let library = unsafe { Library::new(name)? };
    // SAFETY: as above; and it is not unloaded, because its handle is forgotten.
    let api = unsafe { Api::find(&library) };
    std::mem::forget(library);
    api
}
