//! The real binary as a child process: observed through its log and `/proc`, killed when its handle is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use super::launch::Launch;
pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use super::PATIENCE;
use super::http::{self, Answer};

/// Log lines that a failed wait shows.
const TAIL_LINES: usize = 25;

/// Interval of checks of a condition.
const POLL: Duration = Duration::from_millis(5);

/// A tick of `/proc/PID/stat`; `USER_HZ` is 100 on every Linux that Rust builds for.
const CPU_TICK: Duration = Duration::from_millis(10);

/// A running router, killed on drop.
pub struct Router {
    pid: Pid,
    directory: TempDir,
    watch: Arc<Watch>,
    addr: OnceLock<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads that observe a router have recorded.
#[derive(Default)]
struct Watch {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    log: Vec<String>,
    log_ended: bool,
    /// The log reader closes the pipe after the next line.
    log_closes: bool,
    /// The log reader pauses after the next line.
    log_stalls: bool,
    /// `Some` once the process is reaped: its id may be reused.
    exit: Option<ExitStatus>,
}

impl Router {
    pub(super) fn of(mut child: Child, directory: TempDir) -> Self {
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

    /// Returns the served address, as soon as the router serves.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        if let Some(addr) = self.addr.get() {
            return *addr;
        }
        let line = self.wait_line("serving: accepting requests", PATIENCE);
        let (_, rest) = line.split_once("http://").expect("waited for");
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

    /// Overwrites ips.txt in place.
    pub fn write_ips(&self, list: impl AsRef<[u8]>) {
        fs::write(self.directory().join("ips.txt"), list).expect("the directory is ours");
    }

    /// Returns the log so far.
    pub fn log(&self) -> Vec<String> {
        self.watch.lock().log.clone()
    }

    /// Sends each line of the log, from the first until the router exits.
    pub fn follow(&self, mut take: impl FnMut(&str)) {
        let mut taken = 0;
        loop {
            let is_new = |seen: &Seen| seen.log.len() > taken || seen.log_ended;
            let new = self.watch.wait(PATIENCE, is_new).log[taken..].to_vec();
            new.iter().for_each(|line| take(line));
            taken += new.len();
            if new.is_empty() && self.watch.lock().log_ended {
                return;
            }
        }
    }

    /// Returns the number of log lines: a mark for `wait_line_after`.
    pub fn log_len(&self) -> usize {
        self.watch.lock().log.len()
    }

    /// Closes the test's end of the router's stderr at the next line.
    pub fn close_log(&self) {
        self.watch.lock().log_closes = true;
    }

    /// Stops reading the router's stderr at the next line, or continues.
    pub fn stall_log(&self, stalls: bool) {
        self.watch.lock().log_stalls = stalls;
        self.watch.changed.notify_all();
    }

    /// Waits until the router has exited, even if the log is not read completely.
    #[track_caller]
    pub fn wait_gone(&self, within: Duration) -> ExitStatus {
        let exit = self.watch.wait(within, |seen| seen.exit.is_some()).exit;
        exit.unwrap_or_else(|| panic!("still runs after {within:?}; {}", self.tail()))
    }

    /// Waits until the test's end of the router's stderr is closed.
    #[track_caller]
    pub fn wait_log_closed(&self) {
        let seen = self.watch.wait(PATIENCE, |seen| seen.log_ended);
        assert!(seen.log_ended, "it has written nothing for {PATIENCE:?}");
    }

    /// Returns the number of log lines that contain `part`. An ellipsis in `part` matches any text.
    pub fn count_lines(&self, part: &str) -> usize {
        let seen = self.watch.lock();
        seen.log.iter().filter(|line| contains(line, part)).count()
    }

    /// Waits for a line that contains `part`, among all lines. An ellipsis in `part` matches any text.
    #[track_caller]
    pub fn wait_line(&self, part: &str, within: Duration) -> String {
        self.wait_line_after(0, part, within)
    }

    /// Waits for a line that contains `part`, after the first `mark` lines.
    #[track_caller]
    pub fn wait_line_after(&self, mark: usize, part: &str, within: Duration) -> String {
        let found = |seen: &Seen| {
            let new = seen.log.get(mark..).unwrap_or_default();
            new.iter().find(|line| contains(line, part)).cloned()
        };
        let seen = self.watch.wait(within, |seen| found(seen).is_some() || seen.log_ended);
        let line = found(&seen);
        drop(seen);
        let Some(line) = line else {
            panic!("no line with {part:?} within {within:?}; {}", self.tail());
        };
        line
    }

    /// Waits until the condition holds. Panics with `what` after 30 s.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        if !until(PATIENCE, condition) {
            panic!("waited for {PATIENCE:?} until {what}; {}", self.tail());
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal, unless the router has exited.
    pub fn signal(&self, signal: Signal) {
        let seen = self.watch.lock();
        if seen.exit.is_none() {
            kill_process(self.pid, signal).expect("our child can be signalled until it is reaped");
        }
    }

    pub fn is_running(&self) -> bool {
        self.watch.lock().exit.is_none()
    }

    /// Waits until the router has exited and its whole log is read.
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

    /// Returns the current resident memory.
    pub fn rss_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Returns the peak of resident memory.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    pub fn descriptors(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a running router");
        entries.count()
    }

    /// Returns the processor time so far.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.pid())
    }

    fn status(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
        number.expect("a running process has it")
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("a running router")
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
        self.stall_log(false);
        for thread in self.threads.drain(..) {
            // The thread has printed its panic. A second panic during unwinding would abort.
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
        // The pipe is closed at the end of this loop, even if the router writes more.
        let lines = BufReader::new(stderr).split(b'\n').map_while(Result::ok);
        for line in lines {
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut seen = self.lock();
            seen.log.push(line);
            let closes = seen.log_closes;
            drop(seen);
            self.changed.notify_all();
            if closes {
                break;
            }
            let stalled = self.changed.wait_while(self.lock(), |seen| seen.log_stalls);
            drop(stalled.unwrap_or_else(PoisonError::into_inner));
        }
        self.lock().log_ended = true;
        self.changed.notify_all();
    }

    /// Reaps under the lock, so that no signal reaches another process with a reused id.
    fn wait_for(&self, mut child: Child) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(Pid::from_child(&child)), options).is_err() {}
        let mut seen = self.lock();
        seen.exit = Some(child.wait().expect("an exited process that is not reaped"));
        drop(seen);
        self.changed.notify_all();
    }
}

/// Returns the processor time of a process so far, user and system, in steps of 10 ms.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    // The name in brackets may contain any text. utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').expect("stat names the program");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u32 = ticks.map(|t| t.parse::<u32>().expect("a number")).sum();
    CPU_TICK * ticks
}

/// Checks the condition every few milliseconds. Returns false on timeout.
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

/// Returns whether the line contains the pieces of `part` between ellipses, in this order.
fn contains(line: &str, part: &str) -> bool {
    let mut rest = Some(line);
    for piece in part.split('…') {
        rest = rest.and_then(|rest| Some(rest.split_once(piece)?.1));
    }
    rest.is_some()
}
