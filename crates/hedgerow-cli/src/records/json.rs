//! JSON: an object a line, or an array of objects, or objects one after another.
//!
//! The text of numbers is kept as the file has it, because a number that is parsed is rounded:
//! 123456789012345678901 and ...902 would become one key. So values stay unparsed
//! (`serde_json::value::RawValue`) but for strings, which lose their quotes and escapes.

use std::fmt;
use std::io::Read;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::key::Joiner;
use super::lines::{RECORD_BYTES_MAX, Text};
use super::shape::{Missing, Shape, ValueAs};
use super::sink::{Line, Problem, Sink, bad};
use crate::bytes::from_json;
use crate::failure::Result;

/// Reads an object a line.
pub fn read_lines<V: FnMut(Line, &[u8], &[u8]) -> Result<()>>(
    mut text: Text<impl Read>,
    shape: &Shape,
    sink: &mut Sink<V>,
) -> Result<()> {
    let mut picker = Picker::new(shape);
    let mut line = Vec::new();
    while text.next_line(&mut line)? {
        let record = line.trim_ascii();
        if !record.is_empty() {
            picker.give(text.line(), record, sink)?;
        }
    }
    Ok(())
}

/// Reads the objects of an array, or objects one after another.
pub fn read_values<V: FnMut(Line, &[u8], &[u8]) -> Result<()>>(
    mut text: Text<impl Read>,
    shape: &Shape,
    sink: &mut Sink<V>,
) -> Result<()> {
    let mut picker = Picker::new(shape);
    let mut record = Vec::new();
    let Some(mut next) = next_token(&mut text)? else {
        return Ok(());
    };
    let array = next == b'[';
    if array {
        next = expect_token(&mut text)?;
        if next == b']' {
            return expect_end(&mut text);
        }
    }
    loop {
        let line = text.line();
        read_object(&mut text, next, &mut record)?;
        picker.give(line, &record, sink)?;
        if !array {
            match next_token(&mut text)? {
                Some(token) => next = token,
                None => return Ok(()),
            }
            continue;
        }
        match expect_token(&mut text)? {
            b',' => next = expect_token(&mut text)?,
            b']' => return expect_end(&mut text),
            _ => return Err(bad(text.line(), "no comma between two objects of an array")),
        }
    }
}

/// The next byte that is not white space.
fn next_token(text: &mut Text<impl Read>) -> Result<Option<u8>> {
    loop {
        match text.next_byte()? {
            Some(b' ' | b'\t' | b'\n' | b'\r') => {}
            byte => return Ok(byte),
        }
    }
}

fn expect_token(text: &mut Text<impl Read>) -> Result<u8> {
    let token = next_token(text)?;
    token.ok_or_else(|| bad(text.line(), "the file ends within an array"))
}

fn expect_end(text: &mut Text<impl Read>) -> Result<()> {
    match next_token(text)? {
        None => Ok(()),
        Some(_) => Err(bad(text.line(), "text after the end of the array")),
    }
}

/// Reads the text of an object that begins with `first`, up to the brace that closes it. Whether it
/// is JSON is for the parser to say.
fn read_object(text: &mut Text<impl Read>, first: u8, record: &mut Vec<u8>) -> Result<()> {
    let line = text.line();
    if first != b'{' {
        return Err(bad(line, "not a JSON object"));
    }
    record.clear();
    record.push(first);
    let (mut depth, mut in_string, mut escaped) = (1u64, false, false);
    while depth > 0 {
        let Some(byte) = text.next_byte()? else {
            return Err(bad(line, "an object begins here and never ends"));
        };
        record.push(byte);
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
        if record.len() as u64 > RECORD_BYTES_MAX {
            let what = format!("an object is longer than {RECORD_BYTES_MAX} bytes");
            return Err(bad(line, what));
        }
    }
    Ok(())
}

/// The fields of an object in the order of the file, unparsed.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'a> Object<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, Problem> {
        if text.first() != Some(&b'{') {
            let hint = match text.first() {
                Some(b'[') => ": an array of objects is --format json",
                _ => "",
            };
            // Text that is no JSON at all is said to be that.
            serde_json::from_slice::<&RawValue>(text).map_err(not_json)?;
            return Err(Problem::Bad(format!("not a JSON object{hint}")));
        }
        serde_json::from_slice(text).map_err(not_json)
    }

    /// The field called `name`, as it is.
    fn own(&self, name: &str) -> Result<Option<&'a RawValue>, Problem> {
        let mut found = self.0.iter().filter(|(own, _)| own == name);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Problem::Bad(format!("two fields are called {name:?}"))),
            (first, _) => Ok(first.map(|(_, value)| *value)),
        }
    }

    /// The field `name`, where `a.b` is the field of that name, or `b` within the object `a`.
    fn find(&self, name: &str) -> Result<Option<&'a RawValue>, Problem> {
        let own = self.own(name)?;
        let Some((outer, inner)) = name.split_once('.') else {
            return Ok(own);
        };
        let nested = match self.own(outer)? {
            Some(object) if object.get().starts_with('{') => {
                Object::parse(object.get().as_bytes())?.find(inner)?
            }
            _ => None,
        };
        match (own, nested) {
            (Some(_), Some(_)) => Err(Problem::Bad(format!(
                "there is a field {name:?} and one within {outer:?}"
            ))),
            (own, nested) => Ok(own.or(nested)),
        }
    }
}

fn not_json(error: serde_json::Error) -> Problem {
    Problem::Bad(format!("not JSON: {error}"))
}

/// Picks key and value out of objects.
struct Picker<'a> {
    shape: &'a Shape,
    joiner: Joiner<'a>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Picker<'a> {
    fn new(shape: &'a Shape) -> Self {
        Self {
            shape,
            joiner: Joiner::new(&shape.join, shape.key.len()),
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Gives the record `text` to `sink`.
    fn give<V: FnMut(Line, &[u8], &[u8]) -> Result<()>>(
        &mut self,
        line: Line,
        text: &[u8],
        sink: &mut Sink<V>,
    ) -> Result<()> {
        let picked = match self.shape.dumped {
            true => self.pick_dumped(text),
            false => self.pick(text),
        };
        sink.take(line, &self.key, picked.map(|()| &self.value[..]))
    }

    fn pick_dumped(&mut self, text: &[u8]) -> Result<(), Problem> {
        let object = Object::parse(text)?;
        let bytes = |name: &str| {
            let Some(value) = object.own(name)? else {
                return Err(Problem::Bad(format!("no field {name:?}")));
            };
            let value = serde_json::from_str(value.get()).map_err(not_json)?;
            from_json(&value).map_err(|what| Problem::Bad(format!("{name}: {what}")))
        };
        (self.key, self.value) = (bytes("key")?, bytes("value")?);
        Ok(())
    }

    fn pick(&mut self, text: &[u8]) -> Result<(), Problem> {
        let object = Object::parse(text)?;
        let missing = |what: String| match self.shape.missing {
            Missing::Empty => Ok(None),
            _ => Err(Problem::Missing(what)),
        };
        self.key.clear();
        for (nth, name) in self.shape.key.iter().enumerate() {
            let part = match object.find(name)? {
                Some(value) => match value.get().as_bytes() {
                    b"null" => missing(format!("the key {name:?} is null"))?,
                    [b'{' | b'[', ..] => {
                        let what = format!("the key {name:?} is an object or an array");
                        return Err(Problem::Bad(what));
                    }
                    _ => Some(plain(value)?),
                },
                None => missing(format!("no field {name:?}"))?,
            };
            self.joiner
                .push(&mut self.key, nth, &part.unwrap_or_default());
        }
        self.value.clear();
        let Some(name) = &self.shape.value else {
            self.value.extend_from_slice(text);
            return Ok(());
        };
        match (object.find(name)?, self.shape.value_as) {
            (Some(value), ValueAs::Text) => self.value = plain(value)?,
            (Some(value), ValueAs::Json) => self.value.extend_from_slice(value.get().as_bytes()),
            (None, _) => {
                missing(format!("no field {name:?}"))?;
            }
        }
        Ok(())
    }
}

/// A JSON string without its quotes and escapes; anything else as the file has it.
fn plain(value: &RawValue) -> Result<Vec<u8>, Problem> {
    let text = value.get();
    if text.starts_with('"') {
        let string: String = serde_json::from_str(text).map_err(not_json)?;
        return Ok(string.into_bytes());
    }
    Ok(text.as_bytes().to_vec())
}
