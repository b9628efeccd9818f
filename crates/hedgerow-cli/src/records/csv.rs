//! Comma-separated values, as RFC 4180 has them.
//!
//! Records are read by hand, because the readers that there are take what is wrong without a word:
//! a quote that is never closed makes one field of all that follows, and text after a closing quote
//! joins its field. Here both end the reading at their line, always: after such an error nothing
//! says where a record begins. A quote within a field that does not begin with one is text.

use std::io::Read;

use super::columns::Columns;
use super::lines::Text;
use super::shape::Shape;
use super::sink::{Line, Problem, Sink, bad};
use crate::failure::{Failure, Result};

/// Reads a table.
pub fn read<V: FnMut(Line, &[u8], &[u8]) -> Result<()>>(
    text: Text<impl Read>,
    shape: &Shape,
    sink: &mut Sink<V>,
) -> Result<()> {
    let delimiter = shape.delimiter.unwrap_or(b',');
    let mut records = Records::new(text, delimiter);
    let named = Columns::need_header(shape) && records.advance()?.is_some();
    let header = if named { records.fields() } else { Vec::new() };
    let mut columns = Columns::resolve(shape, &header)?;
    let (mut key, mut whole) = (Vec::new(), Vec::new());
    while let Some(line) = records.advance()? {
        let fields = records.fields();
        // A record as a value is written anew, so that quoting does not depend on the file.
        if columns.take_whole() {
            write_record(&mut whole, delimiter, &fields).map_err(|what| bad(line, what))?;
        }
        let value = columns.pick(&fields, &whole, &mut key);
        sink.take(line, &key, value)?;
    }
    Ok(())
}

/// Puts a record without its line end in `whole`.
fn write_record(whole: &mut Vec<u8>, delimiter: u8, fields: &[&[u8]]) -> Result<(), Problem> {
    whole.clear();
    let mut writer = csv::WriterBuilder::new()
        .flexible(true)
        .delimiter(delimiter)
        .from_writer(&mut *whole);
    writer
        .write_record(fields)
        .and_then(|()| Ok(writer.flush()?))
        .map_err(|error| Problem::Bad(error.to_string()))?;
    drop(writer);
    whole.pop();
    Ok(())
}

/// Where in a record the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the first byte of a field.
    Start,
    /// In a field without quotes.
    Plain,
    /// Between the quotes of a field.
    Quoted,
    /// After a quote in a quoted field: its end, or the first half of a quote that is text.
    Quote,
}

/// The records of a file, one at a time.
struct Records<R> {
    text: Text<R>,
    delimiter: u8,
    line: Vec<u8>,
    /// The fields of the record, one after the other.
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl<R: Read> Records<R> {
    fn new(text: Text<R>, delimiter: u8) -> Self {
        Self {
            text,
            delimiter,
            line: Vec::new(),
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// The fields of the record read last.
    fn fields(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let bounds = starts.zip(&self.ends);
        bounds.map(|(from, to)| &self.bytes[from..*to]).collect()
    }

    /// Reads the next record and returns the line that it begins at. Passes over empty lines.
    fn advance(&mut self) -> Result<Option<Line>> {
        self.bytes.clear();
        self.ends.clear();
        let mut at = At::Start;
        let (mut began, mut opened) = (0, 0);
        loop {
            // In a quoted field the line that was read before is done.
            self.line.clear();
            let Some(end) = self.text.append_line(&mut self.line)? else {
                return match at {
                    At::Quoted => Err(bad(opened, "a quote is opened and never closed")),
                    _ => Ok(None),
                };
            };
            let content = self.line.len() - end;
            if at == At::Start {
                if content == 0 {
                    continue;
                }
                began = self.text.line();
            }
            for index in 0..content {
                let byte = self.line[index];
                at = match (at, byte) {
                    (At::Start, b'"') => {
                        opened = self.text.line();
                        At::Quoted
                    }
                    (At::Start | At::Plain | At::Quote, byte) if byte == self.delimiter => {
                        self.ends.push(self.bytes.len());
                        At::Start
                    }
                    (At::Quoted, b'"') => At::Quote,
                    (At::Quote, b'"') => {
                        self.bytes.push(b'"');
                        At::Quoted
                    }
                    (At::Quote, _) => return Err(self.text_after_quote(opened)),
                    (At::Start | At::Plain, b'\n') => {
                        self.text.check_ends(b"\n")?;
                        self.bytes.push(b'\n');
                        At::Plain
                    }
                    (At::Start | At::Plain, byte) => {
                        self.bytes.push(byte);
                        At::Plain
                    }
                    (At::Quoted, byte) => {
                        self.bytes.push(byte);
                        At::Quoted
                    }
                };
            }
            if at != At::Quoted {
                self.ends.push(self.bytes.len());
                return Ok(Some(began));
            }
            // The end of the line is part of the field.
            self.bytes.extend_from_slice(&self.line[content..]);
            self.check_length(opened)?;
        }
    }

    fn text_after_quote(&self, opened: Line) -> Failure {
        let line = self.text.line();
        let what = "text after the closing quote of a field";
        match opened == line {
            true => bad(line, what),
            false => bad(line, format!("{what} that began at line {opened}")),
        }
    }

    /// Keeps a quote that is never closed from taking all memory.
    fn check_length(&self, opened: Line) -> Result<()> {
        let max = super::lines::RECORD_BYTES_MAX;
        if self.bytes.len() as u64 > max {
            return Err(bad(opened, format!("a field is longer than {max} bytes")));
        }
        Ok(())
    }
}
