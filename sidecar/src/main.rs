//! The `pilotfish` command.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use pilotfish::{
    agent::{self, Handle, Plan},
    check::Report,
    cli::{Command, NodeArgs, RecordArgs, RunArgs, SidecarArgs},
    configuration::{self, ParseError},
    discovery::Target,
    launch::{self, Waiting},
    node::{Address, Node},
};
use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Exit code of every failure that has no code of its own.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
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
    let filter =
        EnvFilter::try_from_env("PILOTFISH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match execute(cli.command) {
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

fn execute(command: Command) -> Result<u8> {
    if let Command::Check(args) = &command {
        return check(args.json);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut held = None;
    let result = runtime.block_on(async {
        match command {
            Command::Sidecar(args) => sidecar(args).await,
            Command::Node(args) => node(args, &mut held).await,
            Command::Run(args) => run(args).await,
            Command::Record(args) => record(args).await,
            Command::Replay(args) => agent::replay(&args.file, &args.pipeline, &args.output)
                .await
                .map(|()| 0),
            Command::Check(_) => Ok(0),
        }
    });
    // A printer stuck in a write must not keep the process alive.
    runtime.shutdown_background();
    // Only now may another agent take our place: the pages' port is free.
    drop(held);
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

async fn sidecar(args: SidecarArgs) -> Result<u8> {
    let end = termination()?;
    let listen = args.listen();
    let plan = Plan {
        pipeline: args.agent.pipeline,
        annotations: args.agent.annotations,
        pod_file: args.annotations_file,
        output: args.agent.output,
        listen,
        ..Plan::new(target(args.pids), args.agent.kernel)
    };
    agent::trace(plan, |_| tracing::info!("ready"), end).await?;
    Ok(0)
}

async fn node(args: NodeArgs, held: &mut Option<Address>) -> Result<u8> {
    let end = termination()?;
    let node = Node::prepare(&args).await?;
    let plan = Plan {
        pipeline: args.agent.pipeline,
        annotations: args.agent.annotations,
        ledger: Some(Box::new(node.ledger())),
        output: args.agent.output,
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
        launching: Some((waiting.pid(), waiting.program_name())),
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
