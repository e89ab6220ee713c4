//! Settings, logging, start the router, wait for a signal, exit code.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crossbeam_channel::{Receiver, after, bounded, select};
use infernet_router::Router;
use infernet_router::config::{Config, SETTINGS};
use log::LevelFilter;
use signal_hook::consts::{SIGINT, SIGTERM};
use simple_logger::SimpleLogger;

/// Settings or arguments that are wrong: nothing was started, and starting again does not help.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(),
        ["--help" | "-h"] => print(&help(), ExitCode::SUCCESS),
        ["--version" | "-V"] => print(
            concat!("infernet-router ", env!("CARGO_PKG_VERSION"), "\n"),
            ExitCode::SUCCESS,
        ),
        _ => {
            eprintln!("infernet-router: unknown arguments {arguments:?}; see --help");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
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
    // A closed channel means that the signals' thread is gone; then there is nothing left to wait for.
    let _ = signals.recv();
    log::info!("ending: requests under way are answered");
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

fn start_logging(level: LevelFilter) {
    let quiet = [
        ("ureq", LevelFilter::Warn),
        ("ureq_proto", LevelFilter::Warn),
        ("rustls", LevelFilter::Error),
    ];
    let logger = quiet
        .into_iter()
        .fold(SimpleLogger::new().with_level(level), |logger, (module, most)| {
            logger.with_module_level(module, most.min(level))
        });
    // Its one error is that the listener that we shut is shut.
    let logger = logger
        .with_module_level("tiny_http", LevelFilter::Off)
        .with_utc_timestamps();
    if let Err(error) = logger.init() {
        eprintln!("infernet-router: no log: {error}");
    }
}

fn help() -> String {
    let mut help = String::from(
        "infernet-router: tells clients of an Infernet fleet which nodes to call, least busy first\n\n\
         Usage: infernet-router\n\n\
         GET /api/v1/ips?container=ID    addresses of nodes that run the container\n\
         GET /api/v1/containers          what runs\n\n\
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
