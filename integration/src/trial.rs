//! Trials: collected by subject, run one after the other, ignored loudly when the machine cannot run them.

use crate::namespace;
use crate::place;
use crate::runtime::Tree;
use crate::scene::Scene;
use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use std::fmt;
use std::process::ExitCode;

/// `CAP_PERFMON` and `CAP_BPF` in the kernel's capability sets.
const BPF_CAPABILITIES: u64 = 1 << 38 | 1 << 39;

/// Something that a trial cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `CAP_BPF` and `CAP_PERFMON`.
    Bpf,
    /// User id 0 with the right to become another user.
    Root,
    /// The pid namespace of the machine, not of a container.
    HostPidNamespace,
    /// A mounted hierarchy of control groups, version 2.
    Cgroup2,
    /// A program.
    Tool(&'static str),
    /// A tree of another Debian release.
    Tree(Tree),
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Bpf => effective_capabilities() & BPF_CAPABILITIES == BPF_CAPABILITIES,
            Self::Root => nix::unistd::geteuid().is_root(),
            Self::HostPidNamespace => namespace::is_the_hosts(),
            Self::Cgroup2 => namespace::unified_mount().is_some(),
            Self::Tool(name) => place::tool(name).is_some(),
            Self::Tree(tree) => tree.is_whole(),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bpf => formatter.write_str("CAP_BPF and CAP_PERFMON"),
            Self::Root => formatter.write_str("root"),
            Self::HostPidNamespace => formatter.write_str("the host's pid namespace"),
            Self::Cgroup2 => formatter.write_str("a mounted cgroup2"),
            Self::Tool(name) => write!(formatter, "the program {name}"),
            Self::Tree(tree) => write!(formatter, "the tree {tree}"),
        }
    }
}

fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or_default()
}

/// The collection of trials.
#[derive(Default)]
pub struct Trials {
    list: Vec<Trial>,
    subject: &'static str,
}

impl fmt::Debug for Trials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} trials", self.list.len())
    }
}

impl Trials {
    /// Names of the following trials start with `subject::`.
    pub fn subject(&mut self, subject: &'static str) {
        self.subject = subject;
    }

    /// Adds a trial that runs an agent and needs these tools.
    pub fn add<F>(&mut self, name: &str, tools: &[&'static str], run: F)
    where
        F: FnOnce(&Scene) -> Result<()> + Send + 'static,
    {
        let needs: Vec<Need> = [Need::Bpf, Need::Tool("bpftool")]
            .into_iter()
            .chain(tools.iter().copied().map(Need::Tool))
            .collect();
        self.add_with(name, &needs, run);
    }

    /// Adds a trial with needs of its own.
    pub fn add_with<F>(&mut self, name: &str, needs: &[Need], run: F)
    where
        F: FnOnce(&Scene) -> Result<()> + Send + 'static,
    {
        let missing: Vec<String> = needs
            .iter()
            .filter(|need| !need.is_met())
            .map(ToString::to_string)
            .collect();
        let name = format!("{}::{name}", self.subject);
        let trial = Trial::test(name, move || perform(run));
        self.list.push(if missing.is_empty() {
            trial
        } else {
            trial
                .with_kind(format!("needs {}", missing.join(", ")))
                .with_ignored_flag(true)
        });
    }

    /// Runs what the command line selects. In CI an ignored trial is a failure.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        if let (false, Err(error)) = (arguments.list, place::agent_binary()) {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
        // Servers, clients and agents share the machine's cores and counters: one trial at a time.
        arguments.test_threads.get_or_insert(1);
        let conclusion = libtest_mimic::run(&arguments, self.list);
        if conclusion.num_ignored > 0 && std::env::var_os("CI").is_some() {
            eprintln!(
                "error: {} trials could not run on this machine; run `cargo xtask setup` as root",
                conclusion.num_ignored
            );
            return ExitCode::FAILURE;
        }
        conclusion.exit_code()
    }
}

fn perform(run: impl FnOnce(&Scene) -> Result<()>) -> Result<(), Failed> {
    let outcome =
        Scene::new().and_then(|scene| run(&scene).and_then(|()| scene.check_nothing_left()));
    outcome.map_err(|error| Failed::from(format!("{error:#}")))
}
