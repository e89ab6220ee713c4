//! Arguments, settings, logging, start the router, wait for a signal, exit code.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crossbeam_channel::{Receiver, after, bounded, select};
use infernet_router::Router;
use infernet_router::commands::{check, health};
use infernet_router::config::{Config, SETTINGS};
use log::{LevelFilter, Log, Metadata, Record};
use signal_hook::consts::{SIGINT, SIGTERM};
use simple_logger::SimpleLogger;

/// Settings or arguments that are wrong: nothing was started, and starting again does not help.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => with_config(run),
        ["check"] => with_config(|config| check_nodes(&config, check::Report::to_table)),
        ["check", "--json"] => with_config(|config| check_nodes(&config, check::Report::to_json)),
        ["health"] => with_config(|config| ask_health(&config)),
        ["--help" | "-h"] => print(&help(), ExitCode::SUCCESS),
        ["--version" | "-V"] => print(
            concat!("infernet-router ", env!("CARGO_PKG_VERSION"), "\n"),
            ExitCode::SUCCESS,
        ),
        _ => {
            complain(&format!("infernet-router: unknown arguments {arguments:?}; see --help"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn with_config(command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::from_env() {
        Ok(config) => command(config),
        Err(errors) => {
            complain(&errors.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(config: Config) -> ExitCode {
    start_logging(config.log_level);
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let signals = signals()?;
    let mut router = Router::start(config)?;
    select! {
        recv(signals) -> _ => return Ok(()),
        recv(router.ready()) -> _ => {}
        recv(after(router.patience())) -> _ => {}
    }
    router.serve()?;
    select! {
        // A closed channel means that the signals' thread is gone; then there is nothing left to wait for.
        recv(signals) -> _ => log::info!("ending: requests under way are answered"),
        recv(router.broken()) -> thread => {
            return Err(format!("the {:?} thread has ended: the router can't go on", thread.unwrap_or_default()).into());
        }
    }
    drop(router);
    log::info!("ended");
    Ok(())
}

/// The first SIGTERM or SIGINT arrives on the channel; a second one ends the process at once.
#[expect(clippy::disallowed_methods, reason = "lives as long as the process and owns nothing")]
fn signals() -> io::Result<Receiver<()>> {
    let (sender, receiver) = bounded(1);
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 {
                std::process::exit(128 + signal);
            }
            let _ = sender.send(());
        }
    })?;
    Ok(receiver)
}

/// Asks every node once. Its own words go to stderr, so that stdout has the report alone.
fn check_nodes(config: &Config, show: fn(&check::Report) -> String) -> ExitCode {
    start_logging(config.log_level.min(LevelFilter::Warn));
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let is_terminal = io::stderr().is_terminal();
    let progress = |asked: usize, all: usize| {
        if is_terminal {
            let end = if asked == all { "\n" } else { "" };
            let _ = write!(io::stderr(), "\rasked {asked} of {all} nodes{end}");
        }
    };
    match check::check(config, progress) {
        Ok(report) if report.any_available() => print(&show(&report), ExitCode::SUCCESS),
        Ok(report) => print(&show(&report), ExitCode::FAILURE),
        Err(error) => {
            complain(&format!("infernet-router: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// For a HEALTHCHECK in an image without a shell.
fn ask_health(config: &Config) -> ExitCode {
    match health::ask(config) {
        Ok(()) => print("healthy\n", ExitCode::SUCCESS),
        Err(error) => {
            complain(&format!("infernet-router: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// simple_logger, except that a line which nobody can read any more is lost instead of a panic: it prints with
/// `eprintln!`, and the reader of a pipe may go away.
struct Logger(SimpleLogger);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Libraries say nothing: what they have to say comes back as an error, and they don't escape foreign text.
fn start_logging(level: LevelFilter) {
    let logger = ["ureq", "rustls", "tiny_http"]
        .into_iter()
        .fold(SimpleLogger::new().with_level(level), |logger, module| {
            logger.with_module_level(module, LevelFilter::Off)
        })
        .with_utc_timestamps();
    log::set_max_level(logger.max_level());
    if let Err(error) = log::set_boxed_logger(Box::new(Logger(logger))) {
        complain(&format!("infernet-router: no log: {error}"));
    }
}

fn help() -> String {
    let mut help = String::from(
        "infernet-router: tells clients of an Infernet fleet which nodes to call, least busy first\n\n\
         Usage: infernet-router          serve\n       \
         infernet-router check    ask every listed node once and say how each fares; --json for programs\n       \
         infernet-router health   ask the router that serves with these settings whether it does\n\n\
         GET /api/v1/ips?container=ID    addresses of nodes that run the container\n\
         GET /api/v1/containers          what runs\n\
         GET /health, /metrics, /openapi.json\n\n\
         Settings, from the environment or from .env in the working directory:\n",
    );
    for setting in SETTINGS {
        let default = if setting.default.is_empty() {
            "unset"
        } else {
            setting.default
        };
        // Writing to a String can't fail.
        let _ = writeln!(help, "  {:<24}{} [{default}]", setting.name, setting.meaning);
    }
    help
}

/// A reader that went away (`--help | head -1`) is no error.
fn print(text: &str, code: ExitCode) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    code
}

/// The same for stderr, where `eprintln!` would panic.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
