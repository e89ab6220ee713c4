//! Parses arguments and settings, starts the log and the router or runs a command, and returns the exit status.

mod arguments;
mod signals;

use std::error::Error;
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

use arguments::{ArgumentError, Command};
use crossbeam_channel::{after, never, select};
use infernet_router::commands::{self, Format as ReportFormat, Printout, check, settings, status};
use infernet_router::config::{Config, ConfigErrors, Loaded};
use infernet_router::logger::{self, Format, Logging};
use infernet_router::{Router, SHUTDOWN_TIMEOUT, glibc};
use log::{Level, LevelFilter};
use signals::Signals;

/// Invalid settings or arguments: nothing was started, and a restart does not help.
const EXIT_USAGE: u8 = 2;
/// A process without its signals thread could only be killed.
const SIGNALS_FAILED: &str = "the thread \"signals\" has exited";
/// Where the package puts settings and list.
const SYSTEM_DIRECTORY: &str = "/etc/infernet-router";

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    glibc::configure();
    execute().unwrap_or_else(|error| {
        // Each of these errors names its setting.
        let is_settings = error.is::<ConfigErrors>();
        let program = if is_settings { "" } else { "infernet-router: " };
        write_error(&format!("{program}{error}"));
        let is_usage = is_settings || error.is::<ArgumentError>();
        if is_usage { EXIT_USAGE.into() } else { ExitCode::FAILURE }
    })
}

fn execute() -> Result<ExitCode, Failure> {
    let (directory, command) = arguments::parse(std::env::args_os().skip(1).collect())?;
    if let Some(directory) = directory {
        let error = |error| ArgumentError(format!("-C {directory:?}: expected a directory: {error}"));
        std::env::set_current_dir(&directory).map_err(error)?;
    }
    match command {
        Command::Serve { prints_port } => {
            let signals = signals::watch().map_err(|error| format!("can't catch signals: {error}"))?;
            run(Loaded::from_env().config?, signals, prints_port)
        }
        Command::Check(format) => check_nodes(&config_of_files()?, format),
        Command::Status(format) => Ok(print_report(&status::request(&config_of_files()?, format)?)),
        // For a HEALTHCHECK in an image without a shell.
        Command::Health => Ok(commands::health(&config_of_files()?).map(|()| print("healthy\n"))?),
        Command::Settings => show_settings(),
        Command::Print(text) => Ok(print(&text)),
    }
}

/// The settings of a command that people also start in a directory that is not the router's.
fn config_of_files() -> Result<Config, Failure> {
    let config = Loaded::from_env().config?;
    report_missing_files(&config.ips_file);
    Ok(config)
}

/// Reports where the command looked if the working directory has neither `.env` nor the list. An absolute path of the
/// list is not looked up: its disk may hang.
fn report_missing_files(ips_file: &Path) {
    if ips_file.is_absolute() || Path::new(".env").exists() || ips_file.exists() {
        return;
    }
    let here = std::env::current_dir().unwrap_or_default();
    let (list, here) = (ips_file.display(), here.display());
    let hint = match Path::new(SYSTEM_DIRECTORY).is_dir() {
        true => format!("; for the settings of the service, add -C {SYSTEM_DIRECTORY}"),
        false => String::new(),
    };
    write_error(&format!(
        "infernet-router: found neither .env nor {list} in {here}{hint}"
    ));
}

fn run(config: Config, signals: Signals, prints_port: bool) -> Result<ExitCode, Failure> {
    let _logging = start_logging(&config, config.log_level)?;
    Ok(match serve(config, signals, prints_port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!(reason:% = error; "router failed: the process exits");
            ExitCode::FAILURE
        }
    })
}

fn serve(config: Config, (mut shutdown, reload): Signals, prints_port: bool) -> Result<(), Failure> {
    let delay = config.shutdown_delay;
    let router = Router::start(config).map_err(|error| format!("can't start: {error}"))?;
    if prints_port {
        print(&format!("{}\n", router.addr.port()));
    }
    let mut end = never();
    loop {
        select! {
            recv(reload) -> reload => reload.map(|()| router.reread_list()).map_err(|_| SIGNALS_FAILED)?,
            recv(shutdown) -> signal => {
                let signal = signal.map_err(|_| SIGNALS_FAILED)?;
                let (delay_s, deadline_s) = (delay.as_secs_f64(), SHUTDOWN_TIMEOUT.as_secs());
                log::info!(signal, delay_s, deadline_s; "shutdown: draining");
                if !delay.is_zero() {
                    router.announce_end();
                }
                (shutdown, end) = (never(), after(delay));
            }
            recv(end) -> _ => break,
            recv(router.broken) -> thread => {
                return Err(format!("the thread {:?} has exited", thread.unwrap_or_default()).into());
            }
        }
    }
    drop(router);
    log::info!("stopped: shutdown is complete");
    Ok(())
}

/// Probes every node once. Log lines go to stderr, so that stdout has the report only.
fn check_nodes(config: &Config, format: ReportFormat) -> Result<ExitCode, Failure> {
    let _logging = start_logging(config, config.log_level.min(LevelFilter::Warn))?;
    let is_terminal = io::stderr().is_terminal();
    let progress = |probed: usize, all: usize| {
        if is_terminal {
            let end = if probed == all { "\n" } else { "" };
            let _ = write!(io::stderr(), "\rprobed {probed} of {all} nodes{end}");
        }
    };
    Ok(print_report(&check::check(config, format, progress)?))
}

/// Prints all settings. Errors and warnings go to stderr.
fn show_settings() -> Result<ExitCode, Failure> {
    let loaded = Loaded::from_env();
    let ips_file = loaded.values.iter().find(|setting| setting.name == "IPS_FILE");
    report_missing_files(Path::new(ips_file.map_or("", |setting| &setting.value)));
    let code = print(&settings::to_table(&loaded.values));
    let config = loaded.config?;
    config.warnings.iter().for_each(|warning| write_error(warning));
    Ok(code)
}

/// Starts the log in the format that suits its reader, and logs the warnings about settings.
fn start_logging(config: &Config, level: LevelFilter) -> Result<Logging, Failure> {
    let format = match config.is_json_log {
        true => Format::Json,
        false => Format::for_stderr(),
    };
    let logging = logger::start(format, level).map_err(|error| format!("can't start the log: {error}"))?;
    for warning in &config.warnings {
        log::warn!("settings warning: {warning}");
    }
    Ok(logging)
}

/// Prints to stdout. A reader that has closed the pipe (`--help | head -1`) is no error.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Scripts use the exit status of `check` and `status`.
fn print_report(report: &Printout) -> ExitCode {
    let code = print(&report.text);
    if report.any_available { code } else { ExitCode::FAILURE }
}

/// Writes lines to stderr, where `eprintln!` would panic if the reader has closed. journald reads their priority.
fn write_error(text: &str) {
    let priority = Format::for_stderr().prefix(Level::Error);
    for line in text.lines() {
        let _ = writeln!(io::stderr(), "{priority}{line}");
    }
}
