//! Tables without quotes: a record a line, columns separated by one character.

use std::io::Read;

use super::columns::Columns;
use super::lines::Text;
use super::shape::Shape;
use super::sink::{Line, Problem, Sink};
use crate::bytes::unescape;
use crate::failure::Result;

/// Reads a table, or what `dump` wrote.
pub fn read<V: FnMut(Line, &[u8], &[u8]) -> Result<()>>(
    mut text: Text<impl Read>,
    shape: &Shape,
    sink: &mut Sink<V>,
) -> Result<()> {
    let mut line = Vec::new();
    if shape.dumped {
        while text.next_line(&mut line)? {
            match dumped(&line) {
                Ok((key, value)) => sink.take(text.line(), &key, Ok(&value))?,
                Err(problem) => sink.take(text.line(), b"", Err(problem))?,
            }
        }
        return Ok(());
    }

    let delimiter = shape.delimiter.unwrap_or(b'\t');
    let mut first = Vec::new();
    let named = Columns::need_header(shape) && text.next_line(&mut first)?;
    let header = if named {
        fields(&first, delimiter)
    } else {
        Vec::new()
    };
    let mut columns = Columns::resolve(shape, &header)?;
    let mut key = Vec::new();
    while text.next_line(&mut line)? {
        if !line.is_empty() {
            let value = columns.pick(&fields(&line, delimiter), &line, &mut key);
            sink.take(text.line(), &key, value)?;
        }
    }
    Ok(())
}

fn fields(line: &[u8], delimiter: u8) -> Vec<&[u8]> {
    line.split(|byte| *byte == delimiter).collect()
}

/// A line of a dump.
fn dumped(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Problem> {
    let Some(tab) = line.iter().position(|byte| *byte == b'\t') else {
        let what = "no tab between key and value";
        return Err(Problem::Bad(what.to_owned()));
    };
    let key = unescape(&line[..tab]).map_err(Problem::Bad)?;
    let value = unescape(&line[tab + 1..]).map_err(Problem::Bad)?;
    Ok((key, value))
}
