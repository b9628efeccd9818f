//! The rules of docs/architecture.md that a reader of the source can check: who may use whom, no
//! circle between files, where `unsafe` and files of the operating system may be named.
//!
//! Nothing here needs the library, so the check also runs while the library does not compile:
//!
//! ```text
//! rustc --edition 2024 --test tests/architecture/main.rs -o target/architecture && target/architecture
//! ```

mod arrows;
mod lexer;
mod modules;
mod rules;
mod self_test;

use std::fs;
use std::path::Path;

use modules::Source;

/// All source files of the workspace's packages, with paths from the root of the workspace.
fn sources_of_the_workspace() -> Vec<Source> {
    let root = Path::new(option_env!("CARGO_MANIFEST_DIR").unwrap_or("."));
    let mut folders = vec![root.join("src")];
    if let Ok(crates) = fs::read_dir(root.join("crates")) {
        folders.extend(crates.map(|entry| entry.unwrap().path().join("src")));
    }
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let within = path.strip_prefix(root).unwrap().components();
                let names: Vec<_> = within
                    .map(|name| name.as_os_str().to_string_lossy())
                    .collect();
                sources.push(Source {
                    path: names.join("/"),
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

#[test]
fn the_source_keeps_the_rules() {
    let sources = sources_of_the_workspace();
    let verdict = rules::check(&sources);
    println!("figure source files = {}", verdict.files);
    println!("figure arrows between files = {}", verdict.arrows);
    println!("figure circles between files = {}", verdict.circles);
    assert!(
        verdict.files > 100 && verdict.arrows > 500,
        "the source was found"
    );
    for violation in &verdict.violations {
        println!("{violation}");
    }
    let count = verdict.violations.len();
    assert_eq!(count, 0, "{count} violations of the rules, listed above");
}
