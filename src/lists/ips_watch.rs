//! Looks at ips.txt again and again. The disk that it is on may hang, so a thread of its own reads it:
//! neither the start nor the end of the router waits for that thread.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use super::ips_file::File;
use super::{Outputs, Update};
use crate::metrics::Success;
use crate::node::NodeAddr;
use crate::status::Board;
use crate::util::threads::{self, Alarm, Joined};

/// How often the file is looked at: four `stat` calls a second cost nothing.
const LOOK: Duration = Duration::from_millis(250);
/// A file that is not read after this time is told of. 32 MiB come over a slow network in less.
const SLOW_DISK: Duration = Duration::from_secs(3);

/// What is found at the start is the router's to tell, beside its address.
const START: &str = "infernet_router";

/// What the thread that touches the disk is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Read it, changed or not.
    Load,
    /// Read it if it changed and has settled.
    Look,
}

type Found = Option<Result<Vec<NodeAddr>, String>>;

/// Watches the file until `stop` closes; what comes by `reread` has it read at once. `explorer`: whether nodes come from
/// elsewhere as well.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn watch(
    path: &Path,
    explorer: bool,
    outputs: Outputs,
    reread: Receiver<()>,
    stop: Receiver<()>,
    alarm: &Alarm,
) -> io::Result<Joined> {
    let (requests, asked) = bounded(1);
    let (answers, found) = bounded(1);
    let (for_disk, for_file) = (path.to_owned(), Arc::clone(&outputs.board));
    threads::spawn_detached("ips disk", move || touch_disk(&for_disk, for_file, &asked, &answers))?;
    let watch = Watch {
        path: path.display().to_string(),
        explorer,
        requests,
        found,
        outputs,
        stop,
    };
    threads::spawn_vital("ips", alarm, move || {
        // What ends it is not worth a word: the router ends.
        let _ = watch.run(&reread);
    })
}

/// Ends when nobody asks any more, as soon as the disk lets it.
#[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
fn touch_disk(path: &Path, board: Arc<Board>, asked: &Receiver<Request>, answers: &Sender<Found>) {
    let mut file = File::new(path, board, Instant::now());
    for request in asked {
        let found = match request {
            Request::Load => Some(file.load(Instant::now())),
            Request::Look => file.look(Instant::now()),
        };
        if answers.send(found).is_err() {
            return;
        }
    }
}

struct Watch {
    path: String,
    explorer: bool,
    requests: Sender<Request>,
    found: Receiver<Found>,
    outputs: Outputs,
    stop: Receiver<()>,
}

/// The router ends.
struct Ending;

impl Watch {
    fn run(&self, reread: &Receiver<()>) -> Result<(), Ending> {
        let first = self.ask(Request::Load)?.unwrap_or_else(|| Ok(Vec::new()));
        self.count(&first);
        self.log_first(&first);
        self.send(first.unwrap_or_default())?;
        loop {
            let request = select_biased! {
                recv(self.stop) -> _ => return Err(Ending),
                recv(reread) -> _ => Request::Load,
                default(LOOK) => Request::Look,
            };
            let Some(found) = self.ask(request)? else {
                continue;
            };
            self.count(&found);
            match found {
                Ok(nodes) => {
                    log::info!("{}: read again, {} nodes", self.path, nodes.len());
                    self.send(nodes)?;
                }
                Err(trouble) => log::warn!("{}: {trouble}; the list that was read last stays", self.path),
            }
        }
    }

    /// Has the disk touched, and waits for that as long as the router lives.
    fn ask(&self, request: Request) -> Result<Found, Ending> {
        // The channel is empty: the last request was answered.
        self.requests.send(request).map_err(|_| Ending)?;
        select_biased! {
            recv(self.stop) -> _ => return Err(Ending),
            recv(self.found) -> found => return found.map_err(|_| Ending),
            default(SLOW_DISK) => {}
        }
        let trouble = format!("not read within {} s, as when its disk hangs", SLOW_DISK.as_secs());
        self.outputs.metrics.file_reads[Success::Failed].add(1);
        self.outputs.board.file_failed(&trouble);
        log::warn!("{}: {trouble}; the list that was read last stays", self.path);
        let found = select_biased! {
            recv(self.stop) -> _ => return Err(Ending),
            recv(self.found) -> found => found.map_err(|_| Ending)?,
        };
        log::info!("{}: read at last", self.path);
        // A list that has not changed ends the trouble as well.
        if found.is_some() {
            Ok(found)
        } else {
            self.ask(Request::Load)
        }
    }

    fn count(&self, found: &Result<Vec<NodeAddr>, String>) {
        let outcome = if found.is_ok() { Success::Ok } else { Success::Failed };
        self.outputs.metrics.file_reads[outcome].add(1);
    }

    fn send(&self, nodes: Vec<NodeAddr>) -> Result<(), Ending> {
        self.outputs.updates.send(Update::Listed(nodes)).map_err(|_| Ending)
    }

    fn log_first(&self, first: &Result<Vec<NodeAddr>, String>) {
        let path = &self.path;
        match (first, self.explorer) {
            (Ok(nodes), false) if nodes.is_empty() => log::warn!(target: START,
                "{path} lists no node and API_URL is not set: there is nothing to route to until the file does"
            ),
            (Ok(nodes), _) => log::info!(target: START, "{path}: {} nodes", nodes.len()),
            (Err(trouble), false) => log::warn!(target: START,
                "{path}: {trouble}; API_URL is not set either: there is nothing to route to until the file can be read"
            ),
            (Err(trouble), true) => {
                log::warn!(target: START, "{path}: {trouble}; nodes come from the Explorer alone until it can be read");
            }
        }
    }
}
