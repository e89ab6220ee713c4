//! Interfaces for operators: `check`, `health`, `/metrics`, `/openapi.json` and `.env.example`.

mod check;
mod env_example;
mod health;
mod metrics;
mod openapi;

use std::process::Output;

use crate::launch;
use crate::support::{Launch, PATIENCE, Router};

/// Starts a router and waits until it serves.
fn serving(launch: Launch) -> Router {
    let router = launch.start();
    router.wait_line("serving: accepting requests", PATIENCE);
    router
}

/// Runs a command of the binary until it exits.
fn run(launch: &Launch, arguments: &[&str]) -> Output {
    launch.command().args(arguments).output().expect("the binary is there")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}
