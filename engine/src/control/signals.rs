//! SIGTERM and Ctrl-C: the first ends the brick in order, a second Ctrl-C at once.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::Shared;

/// What a shell shows for a program ended by Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;

pub(super) async fn watch(shared: Arc<Shared>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        eprintln!("firebrick: signals cannot be caught; the brick will end at once when told to");
        return;
    };
    let mut interrupts = 0;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {
                interrupts += 1;
                if interrupts > 1 {
                    eprintln!(
                        "firebrick: ended at once; writes that were not on the disk yet are in \
                         memory_dir, and are found at the next start unless the machine restarts"
                    );
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        }
        shared.begin_stop();
        if interrupts == 1 {
            eprintln!("firebrick: stopping; Ctrl-C again ends at once");
        }
    }
}
