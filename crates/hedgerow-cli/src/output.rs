//! What every command prints with: standard output, progress bars, and numbers for people.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::failure::Result;

/// What `--json` means without the name of a file.
pub const JSON_TO_STDOUT: &str = "-";

/// Standard output, buffered, in the form the user chose.
pub struct Output {
    /// True if programs read it: JSON, one value a line.
    pub json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Standard output.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            out: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
        }
    }

    /// Prints a line of text.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<()> {
        self.out.write_all(text.as_ref().as_bytes())?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Prints bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Prints a JSON value on a line.
    pub fn value(&mut self, value: &Value) -> Result<()> {
        self.line(value.to_string())
    }

    /// Prints `value` for programs or `text` for people.
    pub fn either(&mut self, value: &Value, text: impl AsRef<str>) -> Result<()> {
        if self.json {
            self.value(value)
        } else {
            self.line(text)
        }
    }

    /// Hands everything to the reader.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// A progress bar over bytes, of a length not yet known. Drawn only on a terminal.
pub fn byte_progress(json: bool) -> ProgressBar {
    bar(
        json,
        "{msg:12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )
}

/// A progress bar over `steps`. Drawn only on a terminal.
pub fn step_progress(json: bool, steps: u64) -> ProgressBar {
    let bar = bar(json, "{wide_bar} {pos}/{len} {elapsed} {msg}");
    bar.set_length(steps);
    bar
}

/// A sign of life while something of unknown length is done. Drawn only on a terminal.
pub fn spinner(json: bool, what: &'static str) -> ProgressBar {
    let bar = bar(json, "{spinner} {msg} {elapsed}");
    bar.set_message(what);
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    bar
}

fn bar(json: bool, template: &str) -> ProgressBar {
    if json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).expect("a constant of this file"));
    bar
}

/// `count` with commas between thousands.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things, such as `1 file` and `2 files`.
pub fn counted(count: u64, thing: &str) -> String {
    let plural = match (count, thing.strip_suffix('y')) {
        (1, _) => thing.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{thing}s"),
    };
    format!("{} {plural}", thousands(count))
}

/// A number of bytes with a unit that keeps it short.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// Cells in columns: the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            rows.iter()
                .filter_map(|row| row.get(at))
                .map(|cell| width(cell))
                .max()
        })
        .map(|width| width.unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[at] - width(cell));
            let gap = if at == 0 { "" } else { "  " };
            if at == 0 {
                write!(line, "{gap}{cell}{pad}")
            } else {
                write!(line, "{gap}{pad}{cell}")
            }
            .expect("a string takes everything");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.pop();
    out
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(counted(1, "entry"), "1 entry");
        assert_eq!(counted(0, "entry"), "0 entries");
        assert_eq!(counted(2000, "file"), "2,000 files");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn tables_align() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bc".to_owned(), "23".to_owned()],
        ];
        assert_eq!(table(&rows), "a    1\nbc  23");
    }
}
