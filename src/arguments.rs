//! Parses the arguments into a command, and holds the texts of `--help` and `--version`. Starts nothing.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use infernet_router::closest;
use infernet_router::commands::Format;
use infernet_router::config::SETTINGS;

/// What the arguments request.
#[derive(Debug)]
pub(crate) enum Command {
    Serve {
        /// For `PORT=0`: the bound port is printed.
        prints_port: bool,
    },
    Check(Format),
    Status(Format),
    Settings,
    Health,
    /// The help or the version is printed.
    Print(String),
}

/// Why the arguments are invalid.
#[derive(Debug)]
pub(crate) struct ArgumentError(pub(crate) String);

/// Usage and meaning of each command, in two columns.
const COMMANDS: &str = "  \
  check [--json]        probe every listed node once and report the state of each
  status [--json]       show what the router that serves with these settings knows of its nodes
  health                check whether the router that serves with these settings is healthy
  settings              show all settings with their source, and all errors; contacts no other machine
  help [COMMAND]        show the help, or the help of a command
";
const OPTIONS: [&str; 6] = ["-C", "--json", "--print-port", "--help", "--version", "-h"];

const EXIT_STATUS: &str = "Exit status: 0; 1 on failure (check, status: no node is available); 2 for invalid arguments or \
                           settings\n";

/// What people type to start other servers.
const START_WORDS: [&str; 3] = ["serve", "start", "run"];

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ArgumentError {}

fn unknown(word: &str) -> ArgumentError {
    match START_WORDS.contains(&word) {
        true => ArgumentError(format!(
            "unknown command {word:?}; to serve, run infernet-router without a command"
        )),
        false => with_remedy(format!("unknown command or option {word:?}"), word),
    }
}

/// The error, and the command or option that the word may be a typo of.
fn with_remedy(error: String, word: &str) -> ArgumentError {
    let commands = COMMANDS.lines().filter_map(|line| line.split_whitespace().next());
    let meant = closest(word, commands.chain(OPTIONS)).filter(|meant| *meant != word);
    ArgumentError(match meant {
        Some(meant) => format!("{error}; did you mean {meant}?"),
        None => format!("{error}; see infernet-router --help"),
    })
}

/// Parses the arguments after the program's name into the directory of `-C` and the command.
pub(crate) fn parse(mut arguments: Vec<OsString>) -> Result<(Option<PathBuf>, Command), ArgumentError> {
    let mut directory = None;
    if arguments.first().is_some_and(|first| first == "-C") {
        directory = Some(arguments.get(1).map(PathBuf::from).unwrap_or_default());
        arguments.drain(..arguments.len().min(2));
    }
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    Ok((directory, parse_command(&arguments)?))
}

fn parse_command(arguments: &[&str]) -> Result<Command, ArgumentError> {
    let (command, rest) = match arguments {
        [] => (Command::Serve { prints_port: false }, arguments),
        ["--print-port", rest @ ..] => (Command::Serve { prints_port: true }, rest),
        ["--version" | "-V", rest @ ..] => (Command::Print(version()), rest),
        ["help", name, rest @ ..] | [name, "--help" | "-h", rest @ ..] => (Command::Print(help_of(name)?), rest),
        ["--help" | "-h" | "help", rest @ ..] => (Command::Print(help()), rest),
        ["check", "--json", rest @ ..] => (Command::Check(Format::Json), rest),
        ["check", rest @ ..] => (Command::Check(Format::Table), rest),
        ["status", "--json", rest @ ..] => (Command::Status(Format::Json), rest),
        ["status", rest @ ..] => (Command::Status(Format::Table), rest),
        ["settings", rest @ ..] => (Command::Settings, rest),
        ["health", rest @ ..] => (Command::Health, rest),
        [name, ..] => return Err(unknown(name)),
    };
    match rest {
        [] => Ok(command),
        [word, ..] => Err(with_remedy(format!("{} takes no {word:?}", arguments[0]), word)),
    }
}

fn help() -> String {
    let mut help = format!(
        "infernet-router: tells clients of an Infernet fleet which nodes to call, earliest expected completion first

Usage: infernet-router [-C DIR] [COMMAND]

Without a command it serves.

Commands:
{COMMANDS}
Options:
  -C DIR                work as if started in DIR
  --print-port          print the port to stdout after binding, for PORT=0
  --json                with check or status: for programs
  -h, --help            show this text, or the help of a command
  -V, --version         show the version

{EXIT_STATUS}
Endpoints:
  GET /api/v1/ips?container=ID    addresses of nodes that run the container
  GET /api/v1/containers          containers with the number of their nodes
  GET /api/v1/resources           resources of the nodes; ?model_id=ID: which nodes support a model
  GET /health, /metrics, /status, /openapi.json

Settings, from the environment or from .env in the working directory:
"
    );
    for setting in SETTINGS {
        let (name, expected, meaning) = (setting.name, setting.expected(), setting.meaning);
        let default = Some(setting.default).filter(|default| !default.is_empty());
        let default = default.unwrap_or("unset");
        // Writing to a String cannot fail.
        let _ = writeln!(help, "  {name} [{default}]: {expected}\n      {meaning}");
    }
    help
}

/// The help of one command.
fn help_of(command: &str) -> Result<String, ArgumentError> {
    let mut lines = COMMANDS.lines().map(str::trim_start);
    let line = lines.find(|line| line.split(' ').next() == Some(command));
    let (usage, meaning) = line
        .and_then(|line| line.split_once("  "))
        .ok_or_else(|| unknown(command))?;
    let meaning = meaning.trim_start();
    Ok(format!(
        "Usage: infernet-router [-C DIR] {usage}\n\nTo {meaning}.\n\n{EXIT_STATUS}"
    ))
}

/// The version, and the commit if the build was given one.
fn version() -> String {
    let commit = option_env!("GIT_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map_or(String::new(), |commit| format!(" ({commit})"));
    format!("infernet-router {}{commit}\n", env!("CARGO_PKG_VERSION"))
}
