//! One trade-off run, and what it gives.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::suite::contestant::Contestant;
use crate::targets::{Target, TargetOptions};
use crate::verdict::Unit;
use crate::workload::{Params, Workload};

/// A figure of a trade-off run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its name for programs.
    pub id: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// How much.
    pub value: f64,
}

/// How a process ends in the middle of a trade-off run.
pub enum FirstHalf {
    /// It is killed while it has this store open.
    Open(Box<dyn Target>),
    /// It has closed its stores: any end will do.
    Closed,
}

/// A trade-off run on one store.
#[derive(Debug)]
pub struct Run<'a> {
    /// A directory that is its own.
    pub dir: &'a Path,
    /// The store.
    pub contestant: &'a Contestant,
    /// How it is opened.
    pub options: TargetOptions,
    /// The figures that it runs with.
    pub params: Params,
}

impl Run<'_> {
    /// The directory of one of its stores.
    pub(super) fn store_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        if !dir.is_dir() {
            std::fs::create_dir(&dir).map_err(|source| Error::io("making", &dir, source))?;
        }
        Ok(dir)
    }

    /// True if it has taken its time since `began`.
    pub(super) fn is_late(&self, began: Instant) -> bool {
        let limit = self.params.duration;
        limit.is_some_and(|limit| began.elapsed() > limit)
    }
}

pub(super) fn figure(id: &'static str, label: &'static str, unit: Unit, value: f64) -> Figure {
    Figure {
        id,
        label,
        unit,
        value,
    }
}

pub(super) fn workload(request: &str) -> Result<Workload> {
    request.parse()
}

pub(super) fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
