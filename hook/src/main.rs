//! The `pilotfish-hook` command.

use std::ffi::OsString;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use pilotfish_hook::cli::{Cli, Command, HookArgs, Stage};
use pilotfish_hook::deadline::Deadline;
use pilotfish_hook::hook::{self, REFUSED, STARTS};
use pilotfish_hook::report::say;
use pilotfish_hook::{install, isolation, state, wrapper};

/// Exit code of a wrong command line that no runtime wrote.
const USAGE: u8 = 2;

/// Time to complain, and for the runtime to write a state that nobody reads.
const USAGE_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let start = Instant::now();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => match cli.command {
            None => announce(&cli.hook, start).into(),
            Some(Command::Install(args)) => outcome(install::install(&args, &mut stdout())),
            Some(Command::Uninstall(args)) => outcome(install::uninstall(&args, &mut stdout())),
            Some(Command::Runtime(args)) => wrapper::run(&args),
        },
        Err(error) => {
            if let Some(code) = wrapper::run_misconfigured(&arguments, &error) {
                return code;
            }
            let code = usage_code(error.use_stderr(), &arguments);
            let deadline = Deadline::new(start, USAGE_LIMIT);
            let from_runtime = error.use_stderr() && code != USAGE;
            if from_runtime {
                // Without it only a pipe that nobody empties could hang.
                let _ = deadline.set_alarm(code.into());
            }
            // Nobody may be there to read it.
            let _ = error.print();
            if from_runtime {
                state::discard(deadline);
            }
            code.into()
        }
    }
}

fn outcome(result: Result<(), install::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(stderr(), "pilotfish-hook: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime that runs the hook with a wrong option must start its containers all the same; every installed hook names
/// its stage.
fn usage_code(wrong: bool, arguments: &[OsString]) -> u8 {
    let has = |option: &str| {
        arguments
            .iter()
            .any(|argument| argument.to_string_lossy().starts_with(option))
    };
    match (wrong, has("--stage"), has("--fail-closed")) {
        (false, ..) | (true, true, false) => STARTS,
        (true, true, true) => REFUSED,
        (true, false, _) => USAGE,
    }
}

fn announce(args: &HookArgs, start: Instant) -> u8 {
    let deadline = Deadline::new(start, args.limit());
    let may_announce = matches!(args.stage, None | Some(Stage::CreateRuntime));
    let code = if args.fail_closed && may_announce {
        REFUSED
    } else {
        STARTS
    };
    // An error of the program itself is no reason to refuse a container either.
    std::panic::set_hook(Box::new(move |panic| {
        say(&format!("internal error, please report it: {panic}"));
        std::process::exit(code.into());
    }));
    if let Err(error) = isolation::enter() {
        say(&format!("cannot leave the runtime's surroundings: {error}"));
    }
    if let Err(errno) = deadline.set_alarm(code.into()) {
        say(&format!("works without an alarm: {errno}"));
    }
    hook::run(args, deadline)
}
