//! The command-line tool on a disk that is full, or becomes full while it runs: a clear error, no
//! files left behind, and of a report the whole new one or the old one.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::tmpfs::Tmpfs;

/// Whatever takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// More than `bench` asks for: what a store may take, and what the log may.
const ROOMY_KIB: u64 = 1 << 20;

/// A run that needs next to no space.
const SMALL_BENCH: [&str; 7] = [
    "bench",
    "--workloads",
    "fillseq",
    "--records",
    "1000",
    "--rounds",
    "1",
];

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.args(args).current_dir(dir).env("TMPDIR", dir);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// What a running command ends with.
fn end_of(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it hangs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// Waits until `found` gives something.
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(found) = found() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("{what}: nothing of the kind");
}

/// `count` lines of a key, a tab and a value that does not compress.
fn records(count: u64) -> Vec<String> {
    let mut state = 1u64;
    let line = |n| {
        let mut text = format!("{n:08}\t");
        for _ in 0..12 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            text.push_str(&format!("{state:016x}"));
        }
        text + "\n"
    };
    (0..count).map(line).collect()
}

/// How many records the error of a `load` says were committed.
fn committed_by(error: &str) -> usize {
    let after = error.split("stopped after ").nth(1).unwrap();
    let number = after.split("record").next().unwrap();
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
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
        fs::write(&file, records(40_000).concat()).unwrap();
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
        let committed = committed_by(&error);
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
            assert_eq!(disk.files(), Vec::<PathBuf>::new(), "{args:?}");
        }
    }
}

/// Another program takes the space while records still come in.
#[test]
fn a_load_goes_on_where_it_was_stopped() {
    for engine in ["lsm", "btree"] {
        let Some(disk) = Tmpfs::mount("cli_full_disk::load_goes_on", ROOMY_KIB) else {
            return;
        };
        let outside = tempfile::tempdir().unwrap();
        let store = disk.path().join("store");
        let store = store.to_str().unwrap();
        let load = |batch: &str| {
            let args = [
                "load", store, "-", "--format", "tsv", "--key", "1", "--value", "2", "--engine",
                engine, "--batch", batch,
            ];
            command(outside.path(), &args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let lines = records(60_000);
        let mut child = load("100");
        let mut input = child.stdin.take().unwrap();
        input.write_all(lines[..5000].concat().as_bytes()).unwrap();
        // What the pipe does not hold has been taken.
        disk.fill_up();
        // It may have ended before all is read.
        let _ = input.write_all(lines[5000..].concat().as_bytes());
        drop(input);
        let error = assert_says_full(&end_of(child));
        let committed = committed_by(&error);
        assert!((1..60_000).contains(&committed), "{error}");

        assert!(disk.resize(ROOMY_KIB));
        let dump = || {
            let ran = run(outside.path(), &["dump", store]);
            assert!(ran.status.success(), "{ran:?}");
            String::from_utf8(ran.stdout).unwrap()
        };
        assert!(dump() == lines[..committed].concat(), "not what was loaded");
        assert!(run(outside.path(), &["verify", store]).status.success());
        let mut child = load("1000");
        let mut input = child.stdin.take().unwrap();
        input
            .write_all(lines[committed..].concat().as_bytes())
            .unwrap();
        drop(input);
        let ran = end_of(child);
        assert!(ran.status.success(), "{ran:?}");
        assert!(dump() == lines.concat(), "not what was loaded");
        assert!(run(outside.path(), &["verify", store]).status.success());
    }
}

/// The disk has room enough when they look, and is full once a store of theirs has begun.
#[test]
fn bench_and_compare_end_when_the_disk_fills_under_them() {
    let bench = |engine| {
        vec![
            "bench",
            "--workloads",
            "fillrandom,overwrite",
            "--records",
            "400000",
            "--engine",
            engine,
        ]
    };
    let trial = |name, engine| {
        vec![
            "bench",
            "--workloads",
            name,
            "--records",
            "200000",
            "--engine",
            engine,
        ]
    };
    for (mut args, first) in [
        (bench("lsm"), "lsm-1"),
        (bench("btree"), "btree-1"),
        (trial("bulkdelete", "lsm"), "lsm-1"),
        (trial("recovery", "btree"), "btree-1"),
        (trial("queue", "lsm"), "lsm-1"),
        (vec!["compare"], "lsm-1"),
    ] {
        let Some(disk) = Tmpfs::mount("cli_full_disk::under_them", ROOMY_KIB) else {
            return;
        };
        let dir = disk.path().to_str().unwrap().to_owned();
        let reports = ["out.json", "out.csv", "out.html"].map(|name| disk.path().join(name));
        let names = reports.each_ref().map(|path| path.to_str().unwrap());
        args.extend(["--dir", &dir]);
        let mut left = Vec::new();
        if args[0] == "bench" {
            args.extend(["--json", names[0], "--csv", names[1], "--report", names[2]]);
            for path in &reports {
                fs::write(path, b"of an earlier run").unwrap();
            }
            left = reports.to_vec();
        }
        let child = command(disk.path(), &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for("a store", || {
            let found =
                |path: &PathBuf| path.ends_with("CATALOG") && path.iter().any(|p| p == first);
            disk.files().into_iter().find(found)
        });
        disk.fill_up();
        let ran = end_of(child);
        let error = assert_says_full(&ran);
        assert!(error.contains(&first[..first.len() - 2]), "{error}");
        let mut files = disk.files();
        files.sort();
        left.sort();
        assert_eq!(files, left, "{args:?}: {error}");
        for path in &left {
            assert_eq!(fs::read(path).unwrap(), b"of an earlier run", "{args:?}");
        }
    }
}

#[test]
fn results_that_find_no_room_leave_those_of_an_earlier_run() {
    let Some(disk) = Tmpfs::mount("cli_full_disk::results", 64) else {
        return;
    };
    let outside = tempfile::tempdir().unwrap();
    for option in ["--json", "--csv", "--report"] {
        let path = disk.path().join(format!("out{option}"));
        fs::write(&path, b"of an earlier run").unwrap();
    }
    let ballast = disk.path().join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let before = disk.files();
    for option in ["--json", "--csv", "--report"] {
        let path = disk.path().join(format!("out{option}"));
        let file = [option, path.to_str().unwrap()];
        let args = [&SMALL_BENCH[..], &file].concat();
        let ran = run(outside.path(), &args);
        let error = assert_says_full(&ran);
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"of an earlier run", "{option}");
        assert_eq!(disk.files(), before, "{option}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// What is printed may go to a file on a full disk, too.
#[cfg(target_os = "linux")]
#[test]
fn output_that_finds_no_room_is_an_error() {
    let outside = tempfile::tempdir().unwrap();
    let with_json = [&SMALL_BENCH[..], &["--json"]].concat();
    for args in [
        &SMALL_BENCH[..],
        &with_json,
        &["compare", "--records", "1000", "--rounds", "1"],
        &["compare", "--records", "1000", "--rounds", "1", "--json"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ran = command(outside.path(), args)
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert_says_full(&end_of(ran));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{args:?}");
    }
}
