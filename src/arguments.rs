//! Parses the arguments into a command, and holds the texts of `--help` and `--version`. Starts nothing.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use infernet_router::closest;
use infernet_router::config::SETTINGS;

/// What the arguments request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve(PortReport),
    Check(ReportFormat),
    Status(ReportFormat),
    Settings,
    Health,
    Help,
    HelpOf(&'static Row),
    Version,
}

/// Whether the bound port is printed, for `PORT=0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortReport {
    InLogOnly,
    OnStdout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportFormat {
    Table,
    Json,
}

/// Why the arguments are invalid.
#[derive(Debug)]
pub(crate) enum ArgumentError {
    NoDirectory,
    /// What people type to start other servers.
    StartWord(String),
    Unknown(String),
    /// The command or option does not take this argument.
    Unexpected(String, String),
}

/// A command as `--help` shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    name: &'static str,
    options: &'static str,
    meaning: &'static str,
}

const COMMANDS: [Row; 5] = [
    row(
        "check",
        " [--json]",
        "probe every listed node once and report the state of each",
    ),
    row(
        "status",
        " [--json]",
        "show what the router that serves with these settings knows of its nodes",
    ),
    row(
        "health",
        "",
        "check whether the router that serves with these settings is healthy",
    ),
    row(
        "settings",
        "",
        "show all settings with their source, and all errors; contacts no other machine",
    ),
    row("help", " [COMMAND]", "show the help, or the help of a command"),
];
const OPTIONS: [&str; 6] = ["-C", "--json", "--print-port", "--help", "--version", "-h"];

const EXIT_STATUS: &str = "Exit status: 0; 1 on failure (check, status: no node is available); 2 for invalid arguments or \
                           settings\n";

/// What people type to start other servers.
const START_WORDS: [&str; 3] = ["serve", "start", "run"];

const fn row(name: &'static str, options: &'static str, meaning: &'static str) -> Row {
    Row { name, options, meaning }
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unknown, words): (_, Vec<&str>) = match self {
            ArgumentError::NoDirectory => return f.write_str("-C: expected a directory"),
            ArgumentError::StartWord(word) => {
                return write!(
                    f,
                    "unknown command {word:?}; to serve, run infernet-router without a command"
                );
            }
            ArgumentError::Unknown(word) => {
                write!(f, "unknown command or option {word:?}")?;
                (word, COMMANDS.iter().map(|row| row.name).chain(OPTIONS).collect())
            }
            ArgumentError::Unexpected(name, word) => {
                write!(f, "{name} takes no {word:?}")?;
                (word, OPTIONS.to_vec())
            }
        };
        match closest(unknown, words).filter(|meant| meant != unknown) {
            Some(meant) => write!(f, "; did you mean {meant}?"),
            None => f.write_str("; see infernet-router --help"),
        }
    }
}

/// Parses the arguments after the program's name into the directory of `-C` and the command.
pub(crate) fn parse(mut arguments: Vec<OsString>) -> Result<(Option<PathBuf>, Command), ArgumentError> {
    let mut directory = None;
    if arguments.first().is_some_and(|first| first == "-C") {
        let path = arguments.get(1).filter(|path| !path.is_empty());
        directory = Some(PathBuf::from(path.ok_or(ArgumentError::NoDirectory)?));
        arguments.drain(..2);
    }
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    Ok((directory, parse_command(&arguments)?))
}

fn parse_command(arguments: &[&str]) -> Result<Command, ArgumentError> {
    match arguments {
        [] => Ok(Command::Serve(PortReport::InLogOnly)),
        ["--print-port"] => Ok(Command::Serve(PortReport::OnStdout)),
        ["--help" | "-h" | "help"] => Ok(Command::Help),
        ["--version" | "-V"] => Ok(Command::Version),
        ["help", name] | [name, "--help" | "-h"] => find(name).map(Command::HelpOf),
        ["check"] => Ok(Command::Check(ReportFormat::Table)),
        ["check", "--json"] => Ok(Command::Check(ReportFormat::Json)),
        ["status"] => Ok(Command::Status(ReportFormat::Table)),
        ["status", "--json"] => Ok(Command::Status(ReportFormat::Json)),
        ["settings"] => Ok(Command::Settings),
        ["health"] => Ok(Command::Health),
        ["check" | "status", "--json", unexpected, ..] => Err(unexpected_argument(arguments[0], unexpected)),
        ["--print-port" | "--version" | "-V" | "--help" | "-h", unexpected, ..] => {
            Err(unexpected_argument(arguments[0], unexpected))
        }
        [name, rest @ ..] => {
            let row = find(name)?;
            Err(unexpected_argument(row.name, rest.first().copied().unwrap_or_default()))
        }
    }
}

fn unexpected_argument(name: &str, unexpected: &str) -> ArgumentError {
    ArgumentError::Unexpected(name.to_owned(), unexpected.to_owned())
}

fn find(name: &str) -> Result<&'static Row, ArgumentError> {
    if START_WORDS.contains(&name) {
        return Err(ArgumentError::StartWord(name.to_owned()));
    }
    let row = COMMANDS.iter().find(|row| row.name == name);
    row.ok_or_else(|| ArgumentError::Unknown(name.to_owned()))
}

pub(crate) fn help() -> String {
    let mut help = String::from(
        "infernet-router: tells clients of an Infernet fleet which nodes to call, earliest expected completion first\n\n\
         Usage: infernet-router [-C DIR] [COMMAND]\n\n\
         Without a command it serves.\n\nCommands:\n",
    );
    // Writing to a String cannot fail.
    for Row { name, options, meaning } in &COMMANDS {
        let _ = writeln!(help, "  {:<22}{meaning}", format!("{name}{options}"));
    }
    help.push_str(
        "\nOptions:\n  \
         -C DIR                work as if started in DIR\n  \
         --print-port          print the port to stdout after binding, for PORT=0\n  \
         --json                with check or status: for programs\n  \
         -h, --help            show this text, or the help of a command\n  \
         -V, --version         show the version\n\n",
    );
    help.push_str(EXIT_STATUS);
    help.push_str(
        "\n\
         Endpoints:\n  \
         GET /api/v1/ips?container=ID    addresses of nodes that run the container\n  \
         GET /api/v1/containers          containers with the number of their nodes\n  \
         GET /api/v1/resources           resources of the nodes; ?model_id=ID: which nodes support a model\n  \
         GET /health, /metrics, /status, /openapi.json\n\n\
         Settings, from the environment or from .env in the working directory:\n",
    );
    for setting in SETTINGS {
        let default = if setting.default.is_empty() {
            "unset"
        } else {
            setting.default
        };
        let _ = writeln!(help, "  {} [{default}]: {}", setting.name, setting.expected());
        let _ = writeln!(help, "      {}", setting.meaning);
    }
    help
}

pub(crate) fn help_of(Row { name, options, meaning }: &Row) -> String {
    format!("Usage: infernet-router [-C DIR] {name}{options}\n\nTo {meaning}.\n\n{EXIT_STATUS}")
}

/// The version, and the commit if the build was given one.
pub(crate) fn version() -> String {
    let commit = option_env!("GIT_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map_or(String::new(), |commit| format!(" ({commit})"));
    format!("infernet-router {}{commit}\n", env!("CARGO_PKG_VERSION"))
}
