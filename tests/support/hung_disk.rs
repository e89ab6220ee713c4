//! A file system that answers nothing, as a network disk whose server is gone.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A mount of FUSE whose server never reads a request; gone with this.
pub struct HungDisk {
    /// Closing it ends all that waits for the disk.
    server: Option<File>,
    path: PathBuf,
    _directory: TempDir,
}

impl HungDisk {
    /// None where this user may not mount.
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
        // First, or to unmount it would wait as well.
        self.server = None;
        unmount(&self.path, UnmountFlags::DETACH).expect("it is mounted");
    }
}
