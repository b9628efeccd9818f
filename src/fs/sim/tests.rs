//! What a power loss leaves, and what it cannot.

use std::collections::BTreeSet;

use super::*;
use crate::format::checksum::mix64;

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

/// A later sync of the directory made names durable that a failed one had lost, so no test noticed
/// that they were relied on.
#[test]
fn names_that_a_failed_sync_loses_are_written_with_the_next_change_only() {
    let fs = SimFs::new();
    let root = Path::new("/");
    create(&fs, "/old", b"old").sync_data().unwrap();
    fs.sync_dir(root).unwrap();
    create(&fs, "/new", b"new").sync_data().unwrap();
    fs.rename("/new".as_ref(), "/old".as_ref()).unwrap();
    fs.fail_once_after(0, io::ErrorKind::Other);
    assert!(fs.sync_dir(root).is_err());
    fs.sync_dir(root).unwrap();
    assert_eq!(content(&fs, "/old"), Some(b"new".to_vec()));
    assert_eq!(content(&fs.crash(), "/old"), Some(b"old".to_vec()));
    let killed = fs.killed();
    killed.sync_dir(root).unwrap();
    assert_eq!(content(&killed.crash(), "/old"), Some(b"old".to_vec()));

    create(&fs, "/other", b"");
    let states = fs.crash_states(&CrashPolicy::new());
    let kept = states.map(|state| content(&state.fs, "/old"));
    assert_eq!(
        kept.collect::<Vec<_>>(),
        [Some(b"old".to_vec()), Some(b"new".to_vec())],
        "with the other name or not at all"
    );
    fs.sync_dir(root).unwrap();
    assert_eq!(content(&fs.crash(), "/old"), Some(b"new".to_vec()));
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

/// Everything in a file system: paths and bytes.
fn everything(fs: &SimFs) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for name in fs.read_dir(format!("{dir}/").as_ref()).unwrap() {
            let path = format!("{dir}/{name}");
            let bytes = content(fs, &path);
            if bytes.is_none() {
                todo.push(path.clone());
            }
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

fn distinct(fs: &SimFs, policy: &CrashPolicy) -> BTreeSet<Vec<(String, Option<Vec<u8>>)>> {
    let states = fs.crash_states(policy);
    states.map(|state| everything(&state.fs)).collect()
}

#[test]
fn every_version_of_every_sector_is_a_state_and_nothing_else_is() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", &[1; 1024]);
    a.sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    a.write_all_at(&[2; 100], 0).unwrap();
    a.write_all_at(&[3; 600], 50).unwrap();
    let found: BTreeSet<Vec<u8>> = fs
        .crash_states(&CrashPolicy::new())
        .map(|state| content(&state.fs, "/a").unwrap())
        .collect();
    let mut expected = BTreeSet::new();
    for first in 0..3 {
        for second in 0..2 {
            let mut bytes = vec![1; 1024];
            if first > 0 {
                bytes[..100].fill(2);
            }
            if first > 1 {
                bytes[50..512].fill(3);
            }
            if second > 0 {
                bytes[512..650].fill(3);
            }
            expected.insert(bytes);
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn lengths_and_sectors_survive_one_without_the_other() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", &[1; 1500]);
    a.sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    a.set_len(700).unwrap();
    a.write_all_at(&[2; 100], 1400).unwrap();
    let found: BTreeSet<Vec<u8>> = fs
        .crash_states(&CrashPolicy::new())
        .map(|state| content(&state.fs, "/a").unwrap())
        .collect();
    let mut expected = BTreeSet::new();
    for is_written in [false, true] {
        // The write before the cut in the journal, but after it in the file: its sector, which held
        // zeros then.
        let mut long = vec![1; 1500];
        let mut grown = vec![1; 700];
        grown.resize(1500, 0);
        if is_written {
            long[1024..].fill(0);
            long[1400..].fill(2);
            grown[1400..].fill(2);
        }
        expected.insert(long);
        expected.insert(vec![1; 700]);
        expected.insert(grown);
    }
    assert_eq!(found, expected);
}

#[test]
fn what_was_written_before_a_cut_does_not_come_back() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", &[]);
    a.sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    a.write_all_at(&[5; 512], 0).unwrap();
    a.set_len(100).unwrap();
    a.set_len(512).unwrap();
    let found: BTreeSet<Vec<u8>> = fs
        .crash_states(&CrashPolicy::new())
        .map(|state| content(&state.fs, "/a").unwrap())
        .collect();
    let half = [vec![5; 100], vec![0; 412]].concat();
    let expected = [
        vec![],
        vec![0; 512],
        vec![5; 512],
        vec![0; 100],
        vec![5; 100],
        half,
    ];
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn names_survive_independently_and_a_rename_is_one_change() {
    let fs = SimFs::new();
    create(&fs, "/a", b"a").sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    create(&fs, "/b", b"b").sync_data().unwrap();
    fs.rename("/a".as_ref(), "/c".as_ref()).unwrap();
    fs.remove_file("/b".as_ref()).unwrap();
    let names: BTreeSet<String> = fs
        .crash_states(&CrashPolicy::new())
        .map(|state| state.fs.read_dir("/".as_ref()).unwrap().concat())
        .collect();
    assert_eq!(names, ["a", "ab", "bc", "c"].map(String::from).into());
}

#[test]
fn equal_hashes_mean_equal_file_systems() {
    let mut random = 7_u64;
    let mut below = |limit: u64| {
        random = mix64(random.wrapping_add(0x9E37_79B9_7F4A_7C15));
        random % limit
    };
    let mut by_hash = std::collections::HashMap::new();
    let mut by_content = std::collections::HashMap::new();
    let mut states = 0;
    for _ in 0..40 {
        let fs = SimFs::new();
        fs.create_dir_all("/d".as_ref()).unwrap();
        for step in 0..12 {
            let path = ["/x", "/y", "/d/x"][below(3) as usize];
            match fs.open(path.as_ref(), OpenMode::ReadWrite) {
                Err(_) => drop(create(&fs, path, &[1; 700])),
                Ok(file) => match below(6) {
                    0 => file.sync_data().unwrap(),
                    1 => file.set_len(below(3000)).unwrap(),
                    2 => fs.remove_file(path.as_ref()).unwrap(),
                    3 => fs.rename(path.as_ref(), "/d/y".as_ref()).unwrap(),
                    _ => file
                        .write_all_at(&vec![step; below(1200) as usize], below(6000))
                        .unwrap(),
                },
            }
            if below(4) == 0 {
                fs.sync_dir(["/", "/d"][below(2) as usize].as_ref())
                    .unwrap();
            }
            let policy = CrashPolicy::new().exhaustive_max(16).each_max(4).random(4);
            for state in fs.crash_states(&policy) {
                states += 1;
                let content = everything(&state.fs);
                assert_eq!(
                    by_hash.entry(state.hash).or_insert(content.clone()),
                    &content
                );
                assert_eq!(*by_content.entry(content).or_insert(state.hash), state.hash);
            }
        }
    }
    assert!(
        states > 2000 && by_hash.len() > 200,
        "{states}, {}",
        by_hash.len()
    );
}

#[test]
fn the_states_hold_every_random_image() {
    // One write for each sector, so that both models are the same.
    let fs = SimFs::new();
    let a = create(&fs, "/a", &[1; 1024]);
    a.sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    a.write_all_at(&[2; 700], 0).unwrap();
    a.set_len(800).unwrap();
    create(&fs, "/b", &[3; 5]);
    fs.rename("/a".as_ref(), "/c".as_ref()).unwrap();
    let all = distinct(&fs, &CrashPolicy::new());
    let mut seen = BTreeSet::new();
    for seed in 0..2000 {
        let image = everything(&fs.crash_keeping(seed));
        assert!(all.contains(&image), "seed {seed}");
        seen.insert(image);
    }
    assert!(all.contains(&everything(&fs.crash())));
    assert!(all.contains(&everything(&fs)));
    assert!(
        seen.len() * 2 > all.len(),
        "{} of {}",
        seen.len(),
        all.len()
    );
}

#[test]
fn many_units_give_the_regular_states_and_random_ones() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", &[1; 512 * 40]);
    a.sync_data().unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    a.write_all_at(&[2; 512 * 40], 0).unwrap();
    let policy = CrashPolicy::new();
    assert_eq!(fs.crash_states(&policy).units(), 40);
    let found: BTreeSet<Vec<bool>> = fs
        .crash_states(&policy)
        .map(|state| {
            let bytes = content(&state.fs, "/a").unwrap();
            bytes.chunks(512).map(|sector| sector[0] == 2).collect()
        })
        .collect();
    let of = |test: &dyn Fn(usize) -> bool| (0..40).map(test).collect::<Vec<bool>>();
    for at in 0..40 {
        assert!(found.contains(&of(&|n| n < at)), "the first {at}");
        assert!(found.contains(&of(&|n| n != at)), "without {at}");
        assert!(found.contains(&of(&|n| n == at)), "only {at}");
    }
    assert!(found.contains(&of(&|_| true)));
    assert!(found.len() > 130);
    let few = fs.crash_states(&policy.each_max(5).random(3));
    assert_eq!(few.len(), 2 + 3 * 5 + 3);
    assert!(few.describe(3).contains("/a: sector at"));
}

#[test]
fn a_killed_process_loses_nothing_but_the_power_still_can() {
    let fs = SimFs::new();
    let a = create(&fs, "/a", b"x");
    let lock = fs.lock("/LOCK".as_ref(), LockMode::Exclusive).unwrap();
    let killed = fs.killed();
    a.write_all_at(b"y", 0).unwrap();
    assert_eq!(content(&killed, "/a"), Some(b"x".to_vec()));
    drop(killed.lock("/LOCK".as_ref(), LockMode::Exclusive).unwrap());
    assert_eq!(content(&killed.crash(), "/a"), None);
    let again = killed.open("/a".as_ref(), OpenMode::ReadWrite).unwrap();
    again.sync_data().unwrap();
    killed.sync_dir("/".as_ref()).unwrap();
    assert_eq!(content(&killed.crash(), "/a"), Some(b"x".to_vec()));
    assert_eq!(content(&fs.crash(), "/a"), None);
    drop(lock);
}

#[test]
fn the_hook_comes_before_each_change() {
    let fs = SimFs::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    fs.on_change({
        let seen = Arc::clone(&seen);
        move |fs, operation| {
            let now = fs.read_dir("/".as_ref()).unwrap().concat();
            let Operation { number, op, path } = operation;
            seen.lock()
                .push(format!("{number} {op} {} {now:?}", path.display()));
        }
    });
    let a = create(&fs, "/a", b"x");
    fs.rename("/a".as_ref(), "/b".as_ref()).unwrap();
    a.sync_data().unwrap();
    fs.clear_hook();
    fs.remove_file("/b".as_ref()).unwrap();
    assert_eq!(
        *seen.lock(),
        [
            "0 create /a \"\"",
            "1 write /a \"a\"",
            "2 rename /a \"a\"",
            "3 sync /a \"b\""
        ]
    );
}

#[cfg(target_os = "linux")]
mod maps {
    use super::*;
    use crate::fs::{map, map_mut};

    /// The states of `/a` that a power loss may leave, as bytes.
    fn states(fs: &SimFs) -> BTreeSet<Vec<u8>> {
        let states = fs.crash_states(&CrashPolicy::new());
        states
            .filter_map(|state| content(&state.fs, "/a"))
            .collect()
    }

    #[test]
    fn a_map_shows_what_is_written_later_and_nothing_of_what_was_cut() {
        let fs = SimFs::with_maps();
        let a = create(&fs, "/a", &[1; 6000]);
        assert!(map(&*a, 6001).is_err() && map(&*a, 0).unwrap().is_none());
        let mapped = map(&*a, 6000).unwrap().unwrap();
        let bytes = |range| mapped.range(range).to_vec();
        assert_eq!(bytes(0..6000), [1; 6000]);
        a.write_all_at(b"later", 4998).unwrap();
        a.write_all_at(&[3; 10], 7000).unwrap();
        assert_eq!(bytes(4997..5004), b"\x01later\x01");
        // The page that the file ends in shows zeros, the next one what no checksum accepts.
        a.set_len(100).unwrap();
        assert_eq!(bytes(98..102), [1, 1, 0, 0]);
        assert_ne!(bytes(5000..5001), [1]);
        a.set_len(7000).unwrap();
        assert_eq!(bytes(98..102), [1, 1, 0, 0]);
        assert_eq!(bytes(100..6000), [0; 5900]);
        assert_eq!(content(&fs, "/a").unwrap()[..6000], bytes(0..6000)[..]);
        // A killed process takes its maps along.
        let killed = fs.killed();
        let again = killed.open("/a".as_ref(), OpenMode::ReadWrite).unwrap();
        again.write_all_at(b"next", 0).unwrap();
        assert_eq!(bytes(0..4), [1; 4]);
        let mapped = map(&*again, 7000).unwrap().unwrap();
        assert_eq!(mapped.range(0..4), b"next");
    }

    #[test]
    fn a_store_into_a_map_is_visible_at_once_and_durable_after_a_sync() {
        let fs = SimFs::with_maps();
        let a = create(&fs, "/a", &[0; 1024]);
        assert!(map_mut(&*a, 1025).unwrap().is_none(), "not allocated");
        a.sync_data().unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
        let mut mapped = map_mut(&*a, 1024).unwrap().unwrap();
        assert_eq!(mapped.len(), 1024);
        let before = content(&fs, "/a").unwrap();
        mapped.write(&[7; 32], 40);
        let after = content(&fs, "/a").unwrap();
        assert_eq!(after[39..73], [&[0][..], &[7; 32], &[0]].concat());
        // The disk may have half of it.
        let mut half = before.clone();
        half[40..56].fill(7);
        assert_eq!(states(&fs), BTreeSet::from([before, half, after.clone()]));
        a.sync_data().unwrap();
        assert_eq!(states(&fs), BTreeSet::from([after]));
    }

    #[test]
    fn a_hook_is_called_before_a_store_and_none_fails() {
        let fs = SimFs::with_maps();
        let a = create(&fs, "/a", &[0; 64]);
        let mut mapped = map_mut(&*a, 64).unwrap().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        fs.on_change(move |fs, operation| {
            let first = content(fs, "/a").unwrap()[0];
            noted.lock().push((operation.op, first));
        });
        fs.fail_after(0, io::ErrorKind::Other);
        mapped.write(b"x", 0);
        fs.clear_hook();
        assert_eq!(*seen.lock(), [("store", 0)]);
        assert_eq!(content(&fs, "/a").unwrap()[0], b'x');
        let without = SimFs::new();
        assert!(map(&*create(&without, "/a", b"x"), 1).unwrap().is_none());
    }
}
