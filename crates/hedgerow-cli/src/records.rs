//! Records out of files: tab-separated text, CSV and JSON Lines, as keys and values.
//!
//! A record's key is one or more of its columns, joined; its value is the whole record or one
//! column. Files that `hedgerow dump` wrote are read back exactly. Reading stops at the first
//! record that cannot be used, with its line number: a record is never skipped.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use lz4_flex::frame::FrameDecoder;
use serde_json::Value;

use crate::bytes::{from_json, unescape};
use crate::failure::{Failure, Result};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A record a line, columns separated by tabs, without quotes.
    Tsv,
    /// Comma-separated values, quoted where needed (RFC 4180).
    Csv,
    /// A JSON object a line.
    Jsonl,
}

impl Format {
    /// Guesses from a file's name, with or without `.lz4` at its end.
    pub fn guess(path: &Path) -> Option<Self> {
        let path = if is_lz4(path) {
            path.with_extension("")
        } else {
            path.to_path_buf()
        };
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "tsv" | "tab" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

fn is_lz4(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "lz4")
}

/// Which parts of a record become its key and its value.
#[derive(Debug, Clone, Args)]
pub struct Shape {
    /// How the file is written; guessed from its name, where `.lz4` may follow
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Column that is the key: a number from 1, a name from the header, or a JSON field; several,
    /// separated by commas, are joined
    #[arg(long, value_name = "COLUMN[,COLUMN]", value_delimiter = ',')]
    pub key: Vec<String>,
    /// What joins the columns of a key
    #[arg(long, value_name = "TEXT", default_value = "/")]
    pub join: String,
    /// Column that is the value [default: the whole record]
    #[arg(long, value_name = "COLUMN")]
    pub value: Option<String>,
    /// The first line names the columns; implied where --key or --value is a name
    #[arg(long)]
    pub header: bool,
    /// The file was written by `hedgerow dump`: take keys and values exactly as they were
    #[arg(long, conflicts_with_all = ["key", "value", "header", "join"])]
    pub dumped: bool,
}

impl Shape {
    /// True if no option was given that only a file can need.
    pub fn is_default(&self) -> bool {
        self.format.is_none()
            && self.key.is_empty()
            && self.value.is_none()
            && !self.header
            && !self.dumped
    }

    /// The format of `path`. Refuses a shape that no record can fit.
    pub fn check(&self, path: &Path) -> Result<Format> {
        if self.key.is_empty() && !self.dumped {
            return Err(Failure::usage(
                "which column is the key? Name it with --key, or say --dumped",
            ));
        }
        let format = self.format.or_else(|| Format::guess(path)).ok_or_else(|| {
            Failure::usage(format!(
                "cannot tell the format of {}: name it with --format",
                path.display()
            ))
        })?;
        if self.dumped && format == Format::Csv {
            return Err(Failure::usage("a dump is TSV or JSON Lines, not CSV"));
        }
        Ok(format)
    }
}

/// A source of bytes.
pub type Input = Box<dyn Read>;

/// Opens a file, or standard input for `-`.
pub fn open(path: &Path) -> Result<Input> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|source| Failure::io("opening", path, source))?;
    if path.is_dir() {
        return Err(Failure::error(format!("{} is a directory", path.display())));
    }
    Ok(Box::new(file))
}

/// Opens a file of records, or standard input for `-`: counts the bytes read on `progress`, and
/// decompresses what ends in `.lz4`.
pub fn open_records(path: &Path, progress: &ProgressBar) -> Result<Input> {
    let input = progress.wrap_read(open(path)?);
    if let Ok(meta) = path.metadata() {
        progress.set_length(meta.len());
    }
    Ok(if is_lz4(path) {
        Box::new(FrameDecoder::new(input))
    } else {
        Box::new(input)
    })
}

/// Where a record begins.
pub type Line = u64;

/// Calls `visit` with the line, key and value of every record of `input`, in order.
pub fn for_each(
    path: &Path,
    input: impl Read,
    shape: &Shape,
    visit: impl FnMut(Line, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let format = shape.check(path)?;
    let mut reader = BufReader::with_capacity(1 << 18, input);
    let result = skip_byte_order_mark(&mut reader).and_then(|()| match format {
        Format::Tsv => tsv(reader, shape, visit),
        Format::Csv => csv(reader, shape, visit),
        Format::Jsonl => jsonl(reader, shape, visit),
    });
    result.map_err(|failure| failure.context(path.display().to_string()))
}

/// A record that cannot be used.
fn bad(line: Line, what: impl std::fmt::Display) -> Failure {
    Failure::error(format!("line {line}: {what}")).detail("line", line)
}

fn skip_byte_order_mark(reader: &mut impl BufRead) -> Result<()> {
    if reader.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
        reader.consume(3);
    }
    Ok(())
}

/// Reads the next line without its end; false at the end of the file.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    if reader.read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(true)
}

/// Columns of a table, resolved to positions from zero.
struct Columns<'a> {
    key: Vec<usize>,
    join: &'a [u8],
    value: Option<usize>,
}

impl<'a> Columns<'a> {
    /// True if the first line must be a header.
    fn need_header(shape: &Shape) -> bool {
        let is_name = |column: &String| column.parse::<usize>().is_err();
        shape.header || shape.key.iter().any(is_name) || shape.value.iter().any(is_name)
    }

    fn resolve(shape: &'a Shape, header: &[Vec<u8>]) -> Result<Self> {
        let position = |column: &String| match column.parse::<usize>() {
            Ok(0) => Err(Failure::usage("columns are numbered from 1")),
            Ok(number) => Ok(number - 1),
            Err(_) => header
                .iter()
                .position(|name| name == column.as_bytes())
                .ok_or_else(|| {
                    let names: Vec<_> = header.iter().map(|name| name.escape_ascii()).collect();
                    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
                    Failure::usage(format!(
                        "there is no column {column:?}; the header has {}",
                        names.join(", ")
                    ))
                }),
        };
        Ok(Self {
            key: shape.key.iter().map(position).collect::<Result<_>>()?,
            join: shape.join.as_bytes(),
            value: shape.value.as_ref().map(position).transpose()?,
        })
    }

    /// Puts a record's key in `key` and returns its value, where `whole` is the record.
    fn pick<'r>(
        &self,
        line: Line,
        fields: &[&'r [u8]],
        whole: &'r [u8],
        key: &mut Vec<u8>,
    ) -> Result<&'r [u8]> {
        let field = |at: usize| {
            fields.get(at).copied().ok_or_else(|| {
                bad(
                    line,
                    format!("no column {}: it has {}", at + 1, fields.len()),
                )
            })
        };
        key.clear();
        for (nth, at) in self.key.iter().enumerate() {
            if nth > 0 {
                key.extend_from_slice(self.join);
            }
            key.extend_from_slice(field(*at)?);
        }
        self.value.map_or(Ok(whole), field)
    }
}

fn tsv(
    mut reader: impl BufRead,
    shape: &Shape,
    mut visit: impl FnMut(Line, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut text = Vec::new();
    let mut line = 0;
    if shape.dumped {
        while next_line(&mut reader, &mut text)? {
            line += 1;
            let Some(tab) = text.iter().position(|byte| *byte == b'\t') else {
                return Err(bad(line, "no tab between key and value"));
            };
            let key = unescape(&text[..tab]).map_err(|what| bad(line, what))?;
            let value = unescape(&text[tab + 1..]).map_err(|what| bad(line, what))?;
            visit(line, &key, &value)?;
        }
        return Ok(());
    }

    let mut header = Vec::new();
    if Columns::need_header(shape) && next_line(&mut reader, &mut text)? {
        line += 1;
        header = text
            .split(|byte| *byte == b'\t')
            .map(<[u8]>::to_vec)
            .collect();
    }
    let columns = Columns::resolve(shape, &header)?;
    let mut key = Vec::new();
    while next_line(&mut reader, &mut text)? {
        line += 1;
        if text.is_empty() {
            continue;
        }
        let fields: Vec<&[u8]> = text.split(|byte| *byte == b'\t').collect();
        let value = columns.pick(line, &fields, &text, &mut key)?;
        visit(line, &key, value)?;
    }
    Ok(())
}

fn csv(
    reader: impl BufRead,
    shape: &Shape,
    mut visit: impl FnMut(Line, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(reader);
    let mut record = csv::ByteRecord::new();
    let mut next = |record: &mut csv::ByteRecord| -> Result<Option<Line>> {
        let more = reader.read_byte_record(record).map_err(|error| {
            if error.is_io_error() {
                Failure::from(io::Error::from(error))
            } else {
                Failure::error(error.to_string())
            }
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        Ok(more.then_some(line))
    };

    let mut header = Vec::new();
    if Columns::need_header(shape) && next(&mut record)?.is_some() {
        header = record.iter().map(<[u8]>::to_vec).collect();
    }
    let columns = Columns::resolve(shape, &header)?;
    let mut key = Vec::new();
    while let Some(line) = next(&mut record)? {
        // A record as a value is written anew, so that quoting does not depend on the file.
        let mut whole = Vec::new();
        if columns.value.is_none() {
            let mut writer = csv::WriterBuilder::new()
                .flexible(true)
                .from_writer(&mut whole);
            writer
                .write_byte_record(&record)
                .and_then(|()| Ok(writer.flush()?))
                .map_err(|error| bad(line, error))?;
            drop(writer);
            whole.pop();
        }
        let fields: Vec<&[u8]> = record.iter().collect();
        let value = columns.pick(line, &fields, &whole, &mut key)?;
        visit(line, &key, value)?;
    }
    Ok(())
}

fn jsonl(
    mut reader: impl BufRead,
    shape: &Shape,
    mut visit: impl FnMut(Line, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut text = Vec::new();
    let mut line = 0;
    while next_line(&mut reader, &mut text)? {
        line += 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let record: Value = serde_json::from_slice(&text)
            .map_err(|error| bad(line, format!("not JSON: {error}")))?;
        let Value::Object(object) = record else {
            return Err(bad(line, "not a JSON object"));
        };
        let field = |name: &str| {
            object
                .get(name)
                .ok_or_else(|| bad(line, format!("no field {name:?}")))
        };
        if shape.dumped {
            let bytes = |name: &str| {
                from_json(field(name)?).map_err(|what| bad(line, format!("{name}: {what}")))
            };
            visit(line, &bytes("key")?, &bytes("value")?)?;
            continue;
        }

        let mut key = Vec::new();
        for (nth, name) in shape.key.iter().enumerate() {
            if nth > 0 {
                key.extend_from_slice(shape.join.as_bytes());
            }
            key.extend_from_slice(&plain(field(name)?));
        }
        match &shape.value {
            Some(name) => visit(line, &key, &plain(field(name)?))?,
            None => visit(line, &key, text.trim_ascii())?,
        }
    }
    Ok(())
}

/// A JSON string without its quotes; anything else as JSON text.
fn plain(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(key: &[&str], value: Option<&str>) -> Shape {
        Shape {
            format: None,
            key: key.iter().map(ToString::to_string).collect(),
            join: "/".to_owned(),
            value: value.map(str::to_owned),
            header: false,
            dumped: false,
        }
    }

    type Pairs = Vec<(String, String)>;

    fn read(name: &str, text: &str, shape: &Shape) -> Result<Pairs> {
        let mut pairs = Vec::new();
        for_each(Path::new(name), text.as_bytes(), shape, |_, key, value| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            pairs.push((text(key), text(value)));
            Ok(())
        })?;
        Ok(pairs)
    }

    fn pairs(expected: &[(&str, &str)]) -> Pairs {
        expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn formats_are_guessed() {
        for (name, format) in [
            ("a.tsv", Some(Format::Tsv)),
            ("dir.x/a.TSV.lz4", Some(Format::Tsv)),
            ("a.csv", Some(Format::Csv)),
            ("a.ndjson", Some(Format::Jsonl)),
            ("a.lz4", None),
            ("-", None),
        ] {
            assert_eq!(Format::guess(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn tsv_by_number_and_by_name() {
        let text = "id\tname\n1\tada\n2\tbob\n";
        assert_eq!(
            read("a.tsv", text, &shape(&["name", "id"], None)).unwrap(),
            pairs(&[("ada/1", "1\tada"), ("bob/2", "2\tbob")])
        );
        assert_eq!(
            read("a.tsv", "1\tada\r\n\n2\tbob", &shape(&["1"], Some("2"))).unwrap(),
            pairs(&[("1", "ada"), ("2", "bob")])
        );
    }

    #[test]
    fn csv_unquotes_keys_and_keeps_records() {
        let text = "name,born\n\"Love, lace\",1815\n\"a\nb\",2\n";
        assert_eq!(
            read("a.csv", text, &shape(&["name"], Some("born"))).unwrap(),
            pairs(&[("Love, lace", "1815"), ("a\nb", "2")])
        );
        assert_eq!(
            read("a.csv", text, &shape(&["born"], None)).unwrap(),
            pairs(&[("1815", "\"Love, lace\",1815"), ("2", "\"a\nb\",2")])
        );
    }

    #[test]
    fn json_fields() {
        let text = "{\"id\": 7, \"name\": \"ada\"}\n";
        assert_eq!(
            read("a.jsonl", text, &shape(&["name", "id"], None)).unwrap(),
            pairs(&[("ada/7", "{\"id\": 7, \"name\": \"ada\"}")])
        );
        assert_eq!(
            read("a.jsonl", text, &shape(&["id"], Some("name"))).unwrap(),
            pairs(&[("7", "ada")])
        );
    }

    #[test]
    fn bad_records_name_their_line() {
        for (name, text, key, line) in [
            ("a.tsv", "1\tx\n2\n", "2", "line 2: "),
            ("a.csv", "1,x\n3\n", "2", "line 2: "),
            ("a.jsonl", "{\"k\": 1}\n{\"k\": \n", "k", "line 2: not JSON"),
            ("a.jsonl", "[]\n", "k", "line 1: not a JSON object"),
            ("a.jsonl", "{}\n", "k", "line 1: no field"),
        ] {
            let error = read(name, text, &shape(&[key], None))
                .unwrap_err()
                .to_string();
            assert!(error.contains(line), "{error}");
        }
        let error = read("a.tsv", "a\tb\n", &shape(&["c"], None)).unwrap_err();
        assert!(error.to_string().contains("the header has a, b"), "{error}");
    }
}
