//! SIGINT and SIGTERM end every command, whatever it waits for: before, a `load` from a pipe that
//! was silent, and whatever printed to a pipe that nobody read, went on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output};

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
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
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
        for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
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
