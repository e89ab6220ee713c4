//! Starts the real binary in an empty directory, with only the settings of the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{PATIENCE, Router};

/// The command line, settings and files of a router to start.
pub struct Launch {
    binary: PathBuf,
    settings: BTreeMap<String, String>,
    directory: TempDir,
    shell_lines: Vec<String>,
    arguments: Vec<String>,
    chroot: Option<PathBuf>,
    own_network: bool,
}

/// Output and exit status of a finished process.
#[derive(Debug)]
pub struct Ended {
    /// `None` if a signal killed the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Launch {
    /// The binary is `env!("CARGO_BIN_EXE_infernet-router")` in tests and benches.
    pub fn of(binary: impl Into<PathBuf>) -> Self {
        let defaults = [
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("RATELIMIT_REQS_PER_MIN", "0"),
            // Tests that count requests or hang nodes expect probes only.
            ("RESOURCES_INTERVAL", "0"),
        ];
        let settings = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            binary: binary.into(),
            settings: settings.into(),
            directory: tempfile::tempdir().expect("a temporary directory is available"),
            shell_lines: Vec::new(),
            arguments: Vec::new(),
            chroot: None,
            own_network: false,
        }
    }

    /// The binary next to the running example or bench.
    pub fn beside_this_program() -> Self {
        let this = std::env::current_exe().expect("Linux knows the path of this program");
        let candidates = this.ancestors().skip(1).map(|dir| dir.join("infernet-router"));
        let binary = candidates.take(3).find(|path| path.is_file());
        Self::of(binary.expect("`cargo build` with the same profile puts infernet-router there"))
    }

    /// Sets an environment variable.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    /// Removes a setting of `of`, so that `.env` or the default applies.
    pub fn unset(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self
    }

    /// Writes a file such as `.env` or `etc/resolv.conf` into the working directory.
    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        let path = self.directory.path().join(name);
        let folder = path.parent().expect("a file is in a folder");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, contents))
            .expect("the directory is ours");
        self
    }

    /// Writes ips.txt into the working directory.
    pub fn ips(self, list: impl AsRef<[u8]>) -> Self {
        self.file("ips.txt", list)
    }

    /// Runs the router under `ulimit`, such as `-n 200`.
    pub fn ulimit(self, limit: &str) -> Self {
        self.shell(&format!("ulimit {limit}"))
    }

    /// Runs a line of shell before the router, in the same process.
    pub fn shell(mut self, line: &str) -> Self {
        self.shell_lines.push(format!("{line} && "));
        self
    }

    /// Runs the router by this `chroot` program, in a root with only the binary and the files of the launch.
    pub fn in_empty_root(mut self, chroot: impl Into<PathBuf>) -> Self {
        let inside = self.directory.path().join("infernet-router");
        fs::copy(&self.binary, inside).expect("the directory is ours");
        self.chroot = Some(chroot.into());
        self
    }

    /// Runs the router in a separate network with only a disabled loopback device. Returns `None` if this user may not.
    pub fn without_network(mut self) -> Option<Self> {
        let may = Command::new("unshare").args(["--net", "true"]).status();
        self.own_network = true;
        may.is_ok_and(|status| status.success()).then_some(self)
    }

    /// Adds an argument, such as `--help`.
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn start(self) -> Router {
        self.start_on(Stdio::null())
    }

    /// Starts the router with this standard input.
    pub fn start_on(self, stdin: impl Into<Stdio>) -> Router {
        let mut command = self.command();
        let child = command
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match child {
            Ok(child) => Router::of(child, self.directory),
            Err(error) => panic!("can't start {:?}: {error}", self.binary),
        }
    }

    /// Runs a command that exits automatically. Panics on timeout.
    #[track_caller]
    pub fn run(self) -> Ended {
        let child = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("can't start {:?}: {error}", self.binary));
        let stdout = child.stdout.take().expect("stdout is piped");
        let router = Router::of(child, self.directory);
        let code = router.wait_exit(PATIENCE).code();
        // The whole output fits into the pipe.
        let stdout = std::io::read_to_string(stdout).expect("UTF-8");
        let stderr = router.log().join("\n");
        Ended { code, stdout, stderr }
    }

    /// Returns the command with its settings and arguments, for other handling of its output.
    pub fn command(&self) -> Command {
        let mut command = if let Some(chroot) = &self.chroot {
            let mut command = Command::new(chroot);
            command.arg(self.directory.path()).arg("/infernet-router");
            command
        } else if self.own_network {
            let mut command = Command::new("unshare");
            command.arg("--net").arg(&self.binary);
            command
        } else if self.shell_lines.is_empty() {
            Command::new(&self.binary)
        } else {
            let mut shell = Command::new("/bin/sh");
            let script = format!("{}exec \"$0\" \"$@\"", self.shell_lines.concat());
            shell.arg("-c").arg(script).arg(&self.binary);
            shell
        };
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.settings)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }
}
