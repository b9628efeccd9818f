//! `replay` and `advise`: what a recorded workload costs on each engine, and which one fits it.
//!
//! ```text
//! trace ──▶ profile      what the workload is: mix, skew, sizes        (one pass, whole trace)
//!   └─────▶ plan         what to replay: events and records to preload
//!             └──▶ run   measured on a fresh store of one engine
//!                   └──▶ decide   profile + measurements + goal ──▶ advice      (pure)
//! ```
//!
//! The guide is docs/trace.md.

pub mod decide;
pub mod plan;
pub mod profile;
pub mod run;

use std::path::Path;

use hedgerow::trace::{Reader, TraceEnd};

use crate::error::{Error, Result};

/// Opens a trace.
///
/// # Errors
///
/// Those of [`Reader::open`].
pub fn open(path: &Path) -> Result<Reader> {
    let opened = Reader::open(path).map_err(Error::from);
    opened.map_err(|error| error.during("reading the trace"))
}

/// What a reader should know about how complete a trace is; empty if it is.
pub fn shortcomings(reader: &Reader) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(TraceEnd::Torn { offset }) = reader.end() {
        found.push(format!(
            "the trace breaks off at byte {offset} of {}: the process ended before it was closed, \
             or the file is damaged",
            reader.file_bytes()
        ));
    }
    if reader.end() == Some(&TraceEnd::Limit) {
        found.push("the trace ends at its limit of bytes; the workload went on".to_owned());
    }
    if reader.dropped() > 0 {
        found.push(format!(
            "{} events were lost while recording, because the file could not keep up",
            reader.dropped()
        ));
    }
    found
}
