//! The dashboards and alerts in `manifests/grafana`: a real Prometheus that scrapes a sidecar and a node agent evaluates
//! every query, and what the panels show is the clients' own tally.

mod board;
mod prometheus;

use crate::hook;
use crate::node::serve;
use anyhow::{Context, Result, bail, ensure};
use board::{Board, metrics};
use integration::agent::Setup;
use integration::announce::{Dialogue, announcement, pidfd};
use integration::load::Ask;
use integration::namespace::inner_pid;
use integration::nginx::Nginx;
use integration::runtime::{Machine, hook::INSTRUMENT, hook::SOCKET};
use integration::scene::free_port;
use integration::server::{Server, gunicorn};
use integration::{Agent, Need, Process, Scene, Tally, Trials, kubernetes, load, place};
use pilotfish_workload::Identity;
use pilotfish_workload::announcement::{Reply, Request, encode};
use prometheus::{Prometheus, Sample, Window};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

/// Bound for a promtool.
const LIMIT: Duration = Duration::from_secs(30);

/// Jobs of the Prometheus: a sidecar outside of Kubernetes, and a node agent with a pod.
const SIDECAR: &str = "sidecar";
const NODE: &str = "node";

/// Requests that nginx passes on, and requests to the pod, in each round.
const PASSED_ON: usize = 9;
const TO_THE_POD: u64 = 7;

/// `service.version` of the pod.
const VERSION: &str = "1.4.2";

const COUNT: &str = "http_server_request_duration_seconds_count";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("dashboards");
    let tools = ["prometheus", "nginx", "gunicorn"].map(Need::Tool);
    let needs = [hook::needs(), tools.into()].concat();
    trials.add_with("every_query_is_answered", &needs, |scene| {
        let machine = Machine::start(scene)?;
        machine.in_network(|| every_query(scene, &machine))
    });
    trials.add_with(
        "alerts_fire_for_their_cause",
        &[Need::Tool("promtool")],
        alerts_fire,
    );
    trials.add_with("the_configmap_has_both", &kubernetes::NEEDS, configmap);
}

/// The `ConfigMap` is one, has the label that Grafana's dashboard sidecar looks for, and both dashboards as they are.
fn configmap(_: &Scene) -> Result<()> {
    let folder = place::workspace().join("manifests/grafana");
    let text = kubernetes::kustomize_build(&folder)?;
    kubernetes::validate_all(&text)?;
    let objects = kubernetes::objects(&text)?;
    let [object] = &objects[..] else {
        bail!("{} objects", objects.len());
    };
    let label = &object["metadata"]["labels"]["grafana_dashboard"];
    ensure!(label == "1", "{label}");
    for board in ["requests.json", "agent.json"] {
        let file = fs::read_to_string(folder.join(board))?;
        ensure!(object["data"][board] == file, "{board} differs");
    }
    Ok(())
}

/// promtool checks the rules and runs their tests.
fn alerts_fire(scene: &Scene) -> Result<()> {
    let folder = place::workspace().join("manifests/grafana");
    for (words, file) in [
        (["check", "rules"], "alerts.yaml"),
        (["test", "rules"], "alerts_test.yaml"),
    ] {
        let mut command = place::command("promtool")?;
        command.args(words).arg(folder.join(file));
        let log = Process::start(words[0], command, scene.folder())?.succeed(LIMIT)?;
        ensure!(log.contains("SUCCESS"), "{log}");
    }
    Ok(())
}

fn every_query(scene: &Scene, machine: &Machine) -> Result<()> {
    let (requests, agent) = (Board::read("requests.json")?, Board::read("agent.json")?);
    for board in [&requests, &agent] {
        board.check_form()?;
    }
    let ground = Ground::start(scene, machine)?;
    let (tally, windows) = ground.two_rounds()?;

    let names = [
        ground.must_answer(&requests, windows.both)?,
        ground.must_answer(&agent, windows.both)?,
        ground.must_be_calm()?,
    ];
    ground.must_export(&names.concat())?;
    ground.must_show_all_of_the_agent(&names[1])?;

    ground.must_show_the_tally(&requests, &tally, windows.sidecar)?;
    ground.must_show_the_pod(&requests, windows.node)?;
    ground.sidecar.finish()?;
    ground.node.finish().map(drop)
}

/// nginx in front of gunicorn with a sidecar, a pod with a node agent, and a Prometheus that scrapes both agents.
struct Ground {
    nginx: Server,
    _app: Server,
    _pod: Process,
    sidecar: Agent,
    node: Agent,
    prometheus: Prometheus,
}

/// From the first round's last scrape to the second round's, of each target and of both.
struct Windows {
    sidecar: Window,
    node: Window,
    both: Window,
}

impl Ground {
    fn start(scene: &Scene, machine: &Machine) -> Result<Self> {
        let port = free_port()?;
        let app = Server::start("gunicorn", gunicorn(port, "gthread")?, scene, port)?;
        let nginx = Nginx::new(free_port()?).upstream(&format!("127.0.0.1:{port}"));
        let nginx = Server::start("nginx", nginx.command(scene)?, scene, nginx.port())?;
        let sidecar = Agent::watch(scene, &[nginx.pid(), app.pid()])?;
        let node = Setup::node(scene, machine)?.arg("--nri").start()?;
        let pod = serve(machine)?;
        announce_pod(machine, &pod)?;
        let jobs = [(SIDECAR, sidecar.port()), (NODE, node.port())];
        Ok(Self {
            prometheus: Prometheus::start(scene, &jobs)?,
            nginx,
            _app: app,
            _pod: pod,
            sidecar,
            node,
        })
    }

    /// The same requests twice. What a counter shows at its first scrape is no increase to Prometheus, so only the
    /// second round can be compared with a tally.
    fn two_rounds(&self) -> Result<(Tally, Windows)> {
        let (_, sidecar_start, node_start) = self.round(1)?;
        let (tally, sidecar_end, node_end) = self.round(2)?;
        let window = |start, end| Window { start, end };
        let windows = Windows {
            sidecar: window(sidecar_start, sidecar_end),
            node: window(node_start, node_end),
            both: window(sidecar_start.min(node_start), sidecar_end.max(node_end)),
        };
        Ok((tally, windows))
    }

    /// A round's tally at nginx, and when each agent was scraped after it.
    fn round(&self, number: u64) -> Result<(Tally, u64, u64)> {
        let mut plan = load::mix(2, 5);
        plan.push(
            (0..PASSED_ON)
                .map(|number| Ask::Get(format!("/app/items/{number}")))
                .collect(),
        );
        let tally = load::run(self.nginx.port, &plan)?;
        for _ in 0..TO_THE_POD {
            load::ask_first(8080, "/basket")?;
        }
        let served = tally.total() + PASSED_ON as u64;
        let sidecar = self.prometheus.await_sum(SIDECAR, COUNT, number * served)?;
        let node = self
            .prometheus
            .await_sum(NODE, COUNT, number * TO_THE_POD)?;
        Ok((tally, sidecar, node))
    }

    /// Each query of each panel has a number with all variables at "All". Gives back the metrics that it asks for.
    fn must_answer(&self, board: &Board, window: Window) -> Result<Vec<String>> {
        let values = board.resolve(&self.prometheus, &[])?;
        let mut names = BTreeSet::new();
        for panel in board.panels()? {
            for target in &panel.targets {
                let query = values.query(target.expression, window)?;
                let answer = if target.instant {
                    self.prometheus.at_end(&query, window)
                } else {
                    self.prometheus.over(&query, window)
                };
                let place = || format!("{}: {query}", panel.title);
                ensure!(
                    !answer.with_context(place)?.is_empty(),
                    "empty: {}",
                    place()
                );
                names.extend(metrics(&query));
            }
        }
        for variable in board.variables()? {
            names.extend(metrics(variable.selector));
        }
        Ok(names.into_iter().collect())
    }

    /// Prometheus evaluates each alert, and none is raised. Gives back the metrics that they ask for.
    fn must_be_calm(&self) -> Result<Vec<String>> {
        let alerts = self.prometheus.alerts()?;
        for (name, query, state) in &alerts {
            ensure!(state == "inactive", "{name} is {state}: {query}");
        }
        Ok(alerts
            .iter()
            .flat_map(|(_, query, _)| metrics(query))
            .collect())
    }

    /// Fails for a metric that no agent has; Prometheus takes any name, and `or vector(0)` hides one.
    fn must_export(&self, names: &[String]) -> Result<()> {
        let pages = [self.sidecar.metrics()?, self.node.metrics()?];
        for name in names {
            ensure!(
                name == "up" || pages.iter().any(|page| page.has(name)),
                "no agent has a metric {name}"
            );
        }
        Ok(())
    }

    /// Whatever an agent counts about itself, losses above all, has a place on its dashboard.
    fn must_show_all_of_the_agent(&self, shown: &[String]) -> Result<()> {
        for page in [self.sidecar.metrics()?, self.node.metrics()?] {
            let names = page.page().lines().filter_map(|line| {
                let name = line.split(['{', ' ']).next()?;
                name.starts_with("pilotfish_").then_some(name)
            });
            for name in names {
                ensure!(
                    shown.iter().any(|known| known == name),
                    "{name} is on no panel of agent.json"
                );
            }
        }
        Ok(())
    }

    /// What one query of a table shows with these choices.
    fn table(
        &self,
        board: &Board,
        (title, reference): (&str, &str),
        chosen: &[(&str, &str)],
        window: Window,
    ) -> Result<Vec<Sample>> {
        let values = board.resolve(&self.prometheus, chosen)?;
        let query = values.query(board.expression(title, reference)?, window)?;
        self.prometheus.at_end(&query, window)
    }

    fn must_show_the_tally(&self, board: &Board, tally: &Tally, window: Window) -> Result<()> {
        let nginx = [("job", SIDECAR), ("service", "nginx")];
        let requests = self.table(board, ("Routes", "A"), &nginx, window)?;
        must_sum_to(&requests, tally.total()).context("requests")?;
        let failed = self.table(board, ("Routes", "B"), &nginx, window)?;
        must_sum_to(&failed, tally.of_class(5)).context("failed requests")?;
        ensure!(
            failed.len() == requests.len(),
            "routes without a failure have none, not zero"
        );
        let calls = self.table(board, ("Destinations", "A"), &nginx, window)?;
        must_sum_to(&calls, PASSED_ON as u64).context("client calls")?;

        // A choice with characters that a regular expression has to be kept from.
        let route = "/app/items/{id}";
        let chosen = [nginx[0], nginx[1], ("route", route)];
        let requests = self.table(board, ("Routes", "A"), &chosen, window)?;
        must_sum_to(&requests, PASSED_ON as u64).context("requests of a route")?;
        ensure!(
            requests.iter().all(|row| row.label("http_route") == route),
            "{requests:?}"
        );
        Ok(())
    }

    fn must_show_the_pod(&self, board: &Board, window: Window) -> Result<()> {
        let pod = [
            ("namespace", "shop"),
            ("pod", "cart-0"),
            ("container", "server"),
            ("service", "basket"),
        ];
        let requests = self.table(board, ("Routes", "A"), &pod, window)?;
        must_sum_to(&requests, TO_THE_POD).context("requests of the pod")?;
        let versions = self.table(board, ("Requests by version", "A"), &pod, window)?;
        let versions: Vec<_> = versions
            .iter()
            .map(|row| row.label("service_version"))
            .collect();
        ensure!(versions == [VERSION], "{versions:?}");
        Ok(())
    }
}

/// Says of a server what the hook would say of a container of a pod.
fn announce_pod(machine: &Machine, server: &Process) -> Result<()> {
    let pid = inner_pid(server)?;
    let annotations = [
        (INSTRUMENT, "true"),
        ("pilotfish.dev/service-name", "basket"),
        ("resource.opentelemetry.io/service.version", VERSION),
    ];
    let mut request = announcement("cart", pid, &annotations);
    if let Request::Attach(announcement) = &mut request {
        announcement.identity = Identity {
            namespace: Some("shop".to_owned()),
            pod_name: Some("cart-0".to_owned()),
            k8s_container_name: Some("server".to_owned()),
            ..Identity::default()
        };
    }
    let dialogue = Dialogue::open(&machine.path(SOCKET))?;
    dialogue.send(&encode(&request)?, &[pidfd(pid)?.as_fd()])?;
    let reply = dialogue.reply()?;
    ensure!(reply == Some(Reply::Attached), "{reply:?}");
    Ok(())
}

/// The window's extra millisecond makes less than half a request.
fn must_sum_to(samples: &[Sample], expected: u64) -> Result<()> {
    let sum: f64 = samples.iter().map(|sample| sample.value).sum();
    ensure!(
        (sum - expected as f64).abs() < 0.5,
        "the dashboard shows {sum}, the client counted {expected}: {samples:?}"
    );
    Ok(())
}
