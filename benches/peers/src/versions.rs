//! Which versions were compared.

/// This crate's lock file: what was really built.
const LOCK: &str = include_str!("../Cargo.lock");

/// Packages with their versions in the lock file; what is no package of it, as it is.
pub fn shown(packages: &[&str]) -> String {
    let shown = packages
        .iter()
        .map(|package| match version_in(LOCK, package) {
            Some(version) => format!("{package} {version}"),
            None => (*package).to_owned(),
        });
    shown.collect::<Vec<_>>().join(", ")
}

/// The compiler that built this program.
pub fn compiler() -> &'static str {
    env!("PEERS_RUSTC_VERSION")
}

fn version_in<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.next()?;
    let version = lines.next()?.strip_prefix("version = \"")?;
    version.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let hedgerow = concat!("hedgerow ", env!("CARGO_PKG_VERSION"), ", a library");
        assert_eq!(shown(&["hedgerow", "a library"]), hedgerow);
        let lock = "[[package]]\nname = \"ab\"\nversion = \"1.2.3+x\"\n";
        assert_eq!(version_in(lock, "ab"), Some("1.2.3+x"));
        assert_eq!(version_in(lock, "a"), None);
        assert_eq!(version_in("name = \"ab\"", "ab"), None);
    }
}
