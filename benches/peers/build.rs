//! Hands the program what can only be known while it is built: the compiler, and the releases of
//! the stores that are compared, from this workspace's lock file.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rerun-if-env-changed=RUSTC");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(compiler)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_else(|| "rustc of unknown version".into());
    println!("cargo:rustc-env=PEERS_RUSTC_VERSION={}", version.trim());

    let lock = std::fs::read_to_string("Cargo.lock").expect("a workspace has a lock file");
    for package in lock.split("[[package]]") {
        let field = |name: &str| {
            let mut fields = package.lines().filter_map(|line| line.split_once(" = "));
            let value = fields.find(|(field, _)| *field == name)?.1;
            Some(value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version)) = (field("name"), field("version")) {
            println!("cargo:rustc-env=RELEASE_OF_{name}={name} {version}");
        }
    }
}
