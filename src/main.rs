//! Arguments, settings, logging, start the router, wait for a signal, exit code.

mod arguments;

use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;

use arguments::{Command, PortReport, ReportFormat, parse};
use crossbeam_channel::{Receiver, after, bounded, never, select};
use infernet_router::commands::{check, health, status};
use infernet_router::config::{Config, LogFormat};
use infernet_router::logger::{self, Format, Logging};
use infernet_router::{Router, glibc};
use log::LevelFilter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Settings or arguments that are wrong: nothing was started, and starting again does not help.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    glibc::configure();
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match parse(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(Command::Serve(port_report)) => with_config(|config| run(config, port_report)),
        Ok(Command::Check(ReportFormat::Table)) => {
            with_config(|config| check_nodes(&config, check::CheckReport::to_table))
        }
        Ok(Command::Check(ReportFormat::Json)) => {
            with_config(|config| check_nodes(&config, check::CheckReport::to_json))
        }
        Ok(Command::Status(ReportFormat::Table)) => {
            with_config(|config| ask_status(&config, status::ServedStatus::to_table))
        }
        Ok(Command::Status(ReportFormat::Json)) => {
            with_config(|config| ask_status(&config, status::ServedStatus::to_json))
        }
        Ok(Command::Health) => with_config(|config| ask_health(&config)),
        Ok(Command::Help) => print(&arguments::help(), ExitCode::SUCCESS),
        Ok(Command::HelpOf(command)) => print(&arguments::help_of(command), ExitCode::SUCCESS),
        Ok(Command::Version) => print(&arguments::version(), ExitCode::SUCCESS),
        Err(error) => {
            complain(&format!("infernet-router: {error}"));
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

fn run(config: Config, port_report: PortReport) -> ExitCode {
    let _logging = match start_logging(config.log_format, config.log_level) {
        Ok(logging) => logging,
        Err(code) => return code,
    };
    warn_of_settings(&config);
    match serve(config, port_report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config, port_report: PortReport) -> Result<(), Box<dyn std::error::Error>> {
    let signals = Signals::catch()?;
    let mut router = Router::start(config)?;
    if port_report == PortReport::OnStdout {
        print(&format!("{}\n", router.addr().port()), ExitCode::SUCCESS);
    }
    let grace = after(router.startup_grace());
    loop {
        select! {
            recv(signals.end) -> _ => return Ok(()),
            recv(signals.reread) -> _ => router.reread_list(),
            recv(router.ready()) -> _ => break,
            recv(grace) -> _ => break,
        }
    }
    router.serve();
    let (mut end, mut delay) = (signals.end, never());
    loop {
        select! {
            // A closed channel means that the signals' thread is gone; then there is nothing left to wait for.
            recv(end) -> _ => {
                let serves_on = router.shutdown_delay();
                if !serves_on.is_zero() {
                    router.announce_end();
                    log::info!("ending in {serves_on:?}: until then /health answers 503 and all else goes on");
                }
                (end, delay) = (never(), after(serves_on));
            }
            recv(delay) -> _ => break log::info!("ending: requests under way are answered"),
            recv(signals.reread) -> _ => router.reread_list(),
            recv(router.broken()) -> thread => {
                return Err(format!("the {:?} thread has ended: the router can't go on", thread.unwrap_or_default()).into());
            }
        }
    }
    drop(router);
    log::info!("ended");
    Ok(())
}

/// What others ask of the process.
struct Signals {
    /// SIGTERM or SIGINT, once; a second one ends the process at once.
    end: Receiver<()>,
    /// SIGHUP: several that come before the first was heeded are one.
    reread: Receiver<()>,
}

impl Signals {
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process and owns nothing")]
    fn catch() -> io::Result<Self> {
        let (ending, end) = bounded(1);
        let (rereading, reread) = bounded(1);
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut is_ending = false;
            for signal in caught.forever() {
                if signal == SIGHUP {
                    // Where it is full, the list is about to be read.
                    let _ = rereading.try_send(());
                } else if std::mem::replace(&mut is_ending, true) {
                    std::process::exit(128 + signal);
                } else {
                    let _ = ending.send(());
                }
            }
        })?;
        Ok(Self { end, reread })
    }
}

/// Asks every node once. Its own words go to stderr, so that stdout has the report alone.
fn check_nodes(config: &Config, show: fn(&check::CheckReport) -> String) -> ExitCode {
    let _logging = match start_logging(config.log_format, config.log_level.min(LevelFilter::Warn)) {
        Ok(logging) => logging,
        Err(code) => return code,
    };
    warn_of_settings(config);
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

/// What the router that serves knows.
fn ask_status(config: &Config, show: fn(&status::ServedStatus) -> String) -> ExitCode {
    match status::ask(config) {
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

fn warn_of_settings(config: &Config) {
    for warning in &config.warnings {
        log::warn!("settings warning: {warning}");
    }
}

/// Starts the log in the format that suits who reads it.
fn start_logging(format: LogFormat, level: LevelFilter) -> Result<Logging, ExitCode> {
    let format = match format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::for_stderr(),
    };
    logger::start(format, level).map_err(|error| {
        complain(&format!("infernet-router: no log: {error}"));
        ExitCode::FAILURE
    })
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
