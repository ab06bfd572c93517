//! The agent under test: always scoped, always on ports and files of its own.

use crate::finished::Finished;
use crate::load;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::place;
use crate::process::{Process, descendant_running, wait_for};
use crate::runtime::Machine;
use crate::scene::{Scene, free_port};
use crate::span::{self, Span};
use crate::terminal::Terminal;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Longest start of the agent before a trial gives up on it.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Longest end of the agent.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How often a starting agent is asked again.
const POLL: Duration = Duration::from_millis(5);

/// A ring that holds the largest burst of any trial: whether a trial is exact must not depend on how soon the
/// agent gets one of the machine's cores. What happens when a ring is full is a subject of its own.
const AMPLE_RING: u32 = 16 << 20;

/// How to start an agent.
#[derive(Debug)]
#[must_use]
pub struct Setup<'a> {
    scene: &'a Scene,
    wrapper: Vec<OsString>,
    binary: Option<PathBuf>,
    arguments: Vec<OsString>,
    trailing: Vec<OsString>,
    environment: Vec<(String, String)>,
    ring_bytes: u32,
    port: u16,
    print: &'static str,
    print_file: PathBuf,
}

/// A running agent that has said that it is ready.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    /// The agent itself, which may be a descendant of `process`.
    pid: u32,
    port: u16,
    print_file: PathBuf,
}

/// A command line of the agent that talks to nobody's container: `pilotfish check`, `replay` and the like.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = command_in_clean_environment(&[], &place::agent_binary()?);
    command.args(arguments);
    Ok(command)
}

/// The tests decide about exporters and options, not the environment they run in.
fn command_in_clean_environment(wrapper: &[OsString], binary: &Path) -> Command {
    let mut command = match wrapper {
        [] => Command::new(binary),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary);
            command
        }
    };
    for (key, _) in std::env::vars_os() {
        if ["OTEL_", "PILOTFISH_"]
            .iter()
            .any(|prefix| key.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(key);
        }
    }
    command
}

impl<'a> Setup<'a> {
    fn new(scene: &'a Scene, subcommand: &str) -> Result<Self> {
        let port = free_port()?;
        let print_file = scene.folder().join(format!("spans-{port}.jsonl"));
        Ok(Self {
            scene,
            wrapper: Vec::new(),
            binary: None,
            arguments: vec![subcommand.into()],
            trailing: Vec::new(),
            environment: Vec::new(),
            ring_bytes: AMPLE_RING,
            port,
            print: "none",
            print_file,
        })
    }

    /// `pilotfish sidecar --pid ...` of the given processes and their descendants.
    pub fn watching(scene: &'a Scene, pids: &[u32]) -> Result<Self> {
        ensure!(
            !pids.is_empty(),
            "an unscoped agent would observe the whole machine"
        );
        let setup = Self::new(scene, "sidecar")?.unconfigured()?;
        Ok(pids
            .iter()
            .fold(setup, |setup, pid| setup.arg("--pid").arg(pid.to_string())))
    }

    /// `pilotfish sidecar` of the pid namespace that `container` leads into.
    pub fn sharing_namespace(scene: &'a Scene, container: Vec<OsString>) -> Result<Self> {
        ensure!(
            !container.is_empty(),
            "an unscoped agent would observe the whole machine"
        );
        let setup = Self::new(scene, "sidecar")?.unconfigured()?;
        Ok(setup.wrapped(container, &place::agent_binary()?))
    }

    /// `pilotfish node` in a machine; call it, and everything that talks to the agent, within
    /// [`Machine::in_network`]. It observes only what is announced.
    pub fn node(scene: &'a Scene, machine: &Machine) -> Result<Self> {
        let setup = Self::new(scene, "node")?;
        Ok(setup.wrapped(machine.words(), &place::agent_binary()?))
    }

    /// `pilotfish run -- COMMAND`.
    pub fn running(scene: &'a Scene, command: &Command) -> Result<Self> {
        let mut setup = Self::new(scene, "run")?;
        setup.trailing = vec!["--".into(), command.get_program().to_owned()];
        setup
            .trailing
            .extend(command.get_args().map(OsStr::to_owned));
        for (key, value) in command.get_envs() {
            let value = value.context("removing a variable is not supported")?;
            setup.environment.push((
                key.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            ));
        }
        Ok(setup)
    }

    /// The configuration file of the machine that tests run on is none of theirs.
    fn unconfigured(self) -> Result<Self> {
        let file = self.scene.folder().join("empty.yaml");
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
        Ok(self.env("PILOTFISH_CONFIG", &file.to_string_lossy()))
    }

    /// Adds a command-line argument of the agent.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts it through another program, such as `setpriv ...`, from another copy of the binary.
    pub fn wrapped(mut self, wrapper: Vec<OsString>, binary: &Path) -> Self {
        self.wrapper = wrapper;
        self.binary = Some(binary.to_owned());
        self
    }

    /// Shows spans on standard output in this form.
    pub fn showing(mut self, print: &'static str) -> Self {
        self.print = print;
        self
    }

    /// Prints spans to another file.
    pub fn print_file(mut self, file: &Path) -> Self {
        file.clone_into(&mut self.print_file);
        self
    }

    /// Uses a ring buffer of another size.
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Listens on another port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    fn binary(&self) -> Result<PathBuf> {
        self.binary.clone().map_or_else(place::agent_binary, Ok)
    }

    fn spawn(&self) -> Result<Process> {
        let print_file = self.print_file.as_os_str();
        let command = self.command(&[
            "--print".as_ref(),
            self.print.as_ref(),
            "--print-file".as_ref(),
            print_file,
        ])?;
        Process::start(
            &format!("pilotfish-{}", self.port),
            command,
            self.scene.folder(),
        )
    }

    fn command(&self, output: &[&OsStr]) -> Result<Command> {
        let binary = self.binary()?;
        let mut command = command_in_clean_environment(&self.wrapper, &binary);
        command.args(&self.arguments);
        command.args(["--ring-bytes", &self.ring_bytes.to_string()]);
        command.args(output);
        command
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(&self.trailing);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        Ok(command)
    }

    /// Starts the agent on a terminal, where nobody has asked for any output, and waits until it is ready. What the
    /// terminal can do is up to the environment.
    pub fn on_terminal(self, columns: u16, rows: u16) -> Result<Terminal> {
        let mut terminal = Terminal::start(self.command(&[])?, columns, rows)?;
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        terminal.wait_for("readiness of the agent", START_LIMIT, |_| {
            matches!(load::fetch(&url), Ok((200, _))).then_some(())
        })?;
        let pid = descendant_running(terminal.pid(), &self.binary()?)
            .context("the agent is ready but its process is not found")?;
        self.scene.remember_loaded(pid)?;
        Ok(terminal)
    }

    /// Starts the agent and waits until it is ready.
    pub fn start(self) -> Result<Agent> {
        let process = self.spawn()?;
        let mut agent = Agent {
            pid: process.pid(),
            process,
            port: self.port,
            print_file: self.print_file.clone(),
        };
        agent.wait_until_ready()?;
        agent.pid = agent
            .process
            .descendant_running(&self.binary()?)
            .context("the agent is ready but its process is not found")?;
        let loaded = self.scene.remember_loaded(agent.pid())?;
        ensure!(
            loaded > 0,
            "the agent is ready but holds no eBPF program or link"
        );
        Ok(agent)
    }

    /// Runs the agent to its own end, as `pilotfish run` does when its command ends.
    pub fn complete(self, limit: Duration) -> Result<(ExitStatus, Vec<Span>, String)> {
        let mut process = self.spawn()?;
        while process.is_running()
            && !self
                .scene
                .remember_loaded(process.pid())
                .is_ok_and(|loaded| loaded > 0)
        {
            std::thread::sleep(POLL);
        }
        let status = process.wait(limit)?;
        let spans = span::read(&self.print_file)
            .with_context(|| format!("the agent logged:\n{}", process.log_tail()))?;
        Ok((status, spans, process.log()))
    }

    /// Starts an agent that must refuse: ends by itself with exit code 1, without a panic. Gives back its log.
    pub fn refused(self) -> Result<String> {
        let mut process = self.spawn()?;
        let status = process.wait(START_LIMIT)?;
        let log = process.log();
        ensure!(
            status.code() == Some(1),
            "expected exit code 1, got {status}; log:\n{log}"
        );
        ensure!(!log.contains("panicked"), "the agent panicked:\n{log}");
        ensure!(!log.trim().is_empty(), "the agent refused without a word");
        Ok(log)
    }
}

impl Agent {
    /// Starts an agent that watches the given processes.
    pub fn watch(scene: &Scene, pids: &[u32]) -> Result<Self> {
        Setup::watching(scene, pids)?.start()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let url = self.url("/readyz");
        let process = &mut self.process;
        wait_for("readiness of the agent", START_LIMIT, || {
            if !process.is_running() {
                bail!("the agent ended during its start:\n{}", process.log_tail());
            }
            Ok(matches!(load::fetch(&url), Ok((200, _))).then_some(()))
        })
        .with_context(|| format!("the agent logged:\n{}", self.process.log_tail()))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Address of one of its pages.
    pub fn url(&self, page: &str) -> String {
        self.pages().url(page)
    }

    /// Port of its pages.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process, for signals and log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its pages.
    pub fn pages(&self) -> Pages {
        Pages::at(self.port)
    }

    /// Scrapes its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        self.pages().metrics()
    }

    /// Reads `/status`.
    pub fn status(&self) -> Result<serde_json::Value> {
        self.pages().status()
    }

    /// Waits until everything that the kernel produced has been delivered or counted as lost.
    pub fn settle(&self) -> Result<Metrics> {
        self.pages().settle()
    }

    /// The spans printed so far.
    pub fn printed(&self) -> Result<Vec<Span>> {
        span::read(&self.print_file)
    }

    /// Settles, ends the agent by SIGTERM, and reads what it printed.
    pub fn finish(self) -> Result<Finished> {
        let metrics = self.settle()?;
        self.end(metrics)
    }

    /// Ends the agent by SIGTERM at once: what is in the ring buffer and in queues is left to its own orderly end.
    pub fn finish_at_once(self) -> Result<Finished> {
        let metrics = self.metrics()?;
        self.end(metrics)
    }

    fn end(mut self, metrics: Metrics) -> Result<Finished> {
        kill(Pid::from_raw(self.pid as i32), Signal::SIGTERM)?;
        let status = self.process.wait(END_LIMIT)?;
        let log = self.process.log();
        ensure!(
            status.success(),
            "the agent ended with {status}:\n{}",
            self.process.log_tail()
        );
        ensure!(!log.contains("panicked"), "the agent panicked:\n{log}");
        let spans = span::read(&self.print_file)?;
        Ok(Finished {
            spans,
            metrics,
            log,
        })
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid as i32), Signal::SIGKILL)?;
        // nsenter stops itself when its child is stopped.
        self.process.signal(Signal::SIGCONT)?;
        self.process.wait(END_LIMIT).map(drop)
    }
}
