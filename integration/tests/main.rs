//! The kernel tests: one binary, one trial after the other. `--list` names them, a word selects some.

mod check;
mod churn;
mod clients;
mod faults;
mod joining;
mod loss;
mod messages;
mod namespace;
mod privilege;
mod processes;
mod proxy;
mod receivers;
mod replay;
mod scope;
mod servers;
mod status;
mod streams;
mod syscalls;

use integration::Trials;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Trials::default();
    for register in [
        check::register,
        status::register,
        servers::register,
        clients::register,
        processes::register,
        churn::register,
        proxy::register,
        scope::register,
        namespace::register,
        privilege::register,
        receivers::register,
        messages::register,
        streams::register,
        joining::register,
        syscalls::register,
        faults::register,
        loss::register,
        replay::register,
    ] {
        register(&mut trials);
    }
    trials.run()
}
