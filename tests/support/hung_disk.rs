//! A file system that never responds, as a network disk without its server.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A FUSE mount without a server that reads requests. Unmounted on drop.
pub struct HungDisk {
    /// Closing this aborts all waits for the disk.
    server: Option<File>,
    path: PathBuf,
    _directory: TempDir,
}

impl HungDisk {
    /// Returns `None` if this user may not mount.
    pub fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory is available");
        let path = directory.path().join("hung");
        fs::create_dir(&path).expect("the directory is ours");
        let server = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = CString::new(options).expect("no NUL in it");
        mount("none", &path, "fuse", MountFlags::empty(), options.as_c_str()).ok()?;
        Some(Self {
            server: Some(server),
            path,
            _directory: directory,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for HungDisk {
    fn drop(&mut self) {
        // Close first: the unmount would wait otherwise.
        self.server = None;
        unmount(&self.path, UnmountFlags::DETACH).expect("it is mounted");
    }
}
