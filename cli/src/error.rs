//! What a command can end with, and the exit code of each.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// Exit codes, in the words of the help text.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed (also: `verify` found a difference)
  2    the command line makes no sense
  3    no such key, table, brick or partition
  4    the brick cannot be reached or does not serve now; nothing was changed
  5    in doubt: the write, or the change of the cluster, may or may not have happened
  6    no space in memory_dir or data_dir; nothing was changed (but `table create` has made the
       table, which is served once there is room)
  7    refused: the condition (--if-absent, --if-version) does not hold, or the cluster does not
       allow it; `brick`: the brick was removed
  130  interrupted by Ctrl-C";

/// Why a command did not do what it was asked to: one sentence each, saying what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CliError {
    /// Anything that has no code of its own.
    Failed(String),
    /// The arguments contradict each other.
    Usage(String),
    /// The key or table is not there.
    NotFound(String),
    /// The brick does not answer, or says that it does not serve now.
    Unavailable(String),
    /// A write whose fate is unknown.
    InDoubt(String),
    /// No room.
    NoSpace(String),
    /// A condition does not hold.
    Refused(String),
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The reader of our output went away; said to nobody.
    BrokenPipe,
}

impl CliError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Unavailable(_) => 4,
            Self::InDoubt(_) => 5,
            Self::NoSpace(_) => 6,
            Self::Refused(_) => 7,
            Self::Interrupted => 130,
            // What a shell reports for a process that SIGPIPE ended.
            Self::BrokenPipe => 141,
        }
    }

    /// The error's name in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Usage(_) => "usage",
            Self::NotFound(_) => "not_found",
            Self::Unavailable(_) => "unavailable",
            Self::InDoubt(_) => "in_doubt",
            Self::NoSpace(_) => "no_space",
            Self::Refused(_) => "refused",
            Self::Interrupted => "interrupted",
            Self::BrokenPipe => "broken_pipe",
        }
    }

    /// The one JSON object that stands for this error.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": { "kind": self.kind(), "message": self.to_string(), "exit": self.exit_code() }
        })
    }

    /// The same, with what it is about before it.
    pub fn about(mut self, what: &str) -> Self {
        match &mut self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::NotFound(text)
            | Self::Unavailable(text)
            | Self::InDoubt(text)
            | Self::NoSpace(text)
            | Self::Refused(text) => *text = format!("{what}: {text}"),
            Self::Interrupted | Self::BrokenPipe => {}
        }
        self
    }

    /// An error of reading or writing `what`.
    pub fn io(what: &str, error: &io::Error) -> Self {
        Self::Failed(format!("{what}: {}", plain(error)))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::NotFound(text)
            | Self::Unavailable(text)
            | Self::InDoubt(text)
            | Self::NoSpace(text)
            | Self::Refused(text) => f.write_str(&without_os_error(text)),
            Self::Interrupted => f.write_str("interrupted"),
            Self::BrokenPipe => f.write_str("nobody reads the output any more"),
        }
    }
}

impl std::error::Error for CliError {}

/// An I/O error in a sentence.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let mut rest = text.chars();
    // The kernel's words begin as a sentence does; what they name stays as it is written.
    let first = rest.next().map(|c| c.to_ascii_lowercase());
    without_os_error(&first.into_iter().chain(rest).collect::<String>()).into_owned()
}

/// A text without the " (os error 2)" that tells a user nothing.
fn without_os_error(text: &str) -> Cow<'_, str> {
    let Some((before, rest)) = text.split_once(" (os error ") else { return text.into() };
    let Some((_, after)) = rest.split_once(')') else { return text.into() };
    format!("{before}{after}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernel_is_part_of_a_sentence_and_names_stay_as_they_are() {
        assert_eq!(plain(&io::Error::from_raw_os_error(libc::ENOENT)), "no such file or directory");
        assert_eq!(plain(&io::Error::other("Cannot open /Home/Kim")), "cannot open /Home/Kim");
    }

    /// A brick that hangs up is no reader of ours: that is told.
    #[test]
    fn only_a_reader_of_our_output_goes_without_a_word() {
        let gone = io::Error::from_raw_os_error(libc::EPIPE);
        let told = CliError::io("the RESP connection failed", &gone);
        assert_eq!(told, CliError::Failed("the RESP connection failed: broken pipe".to_owned()));
    }
}
