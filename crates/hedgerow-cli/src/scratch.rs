//! Directories for stores that live no longer than a command.

use std::path::Path;

use tempfile::TempDir;

use crate::failure::{Failure, Result};

/// A new directory within `within`, or within the system's temporary directory. It is removed when
/// it goes out of scope, on every way out.
pub fn directory(prefix: &str, within: Option<&Path>) -> Result<TempDir> {
    let within = within.map_or_else(std::env::temp_dir, Path::to_path_buf);
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(&within)
        .map_err(|source| Failure::io("making a directory in", &within, source))
}
