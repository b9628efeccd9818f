//! Text as lines, whatever ends them.
//!
//! Lines end with a line feed, before which a carriage return may stand, or, in files of old
//! Macintosh programs, with a carriage return alone. Which of the two a file has is decided by its
//! first line end, once; a file that has both is an error.

use std::io::{BufRead, BufReader, Chain, Cursor, Read};

use super::sink::{Line, bad};
use crate::failure::{Failure, Result};

/// The longest record that is read: longer than the longest that `dump` writes, in which a byte of
/// a value takes six (`\u0000`). It keeps a file without ends of lines from taking all memory.
pub const RECORD_BYTES_MAX: u64 =
    6 * (hedgerow::MAX_KEY_LEN_BYTES + hedgerow::MAX_VALUE_LEN_BYTES) as u64 + 1024;

/// So much of a file is searched for its first line end.
const DETECT_BYTES_MAX: usize = 1 << 20;

/// How to find out what ends the lines of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnds {
    /// It is a line feed.
    LineFeed,
    /// A line feed if the file has one, otherwise a carriage return.
    Detect,
    /// By the first of either outside quotes.
    DetectOutsideQuotes,
}

/// A text file.
pub struct Text<R> {
    reader: BufReader<Chain<Cursor<Vec<u8>>, R>>,
    /// The byte that ends a line: `\n` or `\r`.
    end: u8,
    line: Line,
}

impl<R: Read> Text<R> {
    /// Begins to read `input`. Passes over a byte order mark, unless the file was `dumped`: there
    /// it belongs to the first key. Refuses UTF-16 and UTF-32.
    pub fn new(mut input: R, ends: LineEnds, dumped: bool) -> Result<Self> {
        let mut head = Vec::new();
        // Enough to recognise an encoding; but a first line that is shorter is not waited for.
        while head.len() < 4 && !head.contains(&b'\n') && read_more(&mut input, &mut head)? {}
        if let Some(encoding) = foreign_encoding(&head) {
            return Err(Failure::error(format!(
                "this is {encoding}; convert it to UTF-8 first: iconv -f {encoding} -t UTF-8"
            )));
        }
        if !dumped && head.starts_with(b"\xEF\xBB\xBF") {
            head.drain(..3);
        }
        let end = match ends {
            LineEnds::LineFeed => b'\n',
            _ => loop {
                let quotes = ends == LineEnds::DetectOutsideQuotes;
                if let Some(end) = first_line_end(&head, quotes, false) {
                    break end;
                }
                if head.len() >= DETECT_BYTES_MAX {
                    break line_end_of_beginning(&head, quotes);
                }
                if !read_more(&mut input, &mut head)? {
                    break first_line_end(&head, quotes, true).unwrap_or(b'\n');
                }
            },
        };
        Ok(Self {
            reader: BufReader::with_capacity(1 << 18, Cursor::new(head).chain(input)),
            end,
            line: 0,
        })
    }

    /// The number of the line read last, from 1.
    pub fn line(&self) -> Line {
        self.line
    }

    /// Reads the next line and what ends it after what `line` holds; returns the length of the end,
    /// or `None` at the end of the file.
    pub fn append_line(&mut self, line: &mut Vec<u8>) -> Result<Option<usize>> {
        let room = RECORD_BYTES_MAX.saturating_sub(line.len() as u64);
        let read = (&mut self.reader).take(room).read_until(self.end, line)?;
        if read == 0 && room > 0 {
            return Ok(None);
        }
        self.line += 1;
        if line.last() != Some(&self.end) && read as u64 >= room {
            return Err(bad(
                self.line,
                format!("a record is longer than {RECORD_BYTES_MAX} bytes"),
            ));
        }
        Ok(Some(match (self.end, &line[line.len() - read..]) {
            (b'\n', [.., b'\r', b'\n']) => 2,
            (end, [.., last]) if *last == end => 1,
            _ => 0,
        }))
    }

    /// Reads the next line into `line`, without its end; false at the end of the file.
    pub fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        line.clear();
        let Some(end) = self.append_line(line)? else {
            return Ok(false);
        };
        line.truncate(line.len() - end);
        self.check_ends(line)?;
        Ok(true)
    }

    /// Refuses a line feed in a line of a file whose lines end with a carriage return.
    pub fn check_ends(&self, text: &[u8]) -> Result<()> {
        if self.end == b'\r' && text.contains(&b'\n') {
            let what = "a line feed in a file whose first line ends with a carriage return";
            return Err(bad(self.line, what));
        }
        Ok(())
    }

    /// The next byte, for formats that do not care for lines. Counts lines all the same.
    pub fn next_byte(&mut self) -> Result<Option<u8>> {
        let Some(&byte) = self.reader.fill_buf()?.first() else {
            return Ok(None);
        };
        self.reader.consume(1);
        self.line = self.line.max(1) + Line::from(byte == b'\n');
        Ok(Some(byte))
    }
}

/// Appends what comes next to `head`; false at the end.
fn read_more(input: &mut impl Read, head: &mut Vec<u8>) -> Result<bool> {
    let old = head.len();
    head.resize(old + (64 << 10), 0);
    let read = loop {
        match input.read(&mut head[old..]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    head.truncate(old + *read.as_ref().unwrap_or(&0));
    Ok(read? > 0)
}

/// The byte that ends the first line, if `head`, which is the `whole` file or its beginning, shows
/// it.
fn first_line_end(head: &[u8], quotes: bool, whole: bool) -> Option<u8> {
    let mut quoted = false;
    for (at, byte) in head.iter().enumerate().filter(|_| quotes) {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => return Some(b'\n'),
            b'\r' if !quoted => match head.get(at + 1) {
                Some(b'\n') => return Some(b'\n'),
                None if !whole => return None,
                _ => return Some(b'\r'),
            },
            _ => {}
        }
    }
    // Without quotes, or with quotes that do not match.
    match (head.contains(&b'\n'), head.contains(&b'\r')) {
        (true, _) if whole || !quotes => Some(b'\n'),
        (false, true) if whole => Some(b'\r'),
        _ => None,
    }
}

/// The byte that ends lines, as far as `head` shows, which is the beginning of a file: a line feed
/// unless lines end with carriage returns there.
fn line_end_of_beginning(head: &[u8], quotes: bool) -> u8 {
    // Behind the last byte a line feed may come. And where quotes count, a carriage return outside
    // them has been found by now, and one within them ends no line.
    let head = head.strip_suffix(b"\r").unwrap_or(head);
    match quotes {
        false => first_line_end(head, false, true).unwrap_or(b'\n'),
        true => b'\n',
    }
}

/// The name of an encoding in which text is not what UTF-8 would make of it.
fn foreign_encoding(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xFF, 0xFE, 0, 0, ..] => Some("UTF-32LE"),
        [0, 0, 0xFE, 0xFF, ..] => Some("UTF-32BE"),
        [0xFF, 0xFE, ..] => Some("UTF-16LE"),
        [0xFE, 0xFF, ..] => Some("UTF-16BE"),
        // Without a byte order mark: ASCII in every other byte.
        [1..=0x7F, 0, 1..=0x7F, 0, ..] => Some("UTF-16LE"),
        [0, 1..=0x7F, 0, 1..=0x7F, ..] => Some("UTF-16BE"),
        _ => None,
    }
}
