//! Columns of a table: which of them are the key and the value.

use super::key::Joiner;
use super::shape::{Missing, Shape, ValueAs};
use super::sink::Problem;
use crate::failure::{Failure, Result};

/// Columns of a table, resolved to positions from zero.
pub struct Columns<'a> {
    key: Vec<usize>,
    joiner: Joiner<'a>,
    value: Option<usize>,
    missing: Missing,
    /// The names of all columns, as JSON strings, if values are JSON.
    json_names: Option<Vec<String>>,
    /// A value that is written anew.
    written: Vec<u8>,
}

impl<'a> Columns<'a> {
    /// True if the first line must be a header.
    pub fn need_header(shape: &Shape) -> bool {
        let is_name = |column: &String| column.parse::<usize>().is_err();
        shape.header
            || shape.key.iter().any(is_name)
            || shape.value.iter().any(is_name)
            || Self::writes_objects(shape)
    }

    /// True if the value is the whole record, as a JSON object.
    fn writes_objects(shape: &Shape) -> bool {
        shape.value.is_none() && shape.value_as == ValueAs::Json
    }

    /// Finds the columns by the names in `header`, which is empty if there is none.
    pub fn resolve(shape: &'a Shape, header: &[&[u8]]) -> Result<Self> {
        let json_names = match shape.value_as {
            ValueAs::Text => None,
            ValueAs::Json if Self::writes_objects(shape) => Some(json_names(header)?),
            ValueAs::Json => Some(Vec::new()),
        };
        let position = |column: &String| position(column, header);
        Ok(Self {
            key: shape.key.iter().map(position).collect::<Result<_>>()?,
            joiner: Joiner::new(&shape.join, shape.key.len()),
            value: shape.value.as_ref().map(position).transpose()?,
            missing: shape.missing,
            json_names,
            written: Vec::new(),
        })
    }

    /// True if a record's own text is its value.
    pub fn take_whole(&self) -> bool {
        self.value.is_none() && self.json_names.is_none()
    }

    /// Puts a record's key in `key` and returns its value, where `whole` is the record.
    pub fn pick<'r>(
        &'r mut self,
        fields: &[&'r [u8]],
        whole: &'r [u8],
        key: &mut Vec<u8>,
    ) -> Result<&'r [u8], Problem> {
        let field = |at: usize| match fields.get(at) {
            Some(field) => Ok(*field),
            None if self.missing == Missing::Empty => Ok(&b""[..]),
            None => Err(Problem::Missing(format!(
                "no column {}: it has {}",
                at + 1,
                fields.len()
            ))),
        };
        key.clear();
        for (nth, at) in self.key.iter().enumerate() {
            self.joiner.push(key, nth, field(*at)?);
        }
        let Some(names) = &self.json_names else {
            return self.value.map_or(Ok(whole), field);
        };
        self.written.clear();
        if let Some(at) = self.value {
            push_json(&mut self.written, at, field(at)?)?;
            return Ok(&self.written);
        }
        if fields.len() > names.len() {
            let (has, named) = (fields.len(), names.len());
            let what = format!("it has {has} columns, and the header names {named}");
            return Err(Problem::Bad(what));
        }
        for (at, name) in names.iter().enumerate() {
            self.written
                .extend_from_slice(if at == 0 { b"{" } else { b"," });
            self.written.extend_from_slice(name.as_bytes());
            self.written.push(b':');
            push_json(&mut self.written, at, field(at)?)?;
        }
        self.written.push(b'}');
        Ok(&self.written)
    }
}

/// Appends a field as a JSON string.
fn push_json(out: &mut Vec<u8>, at: usize, field: &[u8]) -> Result<(), Problem> {
    let text = std::str::from_utf8(field)
        .map_err(|_| Problem::Bad(format!("column {} is not UTF-8", at + 1)))?;
    serde_json::to_writer(out, text).map_err(|error| Problem::Bad(error.to_string()))
}

/// The position of a column that is named by its number from 1 or by its name in the header.
fn position(column: &String, header: &[&[u8]]) -> Result<usize> {
    match column.parse::<usize>() {
        Ok(0) => return Err(Failure::usage("columns are numbered from 1")),
        Ok(number) => return Ok(number - 1),
        Err(_) => {}
    }
    let mut found = header
        .iter()
        .enumerate()
        .filter(|(_, name)| **name == column.as_bytes());
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(at),
        (Some((first, _)), Some((second, _))) => Err(Failure::usage(format!(
            "two columns are called {column:?}: say {} or {}",
            first + 1,
            second + 1
        ))),
        (None, _) => {
            let names: Vec<_> = header
                .iter()
                .map(|name| name.escape_ascii().to_string())
                .collect();
            Err(Failure::usage(format!(
                "there is no column {column:?}; the header has {}",
                names.join(", ")
            )))
        }
    }
}

/// The names of a header as JSON strings.
fn json_names(header: &[&[u8]]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (at, name) in header.iter().enumerate() {
        let mut json = Vec::new();
        push_json(&mut json, at, name).map_err(|what| Failure::error(format!("header: {what}")))?;
        let json = String::from_utf8_lossy(&json).into_owned();
        if names.contains(&json) {
            return Err(Failure::error(format!("header: two columns are {json}")));
        }
        names.push(json);
    }
    Ok(names)
}
