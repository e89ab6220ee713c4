//! Reads files that an operator names, without blocking on a FIFO, a socket or a terminal.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The null device, which people mount over a file to hide it.
const DEV_NULL: (u32, u32) = (1, 3);

/// Reads a regular file of at most `max_bytes`, or `/dev/null` as an empty one. A FIFO, a socket or a terminal is an
/// error and not a wait for the other end. Only a hung disk can block this.
///
/// # Errors
/// The file cannot be opened or read, is not a regular file, or is longer.
pub(crate) fn read_regular(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    // Opening a FIFO waits for its writer by default (fifo(7)).
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    let kind = meta.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    if kind.is_char_device() && device == DEV_NULL {
        return Ok(Vec::new());
    }
    if !kind.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max_bytes {
        true => Err(io::Error::other(format!("longer than {max_bytes} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(path: &Path) -> String {
        read_regular(path, 3).expect_err("it is invalid").to_string()
    }

    #[test]
    fn file_above_its_limit_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, "abc").expect("written");
        assert_eq!(read_regular(&path, 3).expect("at the limit"), b"abc");
        std::fs::write(&path, "abcd").expect("written");
        assert_eq!(error_of(&path), "longer than 3 bytes");
    }

    #[test]
    fn non_regular_file_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
        assert_eq!(error_of(&fifo), "not a regular file");
        assert_eq!(error_of(Path::new("/dev/zero")), "not a regular file");
        assert_eq!(
            read_regular(dir.path(), 3).expect_err("a directory").kind(),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(read_regular(Path::new("/dev/null"), 0).expect("an empty file"), b"");
    }
}
