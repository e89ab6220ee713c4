//! A pseudo-terminal, as for a router that a person runs.

use std::fs::{File, OpenOptions};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Opens a terminal. Returns the keyboard's end and the program's end. Dropping the keyboard's end hangs up.
pub fn open() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let keyboard = openpt(flags).expect("a terminal is available");
    grantpt(&keyboard)
        .and_then(|()| unlockpt(&keyboard))
        .expect("the terminal belongs to this process");
    let name = ptsname(&keyboard, Vec::new()).expect("the terminal has a name");
    let name = name.to_str().expect("a path in ASCII");
    let program = OpenOptions::new().read(true).write(true).open(name);
    (File::from(keyboard), program.expect("the terminal is unlocked"))
}
