//! zstd, in a build with the feature and in one without, which only `cargo test --package
//! hedgerow-test-support` makes: the tests of the library turn it on.

use std::path::Path;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::{Compression, Db, EngineKind, Error, KeyspaceOptions, Options};
use hedgerow_test_support::forge::manifest::manifest_of;
use hedgerow_test_support::forge::table::{Block, Table, block_body, zstd_frame};
use hedgerow_test_support::image::Image;
use hedgerow_test_support::repair::{self, Owner};

const ZSTD: Compression = Compression::Zstd { level: 3 };

fn open(fs: &SimFs) -> Result<Db, Error> {
    Options::new().fs(Arc::new(fs.clone())).open("/store")
}

/// The error names the feature that is missing, as `kind` says.
#[track_caller]
fn names_the_feature<T>(result: Result<T, Error>, kind: impl Fn(&Error) -> bool) {
    let error = result.err().expect("this build has no zstd");
    assert!(kind(&error), "{error:?}");
    assert!(
        error.to_string().contains("the Cargo feature `zstd`"),
        "{error}"
    );
}

/// A store with one table of one block, which is compressed with zstd.
fn store_with_zstd() -> SimFs {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let keyspace = db.keyspace("k", EngineKind::Lsm).unwrap();
    for n in 0..50 {
        keyspace.put([n], b"").unwrap();
    }
    keyspace.flush().unwrap();
    db.close().unwrap();
    let mut image = Image::of(&fs, Path::new("/store"));
    let owner = Owner {
        store: repair::store_id(&image.files[Path::new("CATALOG")]).unwrap(),
        keyspace: 1,
    };
    let dir = Path::new("ks-00000001");
    image.files.retain(|path, _| !path.starts_with(dir));
    let entries = [(b"key".to_vec(), 5, b"value".to_vec())];
    let body = block_body(&entries);
    let stored = [&(body.len() as u32).to_le_bytes()[..], &zstd_frame(&body)].concat();
    let table = Table {
        blocks: vec![Block {
            separator: b"key".to_vec(),
            tag: 2,
            bytes: stored,
        }],
        smallest: b"key".to_vec(),
        largest: Some(b"key".to_vec()),
        seqs: (5, 5),
        entries: 1,
        key_bytes: 3,
        value_bytes: 5,
        form: [2, 3, 0],
        ..Table::default()
    };
    let (bytes, meta) = table.file(owner, 2);
    image
        .files
        .insert(dir.join("TABLE-0000000000000002"), bytes);
    for (name, bytes) in manifest_of(owner, 51, &[(6, meta)]) {
        image.files.insert(dir.join(name), bytes);
    }
    let fs = SimFs::new();
    image.write(&fs, Path::new("/store"));
    fs
}

#[test]
fn a_table_with_zstd_is_read_or_refused_when_the_store_is_opened() {
    let fs = store_with_zstd();
    if ZSTD.is_available() {
        let db = open(&fs).unwrap();
        let keyspace = db.existing_keyspace("k").unwrap().unwrap();
        assert_eq!(keyspace.get("key").unwrap().unwrap(), b"value"[..]);
        assert!(keyspace.verify().unwrap().is_clean());
    } else {
        let before = Image::of(&fs, Path::new("/store"));
        let is_unsupported = |error: &Error| {
            matches!(error, Error::UnsupportedFeature { file, .. }
            if file.ends_with("TABLE-0000000000000002"))
        };
        names_the_feature(open(&fs), is_unsupported);
        let after = Image::of(&fs, Path::new("/store"));
        let tables = |image: &Image| image.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(tables(&before), tables(&after));
    }
}

#[test]
fn options_that_ask_for_zstd_are_taken_or_refused_before_anything_is_written() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let lsm = || KeyspaceOptions::new(EngineKind::Lsm);
    for (name, asked) in [
        ("compression", lsm().compression(ZSTD)),
        ("last_level_compression", lsm().last_level_compression(ZSTD)),
    ] {
        let made = db.keyspace_with(name, asked);
        if ZSTD.is_available() {
            let keyspace = made.unwrap();
            keyspace.put("key", b"value".repeat(1000)).unwrap();
            keyspace.compact().unwrap();
            assert_eq!(keyspace.get("key").unwrap().unwrap(), b"value".repeat(1000));
        } else {
            let is_by_name = |error: &Error| {
                matches!(error, Error::InvalidArgument { .. }) && error.to_string().contains(name)
            };
            names_the_feature(made, is_by_name);
            assert!(db.existing_keyspace(name).unwrap().is_none());
        }
    }
    db.close().unwrap();
    let db = open(&fs).unwrap();
    let count = db.keyspaces().len();
    assert_eq!(count, if ZSTD.is_available() { 2 } else { 0 });
}
