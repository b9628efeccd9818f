//! SIGINT and SIGTERM end every command, whatever it waits for: before, a `load` from a pipe that
//! was silent, and whatever printed to a pipe that nobody read, went on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::rig::{Bench, parse, wait_for};

/// Sends a signal, and waits for the end of the command, of which nothing is read meanwhile.
fn end_with(signal: &str, mut child: Child) -> Output {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    wait_for("the end", || child.try_wait().unwrap());
    child.wait_with_output().unwrap()
}

/// Signals that end a command, with its exit code then; without an interrupt that this process
/// ignores, as it does in the background of a script: what it starts ignores that too.
fn signals() -> Vec<(&'static str, i32)> {
    let mut signals = vec![("-INT", 130), ("-TERM", 143)];
    signals.retain(|(signal, _)| *signal != "-INT" || !is_ignored_here(2));
    signals
}

/// True if this process ignores the signal of that number, where that can be told.
fn is_ignored_here(signal: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.unwrap_or(0) >> (signal - 1) & 1 == 1
}

/// Copies a directory as it is at the moment.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry?.file_name()));
        match from.is_dir() {
            true => copy(&from, &to)?,
            false => fs::copy(&from, &to).map(drop)?,
        }
    }
    Ok(())
}

#[test]
fn idle_input_is_committed_and_a_signal_says_so() {
    for (signal, code) in signals() {
        for json in [false, true] {
            let b = Bench::new();
            let mut args = vec!["load", "db", "-", "--format", "tsv", "--key", "1"];
            args.extend(json.then_some("--json"));
            let mut child = b.start(&args);
            let mut input = child.stdin.take().unwrap();
            input.write_all(b"a\nb\nc\n").unwrap();
            // The store is locked; a copy of it is what a killed process would leave.
            let mut copies = 0;
            wait_for("a commit of idle input", || {
                copies += 1;
                let name = format!("copy{copies}");
                copy(&b.path("db"), &b.path(&name)).ok()?;
                (b.run(&["count", &name]).out == "3\n").then_some(())
            });
            let output = end_with(signal, child);
            drop(input);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{error}");
            if json {
                let error = parse(&error);
                assert_eq!(error["committed"], 3, "{error}");
                assert_eq!(error["exit_code"], code, "{error}");
            } else {
                let said = error.contains("stopped after 3 records had been committed");
                assert!(said && error.contains("interrupted"), "{error}");
            }
            assert_eq!(b.ok(&["count", "db"]), "3\n");
        }
    }
}

#[test]
fn a_pipe_that_is_not_read_keeps_no_command_alive() {
    let b = Bench::new();
    let lines: String = (0..50_000).map(|n| format!("{n}\tvalue {n}\n")).collect();
    b.file("a.tsv", &lines);
    b.ok(&["load", "db", "a.tsv", "--key", "1"]);
    for args in [&["scan", "db"][..], &["dump", "db", "--json"]] {
        for (signal, code) in signals() {
            let mut child = b.start(args);
            // It prints; more than the pipe holds is to come.
            let mut out = child.stdout.take().unwrap();
            out.read_exact(&mut [0; 10]).unwrap();
            let output = end_with(signal, child);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
            drop(out);
        }
    }
}

#[test]
fn a_value_from_a_silent_pipe_is_not_waited_for() {
    let b = Bench::new();
    b.ok(&["put", "db", "k", "old"]);
    let mut child = b.start(&["put", "db", "k", "--file", "-"]);
    let mut input = child.stdin.take().unwrap();
    // A pipe takes 64 KiB: once more has gone, the command is reading, and its handler installed.
    input.write_all(&[b'x'; 256 << 10]).unwrap();
    let output = end_with("-TERM", child);
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert_eq!(b.ok(&["get", "db", "k"]), "old\n");
}

/// Under `nohup` a command goes on when its terminal goes away.
#[test]
fn a_signal_that_was_ignored_before_is_ignored() {
    let b = Bench::new();
    let hedgerow = env!("CARGO_BIN_EXE_hedgerow");
    let load = format!("exec '{hedgerow}' load db - --format tsv --key 1");
    for (is_ignored, before) in [(true, "trap '' HUP; "), (false, "")] {
        if !is_ignored && is_ignored_here(1) {
            // So does what it starts.
            continue;
        }
        let mut child = Command::new("sh")
            .args(["-c", &format!("{before}{load}")])
            .current_dir(b.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // A pipe takes 64 KiB: once more has gone, the command reads, and its handler is installed.
        let lines: String = (0..50_000).map(|n| format!("{n}\n")).collect();
        input.write_all(lines.as_bytes()).unwrap();
        let mut hang_up = Command::new("kill");
        let sent = hang_up.args(["-HUP", &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        if is_ignored {
            // What a handler would do takes less than a second.
            std::thread::sleep(Duration::from_millis(1500));
            input.write_all(b"last\n").unwrap();
        } else {
            wait_for("the end", || child.try_wait().unwrap());
        }
        drop(input);
        let output = child.wait_with_output().unwrap();
        let code = if is_ignored { 0 } else { 129 };
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        if is_ignored {
            assert_eq!(b.ok(&["count", "db"]), "50001\n");
        }
    }
}
