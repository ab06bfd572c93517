//! The project's own commands: `cargo xtask setup | test | demo | image | screens | bench | soak`.

mod bench;
mod command;
mod demo;
mod image;
mod screens;
mod setup;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use anstream::eprintln;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and the demo need (Debian 12 or 13, as root)
    Setup(setup::Options),
    /// Run every check: formatting, clippy, unit, fuzz smoke and integration tests
    Test(test::Options),
    /// Trace nginx and a Python application in a container, and show what was seen
    Demo(demo::Options),
    /// Build the container images, with neither registry nor daemon (as root)
    Image(image::Options),
    /// Take the screens of the live view for its documentation (as root)
    Screens(screens::Options),
    /// Measure what observation costs, and print it beside the budgets (as root)
    Bench(bench::Options),
    /// Load HTTPS servers under observation for half an hour, and say what grew, broke or was lost (as root)
    Soak(soak::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let workspace = Workspace::locate();
    let outcome = match arguments.command {
        Task::Setup(options) => setup::run(&workspace, &options).map(|()| true),
        Task::Test(options) => test::run(&workspace, &options),
        Task::Demo(options) => demo::run(&workspace, &options),
        Task::Image(options) => image::run(&workspace, &options).map(|()| true),
        Task::Screens(options) => screens::run(&workspace, &options).map(|()| true),
        Task::Bench(options) => bench::run(&workspace, &options).map(|()| true),
        Task::Soak(options) => soak::run(&workspace, &options).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
