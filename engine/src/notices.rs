//! Sentences for the operator, written to standard error by a thread of their own: a data core never
//! waits for a terminal or a pipe.

use std::io::Write as _;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Sentences that may wait; past that they are dropped and counted by the one that follows.
const WAITING_MAX: usize = 1024;

/// Says sentences. Cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Notices(SyncSender<String>);

impl Notices {
    /// Starts the thread that writes them; it ends when all handles are gone.
    pub fn start() -> Self {
        let (say, heard) = sync_channel::<String>(WAITING_MAX);
        // Without the thread the sentences are lost and the brick works all the same.
        let _ = std::thread::Builder::new().name("notices".into()).spawn(move || {
            for sentence in heard {
                let _ = writeln!(std::io::stderr(), "firebrick: {sentence}");
            }
        });
        Self(say)
    }

    /// Sentences for a test or the simulator to read.
    pub fn heard() -> (Self, std::sync::mpsc::Receiver<String>) {
        let (say, heard) = sync_channel::<String>(WAITING_MAX);
        (Self(say), heard)
    }

    /// Says one.
    pub fn say(&self, sentence: impl Into<String>) {
        let _ = self.0.try_send(sentence.into());
    }
}
