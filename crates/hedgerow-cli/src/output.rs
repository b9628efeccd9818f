//! What every command prints with: standard output, and progress bars.

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

    /// Where lines go, for what writes them by itself.
    pub fn writer(&mut self) -> &mut dyn Write {
        &mut self.out
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
