//! Keys and values as text: escapes, hexadecimal, and JSON.
//!
//! Each of the three forms gives back exactly the bytes that went in, whatever they are.
//!
//! - *Escaped* text is UTF-8 in which a backslash, a tab, an end of line, any other control
//!   character and every byte that is not UTF-8 are written `\\`, `\t`, `\n`, `\r` or `\xNN`.
//! - *Hexadecimal* is two lower-case digits a byte.
//! - *JSON* is a string if the bytes are UTF-8, otherwise an object `{"hex": "00ff"}`.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Appends `bytes` to `out`, escaped.
pub fn escape_into(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\t' => out.push_str("\\t"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\0'..='\x1F' | '\x7F' => push_escape(out, c as u8),
                _ => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            push_escape(out, *byte);
        }
    }
}

fn push_escape(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("a string takes everything");
}

/// `bytes`, escaped.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    escape_into(&mut out, bytes);
    out
}

/// The bytes that `text`, escaped, stands for.
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let (byte, len) = match rest {
            [b'\\', ..] => (b'\\', 1),
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b'x', high, low, ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err("\\x is not followed by two hexadecimal digits".to_owned()),
            },
            _ => return Err("a backslash begins no escape (\\\\ \\t \\n \\r \\xNN)".to_owned()),
        };
        out.push(byte);
        rest = &rest[len..];
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// `bytes` in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(out, "{byte:02x}").expect("a string takes everything");
    }
    out
}

/// The bytes that hexadecimal `text` stands for.
pub fn unhex(text: &[u8]) -> Result<Vec<u8>, String> {
    if !text.len().is_multiple_of(2) {
        return Err(format!(
            "{} hexadecimal digits are not whole bytes",
            text.len()
        ));
    }
    text.chunks_exact(2)
        .map(|pair| match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => Ok(high << 4 | low),
            _ => Err(format!(
                "{:?} is not hexadecimal",
                String::from_utf8_lossy(pair)
            )),
        })
        .collect()
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// `bytes` in JSON.
pub fn to_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

/// The bytes that [`to_json`] was given.
pub fn from_json(value: &Value) -> Result<Vec<u8>, String> {
    match value {
        Value::String(text) => Ok(text.clone().into_bytes()),
        Value::Object(object) if object.len() == 1 => match object.get("hex") {
            Some(Value::String(text)) => unhex(text.as_bytes()),
            _ => Err("neither a string nor {\"hex\": \"...\"}".to_owned()),
        },
        _ => Err("neither a string nor {\"hex\": \"...\"}".to_owned()),
    }
}

/// How a command prints keys and values, and reads them from its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// As they are; escaped where a line would not survive them.
    Text,
    /// In hexadecimal.
    Hex,
}

impl Notation {
    /// Hexadecimal if `hex` is set.
    pub fn new(hex: bool) -> Self {
        if hex { Self::Hex } else { Self::Text }
    }

    /// Appends `bytes` to a line.
    pub fn write(self, line: &mut String, bytes: &[u8]) {
        match self {
            Self::Text => escape_into(line, bytes),
            Self::Hex => line.push_str(&hex(bytes)),
        }
    }

    /// `bytes` as text.
    pub fn text(self, bytes: &[u8]) -> String {
        match self {
            Self::Text => escape(bytes),
            Self::Hex => hex(bytes),
        }
    }

    /// `bytes` in JSON.
    pub fn json(self, bytes: &[u8]) -> Value {
        match self {
            Self::Text => to_json(bytes),
            Self::Hex => json!({ "hex": hex(bytes) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splitmix64: enough for drawing bytes.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[test]
    fn every_form_round_trips() {
        let mut state = 7;
        for _ in 0..2000 {
            let len = random(&mut state) % 12;
            let bytes: Vec<u8> = (0..len)
                .map(|_| match random(&mut state) % 3 {
                    0 => b"\\\t\n\rx0a"[(random(&mut state) % 7) as usize],
                    1 => "zürich €".as_bytes()[(random(&mut state) % 11) as usize],
                    _ => random(&mut state) as u8,
                })
                .collect();
            let text = escape(&bytes);
            assert!(!text.contains(['\t', '\n', '\r']), "{bytes:?}");
            assert_eq!(unescape(text.as_bytes()).unwrap(), bytes);
            assert_eq!(unhex(hex(&bytes).as_bytes()).unwrap(), bytes);
            assert_eq!(from_json(&to_json(&bytes)).unwrap(), bytes);
            assert_eq!(from_json(&Notation::Hex.json(&bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn text_stays_readable() {
        assert_eq!(escape("Zürich\t1\\2\0".as_bytes()), "Zürich\\t1\\\\2\\x00");
        assert_eq!(escape(b"a\xFFb"), "a\\xffb");
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["\\", "\\q", "\\x0", "\\xzz"] {
            assert!(unescape(text.as_bytes()).is_err(), "{text}");
        }
        for text in ["0", "0g", "0x00f"] {
            assert!(unhex(text.as_bytes()).is_err(), "{text}");
        }
        for value in [
            json!(1),
            json!({"hex": 1}),
            json!({"hex": "f"}),
            json!({"a": ""}),
        ] {
            assert!(from_json(&value).is_err(), "{value}");
        }
    }
}
