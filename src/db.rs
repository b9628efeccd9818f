//! The store: a thin handle that owns the parts.

use std::path::Path;

use crate::error::Result;
use crate::options::Options;

/// A store.
#[derive(Debug, Clone)]
pub struct Db {}

impl Db {
    /// Opens the store in directory `path` with `options`.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        options.check()?;
        let _ = path;
        Ok(Self {})
    }

    /// Does one unit of background work.
    pub fn run_background_once(&self) -> Result<bool> {
        Ok(false)
    }
}
