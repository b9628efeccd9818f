//! Records out of files: tab-separated text, CSV and JSON, as keys and values.
//!
//! A record's key is one or more of its columns, joined; its value is the whole record or one
//! column. Files that `hedgerow dump` wrote are read back exactly.
//!
//! Nothing is changed or lost in silence:
//!
//! - RR1: a record that cannot be used ends the reading with its line, unless the user asked for
//!   such records to be skipped; what is skipped is counted.
//! - RR2: two different keys of the file never become one ([`key`]), and a number is the text that
//!   the file has, never a rounded one ([`json`]).
//! - RR3: text that is not what its format allows (quotes that do not match, another encoding,
//!   compressed bytes) is an error, never a guess ([`csv`], [`input`]).
//!
//! Reading is streaming: memory is bounded by the largest record, and that by
//! [`lines::RECORD_BYTES_MAX`].

mod columns;
mod csv;
mod input;
mod json;
mod key;
mod lines;
mod shape;
mod sink;
#[cfg(test)]
mod tests;
mod tsv;

use std::io::Read;
use std::path::Path;

use hedgerow_bench::stop;

pub use input::{File, decompressed, length, open, open_records};
pub use shape::Shape;
pub use sink::{Line, Tally};

use crate::failure::{Failure, Result};
use lines::{LineEnds, Text};
use shape::Format;
use sink::Sink;

/// Calls `visit` with the line, key and value of every record of `input`, in order. Returns how
/// many there were and how many were skipped.
pub fn for_each(
    path: &Path,
    input: impl Read,
    shape: &Shape,
    visit: impl FnMut(Line, &[u8], &[u8]) -> Result<()>,
) -> Result<Tally> {
    let format = shape.check(path)?;
    let ends = match format {
        // Its writer ends every line with a line feed, and escapes all other ends of lines.
        _ if shape.dumped => LineEnds::LineFeed,
        Format::Tsv | Format::Jsonl => LineEnds::Detect,
        Format::Csv => LineEnds::DetectOutsideQuotes,
        // Does not read lines.
        Format::Json => LineEnds::LineFeed,
    };
    let mut sink = Sink::new(shape, visit);
    let read = Text::new(input, ends, shape.dumped).and_then(|text| match format {
        Format::Tsv => tsv::read(text, shape, &mut sink),
        Format::Csv => csv::read(text, shape, &mut sink),
        Format::Jsonl => json::read_lines(text, shape, &mut sink),
        Format::Json => json::read_values(text, shape, &mut sink),
    });
    let read = read.and_then(|()| sink.finish());
    if read.is_err() {
        // Whatever error a decompressor made of it.
        stop::check()?;
    }
    read.map_err(|failure: Failure| failure.context(path.display().to_string()))
}
