//! Hands the command-line tool what can only be known while it is built: which compiler and which
//! versions of the dependencies it was made with. Reports of `hedgerow bench` name them.
//!
//! Does nothing for the library.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Dependencies that speed depends on.
const NAMED: [&str; 9] = [
    "arc-swap",
    "bytes",
    "crc32fast",
    "crossbeam-epoch",
    "crossbeam-skiplist",
    "lz4_flex",
    "memmap2",
    "parking_lot",
    "quick_cache",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CLI").is_none() {
        return;
    }
    println!("cargo:rerun-if-env-changed=RUSTC");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(compiler).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
    let version = version.unwrap_or_else(|| "rustc of unknown version".into());
    println!("cargo:rustc-env=HEDGEROW_RUSTC={}", version.trim());

    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    let lock = Path::new(&root).join("Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    let lock = fs::read_to_string(lock).unwrap_or_default();
    let found = NAMED.iter().filter_map(|name| {
        let version = version_in(&lock, name)?;
        Some(format!("{name} {version}"))
    });
    let crates = found.collect::<Vec<_>>().join(", ");
    println!("cargo:rustc-env=HEDGEROW_CRATES={crates}");
}

/// The version of `package` in a lock file.
fn version_in<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.next()?;
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}
