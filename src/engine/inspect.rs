//! What a store looks like inside, as data that can be printed.

use std::fmt;

/// How closely a store is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum InspectDetail {
    /// Memory, levels, log and manifests, in sums. Reads neither tables nor leaves, only the inner
    /// pages of a B-tree and the headers of log segments.
    #[default]
    Levels,
    /// Every table of an LSM tree, every page of a B-tree, and the records of each log segment.
    /// Reads the pages and the log.
    Tables,
    /// Every block of every table, and every change that lies over a page, too. Reads everything.
    Blocks,
}

/// A part of a store: what it is, figures about it, and the parts that it is made of.
///
/// Made by [`Db::inspect`](crate::Db::inspect) and [`Keyspace::inspect`](crate::Keyspace::inspect).
/// Printed with `{}` it is a line for each part, the parts of a part below it and two spaces to the
/// right. For people and for tests of what happened: kinds and figures may change with any version.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use hedgerow::{Db, EngineKind, InspectDetail};
///
/// let db = Db::open(dir.path().join("my.db"))?;
/// let users = db.keyspace("users", EngineKind::BTree)?;
/// users.put("ada", "1815")?;
/// db.flush()?;
/// let inside = users.inspect(InspectDetail::Tables)?;
/// assert!(inside.to_string().contains("leaf page 3: entries=1"), "{inside}");
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// What it is: `level`, `table`, `segment`.
    pub kind: &'static str,
    /// Which one of that kind; empty if there is only one.
    pub name: String,
    /// Figures, with their names. A figure that has no value is left out.
    pub figures: Vec<(&'static str, Figure)>,
    /// What it is made of, in order.
    pub parts: Vec<Inspection>,
}

/// A figure of an [`Inspection`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Figure {
    /// A count or a number. A figure in bytes has a name that says so.
    Number(u64),
    /// A word or a sentence.
    Text(String),
    /// A key. Printed as text where it is text, and cut if it is long.
    Key(Vec<u8>),
}

/// Characters of a key that are printed.
const PRINTED_KEY_LEN: usize = 48;

impl Inspection {
    /// A part without figures.
    pub(crate) fn new(kind: &'static str, name: impl fmt::Display) -> Self {
        Self {
            kind,
            name: name.to_string(),
            ..Self::default()
        }
    }

    /// The same with a number.
    pub(crate) fn number(mut self, name: &'static str, number: u64) -> Self {
        self.figures.push((name, Figure::Number(number)));
        self
    }

    /// The same with a number, unless that is zero: for what is rarely there.
    pub(crate) fn number_if_any(self, name: &'static str, number: u64) -> Self {
        if number == 0 {
            return self;
        }
        self.number(name, number)
    }

    /// The same with a text.
    pub(crate) fn text(mut self, name: &'static str, text: impl fmt::Display) -> Self {
        self.figures.push((name, Figure::Text(text.to_string())));
        self
    }

    /// The same with a key.
    pub(crate) fn key(mut self, name: &'static str, key: &[u8]) -> Self {
        self.figures.push((name, Figure::Key(key.to_vec())));
        self
    }

    /// The same with these parts.
    pub(crate) fn with(mut self, parts: impl IntoIterator<Item = Self>) -> Self {
        self.parts.extend(parts);
        self
    }

    fn print(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:indent$}{}", "", self.kind, indent = 2 * depth)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        for (i, (name, figure)) in self.figures.iter().enumerate() {
            let separator = if i == 0 { ":" } else { "" };
            write!(f, "{separator} {name}={figure}")?;
        }
        for part in &self.parts {
            writeln!(f)?;
            part.print(f, depth + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, 0)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) if text.contains(' ') => write!(f, "{text:?}"),
            Self::Text(text) => f.write_str(text),
            Self::Key(key) => {
                let text = match std::str::from_utf8(key) {
                    Ok(text) => text.escape_debug().to_string(),
                    Err(_) => key.escape_ascii().to_string(),
                };
                match text.char_indices().nth(PRINTED_KEY_LEN) {
                    Some((cut, _)) => write!(f, "\"{}...\"({} bytes)", &text[..cut], key.len()),
                    None => write!(f, "\"{text}\""),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_printed_below_their_whole() {
        let leaf = Inspection::new("leaf", "page 3")
            .number("entries", 2)
            .number_if_any("overflow_values", 0)
            .text("state", "changed in memory")
            .key("first", b"a\"\xff");
        let whole = Inspection::new("tree", "").with([Inspection::new("level", 0).with([leaf])]);
        assert_eq!(
            whole.to_string(),
            "tree\n  level 0\n    leaf page 3: entries=2 state=\"changed in memory\" \
             first=\"a\\\"\\xff\""
        );
    }

    #[test]
    fn long_keys_are_cut_between_characters() {
        let key = "é".repeat(100);
        let printed = Figure::Key(key.clone().into_bytes()).to_string();
        assert_eq!(printed, format!("\"{}...\"(200 bytes)", "é".repeat(48)));
        let short = Figure::Key(key[..96].into()).to_string();
        assert_eq!(short, format!("\"{}\"", "é".repeat(48)));
    }
}
