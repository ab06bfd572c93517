//! What the OCI hook costs a container's start, and what a thousand containers leave in the agent.

use crate::Bench;
use crate::report::Row;
use crate::sample::Sample;
use anyhow::{Result, ensure};
use integration::holdings::Holdings;
use integration::namespace::inner_pid;
use integration::runtime::{Bundle, Machine, hook};
use integration::{Agent, agent, place};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HOOK_BUDGET: f64 = 3.0;
const START_BUDGET: f64 = 10.0;
const SIZE_BUDGET: f64 = 2.0;
const MEGABYTE: f64 = 1e6;

/// Containers of the growth row, and those after which the agent has reached its size.
const MANY: usize = 1000;
const FIRST: usize = 100;
/// The ring that an agent has by default, bytes.
const RING: u32 = 2 << 20;
const LIMIT: Duration = Duration::from_mins(5);

/// Runs `/NAME` for each NAME of `$3...`, in turn and in the opposite turn, and tells the microseconds of each.
const RUN_EACH: &str = r#"
runtime=$1 rounds=$2
shift 2
names=("$@")
for round in $(seq "$rounds"); do
    reversed=()
    for name in "${names[@]}"; do
        begin=${EPOCHREALTIME/./}
        "$runtime" run --bundle "/$name" "$name-$round" </dev/null || exit
        echo "$name $((${EPOCHREALTIME/./} - begin))"
        reversed=("$name" "${reversed[@]}")
    done
    names=("${reversed[@]}")
done"#;

/// Runs containers one after the other, two at a time.
const RUN_MANY: &str =
    r#"seq "$1" "$2" | xargs -P 2 -I NUMBER runc run --bundle /selected many-NUMBER"#;

pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let machine = Machine::start(&bench.scene)?;
    hook::install(&machine)?;
    machine.in_network(|| {
        let agent = agent::Setup::node(&bench.scene, &machine)?
            .ring_bytes(RING)
            .start()?;
        let mut rows = alone(bench, &machine)?;
        for name in BUNDLES {
            bundle(&machine, name)?;
        }
        for runtime in ["runc", "crun"] {
            rows.extend(starts(bench, &machine, runtime)?);
        }
        rows.extend(growth(bench, &machine, &agent)?);
        agent.finish()?;
        rows.push(size()?);
        Ok(rows)
    })
}

/// What is run to be timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// A static program that does nothing.
    Nothing,
    /// The hook at the start of a container that nothing selects.
    Unselected,
    /// The hook at the start of a container that is selected.
    Attach,
    /// The hook at its end.
    Remove,
}

/// Milliseconds from start to end, and of processor time.
#[derive(Default, Serialize)]
struct Times {
    elapsed: Sample,
    processor: Sample,
}

/// The hook as a runtime calls it, without the runtime.
fn alone(bench: &Bench, machine: &Machine) -> Result<Vec<Row>> {
    let container = machine.spawn("container", machine.command("sleep", ["infinity"]))?;
    let pid = inner_pid(&container)?;
    let states = [
        ("plain", json!({})),
        ("selected", json!({ hook::INSTRUMENT: "true" })),
    ]
    .map(|(name, annotations)| State::write(bench.scene.folder(), name, pid, &annotations));
    let [plain, selected] = states;
    let (plain, selected) = (plain?, selected?);
    let socket = machine.path(hook::SOCKET);
    let mut times: [Times; 4] = Default::default();
    // Each attachment is followed by a removal, so that each is a new one.
    let round = [Run::Nothing, Run::Unselected, Run::Attach, Run::Remove];
    for _ in 0..bench.pick(300, 30) {
        for (run, times) in round.iter().zip(&mut times) {
            let mut command = match run {
                Run::Nothing => {
                    let mut busybox = place::command("busybox")?;
                    busybox.arg("true");
                    busybox
                }
                Run::Unselected => plain.command(&socket, "createRuntime")?,
                Run::Attach => selected.command(&socket, "createRuntime")?,
                Run::Remove => selected.command(&socket, "poststop")?,
            };
            times.take(&mut command)?;
        }
    }
    let [nothing, unselected, attach, remove] = times;
    Ok(vec![
        attach
            .row("hook at the start of a selected container", &nothing)
            .budget("at most 3 ms", attach.elapsed.median() <= HOOK_BUDGET),
        remove.row("hook at the end of a selected container", &nothing),
        unselected
            .row("hook of a container that is not selected", &nothing)
            .budget("at most 3 ms", unselected.elapsed.median() <= HOOK_BUDGET),
    ])
}

/// What a runtime tells a hook.
struct State {
    created: PathBuf,
    stopped: PathBuf,
}

impl State {
    fn write(folder: &Path, name: &str, pid: u32, annotations: &Value) -> Result<Self> {
        let bundle = folder.join(format!("bundle-{name}"));
        fs::create_dir(&bundle)?;
        let config = json!({ "ociVersion": "1.0.2", "annotations": annotations });
        fs::write(bundle.join("config.json"), config.to_string())?;
        let write = |status: &str, pid: u32| -> Result<PathBuf> {
            let file = bundle.join(format!("{status}.json"));
            let state = json!({
                "ociVersion": "1.0.2", "id": name, "status": status, "pid": pid, "bundle": bundle,
                "annotations": annotations,
            });
            fs::write(&file, state.to_string())?;
            Ok(file)
        };
        Ok(Self {
            created: write("created", pid)?,
            stopped: write("stopped", 0)?,
        })
    }

    fn command(&self, socket: &Path, stage: &str) -> Result<Command> {
        let file = if stage == "poststop" {
            &self.stopped
        } else {
            &self.created
        };
        let mut command = Command::new(place::hook_binary()?);
        command.args(["--fail-closed", "--stage", stage, "--socket"]);
        command.arg(socket).stdin(File::open(file)?);
        Ok(command)
    }
}

impl Times {
    fn take(&mut self, command: &mut Command) -> Result<()> {
        let used = || -> Result<f64> {
            let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
            Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e3)
        };
        let before = used()?;
        let begin = Instant::now();
        let status = command.stdout(Stdio::null()).status()?;
        self.elapsed.push(begin.elapsed().as_secs_f64() * 1e3);
        self.processor.push(used()? - before);
        ensure!(status.success(), "{command:?} ended with {status}");
        Ok(())
    }

    fn row(&self, what: &str, nothing: &Self) -> Row {
        Row::new(what, format!("{:.2} ms", self.elapsed.median()))
            .how(format!(
                "from its start to its end, {:.2} ms of processor time; busybox `true`: {:.2} and {:.2} ms; {}",
                self.processor.median(),
                nothing.elapsed.median(),
                nothing.processor.median(),
                self.elapsed.middle_half(2)
            ))
            .figures(json!({ "run": self, "nothing": nothing }))
    }
}

/// Bundles of the same container: without the hook, with it, and selected.
const BUNDLES: [&str; 3] = ["bare", "unselected", "selected"];

fn bundle(machine: &Machine, name: &str) -> Result<()> {
    Bundle::make(machine, &format!("/{name}"), &["true"], |config| {
        if name != "bare" {
            hook::add(config, &["--fail-closed"]);
        }
        if name == "selected" {
            hook::select(config);
        }
    })
    .map(drop)
}

/// A trivial container from `run` to its removal: the hook is called twice.
fn starts(bench: &Bench, machine: &Machine, runtime: &str) -> Result<Vec<Row>> {
    let rounds = bench.pick(100, 10).to_string();
    let words = ["-c", RUN_EACH, "bash", runtime, &rounds];
    let command = machine.command("bash", words.iter().chain(&BUNDLES));
    let told = machine.spawn("starts", command)?.succeed(LIMIT)?;
    let of = |wanted: &str| -> Sample {
        let lines = told.lines().filter_map(|line| line.split_once(' '));
        let own = lines.filter(|(name, _)| *name == wanted);
        own.filter_map(|(_, time)| time.parse::<f64>().ok())
            .map(|microseconds| microseconds / 1e3)
            .collect()
    };
    let [bare, unselected, selected] = BUNDLES.map(of);
    let row = |what: &str, with: &Sample| {
        let added = with.against(&bare, |with, bare| with - bare);
        let row = Row::new(
            format!("{runtime}, added to a trivial container {what}"),
            format!("{:.1} ms", added.median()),
        );
        row.budget("at most 10 ms", added.median() <= START_BUDGET)
            .how(format!(
                "`{runtime} run` of `true` from start to removal, hook at both stages: {:.1} ms, without it {:.1} ms, \
                 interleaved; difference: {}",
                with.median(),
                bare.median(),
                added.middle_half(1)
            ))
            .figures(json!({ "with": with, "bare": bare }))
    };
    Ok(vec![
        row("that is selected", &selected),
        row("that is not selected", &unselected),
    ])
}

/// Memory and descriptors of the agent after the first containers and after all.
fn growth(bench: &Bench, machine: &Machine, agent: &Agent) -> Result<Vec<Row>> {
    let (first, many) = bench.pick((FIRST, MANY), (20, 100));
    let begin = Instant::now();
    let run = |from: usize, to: usize| -> Result<Holdings> {
        let numbers = [from, to].map(|number| number.to_string());
        let mut command = machine.command("sh", ["-c", RUN_MANY, "sh"]);
        command.args(numbers);
        machine.spawn("many", command)?.succeed(LIMIT)?;
        hook::await_observed(agent, machine, &[])?;
        Holdings::of(agent.pid())
    };
    let before = run(1, first)?;
    let after = run(first + 1, many)?;
    let seconds = begin.elapsed().as_secs_f64();
    let entries: usize = after.entries.values().sum();
    let memory = |holdings: &Holdings| holdings.resident as f64 / MEGABYTE;
    Ok(vec![
        Row::new(
            format!("agent's growth from container {first} to {many}"),
            format!("{:.2} MB", memory(&after) - memory(&before)),
        )
        .how(format!(
            "resident {:.1} and {:.1} MB, descriptors {} and {}, map entries and state files left {entries} and {}; runc, \
             two at a time, all in {seconds:.0} s",
            memory(&before),
            memory(&after),
            before.descriptor_count(),
            after.descriptor_count(),
            hook::remembered(machine)?.len(),
        )),
    ])
}

fn size() -> Result<Row> {
    let megabytes = place::hook_binary()?.metadata()?.len() as f64 / MEGABYTE;
    Ok(Row::new("hook binary", format!("{megabytes:.2} MB"))
        .budget("at most 2 MB", megabytes <= SIZE_BUDGET)
        .how("static and stripped; installer and docker's wrapper included"))
}
