//! The real binary as a child process: started in an empty directory with nothing but the settings
//! a test gives, watched through its log and `/proc`, and gone with its handle.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use super::PATIENCE;
use super::http::{self, Answer};

/// Log lines that a failed wait shows.
const TAIL_LINES: usize = 25;

/// Between two looks at a condition that nothing announces.
const POLL: Duration = Duration::from_millis(5);

/// A tick of `/proc/PID/stat`; `USER_HZ` is 100 on every Linux that Rust builds for.
const CPU_TICK: Duration = Duration::from_millis(10);

/// How a router is to be started.
pub struct Launch {
    binary: PathBuf,
    settings: BTreeMap<String, String>,
    directory: TempDir,
    shell_limits: Vec<String>,
}

impl Launch {
    /// The binary is `env!("CARGO_BIN_EXE_infernet-router")` in tests and benches.
    pub fn of(binary: impl Into<PathBuf>) -> Self {
        let defaults = [("HOST", "127.0.0.1"), ("PORT", "0"), ("RATELIMIT_REQS_PER_MIN", "0")];
        let settings = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            binary: binary.into(),
            settings: settings.into(),
            directory: tempfile::tempdir().expect("a temporary directory is available"),
            shell_limits: Vec::new(),
        }
    }

    /// The binary that was built beside the running example or bench.
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

    /// Takes a setting away that `of` has made, so that `.env` or the default counts.
    pub fn unset(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self
    }

    /// Writes a file such as `.env` into the working directory.
    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        fs::write(self.directory.path().join(name), contents).expect("the directory is ours");
        self
    }

    /// Writes ips.txt into the working directory.
    pub fn ips(self, list: impl AsRef<[u8]>) -> Self {
        self.file("ips.txt", list)
    }

    /// Runs it under `ulimit`, such as `-n 200`.
    pub fn ulimit(mut self, limit: &str) -> Self {
        self.shell_limits.push(format!("ulimit {limit} && "));
        self
    }

    pub fn start(self) -> Router {
        let mut command = if self.shell_limits.is_empty() {
            Command::new(&self.binary)
        } else {
            let mut shell = Command::new("/bin/sh");
            let script = format!("{}exec \"$0\"", self.shell_limits.concat());
            shell.arg("-c").arg(script).arg(&self.binary);
            shell
        };
        let child = command
            .env_clear()
            .envs(&self.settings)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match child {
            Ok(child) => Router::of(child, self.directory),
            Err(error) => panic!("can't start {:?}: {error}", self.binary),
        }
    }
}

/// A running router; killed when this is dropped.
pub struct Router {
    pid: Pid,
    directory: TempDir,
    watch: Arc<Watch>,
    addr: OnceLock<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads beside a router have seen of it.
#[derive(Default)]
struct Watch {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    log: Vec<String>,
    log_ended: bool,
    /// Some as soon as the process id is no longer ours.
    exit: Option<ExitStatus>,
}

impl Router {
    fn of(mut child: Child, directory: TempDir) -> Self {
        let stderr = child.stderr.take().expect("stderr is piped");
        let pid = Pid::from_child(&child);
        let watch = Arc::new(Watch::default());
        let (for_log, for_exit) = (Arc::clone(&watch), Arc::clone(&watch));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into());
            thread.spawn(work).expect("a thread is available")
        };
        let threads = vec![
            spawn("router log", Box::new(move || for_log.collect_log(stderr))),
            spawn("router exit", Box::new(move || for_exit.wait_for(child))),
        ];
        Self {
            pid,
            directory,
            watch,
            addr: OnceLock::new(),
            threads,
        }
    }

    /// Where it serves; waits until it does.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        if let Some(addr) = self.addr.get() {
            return *addr;
        }
        let line = self.wait_line("serving on http://", PATIENCE);
        let (_, rest) = line.split_once("serving on http://").expect("waited for");
        let text = rest.split([' ', '/', '"', ',']).next().unwrap_or_default();
        let Ok(addr) = text.parse() else {
            panic!("no address in {line:?}");
        };
        *self.addr.get_or_init(|| addr)
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        http::get(self.addr(), target)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes ips.txt anew, in place.
    pub fn write_ips(&self, list: impl AsRef<[u8]>) {
        fs::write(self.directory().join("ips.txt"), list).expect("the directory is ours");
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.watch.lock().log.clone()
    }

    /// How many lines the log has: a mark for `wait_line_after`.
    pub fn log_len(&self) -> usize {
        self.watch.lock().log.len()
    }

    /// How many lines of the log contain that.
    pub fn count_lines(&self, part: &str) -> usize {
        let seen = self.watch.lock();
        seen.log.iter().filter(|line| line.contains(part)).count()
    }

    /// Waits for a line that contains that, among all lines.
    #[track_caller]
    pub fn wait_line(&self, part: &str, within: Duration) -> String {
        self.wait_line_after(0, part, within)
    }

    /// Waits for a line that contains that, among those after the first `mark`.
    #[track_caller]
    pub fn wait_line_after(&self, mark: usize, part: &str, within: Duration) -> String {
        let found = |seen: &Seen| {
            let new = seen.log.get(mark..).unwrap_or_default();
            new.iter().find(|line| line.contains(part)).cloned()
        };
        let seen = self.watch.wait(within, |seen| found(seen).is_some() || seen.log_ended);
        let line = found(&seen);
        drop(seen);
        let Some(line) = line else {
            panic!("no line with {part:?} within {within:?}; {}", self.tail());
        };
        line
    }

    /// Waits until the condition holds; panics after 30 s, saying what was awaited.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        if !until(PATIENCE, condition) {
            panic!("waited for {PATIENCE:?} until {what}; {}", self.tail());
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal; to a router that has ended, none.
    pub fn signal(&self, signal: Signal) {
        let seen = self.watch.lock();
        if seen.exit.is_none() {
            kill_process(self.pid, signal).expect("our child can be signalled until it is reaped");
        }
    }

    pub fn is_running(&self) -> bool {
        self.watch.lock().exit.is_none()
    }

    /// Waits until it has ended, and all its log is there.
    #[track_caller]
    pub fn wait_exit(&self, within: Duration) -> ExitStatus {
        let seen = self.watch.wait(within, |seen| seen.exit.is_some() && seen.log_ended);
        let exit = seen.exit;
        drop(seen);
        let Some(exit) = exit else {
            panic!("still runs after {within:?}; {}", self.tail());
        };
        exit
    }

    /// Resident memory now.
    pub fn rss_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory so far.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    pub fn descriptors(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        entries.count()
    }

    /// Processor time so far, user and system, in steps of 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        // The name in brackets may hold anything; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').expect("stat names the program");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u32 = ticks.map(|t| t.parse::<u32>().expect("a number")).sum();
        CPU_TICK * ticks
    }

    fn status(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
        number.expect("a running process has it")
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("it runs")
    }

    fn tail(&self) -> String {
        let seen = self.watch.lock();
        let first = seen.log.len().saturating_sub(TAIL_LINES);
        let state = match seen.exit {
            Some(status) => status.to_string(),
            None => "it runs".to_owned(),
        };
        format!("{state}; the end of its log:\n{}", seen.log[first..].join("\n"))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("router {}: {}", self.pid(), self.tail());
        }
        self.signal(Signal::KILL);
        for thread in self.threads.drain(..) {
            // Its panic has been printed, and a second one while a test unwinds would abort.
            let _ = thread.join();
        }
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, within: Duration, done: impl Fn(&Seen) -> bool) -> MutexGuard<'_, Seen> {
        let waited = self.changed.wait_timeout_while(self.lock(), within, |seen| !done(seen));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn collect_log(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.lock().log.push(line);
            self.changed.notify_all();
        }
        self.lock().log_ended = true;
        self.changed.notify_all();
    }

    /// Reaps under the lock, so that a signal can't reach another process that got the same id.
    fn wait_for(&self, mut child: Child) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(Pid::from_child(&child)), options).is_err() {}
        let mut seen = self.lock();
        seen.exit = Some(child.wait().expect("it has ended and is not reaped"));
        drop(seen);
        self.changed.notify_all();
    }
}

/// Looks every few milliseconds whether the condition holds; false when it does not in time.
pub fn until(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL);
    }
}
