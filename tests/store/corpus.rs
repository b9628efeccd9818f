//! The inputs of the fuzz targets (fuzz/corpus), replayed on the stable tool chain, so that what a
//! fuzzer once found stays found; and tests of the harness itself.

use std::path::{Path, PathBuf};

use support::fuzzing::TARGETS;
use support::rig::report;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a fuzz target, by name.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = fuzz_dir().join("corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} has seeds", dir.display());
    inputs
}

fn replay(targets: impl Iterator<Item = &'static support::fuzzing::Target>) {
    for (target, run) in targets {
        let inputs = inputs(target);
        for (path, bytes) in &inputs {
            // Kept by the harness of the tests, and shown if the input fails.
            eprintln!("{}", path.display());
            run(bytes);
        }
        report(format_args!(
            "corpus: {} inputs of the fuzz target {target}",
            inputs.len()
        ));
    }
}

#[test]
fn of_operations() {
    replay(TARGETS.iter().filter(|(name, _)| is_lockstep(name)));
}

#[test]
fn of_decoders_and_files() {
    replay(TARGETS.iter().filter(|(name, _)| !is_lockstep(name)));
}

fn is_lockstep(name: &str) -> bool {
    matches!(name, "operations" | "crashes")
}

/// A target that cargo-fuzz does not know is never run; one without a corpus is never replayed.
#[test]
fn every_target_is_known_everywhere() {
    let listed = |dir: &str| {
        let mut names: Vec<_> = std::fs::read_dir(fuzz_dir().join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    assert_eq!(listed("fuzz_targets"), names);
    assert_eq!(listed("corpus"), names);
    let manifest = std::fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for name in &names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    for name in listed("dict") {
        assert!(names.contains(&name), "a dictionary for no target: {name}");
    }
}

mod harness {
    use std::path::Path;

    use support::fuzzing::{files, images, pages, seeds, stores};

    /// If the harness did not find all checksums, the targets with repaired ones would test that
    /// checksums are verified, and nothing else.
    #[test]
    fn a_store_bound_to_another_number_is_sound() {
        for image in [stores::varied(), stores::small()] {
            let fs = hedgerow::fs::SimFs::new();
            image.write(&fs, Path::new(stores::PATH));
            let db = stores::options(&fs, true).open(stores::PATH).unwrap();
            let report = db.verify().unwrap();
            assert_eq!(report.problems, []);
            assert!(report.entries > 40);
            drop(db);
            assert!(stores::open_and_use(image));
        }
    }

    /// Changes every byte of every file of a store, repairs it, and counts how often the store
    /// still opens for writing: the repairs reach what lies behind the checksums.
    #[test]
    fn repairs_lead_behind_the_checksums() {
        let base = stores::small();
        for part in [
            "CATALOG",
            "CURRENT",
            "MANIFEST-",
            "TABLE-",
            "tree.hdb",
            "wal",
        ] {
            let path = base
                .files
                .keys()
                .find(|path| path.to_string_lossy().contains(part));
            let path = path.expect("such a file").clone();
            let (mut opened, mut refused) = (0, 0);
            for at in (0..base.files[&path].len()).step_by(7) {
                let mut image = base.clone();
                image.files.get_mut(&path).expect("a file")[at] ^= 0x10;
                images::repair(&mut image, stores::PAGE);
                let fs = hedgerow::fs::SimFs::new();
                image.write(&fs, Path::new(stores::PATH));
                match stores::options(&fs, true).open(stores::PATH) {
                    Ok(db) => {
                        // Something is different, or it was a byte without meaning; no checksum
                        // complains.
                        let problems = db.verify().map(|report| report.problems);
                        let text = format!("{problems:?}");
                        assert!(!text.contains("checksum"), "{part} at {at}: {text}");
                        assert!(!text.contains("fingerprint"), "{part} at {at}: {text}");
                        opened += 1;
                    }
                    Err(error) => {
                        let text = error.to_string();
                        assert!(!text.contains("checksum"), "{part} at {at}: {text}");
                        refused += 1;
                    }
                }
            }
            assert!(opened + refused > 0);
            assert!(
                opened > 0 || part == "CURRENT",
                "{part}: none of {refused} opened"
            );
        }
    }

    #[test]
    fn packing_a_page_loses_nothing() {
        for page in stores::file(stores::varied(), "tree.hdb").chunks(stores::PAGE) {
            let packed = pages::pack(page);
            let mut source = support::fuzzing::Bytes(&packed);
            assert_eq!(pages::unpack(&mut source, stores::PAGE), page);
            assert!(source.is_empty());
        }
    }

    /// The seeds of whole files lead to the small store once more: else a fuzzer would begin at
    /// the door.
    #[test]
    fn seeds_of_files_open() {
        let expected = contents(stores::small()).expect("the small store opens");
        assert!(expected.len() > 40);
        let mut count = 0;
        for (target, seeds) in seeds::all() {
            for (name, input) in seeds {
                let image = match target {
                    "table_file" => files::table_image(&input),
                    "tree_file" => files::tree_image(&input),
                    _ => continue,
                };
                let found = image.as_ref().and_then(contents);
                // The number of the table is not the one that its checksums know.
                if (target, &name[..]) == ("table_file", "seed-raw") {
                    assert_eq!(found, None);
                } else if name.contains("in-order") {
                    let found = found.map(|found| found.len());
                    assert!(found.is_some_and(|len| len > 24), "{name}: {found:?}");
                } else if name.contains("assembled") {
                    assert!(image.is_some(), "{name}");
                } else {
                    assert_eq!(found.as_ref(), Some(&expected), "{target}: {name}");
                    count += 1;
                }
            }
        }
        assert!(count > 4);
    }

    /// Everything in a store; `None` if it does not open or a read fails.
    fn contents(image: &support::image::Image) -> Option<Vec<(hedgerow::Value, hedgerow::Value)>> {
        let fs = hedgerow::fs::SimFs::new();
        image.write(&fs, Path::new(stores::PATH));
        let opened = stores::options(&fs, true).open(stores::PATH);
        // Shown if the test fails.
        let db = opened.inspect_err(|error| eprintln!("{error}")).ok()?;
        let mut found = Vec::new();
        for info in db.keyspaces() {
            let keyspace = db.existing_keyspace(&info.name).ok()??;
            for item in hedgerow::KvRead::iter(&keyspace) {
                found.push(item.ok()?);
            }
        }
        Some(found)
    }

    /// Seeds of an older format would all be refused at the first check, and no other test would
    /// show it.
    #[test]
    fn seeds_on_disk_are_those_of_today() {
        for (target, seeds) in seeds::all() {
            // A trace holds the times at which it was recorded.
            if target == "trace" {
                continue;
            }
            for (name, bytes) in seeds {
                let path = super::fuzz_dir().join("corpus").join(target).join(name);
                let stored = std::fs::read(&path).unwrap_or_default();
                assert!(stored == bytes, "{}: see seeds.rs", path.display());
            }
        }
    }

    /// Writes the seeds; see seeds.rs.
    #[test]
    #[ignore = "writes to fuzz/corpus"]
    fn write_seeds() {
        for (target, seeds) in seeds::all() {
            let dir = super::fuzz_dir().join("corpus").join(target);
            std::fs::create_dir_all(&dir).unwrap();
            for (name, bytes) in seeds {
                std::fs::write(dir.join(name), bytes).unwrap();
            }
        }
    }
}
