//! The image beside a container of docker or podman: `--pid=container:NAME`, and a pod of podman's.

use crate::identity::must_have;
use crate::pod_sidecar::{CAPABILITIES, PAGES, Servers, await_status};
use anyhow::{Context, Result, ensure};
use integration::pages::Pages;
use integration::process::wait_for;
use integration::runtime::{self, Docker, Machine, Podman, docker, image};
use integration::{Kind, Need, Scene, Span, Tally, Trials, load, place, span};
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

/// The image's name as users write it.
const IMAGE: &str = "pilotfish:0.1.0";

/// What the documentation tells users to grant.
const GRANTS: [&str; 4] = [
    "--cap-drop=ALL",
    "--cap-add=BPF",
    "--cap-add=PERFMON",
    "--cap-add=SYS_PTRACE",
];

/// The agent gains nothing by executing its file that the runtime did not have for it, so this takes nothing away.
const NO_NEW_PRIVILEGES: &str = "--security-opt=no-new-privileges";

/// Bound for the end of an agent that refuses.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("image");
    add(trials, "docker", |scene, machine| {
        let docker = Docker::start(machine, &docker::configuration())?;
        docker.load(&place::agent_image()?)?;
        let engine = Engine {
            scene,
            machine,
            client: Box::new(move |words| docker.command(words)),
            runtime: "docker",
        };
        engine.beside_a_container(&[])?;
        engine.beside_a_container(&[NO_NEW_PRIVILEGES])?;
        engine.without_capabilities()
    });
    for runtime in ["crun", "runc"] {
        add(
            trials,
            &format!("podman_{runtime}"),
            move |scene, machine| {
                let podman = Podman::prepare(machine, runtime, &[])?;
                podman.load(&place::agent_image()?)?;
                let engine = Engine {
                    scene,
                    machine,
                    client: Box::new(move |words| podman.command(words)),
                    runtime: "podman",
                };
                engine.beside_a_container(&[])?;
                engine.beside_a_container(&[NO_NEW_PRIVILEGES])?;
                engine.in_a_pod()?;
                engine.without_capabilities()
            },
        );
    }
}

/// A trial within a machine's network.
fn add(
    trials: &mut Trials,
    name: &str,
    run: impl Fn(&Scene, &Machine) -> Result<()> + Send + Sync + 'static,
) {
    let agent = [Need::Bpf, Need::Tool("bpftool"), Need::Tool("nginx")];
    let needs = [runtime::needs(&[]), agent.into()].concat();
    trials.add_with(name, &needs, move |scene| {
        let machine = Machine::start(scene)?;
        machine.in_network(|| run(scene, &machine))
    });
}

/// Makes a command line of a client.
type Client<'a> = Box<dyn Fn(&[&str]) -> Command + 'a>;

/// docker or podman, which have one command line.
struct Engine<'a> {
    scene: &'a Scene,
    machine: &'a Machine,
    client: Client<'a>,
    runtime: &'static str,
}

impl Engine<'_> {
    fn ask(&self, words: &[&str]) -> Result<Output> {
        let mut command = (self.client)(words);
        command.output().with_context(|| format!("{words:?}"))
    }

    fn output(&self, words: &[&str]) -> Result<String> {
        let answer = self.ask(words)?;
        let error = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.status.success(), "{words:?}: {error}");
        Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    }

    /// Starts a container in the background and gives back its id.
    fn run(&self, options: &[&str], image: &str, words: &[&str]) -> Result<String> {
        let fixed = ["run", "--detach"];
        self.output(&[&fixed[..], options, &[image], words].concat())
    }

    /// Starts one of the servers.
    fn serve(&self, options: &[&str], command: &[String]) -> Result<String> {
        let volumes: Vec<String> = Servers::mounts(self.scene)
            .iter()
            .map(|(_, from, to)| format!("--volume={from}:{to}"))
            .collect();
        let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        self.run(&[options, &volumes].concat(), image::PROMPT, &words)
    }

    /// Starts the agent, and waits until it observes so many processes.
    fn observe(&self, options: &[&str], processes: u64) -> Result<String> {
        let print = ["--name=pilotfish", "--env=PILOTFISH_PRINT=json"];
        let id = self.run(&[&print[..], &GRANTS, options].concat(), IMAGE, &[])?;
        let mut last = String::new();
        wait_for("the agent", LIMIT, || {
            let answer = self.ask(&["logs", &id])?;
            last = String::from_utf8_lossy(&answer.stderr).into_owned();
            let Ok(metrics) = Pages::at(PAGES).metrics() else {
                return Ok(None);
            };
            Ok((metrics.sum("pilotfish_processes")? == processes).then_some(()))
        })
        .with_context(|| format!("the agent logged:\n{last}"))?;
        self.must_have_capabilities()?;
        Ok(id)
    }

    fn must_have_capabilities(&self) -> Result<()> {
        let agents = self.machine.running(&["/pilotfish", "sidecar"])?;
        let &[agent] = &agents[..] else {
            anyhow::bail!("not one agent: {agents:?}");
        };
        let status = fs::read_to_string(self.machine.path(&format!("/proc/{agent}/status")))?;
        for line in [format!("CapEff:\t{CAPABILITIES}"), "Uid:\t65532".to_owned()] {
            ensure!(status.contains(&line), "no {line:?} in\n{status}");
        }
        let outside = self.machine.outside(agent).context("the agent has ended")?;
        ensure!(self.scene.remember_loaded(outside)? > 0, "no program");
        Ok(())
    }

    /// Ends the agent in an orderly way and reads its spans.
    fn end(&self, agent: &str) -> Result<Vec<Span>> {
        self.output(&["stop", agent])?;
        let code = self.output(&["inspect", "--format={{.State.ExitCode}}", agent])?;
        let printed = self.output(&["logs", agent])?;
        ensure!(code == "0", "exit code {code}");
        self.output(&["rm", agent])?;
        let mut spans = span::parse(&printed)?;
        spans.retain(|span| span.path() != "/small");
        Ok(spans)
    }

    /// The spans of a container are exactly these exchanges.
    fn must_match(&self, spans: &[Span], id: &str, tally: &Tally, program: &str) -> Result<()> {
        let id = json!(id);
        let own: Vec<Span> = spans
            .iter()
            .filter(|span| span.resource.get("container.id") == Some(&id))
            .cloned()
            .collect();
        tally.must_equal(&Tally::of_spans(&own, Kind::Server)?, program, "its spans")?;
        let first = own.first().context("no span")?;
        must_have(
            first,
            &[
                ("container.runtime", json!(self.runtime)),
                ("service.name", json!(program)),
            ],
        )?;
        ensure!(
            !first.resource.keys().any(|key| key.starts_with("k8s.")),
            "{first:?}"
        );
        Ok(())
    }

    /// `--pid=container:app`.
    fn beside_a_container(&self, options: &[&str]) -> Result<()> {
        let servers = Servers::prepare(self.scene)?;
        let app = self.serve(&["--name=app", "--network=host"], &servers.nginx.1)?;
        integration::server::wait_until_answers(servers.nginx.0, || true)?;
        let beside = ["--pid=container:app", "--network=host"];
        let agent = self.observe(&[&beside[..], options].concat(), 3)?;
        let tally = load::run(servers.nginx.0, &load::numbered(3, 20))?;
        Pages::at(PAGES).settle()?;
        let spans = self.end(&agent)?;
        self.must_match(&spans, &app, &tally, "nginx")?;
        let servers = spans.iter().filter(|span| span.kind == Kind::Server);
        ensure!(servers.count() as u64 == tally.total(), "{spans:?}");
        self.output(&["rm", "--force", &app]).map(drop)
    }

    /// The agent is in the pod before its containers are.
    fn in_a_pod(&self) -> Result<()> {
        let servers = Servers::prepare(self.scene)?;
        let infra = format!("--infra-image={}", image::PAUSE);
        self.output(&[
            "pod",
            "create",
            "--name=pod",
            "--share=+pid",
            "--network=host",
            &infra,
        ])?;
        self.output(&["pod", "start", "pod"])?;
        let agent = self.observe(&["--pod=pod"], 1)?;
        let web = self.serve(&["--pod=pod"], &servers.nginx.1)?;
        let api = self.serve(&["--pod=pod"], &servers.python.1)?;
        servers.await_answers()?;
        await_status("both containers", |status| {
            processes(status, &web) == Some(3) && processes(status, &api) == Some(1)
        })?;
        let nginx = load::run(servers.nginx.0, &load::numbered(3, 20))?;
        let python = load::run(servers.python.0, &load::numbered(3, 20))?;
        Pages::at(PAGES).settle()?;
        let spans = self.end(&agent)?;
        self.must_match(&spans, &web, &nginx, "nginx")?;
        self.must_match(&spans, &api, &python, "python3.13")?;
        self.output(&["pod", "rm", "--force", "pod"]).map(drop)
    }

    /// The file can be executed, the reason is said, and `--fail-open` stays with it.
    fn without_capabilities(&self) -> Result<()> {
        let app = self.run(&["--network=host"], image::PROMPT, &["prompt", "8080"])?;
        let beside = format!("--pid=container:{app}");
        let options = ["--cap-drop=ALL", &beside, "--network=host"];
        let refused = self.run(&options, IMAGE, &[])?;
        let state = wait_for("the agent's end", LIMIT, || {
            let state = self.output(&["inspect", "--format={{json .State}}", &refused])?;
            let state: Value = serde_json::from_str(&state)?;
            Ok((state["Status"] == "exited").then_some(state))
        })?;
        let log = self.ask(&["logs", &refused])?.stderr;
        let log = String::from_utf8_lossy(&log);
        ensure!(state["ExitCode"] == 1, "{state}: {log}");
        ensure!(log.contains("CAP_BPF"), "{log}");

        let stays = self.run(&options, IMAGE, &["sidecar", "--fail-open"])?;
        let url = Pages::at(PAGES).url("/readyz");
        let (_, ready) = wait_for("the pages", LIMIT, || {
            Ok(load::fetch(&url).ok().filter(|(code, _)| *code == 200))
        })?;
        ensure!(ready.contains("CAP_BPF"), "{ready}");
        self.output(&["stop", &stays])?;
        let code = self.output(&["inspect", "--format={{.State.ExitCode}}", &stays])?;
        ensure!(code == "0", "exit code {code}");
        self.output(&["rm", "--force", &refused, &stays])?;
        self.output(&["rm", "--force", &app]).map(drop)
    }
}

/// How many processes of a container are observed.
fn processes(status: &Value, id: &str) -> Option<usize> {
    let containers = status["containers"].as_array()?;
    let container = containers
        .iter()
        .find(|container| container["resource"]["container.id"] == id)?;
    Some(container["processes"].as_array()?.len())
}
