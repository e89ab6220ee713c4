//! Parses arguments and settings, starts the log and the router or runs a command, and returns the exit status.

mod arguments;
mod signals;

use std::error::Error;
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

use arguments::{Command, PortReport, ReportFormat};
use crossbeam_channel::{after, never, select};
use infernet_router::commands::{check, health, settings, status};
use infernet_router::config::{Config, Loaded};
use infernet_router::logger::{self, Format, Logging};
use infernet_router::{Router, SHUTDOWN_TIMEOUT, glibc};
use log::{Level, LevelFilter};
use signals::{Caught, Requests};

/// Invalid settings or arguments: nothing was started, and a restart does not help.
const EXIT_USAGE: u8 = 2;
/// Where the package puts settings and list.
const SYSTEM_DIRECTORY: &str = "/etc/infernet-router";

fn main() -> ExitCode {
    glibc::configure();
    match arguments::parse(std::env::args_os().skip(1).collect()) {
        Ok((directory, command)) => match directory.map_or(Ok(()), |directory| enter(&directory)) {
            Ok(()) => execute(command),
            Err(error) => complain(&error, EXIT_USAGE),
        },
        Err(error) => complain(&error.to_string(), EXIT_USAGE),
    }
}

/// Works from now on as if started in this directory.
fn enter(directory: &Path) -> Result<(), String> {
    std::env::set_current_dir(directory).map_err(|error| format!("-C {}: {error}", directory.display()))
}

fn execute(command: Command) -> ExitCode {
    match command {
        Command::Serve(port_report) => match Caught::catch() {
            Ok(caught) => with_config(|config| run(config, caught, port_report)),
            Err(error) => complain(&format!("can't catch signals: {error}"), 1),
        },
        Command::Check(format) => with_files(|config| check_nodes(&config, format)),
        Command::Status(format) => with_files(|config| show_status(&config, format)),
        Command::Health => with_files(|config| check_health(&config)),
        Command::Settings => show_settings(),
        Command::Help => print(&arguments::help(), ExitCode::SUCCESS),
        Command::HelpOf(command) => print(&arguments::help_of(command), ExitCode::SUCCESS),
        Command::Version => print(&arguments::version(), ExitCode::SUCCESS),
    }
}

fn with_config(command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Loaded::from_env().config {
        Ok(config) => command(config),
        Err(errors) => complain_of_settings(&errors.to_string()),
    }
}

/// Runs a command that people also start in a directory that is not the router's.
fn with_files(command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    with_config(|config| {
        report_missing_files(&config.ips_file);
        command(config)
    })
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

fn run(config: Config, caught: Caught, port_report: PortReport) -> ExitCode {
    let _logging = match start_logging(&config, config.log_level) {
        Ok(logging) => logging,
        Err(code) => return code,
    };
    match caught
        .watch()
        .map_err(Into::into)
        .and_then(|signals| serve(config, &signals, port_report))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!(reason:% = error; "router failed: the process exits");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config, signals: &Requests, port_report: PortReport) -> Result<(), Box<dyn Error>> {
    let mut router = Router::start(config)?;
    if port_report == PortReport::OnStdout {
        print(&format!("{}\n", router.addr().port()), ExitCode::SUCCESS);
    }
    let grace = after(router.startup_grace());
    loop {
        select! {
            recv(signals.shutdown) -> signal => return signal.map(drop).map_err(|_| signals_failed()),
            recv(signals.reload) -> reload => reload.map(|()| router.reread_list()).map_err(|_| signals_failed())?,
            recv(router.ready()) -> _ => break,
            recv(grace) -> _ => break,
        }
    }
    router.serve();
    serve_until_shutdown(&router, signals)?;
    drop(router);
    log::info!("stopped: shutdown is complete");
    Ok(())
}

fn serve_until_shutdown(router: &Router, signals: &Requests) -> Result<(), Box<dyn Error>> {
    let (mut shutdown, mut delay) = (signals.shutdown.clone(), never());
    loop {
        select! {
            recv(shutdown) -> signal => {
                let signal = signal.map_err(|_| signals_failed())?;
                let delay_s = router.shutdown_delay().as_secs_f64();
                let deadline_s = SHUTDOWN_TIMEOUT.as_secs();
                log::info!(signal = signal, delay_s = delay_s, deadline_s = deadline_s; "shutdown: draining");
                if !router.shutdown_delay().is_zero() {
                    router.announce_end();
                }
                (shutdown, delay) = (never(), after(router.shutdown_delay()));
            }
            recv(delay) -> _ => return Ok(()),
            recv(signals.reload) -> reload => reload.map(|()| router.reread_list()).map_err(|_| signals_failed())?,
            recv(router.broken()) -> thread => {
                return Err(format!("the thread {:?} has exited", thread.unwrap_or_default()).into());
            }
        }
    }
}

/// A process without its signals thread could only be killed.
fn signals_failed() -> Box<dyn Error> {
    "the thread \"signals\" has exited".into()
}

/// Probes every node once. Log lines go to stderr, so that stdout has the report only.
fn check_nodes(config: &Config, format: ReportFormat) -> ExitCode {
    let _logging = match start_logging(config, config.log_level.min(LevelFilter::Warn)) {
        Ok(logging) => logging,
        Err(code) => return code,
    };
    let is_terminal = io::stderr().is_terminal();
    let progress = |probed: usize, all: usize| {
        if is_terminal {
            let end = if probed == all { "\n" } else { "" };
            let _ = write!(io::stderr(), "\rprobed {probed} of {all} nodes{end}");
        }
    };
    match check::check(config, progress) {
        Ok(report) => match format {
            ReportFormat::Table => print(&report.to_table(), exit_code(report.any_available())),
            ReportFormat::Json => print(&report.to_json(), exit_code(report.any_available())),
        },
        Err(error) => complain(&error.to_string(), 1),
    }
}

/// Prints what the serving router knows.
fn show_status(config: &Config, format: ReportFormat) -> ExitCode {
    match status::request(config) {
        Ok(report) => match format {
            ReportFormat::Table => print(&report.to_table(), exit_code(report.any_available())),
            ReportFormat::Json => print(&report.to_json(), exit_code(report.any_available())),
        },
        Err(error) => complain(&error.to_string(), 1),
    }
}

/// For a HEALTHCHECK in an image without a shell.
fn check_health(config: &Config) -> ExitCode {
    match health::request(config) {
        Ok(()) => print("healthy\n", ExitCode::SUCCESS),
        Err(error) => complain(&error.to_string(), 1),
    }
}

/// Prints all settings. Errors and warnings go to stderr.
fn show_settings() -> ExitCode {
    let loaded = Loaded::from_env();
    let ips_file = loaded.values.iter().find(|setting| setting.name == "IPS_FILE");
    report_missing_files(Path::new(ips_file.map_or("", |setting| &setting.value)));
    print(&settings::to_table(&loaded.values), ExitCode::SUCCESS);
    match loaded.config {
        Ok(config) => {
            config.warnings.iter().for_each(|warning| write_error(warning));
            ExitCode::SUCCESS
        }
        Err(errors) => complain_of_settings(&errors.to_string()),
    }
}

/// Starts the log in the format that suits its reader, and logs the warnings about settings.
fn start_logging(config: &Config, level: LevelFilter) -> Result<Logging, ExitCode> {
    let format = match config.is_json_log {
        true => Format::Json,
        false => Format::for_stderr(),
    };
    let logging =
        logger::start(format, level).map_err(|error| complain(&format!("can't start the log: {error}"), 1))?;
    for warning in &config.warnings {
        log::warn!("settings warning: {warning}");
    }
    Ok(logging)
}

/// Prints to stdout. A reader that has closed the pipe (`--help | head -1`) is no error.
fn print(text: &str, code: ExitCode) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    code
}

/// Scripts use the exit status of `check` and `status`.
fn exit_code(any_available: bool) -> ExitCode {
    match any_available {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn complain(error: &str, code: u8) -> ExitCode {
    write_error(&format!("infernet-router: {error}"));
    ExitCode::from(code)
}

fn complain_of_settings(errors: &str) -> ExitCode {
    write_error(errors);
    ExitCode::from(EXIT_USAGE)
}

/// Writes lines to stderr, where `eprintln!` would panic if the reader has closed. journald reads their priority.
fn write_error(text: &str) {
    let priority = Format::for_stderr().prefix(Level::Error);
    for line in text.lines() {
        let _ = writeln!(io::stderr(), "{priority}{line}");
    }
}
