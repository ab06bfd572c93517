//! The kernel tests: one binary, one trial after the other. `--list` names them, a word selects some.

mod annotations;
mod check;
mod churn;
mod clients;
mod containerd;
mod containers;
mod docker;
mod faults;
mod hook;
mod hook_faults;
mod hook_launch;
mod hook_restart;
mod identity;
mod joining;
mod loss;
mod messages;
mod namespace;
mod node;
mod node_start;
mod nri;
mod podman;
mod privilege;
mod processes;
mod proxy;
mod receivers;
mod replay;
mod runtimes;
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
        runtimes::register,
        nri::register,
        containerd::register,
        docker::register,
        annotations::register,
        hook::register,
        hook_restart::register,
        hook_faults::register,
        hook_launch::register,
        containers::register,
        node::register,
        node_start::register,
        podman::register,
    ] {
        register(&mut trials);
    }
    trials.run()
}
