//! Signals of the process: what they request, and the thread that waits for them.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::low_level::signal_name;

/// Requests for a shutdown, by the name of the signal, and for a reload. Closed if the thread has exited.
pub(crate) type Signals = (Receiver<&'static str>, Receiver<()>);

/// Catches signals from now on. A second signal for a shutdown terminates the process.
#[expect(clippy::disallowed_methods, reason = "lives as long as the process and owns nothing")]
pub(crate) fn watch() -> io::Result<Signals> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    // A log file at its size limit (`ulimit -f`) is then a failed write.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let was_terminal = io::stdin().is_terminal();
    let (shuts_down, shutdown) = bounded(1);
    // Several SIGHUP before the first is served are one.
    let (reloads, reload) = bounded(1);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut is_shutting_down = false;
        for signal in signals.forever() {
            if signal == SIGHUP && !(was_terminal && has_hung_up()) {
                // A full channel means that a reload is due anyway.
                let _ = reloads.try_send(());
            } else if std::mem::replace(&mut is_shutting_down, true) {
                std::process::exit(128 + signal);
            } else {
                let _ = shuts_down.send(signal_name(signal).unwrap_or_default());
            }
        }
    })?;
    Ok((shutdown, reload))
}

/// Whether the terminal on standard input is closed.
fn has_hung_up() -> bool {
    let stdin = io::stdin();
    let mut stdin = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::empty())];
    let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut stdin, Some(&no_wait)).is_ok() && stdin[0].revents().contains(PollFlags::HUP)
}
