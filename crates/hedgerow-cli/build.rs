//! Hands the tool what can only be known while it is built: which compiler and which versions of
//! the dependencies it was made with. Reports of `hedgerow bench` name them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Dependencies that speed depends on.
const NAMED: [&str; 10] = [
    "arc-swap",
    "bytes",
    "crc32fast",
    "crossbeam-epoch",
    "crossbeam-skiplist",
    "lz4_flex",
    "memmap2",
    "parking_lot",
    "quick_cache",
    "zstd-safe",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(compiler).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
    let version = version.unwrap_or_else(|| "rustc of unknown version".into());
    println!("cargo:rustc-env=HEDGEROW_RUSTC={}", version.trim());

    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    let crates = match workspace_lock(Path::new(&package)) {
        Some(lock) => {
            println!("cargo:rerun-if-changed={}", lock.display());
            let lock = fs::read_to_string(lock).unwrap_or_default();
            let found = NAMED.iter().filter_map(|name| {
                let version = version_in(&lock, name)?;
                Some(format!("{name} {version}"))
            });
            found.collect::<Vec<_>>().join(", ")
        }
        None => "unknown versions: built outside the repository".into(),
    };
    println!("cargo:rustc-env=HEDGEROW_CRATES={crates}");
}

/// The lock file of the workspace that `package` is built in: beside the nearest manifest, upwards
/// from it, that has a table `workspace`. The lock file of a published package is not it: a build
/// of that package need not keep to it.
fn workspace_lock(package: &Path) -> Option<PathBuf> {
    let root = package.ancestors().find(|dir| {
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
        manifest.lines().any(|line| line.trim() == "[workspace]")
    })?;
    let lock = root.join("Cargo.lock");
    lock.is_file().then_some(lock)
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
