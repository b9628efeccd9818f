//! The command-line tool on a full disk: a clear error, and no files left behind.

#[path = "store/tmpfs.rs"]
mod tmpfs;

use std::path::Path;
use std::process::{Command, Output};

use tmpfs::Tmpfs;

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hedgerow"))
        .args(args)
        .current_dir(dir)
        .env("TMPDIR", dir)
        .output()
        .unwrap()
}

/// One line on standard error that says what is the matter, and exit code 1.
#[track_caller]
fn assert_says_full(ran: &Output) -> String {
    let error = String::from_utf8(ran.stderr.clone()).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains("No space left") || error.contains("no storage space"),
        "{error}"
    );
    error
}

#[test]
fn load_says_how_far_it_came_and_keeps_that() {
    for engine in ["lsm", "btree"] {
        let Some(disk) = Tmpfs::mount("cli_full_disk::load", 8 << 10) else {
            return;
        };
        let outside = tempfile::tempdir().unwrap();
        let file = outside.path().join("records.tsv");
        let mut text = String::new();
        let mut state = 1u64;
        for n in 0..40_000 {
            text.push_str(&format!("{n:08}\t"));
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                text.push_str(&format!("{state:016x}"));
            }
            text.push('\n');
        }
        std::fs::write(&file, text).unwrap();
        let store = disk.path().join("store");
        let (file, store) = (file.to_str().unwrap(), store.to_str().unwrap());
        let ran = run(
            outside.path(),
            &[
                "load", store, file, "--key", "1", "--value", "2", "--engine", engine,
            ],
        );
        let error = assert_says_full(&ran);
        assert!(error.contains("had been committed"), "{error}");
        // What it says it has committed is there.
        let digits = |text: &str| {
            text.chars()
                .filter(char::is_ascii_digit)
                .collect::<String>()
        };
        let after = error.split("stopped after ").nth(1).unwrap();
        let committed: usize = digits(after.split("record").next().unwrap())
            .parse()
            .unwrap();
        let ran = run(outside.path(), &["dump", store]);
        assert!(ran.status.success(), "{ran:?}");
        let lines = String::from_utf8(ran.stdout).unwrap().lines().count();
        assert_eq!(lines, committed, "{error}");
        assert!(run(outside.path(), &["verify", store]).status.success());
    }
}

#[test]
fn bench_and_compare_leave_nothing_behind() {
    for engine in ["lsm", "btree", "both"] {
        for command in [
            &[
                "bench",
                "--preset",
                "quick",
                "--workloads",
                "fillrandom",
                "--records",
                "200000",
            ][..],
            &["compare"],
        ] {
            let Some(disk) = Tmpfs::mount("cli_full_disk::bench", 3 << 10) else {
                return;
            };
            let report = disk.path().join("out.json");
            let mut args = command.to_vec();
            args.extend(["--dir", disk.path().to_str().unwrap()]);
            if command[0] == "bench" {
                args.extend(["--engine", engine, "--json", report.to_str().unwrap()]);
            } else if engine != "both" {
                continue;
            }
            let ran = run(disk.path(), &args);
            let error = String::from_utf8(ran.stderr.clone()).unwrap();
            if ran.status.code() == Some(2) {
                // It looks before it begins.
                assert!(error.contains("free: use fewer"), "{error}");
            } else {
                assert_says_full(&ran);
            }
            assert_eq!(disk.files(), Vec::<std::path::PathBuf>::new(), "{args:?}");
        }
    }
}
