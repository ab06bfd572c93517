//! The `pilotfish` command.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use pilotfish::{
    agent::{self, Agent, Handle, Plan},
    check::{Report, privileges},
    cli::{Command, NodeArgs, RecordArgs, RunArgs, SidecarArgs},
    configuration::{self, ParseError},
    discovery::{OwnPod, Target},
    fail_open, health, inject,
    launch::{self, Waiting},
    log, manual,
    node::{Address, Node},
    plan::PodPlan,
    tls::Launching,
};
use pilotfish_export::live::Messages;
use std::{io::Write, path::Path, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// With musl's own allocator a request costs twice the processor time, more than the budget
/// (`cargo xtask bench --part agent-cost`).
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of every failure that has no code of its own.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    if let Err(error) = privileges::raise() {
        eprintln!(
            "pilotfish: cannot make the binary's capabilities effective ({error}); `pilotfish check` says what is missing"
        );
    }
    forget_empty_variables();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match configuration::parse(&arguments, Path::new(configuration::DEFAULT_FILE)) {
        Ok(cli) => cli,
        Err(ParseError::CommandLine(error)) => error.exit(),
        Err(ParseError::Configuration(error)) => {
            eprintln!("pilotfish: {error}");
            return ExitCode::from(FAILURE);
        }
    };
    let messages = Messages::default();
    log::start(messages.clone());
    match execute(cli.command, messages) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("pilotfish: {}", told(&error));
            ExitCode::from(FAILURE)
        }
    }
}

/// An error with its causes, but for those that it tells itself.
fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        if told.is_empty() {
            cause
        } else if told.contains(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}

/// An empty variable counts as unset, as the OpenTelemetry specification has it; manifests often set such.
fn forget_empty_variables() {
    for (name, value) in std::env::vars_os() {
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("PILOTFISH_") || name.starts_with("OTEL_"));
        if ours && value.is_empty() {
            // SAFETY: the process has one thread yet.
            unsafe { std::env::remove_var(name) };
        }
    }
}

fn execute(command: Command, messages: Messages) -> Result<u8> {
    match command {
        Command::Sidecar(args) => complete(sidecar(args, messages)),
        Command::Node(args) => {
            let mut held = None;
            let result = complete(node(args, messages, &mut held));
            // Only now may another agent take our place: the pages' port is free.
            drop(held);
            result
        }
        Command::Run(args) => complete(run(args)),
        Command::Record(args) => complete(record(args)),
        Command::Replay(args) => complete(async {
            agent::replay(&args.file, &args.pipeline, &args.output).await?;
            Ok(0)
        }),
        Command::Check(args) => check(args.json),
        Command::Inject(args) => inject::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    }
}

/// Runs an agent to its end.
fn complete(agent: impl Future<Output = Result<u8>>) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(agent);
    // A printer stuck in a write must not keep the process alive.
    runtime.shutdown_background();
    result
}

fn check(json: bool) -> Result<u8> {
    let report = Report::make();
    let text = if json {
        serde_json::to_string_pretty(&report)?
    } else {
        report.to_string()
    };
    // A reader that has seen enough (`| head`) is no failure.
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write the report to standard output");
        }
        _ => {}
    }
    Ok(if report.works { 0 } else { FAILURE })
}

async fn sidecar(args: SidecarArgs, messages: Messages) -> Result<u8> {
    let end = termination()?;
    let listen = args.listen();
    let pod = PodPlan {
        own: OwnPod {
            name: args.pod_name,
            namespace: args.pod_namespace,
            uid: args.pod_uid,
        },
        annotations: args.annotations_file,
        labels: args.labels_file,
    };
    let plan = Plan {
        pipeline: args.agent.pipeline,
        annotations: args.agent.annotations,
        pod,
        output: args.agent.output,
        view: Some(messages),
        listen,
        fail_open: args.fail_open,
        ..Plan::new(target(args.pids), args.agent.kernel)
    };
    match Agent::start(plan).await {
        // Nobody announces containers to a sidecar.
        Ok((agent, _)) => {
            tracing::info!("ready");
            agent.run(end).await?;
        }
        Err(error) if args.fail_open => fail_open::stay(told(&error), listen, end).await,
        Err(error) => return Err(error),
    }
    Ok(0)
}

async fn node(args: NodeArgs, messages: Messages, held: &mut Option<Address>) -> Result<u8> {
    let end = termination()?;
    let node = Node::prepare(&args).await?;
    let plan = Plan {
        pipeline: args.agent.pipeline,
        annotations: args.agent.annotations,
        ledger: Some(Box::new(node.ledger())),
        output: args.agent.output,
        view: Some(messages),
        listen: args.listen,
        front_end: Some(node.front_end()),
        ..Plan::new(Target::Announced, args.agent.kernel)
    };
    let (started, handle) = tokio::sync::oneshot::channel();
    let mut outcome = None;
    let until = async {
        if let Ok(Handle { commands }) = handle.await {
            outcome = Some(node.serve(commands, end).await);
        }
    };
    let ready = move |handle| {
        // The other end waits for it in the same task.
        let _ = started.send(handle);
    };
    let traced = agent::trace(plan, ready, until).await;
    if let Some(served) = outcome {
        *held = Some(served?);
    }
    traced.map(|()| 0)
}

async fn record(args: RecordArgs) -> Result<u8> {
    let end = termination()?;
    let limit = args.seconds.map(Duration::from_secs);
    let until = async move {
        match limit {
            Some(limit) => tokio::select! { () = end => {}, () = tokio::time::sleep(limit) => {} },
            None => end.await,
        }
    };
    let plan = Plan::new(target(args.pids), args.kernel);
    agent::record(plan, &args.file, until).await?;
    Ok(0)
}

/// The command's exit code is ours.
async fn run(args: RunArgs) -> Result<u8> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let waiting = Waiting::fork(&args.command)?;
    let target = Target::Processes(vec![waiting.pid()]);
    let plan = Plan {
        launching: Some(Launching {
            pid: waiting.pid(),
            program: waiting.program(),
        }),
        pipeline: args.pipeline,
        output: args.output,
        listen: args.listen,
        ..Plan::new(target, args.kernel)
    };
    let (started, child) = tokio::sync::oneshot::channel();
    let (ended, end) = tokio::sync::oneshot::channel();
    let until = async {
        // Waiting for the child needs no thread until it runs; an error of the start ends the trace at once.
        let outcome = match child.await {
            Ok(Ok(child)) => supervise(child, &mut interrupt, &mut terminate).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(anyhow::anyhow!("the command was never started")),
        };
        let _ = ended.send(outcome);
    };
    let ready = move |_| {
        let _ = started.send(waiting.go().map_err(anyhow::Error::from));
    };
    agent::trace(plan, ready, until).await?;
    end.await.context("the command's end was not seen")?
}

async fn supervise(
    mut child: std::process::Child,
    interrupt: &mut tokio::signal::unix::Signal,
    terminate: &mut tokio::signal::unix::Signal,
) -> Result<u8> {
    let pid = child.id();
    let mut wait = tokio::task::spawn_blocking(move || child.wait());
    loop {
        tokio::select! {
            status = &mut wait => return Ok(launch::exit_code(status?.context("cannot wait for the command")?)),
            // The terminal sends SIGINT to the whole foreground group: the command has it already.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => launch::forward(pid, Signal::SIGTERM),
        }
    }
}

fn target(pids: Vec<i32>) -> Target {
    if pids.is_empty() {
        Target::SharedNamespace
    } else {
        Target::Processes(pids)
    }
}

/// Completes at SIGINT or SIGTERM, both caught from now on.
fn termination() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open it: {0}; choose another")]
    struct TellsItsCause(#[source] std::io::Error);

    fn refused() -> std::io::Error {
        std::io::Error::other("refused")
    }

    #[test]
    fn every_cause_is_told_once() {
        let tells = anyhow::Error::from(TellsItsCause(refused()));
        assert_eq!(told(&tells), "cannot open it: refused; choose another");
        let outer = tells.context("no start");
        assert_eq!(
            told(&outer),
            "no start: cannot open it: refused; choose another"
        );
        let silent = anyhow::Error::from(refused()).context("cannot write");
        assert_eq!(told(&silent), "cannot write: refused");
    }
}
