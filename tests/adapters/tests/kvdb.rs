//! The shared tests of kvdb.

use std::io;

use hedgerow::EngineKind;
use hedgerow_adapters::kvdb::Columns;
use hedgerow_adapters::open;
use kvdb::KeyValueDB;

fn on_both(columns: u32, test: fn(&dyn KeyValueDB) -> io::Result<()>) {
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().unwrap();
        let db = open(&dir.path().join("store")).unwrap();
        test(&Columns::new(db.clone(), engine, columns).unwrap()).unwrap();
        assert!(db.verify().unwrap().is_clean());
    }
}

macro_rules! tests {
    ($($name:ident($columns:expr);)*) => {
        $(
            #[test]
            fn $name() {
                on_both($columns, kvdb_shared_tests::$name);
            }
        )*
    };
}

tests! {
    test_put_and_get(1);
    test_delete_and_get(1);
    test_get_fails_with_non_existing_column(1);
    test_write_clears_buffered_ops(1);
    test_iter(1);
    test_iter_with_prefix(1);
    test_io_stats(kvdb_shared_tests::IO_STATS_NUM_COLUMNS);
    test_delete_prefix(kvdb_shared_tests::DELETE_PREFIX_NUM_COLUMNS);
    test_complex(1);
}
