//! Targets for one file of a store, in the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hedgerow::fs::{Fs, OpenMode, SimFs};
use hedgerow::internals::{
    append_record, catalog_round_trip, lsm, table, wal, wal_manifest_round_trip,
};
use hedgerow::trace::Reader;

use super::stores::{self, PAGE, STORE};
use super::{Bytes, Flags, assemble, pages};
use crate::forge;
use crate::image::Image;
use crate::repair::{self, Owner};

/// Number of the keyspace that is an LSM tree.
pub const LSM: u32 = 1;
/// Number of the keyspace that is a B-tree.
pub const BTREE: u32 = 2;

fn owner(keyspace: u32) -> Owner {
    Owner {
        store: STORE,
        keyspace: keyspace.into(),
    }
}

/// The path of a file of keyspace `id` in a store.
pub fn in_keyspace(id: u32, name: &str) -> PathBuf {
    Path::new(&format!("ks-{id:08}")).join(name)
}

/// The catalogue or the WAL manifest, by itself and in a store.
pub fn catalog(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    let mut bytes = bytes.to_vec();
    let name = if flags.other() {
        "WAL-MANIFEST"
    } else {
        "CATALOG"
    };
    match (flags.repaired(), flags.other()) {
        (true, true) => repair::wal_manifest(&mut bytes, STORE),
        (true, false) => repair::catalog(&mut bytes),
        (false, _) => {}
    }
    let decoded = match flags.other() {
        true => wal_manifest_round_trip(&bytes),
        false => catalog_round_trip(&bytes),
    };
    if let Ok(again) = &decoded {
        assert_eq!(*again, bytes, "another {name} was encoded");
    }
    let mut image = stores::small().clone();
    image.files.insert(name.into(), bytes);
    let opened = stores::open_and_use(&image);
    assert!(!opened || decoded.is_ok(), "a bad {name} was taken");
}

/// An edit of the manifest, and the manifest in a store.
pub fn manifest(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    if flags.other() {
        if let Some(once) = lsm::edit_round_trip(bytes) {
            assert_eq!(lsm::edit_round_trip(&once), Some(once));
        }
        return;
    }
    let mut image = stores::small().clone();
    let (path, number) = manifest_of(&image);
    let mut bytes = bytes.to_vec();
    if flags.repaired() {
        repair::manifest(&mut bytes, owner(LSM), number);
    }
    image.files.insert(path, bytes);
    stores::open_and_use(&image);
}

/// Where the manifest of the LSM is, and its number.
pub fn manifest_of(image: &Image) -> (PathBuf, u64) {
    let path = image
        .files
        .keys()
        .find(|path| path.to_string_lossy().contains("MANIFEST-"))
        .expect("a manifest");
    let name = path.to_string_lossy();
    let (_, digits) = name.rsplit_once('-').expect("a number");
    (
        path.clone(),
        u64::from_str_radix(digits, 16).expect("digits"),
    )
}

/// The number of the table that is put into the store.
const TABLE: u64 = 9;

/// A table. The store's manifest is made to say about it what it says itself.
pub fn table_file(input: &[u8]) {
    if let Some(image) = table_image(input) {
        stores::open_and_use(&image);
    }
}

/// The store with the table of an input; `None` if that is none by any means.
pub fn table_image(input: &[u8]) -> Option<Image> {
    let (flags, bytes) = Flags::split(input)?;
    let mut bytes = if flags.assembled() {
        assemble::table(Bytes(bytes))?
    } else {
        bytes.to_vec()
    };
    if bytes.len() < 64 {
        return None;
    }
    let footer = bytes.len() - 64;
    // Else none would get further: its number, its length, and that it is a table.
    bytes[footer..footer + 8].copy_from_slice(&TABLE.to_le_bytes());
    bytes[footer + 56..].copy_from_slice(b"HEDGETBL");
    let field = bytes[footer + 32..footer + 40].try_into().expect("eight");
    let meta_at = (u64::from_le_bytes(field) as usize).saturating_add(8);
    if meta_at.saturating_add(16) > footer {
        return None;
    }
    let len = bytes.len() as u64;
    bytes[meta_at..meta_at + 8].copy_from_slice(&TABLE.to_le_bytes());
    bytes[meta_at + 8..meta_at + 16].copy_from_slice(&len.to_le_bytes());
    let meta_len = table::meta_len_bytes(&bytes[meta_at..footer])?;
    if flags.repaired() || flags.assembled() {
        repair::table(&mut bytes, owner(LSM), TABLE);
    }
    // Persisted is no more than the log has: else the log is short, and nothing opens. The table
    // joins level 0, or the last one.
    let level = if flags.other() { 6 } else { 0 };
    let meta = bytes[meta_at..meta_at + meta_len].to_vec();
    let edit = forge::manifest::edit(stores::SMALL_OPS, TABLE + 1, &[(level, meta)]);

    let mut image = stores::small().clone();
    let (path, number) = manifest_of(&image);
    let manifest = image.files.get_mut(&path).expect("a manifest");
    manifest.truncate(48);
    let seed = owner(LSM).manifest(number);
    append_record(manifest, seed, 48, &edit);
    image
        .files
        .retain(|path, _| !path.to_string_lossy().contains("TABLE-"));
    let path = in_keyspace(LSM, &format!("TABLE-{TABLE:016x}"));
    image.files.insert(path, bytes);
    Some(image)
}

/// The file of a B-tree: a meta page, which is there twice, and the pages behind it.
pub fn tree_file(input: &[u8]) {
    if let Some(image) = tree_image(input) {
        stores::open_and_use(&image);
    }
}

/// The store with the B-tree of an input.
pub fn tree_image(input: &[u8]) -> Option<Image> {
    let (flags, bytes) = Flags::split(input)?;
    let mut source = Bytes(bytes);
    let meta = pages::unpack(&mut source, PAGE);
    let mut file = [&meta[..], &meta].concat();
    if flags.other() {
        file[PAGE..].copy_from_slice(&pages::unpack(&mut source, PAGE));
    }
    while !source.is_empty() && file.len() < 40 * PAGE {
        file.extend(pages::unpack(&mut source, PAGE));
    }
    if flags.repaired() {
        repair::tree(&mut file, owner(BTREE), PAGE);
    }
    let mut image = stores::small().clone();
    image.files.insert(in_keyspace(BTREE, "tree.hdb"), file);
    Some(image)
}

/// Where the log of [`log_recovery`] is.
const LOG: &str = "/store/wal";

/// A directory of a log: segments after their lengths, numbered from one.
pub fn log_recovery(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    let fs = SimFs::new();
    fs.create_dir_all(Path::new(LOG)).unwrap();
    let mut source = Bytes(bytes);
    let mut number = 0;
    while !source.is_empty() && number < 12 {
        // Some numbers are left out.
        number += 1 + u64::from(flags.other() && source.byte() % 8 == 0);
        let len = usize::from(source.u16());
        let mut segment = source.take(len).to_vec();
        if flags.repaired() && segment.len() >= 128 {
            segment[..8].copy_from_slice(b"HEDGELOG");
            segment[8..12].copy_from_slice(&2u32.to_le_bytes());
            segment[16..24].copy_from_slice(&STORE.to_le_bytes());
            segment[24..32].copy_from_slice(&number.to_le_bytes());
            let len = segment.len() as u64;
            let is_cut = segment[96] % 2 == 1;
            let made_len = if is_cut { len + 512 } else { len };
            segment[32..40].copy_from_slice(&made_len.to_le_bytes());
            if is_cut {
                segment[104..112].copy_from_slice(&len.to_le_bytes());
            }
            repair::segment(&mut segment, STORE, number);
        }
        let path = Path::new(LOG).join(format!("{number:016x}.log"));
        write(&fs, &path, &segment);
    }
    let fs: Arc<dyn Fs> = Arc::new(fs);
    let recover = || wal::recover(&fs, Path::new(LOG), STORE, 0);
    let Ok((records, last)) = recover() else {
        return;
    };
    assert_eq!(
        recover().ok(),
        Some((records.clone(), last)),
        "not idempotent"
    );
    for pair in records.windows(2) {
        assert_eq!(pair[0].1 + 1, pair[1].0, "a gap");
    }
    assert!(records.last().is_none_or(|record| record.1 == last));
    // The log goes on where it ended, and nothing that was recovered is lost by that.
    let Ok(mut writer) = wal::Writer::open(&fs, Path::new(LOG), STORE, 4096, false) else {
        return;
    };
    if last < 1 << 55 {
        assert_eq!(writer.append(2, b"the next batch").unwrap(), last + 2);
        writer.syncer().sync().unwrap();
        drop(writer);
        let (again, found) = recover().expect("a log that was recovered and went on");
        assert_eq!(found, last + 2);
        let (next, before) = again.split_last().expect("the batch that was appended");
        assert_eq!(next, &(last + 1, last + 2, b"the next batch".to_vec()));
        assert_eq!(before, records);
    }
}

fn write(fs: &dyn Fs, path: &Path, bytes: &[u8]) {
    let file = fs.open(path, OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// A trace of a workload.
pub fn trace(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if flags.repaired() {
        repair::trace(&mut bytes);
    }
    let fs = SimFs::new();
    write(&fs, Path::new("/trace"), &bytes);
    let read = || {
        let mut reader = Reader::open_in(&fs, "/trace").ok()?;
        let mut count = 0u32;
        let mut last_us = 0;
        let mut failed = false;
        for event in reader.by_ref().take(5000) {
            assert!(!failed, "it went on after an error");
            match event {
                Ok(event) => {
                    count += 1;
                    last_us = event.time_us.max(last_us);
                }
                Err(_) => failed = true,
            }
        }
        Some((count, last_us, failed, reader.dropped()))
    };
    assert_eq!(read(), read(), "a trace reads differently the second time");
}
