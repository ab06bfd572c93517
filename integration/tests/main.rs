//! The kernel tests: one binary, one trial after the other. `--list` names them, a word selects some.

mod admission;
mod annotations;
mod chart;
mod check;
mod churn;
mod clients;
mod containerd;
mod containers;
mod dashboards;
mod docker;
mod documentation;
mod ephemeral;
mod faults;
mod grpc;
mod hook;
mod hook_faults;
mod hook_launch;
mod hook_restart;
mod http2;
mod identity;
mod image;
mod inject;
mod joining;
mod loss;
mod manifests;
mod messages;
mod namespace;
mod node;
mod node_hook;
mod node_pod;
mod node_start;
mod nri;
mod pod_privileges;
mod pod_sidecar;
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
mod terminal;
mod tls_calls;
mod tls_clients;
mod tls_faults;
mod tls_processes;
mod tls_servers;

use integration::Trials;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Trials::default();
    for register in [
        check::register,
        terminal::register,
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
        dashboards::register,
        messages::register,
        streams::register,
        joining::register,
        syscalls::register,
        faults::register,
        loss::register,
        tls_servers::register,
        tls_clients::register,
        tls_processes::register,
        tls_calls::register,
        tls_faults::register,
        http2::register,
        grpc::register,
        replay::register,
        runtimes::register,
        nri::register,
        containerd::register,
        docker::register,
        annotations::register,
        hook::register,
        hook_restart::register,
        inject::register,
        hook_faults::register,
        hook_launch::register,
        containers::register,
        node::register,
        node_start::register,
        podman::register,
        documentation::register,
        manifests::register,
        chart::register,
        ephemeral::register,
        node_hook::register,
        node_pod::register,
        admission::register,
        pod_sidecar::register,
        pod_privileges::register,
        image::register,
    ] {
        register(&mut trials);
    }
    trials.run()
}
