//! What the program is told to do, and the texts of `--help` and `--version`. Starts nothing.

use std::fmt::Write as _;

use infernet_router::config::SETTINGS;

/// What the arguments ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve(PortReport),
    Check(ReportFormat),
    Status(ReportFormat),
    Health,
    Help,
    HelpOf(&'static Row),
    Version,
}

/// Whether the port that was bound is printed, for `PORT=0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortReport {
    InLogAlone,
    OnStdout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportFormat {
    Table,
    Json,
}

/// A command as `--help` shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    name: &'static str,
    options: &'static str,
    meaning: &'static str,
}

const COMMANDS: [Row; 4] = [
    Row {
        name: "check",
        options: " [--json]",
        meaning: "ask every listed node once, and say how each is",
    },
    Row {
        name: "status",
        options: " [--json]",
        meaning: "ask the router that serves with these settings what it knows of its nodes",
    },
    Row {
        name: "health",
        options: "",
        meaning: "ask the router that serves with these settings whether it does",
    },
    Row {
        name: "help",
        options: " [COMMAND]",
        meaning: "say what a command does",
    },
];

const EXIT_STATUS: &str = "Exit status: 0; 1 where it failed (check: no node is available); 2 for wrong arguments or \
                           settings\n";

/// What people type to start other servers.
const START_WORDS: [&str; 3] = ["serve", "start", "run"];

/// Understands the arguments behind the program's name.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn parse(arguments: &[&str]) -> Result<Command, String> {
    match arguments {
        [] => Ok(Command::Serve(PortReport::InLogAlone)),
        ["--print-port"] => Ok(Command::Serve(PortReport::OnStdout)),
        ["--help" | "-h" | "help"] => Ok(Command::Help),
        ["--version" | "-V"] => Ok(Command::Version),
        ["help", name] | [name, "--help" | "-h"] => command(name).map(Command::HelpOf),
        ["check"] => Ok(Command::Check(ReportFormat::Table)),
        ["check", "--json"] => Ok(Command::Check(ReportFormat::Json)),
        ["status"] => Ok(Command::Status(ReportFormat::Table)),
        ["status", "--json"] => Ok(Command::Status(ReportFormat::Json)),
        ["health"] => Ok(Command::Health),
        [
            known @ ("--print-port" | "--version" | "-V" | "--help" | "-h"),
            unknown,
            ..,
        ] => Err(format!("{known} takes no {unknown:?}; see infernet-router --help")),
        [name, rest @ ..] => Err(match (command(name), rest) {
            (Ok(row), ["--json", unknown, ..] | [unknown, ..]) => {
                format!("{} takes no {unknown:?}; see infernet-router {0} --help", row.name)
            }
            (Err(error), _) => error,
            (Ok(row), []) => format!("{:?} is not understood", row.name),
        }),
    }
}

fn command(name: &str) -> Result<&'static Row, String> {
    if START_WORDS.contains(&name) {
        return Err(format!(
            "there is no command {name:?}: to serve, run it without a command"
        ));
    }
    let row = COMMANDS.iter().find(|row| row.name == name);
    row.ok_or_else(|| format!("there is no command or option {name:?}; see infernet-router --help"))
}

pub(crate) fn help() -> String {
    let mut help = String::from(
        "infernet-router: tells clients of an Infernet fleet which nodes to call, soonest done first\n\n\
         Usage: infernet-router [COMMAND]\n\n\
         Without a command it serves.\n\nCommands:\n",
    );
    // Writing to a String can't fail.
    for Row { name, options, meaning } in &COMMANDS {
        let _ = writeln!(help, "  {:<22}{meaning}", format!("{name}{options}"));
    }
    help.push_str(
        "\nOptions:\n  \
         --print-port          print the port to stdout once it is bound, for PORT=0\n  \
         --json                with a command: for programs\n  \
         -h, --help            this text, or what a command does\n  \
         -V, --version\n\n",
    );
    help.push_str(EXIT_STATUS);
    help.push_str(
        "\n\
         It answers:\n  \
         GET /api/v1/ips?container=ID    addresses of nodes that run the container\n  \
         GET /api/v1/containers          what runs\n  \
         GET /api/v1/resources           what it can do; ?model_id=ID: whether it supports a model\n  \
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
    format!("Usage: infernet-router {name}{options}\n\nTo {meaning}.\n\n{EXIT_STATUS}")
}

/// The version, and the commit where the build was told it.
pub(crate) fn version() -> String {
    let commit = option_env!("GIT_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map_or(String::new(), |commit| format!(" ({commit})"));
    format!("infernet-router {}{commit}\n", env!("CARGO_PKG_VERSION"))
}
