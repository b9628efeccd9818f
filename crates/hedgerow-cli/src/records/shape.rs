//! What the command line says about a file: its format, and what becomes of a record.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::key::check_join;
use crate::failure::{Failure, Result};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A record a line, columns separated by tabs, without quotes
    Tsv,
    /// Comma-separated values, quoted where needed (RFC 4180)
    Csv,
    /// A JSON object a line
    Jsonl,
    /// One JSON array of objects, or JSON objects one after another
    Json,
}

/// Endings of names that say how a file is compressed; not all of them can be read.
const COMPRESSED: [&str; 7] = ["lz4", "gz", "zst", "zstd", "bz2", "xz", "zip"];

impl Format {
    /// Guesses from a file's name, with or without the ending of a compressed file.
    pub fn guess(path: &Path) -> Option<Self> {
        let extension = |path: &Path| {
            let extension = path.extension()?.to_str()?;
            Some(extension.to_ascii_lowercase())
        };
        let mut found = extension(path)?;
        if COMPRESSED.contains(&found.as_str()) {
            found = extension(&path.with_extension(""))?;
        }
        match found.as_str() {
            "tsv" | "tab" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What becomes of a record without one of the columns or fields that were named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Missing {
    /// Stop
    Error,
    /// Skip the record; the number of them is reported
    Skip,
    /// Take it as empty
    Empty,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ValueAs {
    /// As in the file; a JSON string without its quotes
    Text,
    /// As JSON; a record of a table becomes an object with the names of the header
    Json,
}

/// Which parts of a record become its key and its value.
#[derive(Debug, Clone, Args)]
pub struct Shape {
    /// How the file is written; guessed from its name, where .lz4 or .gz may follow
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Column that is the key: a number from 1, a name from the header, or a JSON field (a.b is b
    /// within a); several, separated by commas, are joined
    #[arg(long, value_name = "COLUMN[,COLUMN]", value_delimiter = ',')]
    pub key: Vec<String>,
    /// What joins the columns of a key; in them its first character is written as %XX, and % as %25
    #[arg(long, value_name = "TEXT", default_value = "/")]
    pub join: String,
    /// Column that is the value [default: the whole record]
    #[arg(long, value_name = "COLUMN")]
    pub value: Option<String>,
    /// How a value is written
    #[arg(long, value_enum, default_value = "text")]
    pub value_as: ValueAs,
    /// The first line names the columns; implied where --key or --value is a name
    #[arg(long)]
    pub header: bool,
    /// What separates the columns of a table: one ASCII character, or tab [default: a tab in tsv, a
    /// comma in csv]
    #[arg(long, value_name = "CHARACTER", value_parser = parse_delimiter)]
    pub delimiter: Option<u8>,
    /// What to do with a record without one of the columns named; a key that is null counts as one
    #[arg(long, value_enum, default_value = "error")]
    pub missing: Missing,
    /// Skip records that cannot be used; their number and the first of them are reported
    #[arg(long)]
    pub skip_errors: bool,
    /// The file was written by `hedgerow dump`: take keys and values exactly as they were
    #[arg(long, conflicts_with_all = [
        "key", "value", "value_as", "header", "join", "delimiter", "missing",
    ])]
    pub dumped: bool,
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [b'"' | b'\n' | b'\r'] => Err("a quote or an end of line separates no columns".to_owned()),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("not one ASCII character".to_owned()),
    }
}

impl Shape {
    /// True if no option was given that only a file can need.
    pub fn is_default(&self) -> bool {
        self.format.is_none()
            && self.key.is_empty()
            && self.value.is_none()
            && self.value_as == ValueAs::Text
            && !self.header
            && self.delimiter.is_none()
            && self.missing == Missing::Error
            && !self.skip_errors
            && !self.dumped
    }

    /// The format of `path`. Refuses a shape that no record can fit.
    pub fn check(&self, path: &Path) -> Result<Format> {
        if self.key.is_empty() && !self.dumped {
            return Err(Failure::usage(
                "which column is the key? Name it with --key, or say --dumped",
            ));
        }
        // What dump writes unless it is told otherwise.
        let dumped = self.dumped.then_some(Format::Tsv);
        let format = self
            .format
            .or_else(|| Format::guess(path))
            .or(dumped)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "cannot tell the format of {}: name it with --format",
                    path.display()
                ))
            })?;
        if self.dumped && matches!(format, Format::Csv | Format::Json) {
            return Err(Failure::usage("a dump is TSV or JSON Lines"));
        }
        if self.delimiter.is_some() && matches!(format, Format::Jsonl | Format::Json) {
            return Err(Failure::usage("--delimiter is for tables, not for JSON"));
        }
        if self.key.len() > 1 {
            check_join(&self.join)?;
        }
        Ok(format)
    }
}
