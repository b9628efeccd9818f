//! What every command prints with: standard output, and progress bars.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use hedgerow_bench::format::{WIDTH, wrap};
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

    /// Prints a text in lines that fit a terminal; all but the first begin with `indent` spaces.
    pub fn wrapped(&mut self, indent: usize, text: impl AsRef<str>) -> Result<()> {
        self.line(wrap(text.as_ref(), indent, WIDTH))
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

    /// Where lines go, for what writes them by itself.
    pub fn writer(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    /// Hands everything to the reader.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// Progress over the bytes of an input: a bar if its length is known, otherwise how much was read.
/// Drawn only on a terminal.
pub fn byte_progress(json: bool, total: Option<u64>) -> ProgressBar {
    let bar = bar(json, byte_template(total));
    bar.set_length(total.unwrap_or(0));
    bar
}

/// What is shown of an input of `total` bytes.
fn byte_template(total: Option<u64>) -> &'static str {
    match total {
        Some(_) => "{msg:12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {msg:12} {bytes} read, {bytes_per_sec}, {elapsed}",
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An input of unknown length was drawn as a bar that was full from the first byte on.
    #[test]
    fn an_input_of_unknown_length_shows_what_was_read() {
        let known = byte_template(Some(10));
        assert!(known.contains("{wide_bar}") && known.contains("{total_bytes}"));
        let unknown = byte_template(None);
        assert!(unknown.contains("{bytes} read"));
        for part in ["bar}", "{total_bytes}", "{eta}"] {
            assert!(!unknown.contains(part), "{part}");
        }
        for template in [known, unknown] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
