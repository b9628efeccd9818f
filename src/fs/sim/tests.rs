//! What a power loss leaves, and what it cannot.

use super::*;

fn create(fs: &SimFs, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = fs.open(path.as_ref(), OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn content(fs: &SimFs, path: &str) -> Option<Vec<u8>> {
    let file = fs.open(path.as_ref(), OpenMode::Read).ok()?;
    Some(crate::fs::read_all(&*file, 1 << 20).unwrap())
}

#[test]
fn a_crash_keeps_what_was_synced_and_nothing_else() {
    let fs = SimFs::new();
    fs.create_dir_all("/d".as_ref()).unwrap();
    let a = create(&fs, "/d/a", b"one");
    a.sync_data().unwrap();
    assert_eq!(content(&fs.crash(), "/d/a"), None, "no name is synced");
    fs.sync_dir("/d".as_ref()).unwrap();
    assert_eq!(content(&fs.crash(), "/d/a"), None, "nor its directory's");
    fs.sync_dir("/".as_ref()).unwrap();
    assert_eq!(content(&fs.crash(), "/d/a"), Some(b"one".to_vec()));

    a.write_all_at(b"two and more", 0).unwrap();
    a.set_len(7).unwrap();
    fs.rename("/d/a".as_ref(), "/d/b".as_ref()).unwrap();
    assert_eq!(content(&fs, "/d/b"), Some(b"two and".to_vec()));
    assert_eq!(content(&fs.crash(), "/d/a"), Some(b"one".to_vec()));
    assert_eq!(content(&fs.crash(), "/d/b"), None);
    fs.sync_dir("/d".as_ref()).unwrap();
    assert_eq!(content(&fs.crash(), "/d/b"), Some(b"one".to_vec()));
    a.sync_data().unwrap();
    assert_eq!(content(&fs.crash(), "/d/b"), Some(b"two and".to_vec()));

    fs.remove_file("/d/b".as_ref()).unwrap();
    assert_eq!(content(&fs, "/d/b"), None);
    assert_eq!(content(&fs.crash(), "/d/b"), Some(b"two and".to_vec()));
    a.write_all_at(b"still open", 0).unwrap();
    assert_eq!(a.len().unwrap(), 10);
    fs.sync_dir("/d".as_ref()).unwrap();
    assert_eq!(content(&fs.crash(), "/d/b"), None);
}

#[test]
fn a_partial_crash_keeps_whole_sectors_and_is_reproducible() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", &[1; 2000]);
    a.sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    a.write_all_at(&[2; 3000], 100).unwrap();
    let mut images = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let image = content(&fs.crash_keeping(seed), "/a").unwrap();
        assert_eq!(content(&fs.crash_keeping(seed), "/a").unwrap(), image);
        assert!(image.len() == 2000 || image.len() == 3100, "seed {seed}");
        assert!(image[..100].iter().all(|b| *b == 1));
        for sector in image[512..].chunks(512) {
            let whole = sector[..sector.len().min(2000 % 512)].iter();
            assert!(whole.clone().all(|b| *b == sector[0]), "seed {seed}");
        }
        images.insert(image);
    }
    assert!(images.len() > 20, "many different images");
    assert!(images.contains(&content(&fs.crash(), "/a").unwrap()));
    assert!(images.contains(&content(&fs, "/a").unwrap()));
}

#[test]
fn writing_to_an_image_leaves_the_origin_alone() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", b"origin");
    a.sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    let image = fs.crash();
    let b = image.open("/a".as_ref(), OpenMode::ReadWrite).unwrap();
    b.write_all_at(b"image!", 0).unwrap();
    assert_eq!(content(&fs, "/a"), Some(b"origin".to_vec()));
    a.write_all_at(b"again!", 0).unwrap();
    assert_eq!(content(&image, "/a"), Some(b"image!".to_vec()));
}

#[test]
fn cut_bytes_do_not_come_back() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", &[7; 9000]);
    a.set_len(10).unwrap();
    a.set_len(9000).unwrap();
    let bytes = content(&fs, "/a").unwrap();
    assert_eq!(bytes.iter().filter(|b| **b == 7).count(), 10);
    a.sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    assert_eq!(content(&fs.crash(), "/a").unwrap(), bytes);
}

#[test]
fn failures_come_when_planned_and_a_failed_sync_loses_its_bytes() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", b"x");
    fs.sync_dir("/".as_ref()).unwrap();
    fs.fail_once_after(1, io::ErrorKind::StorageFull);
    a.write_all_at(b"y", 0).unwrap();
    assert!(matches!(a.sync_data(), Err(Error::Io { .. })));
    a.sync_data().unwrap();
    assert_eq!(content(&fs, "/a"), Some(b"y".to_vec()));
    assert_eq!(content(&fs.crash(), "/a"), Some(Vec::new()));

    fs.fail_after(0, io::ErrorKind::Other);
    assert!(a.write_all_at(b"z", 0).is_err());
    assert!(fs.remove_file("/a".as_ref()).is_err());
    fs.heal();
    a.write_all_at(b"z", 0).unwrap();
}

#[test]
fn locks_exclude_and_do_not_survive_a_crash() {
    let fs = SimFs::new();
    let lock = fs.lock("/LOCK".as_ref(), LockMode::Exclusive).unwrap();
    assert!(matches!(
        fs.lock("/LOCK".as_ref(), LockMode::Exclusive),
        Err(Error::Locked { .. })
    ));
    fs.sync_dir("/".as_ref()).unwrap();
    drop(
        fs.crash()
            .lock("/LOCK".as_ref(), LockMode::Exclusive)
            .unwrap(),
    );
    drop(lock);
    drop(fs.lock("/LOCK".as_ref(), LockMode::Exclusive).unwrap());
}
