//! Files in a store, by name: stored and read back without one of them being in memory as a whole.
//!
//! `cargo run --example files -- README.md Cargo.lock`

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use hedgerow::{Db, EngineKind, Keyspace, Result};

fn main() -> Result<()> {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(scratch.path().join("my.db"))?;
    let files = db.keyspace("files", EngineKind::BTree)?;
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        let path = scratch.path().join("a long file");
        let made = File::create_new(&path)
            .and_then(|mut file| io::copy(&mut io::repeat(b'h').take(10 << 20), &mut file));
        made.expect("ten megabytes of disk");
        paths.push(path);
    }
    for path in paths {
        let name = path.to_string_lossy();
        let file = File::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        // One commit: the whole file, or nothing of it.
        files.put_from(name.as_bytes(), file)?;
        let is_same = is_same(&files, &name, &path);
        let tail = tail(&files, &name)?;
        println!("{name}: the same again: {is_same}; it ends in {tail:?}");
        assert!(is_same);
    }
    Ok(())
}

/// Compares a file with what is stored of it.
fn is_same(files: &Keyspace, name: &str, path: &PathBuf) -> bool {
    let stored = files.reader(name).expect("it can be read");
    let stored = stored.expect("it was stored just now");
    let file = BufReader::new(File::open(path).expect("it was there just now"));
    stored.len() == file.get_ref().metadata().expect("it is open").len()
        && stored
            .bytes()
            .map_while(io::Result::ok)
            .eq(file.bytes().map_while(io::Result::ok))
}

/// The last bytes of a file that is stored; nothing else of it is read.
fn tail(files: &Keyspace, name: &str) -> Result<String> {
    let Some(mut reader) = files.reader(name)? else {
        return Ok(String::new());
    };
    let from = reader.len().saturating_sub(20);
    let mut bytes = Vec::new();
    let read = reader
        .seek(SeekFrom::Start(from))
        .and_then(|_| reader.read_to_end(&mut bytes));
    read.expect("what is damaged is not read");
    Ok(bytes.escape_ascii().to_string())
}
