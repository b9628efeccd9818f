//! Why a command did not succeed, and the exit code that says so.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;

use hedgerow_bench::format::counted;
use serde_json::{Map, Value, json};

use crate::exit;
pub use crate::exit::Exit;

/// A result whose error ends the command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// The end of a command that did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What was attempted; empty if nothing need be printed.
    message: String,
    /// What went wrong beneath it.
    source: Option<Box<dyn Error + Send + Sync>>,
    /// Figures that a program needs to go on, such as the number of records committed.
    details: Map<String, Value>,
    /// True if the reader of the output went away: nobody is left to tell.
    broken_pipe: bool,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            source: None,
            details: Map::new(),
            broken_pipe: false,
        }
    }

    /// An ordinary error.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, message)
    }

    /// A mistake in the arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A failure that has already been reported on standard output, or needs no words.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// An error of the operating system about a file that is not the store's.
    pub fn io(what: &str, path: &Path, source: io::Error) -> Self {
        Self::from(source).context(format!("{what} {}", path.display()))
    }

    /// Says what was attempted when this happened.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        let what = what.into();
        self.message = if self.message.is_empty() {
            what
        } else {
            format!("{what}: {}", self.message)
        };
        self
    }

    /// Adds a figure for programs.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Says how many records `load` had committed when this happened.
    #[must_use]
    pub fn after_commits(self, records: u64) -> Self {
        let records_text = counted(records, "record");
        self.context(format!("stopped after {records_text} had been committed"))
            .detail("committed", records)
    }

    /// Prints the failure as one line on standard error.
    pub fn report(&self, json: bool) {
        if !self.has_message() {
            return;
        }
        // A caller that closed standard error does not want to know.
        let _ = if json {
            writeln!(io::stderr(), "{}", self.to_json())
        } else {
            writeln!(io::stderr(), "hedgerow: {self}")
        };
    }

    /// True if the output's reader closed it, as `head` does: not worth an error.
    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// True if there is something to print.
    fn has_message(&self) -> bool {
        !self.message.is_empty() || self.source.is_some()
    }

    /// The failure as one JSON object.
    fn to_json(&self) -> Value {
        let mut object = self.details.clone();
        object.insert("error".to_owned(), json!(self.to_string()));
        object.insert("exit_code".to_owned(), json!(self.exit as u8));
        Value::Object(object)
    }
}

impl fmt::Display for Failure {
    /// One line: the message and the chain of causes. A cause whose text its parent already ends
    /// with is not repeated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.message.clone();
        let mut next = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !line.ends_with(&text) {
                if !line.is_empty() {
                    line.push_str(": ");
                }
                line.push_str(&text);
            }
            next = cause.source();
        }
        f.write_str(&line.replace(['\n', '\r'], " "))
    }
}

impl From<hedgerow::Error> for Failure {
    fn from(error: hedgerow::Error) -> Self {
        let mut failure = Self::silent(Exit::Error);
        failure.source = Some(Box::new(error));
        failure
    }
}

impl From<hedgerow_bench::Error> for Failure {
    fn from(error: hedgerow_bench::Error) -> Self {
        use hedgerow_bench::Error;
        let exit = match error.root() {
            Error::Usage(_) => Exit::Usage,
            Error::Interrupted => exit::interrupted(),
            _ => Exit::Error,
        };
        let io = match error.root() {
            Error::Store(source) => source.downcast_ref::<io::Error>(),
            Error::Io { source, .. } => Some(source),
            _ => None,
        };
        let mut failure = Self::silent(exit);
        failure.broken_pipe = io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe);
        failure.source = Some(Box::new(error));
        failure
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let mut failure = Self::silent(Exit::Error);
        failure.broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        failure.source = Some(Box::new(error));
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_printed_once() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = hedgerow::Error::io("open", Path::new("/x"), cause);
        let failure = Failure::from(error).context("opening the store");
        assert_eq!(
            failure.to_string(),
            "opening the store: open of /x failed: no such file"
        );
        assert_eq!(failure.exit, Exit::Error);
    }

    #[test]
    fn errors_of_a_benchmark_have_their_exit_codes() {
        let exit = |error: hedgerow_bench::Error| Failure::from(error.during("round 1")).exit;
        assert_eq!(exit(hedgerow_bench::Error::usage("no")), Exit::Usage);
        assert_eq!(exit(hedgerow_bench::Error::wrong("no")), Exit::Error);
        assert_eq!(exit(hedgerow_bench::Error::Interrupted), Exit::Interrupted);
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        let failure = Failure::from(hedgerow_bench::Error::from(pipe).during("round 1"));
        assert!(failure.is_broken_pipe());
        let failure = Failure::from(hedgerow_bench::Error::wrong("lost").during("round 1"));
        assert_eq!(failure.to_string(), "round 1: WRONG RESULT: lost");
    }

    #[test]
    fn json_carries_details() {
        let failure = Failure::usage("bad key").detail("committed", 7);
        assert_eq!(
            failure.to_json(),
            json!({"error": "bad key", "exit_code": 2, "committed": 7})
        );
    }
}
