//! Annotations give each container settings of its own: those that the hook announces, and those that a sidecar reads
//! from a file, as the Downward API of Kubernetes writes it.

use crate::containerd::{self, REQUESTS};
use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::namespace::{self, TOOLS, wrapped};
use integration::process::wait_for;
use integration::runtime::{Container, Machine, Pod, Release, hook};
use integration::scene::free_port;
use integration::server::{Server, kind};
use integration::{Agent, Finished, Need, Scene, Trials, load};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

/// Bound for the agent's notice of a change; it looks every two seconds.
const NOTICE_LIMIT: Duration = Duration::from_secs(25);

/// Containers of the pod, with the names that their termination logs give them.
const NAMES: [&str; 2] = ["web", "api"];

/// The attribute by which `/status` tells which version is in force.
const MARK: &str = "trial.version";

/// One version of the file, and what it leaves of the requests to `/items/ROUND` and `/small/ROUND`.
struct Round {
    /// Besides the [`MARK`].
    lines: &'static [&'static str],
    /// For each of [`NAMES`].
    seen: [Seen; 2],
}

/// What is seen of one container.
struct Seen {
    /// How many of the two paths are measured.
    measured: u64,
    /// Names of the spans, each [`REQUESTS`] times.
    traced: &'static [&'static str],
}

const NOTHING: Seen = Seen {
    measured: 0,
    traced: &[],
};

const EVERYTHING: Seen = Seen {
    measured: 2,
    traced: &["GET /items/{item}", "GET /small/{item}"],
};

/// What one version says ends with it.
const ROUNDS: &[Round] = &[
    Round {
        lines: &[
            "kubernetes.io/config.seen=\"2026-01-01T00:00:00Z\"",
            "pilotfish.dev/routes=\"/items/{item}\"",
            "pilotfish.dev/ignore-paths=\"/small/*\"",
            "web.pilotfish.dev/routes=\"/items/{of_web}\"",
            "api.pilotfish.dev/sample-ratio=\"0\"",
        ],
        seen: [
            Seen {
                measured: 1,
                traced: &["GET /items/{of_web}"],
            },
            Seen {
                measured: 1,
                traced: &[],
            },
        ],
    },
    Round {
        lines: &[
            "pilotfish.dev/instrument=\"api\"",
            "pilotfish.dev/routes=\"/items/{item};/small/{item}\"",
            "api.pilotfish.dev/ignore-paths=\"/none\"",
        ],
        seen: [NOTHING, EVERYTHING],
    },
    Round {
        lines: &["pilotfish.dev/instrument=\"false\""],
        seen: [NOTHING, NOTHING],
    },
    Round {
        lines: &[
            "pilotfish.dev/instrument=\"true\"",
            "pilotfish.dev/routes=\"/items/{item};/small/{item}\"",
            "pilotfish.dev/sample-ratio=\"many\"",
            "web.pilotfish.dev/ignore-paths=\"/none\"",
            "api.pilotfish.dev/ignore-paths=\"/small/*\"",
            "pilotfish.dev/ignore-path=\"/items/*\"",
        ],
        seen: [
            EVERYTHING,
            Seen {
                measured: 1,
                traced: &["GET /items/{item}"],
            },
        ],
    },
];

/// The last version has a value that is not a number, and a key that is almost one.
const WARNED_OF: [&str; 3] = ["many", "ignore-path\\\"", "ignore-paths"];

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("annotations");
    let tools = TOOLS.iter().chain(&["node"]).copied().map(Need::Tool);
    let needs = [Need::Bpf, Need::Root, Need::Tool("bpftool")];
    let needs: Vec<Need> = needs.into_iter().chain(tools).collect();
    containerd::add(trials, "of_a_pod", Release::V2, announced);
    trials.add_with("a_file_that_changes", &needs, changes);
    trials.add_with("an_absent_file_is_refused", &needs, absent);
}

/// Paths that each container of the announced pod is asked for, [`REQUESTS`] times.
const PATHS: [&str; 3] = ["/users/7", "/shops/berlin/7", "/healthz"];

/// Each container of one pod has settings of its own: what is measured, what is traced and under which route.
fn announced(scene: &Scene, machine: &Machine, release: Release) -> Result<()> {
    let containerd = containerd::start(machine, &release.configuration(""))?;
    let agent = Setup::node(scene, machine)?.start()?;
    let cri = containerd.cri()?;
    let pod = [
        ("pilotfish.dev/instrument", "true"),
        ("pilotfish.dev/routes", "/users/{id}"),
        ("pilotfish.dev/ignore-paths", "/healthz"),
        ("unsampled.pilotfish.dev/sample-ratio", "0"),
        ("unsampled.pilotfish.dev/routes", "/shops/{city}/{shop}"),
        ("unsampled.pilotfish.dev/ignore-paths", "/users/*"),
        ("foreign.pilotfish.dev/protocols", "morse"),
        ("elsewhere.pilotfish.dev/ports", "9999"),
        ("refused.pilotfish.dev/instrument", "false"),
    ]
    .iter()
    .fold(Pod::new("shop", "cart"), |pod, (key, value)| {
        pod.annotation(key, value)
    });
    let sandbox = cri.run_pod(&pod)?;
    let names = ["sampled", "unsampled", "foreign", "elsewhere", "refused"];
    let mut ids = Vec::new();
    for (name, port) in names.into_iter().zip(8080..) {
        let port = port.to_string();
        let container = Container::new(name, &["prompt", &port]);
        ids.push(cri.run(&sandbox, &pod, &container)?);
    }
    let observed: Vec<&str> = ids.iter().take(4).map(String::as_str).collect();
    hook::await_observed(&agent, machine, &observed)?;
    for (_, port) in names.into_iter().zip(8080..) {
        load::ask_first(port, "/healthz")?;
        for path in PATHS {
            for _ in 0..REQUESTS {
                load::fetch(&format!("http://127.0.0.1:{port}{path}"))?;
            }
        }
    }

    let metrics = agent.settle()?;
    let counted = |container: &str, route: &str| {
        let labels = [("k8s_container_name", container), ("http_route", route)];
        metrics.sum_where("http_server_request_duration_seconds_count", &labels)
    };
    ensure!(counted("sampled", "/users/{id}")? == REQUESTS);
    ensure!(counted("unsampled", "/shops/{city}/{shop}")? == REQUESTS);
    for (container, requests) in [
        ("sampled", 2 * REQUESTS),
        ("unsampled", 2 * REQUESTS + 1),
        // A protocol that nobody knows is a value that cannot be read: the operator's setting stays.
        ("foreign", 2 * REQUESTS),
        ("elsewhere", 0),
        ("refused", 0),
    ] {
        let labels = [("k8s_container_name", container)];
        let all = metrics.sum_where("http_server_request_duration_seconds_count", &labels)?;
        ensure!(all == requests, "{container}: {all} of {requests} measured");
    }
    let status = agent.status()?;
    let warnings = container(&status, "foreign")?["warnings"].to_string();
    ensure!(warnings.contains("morse"), "{warnings}");

    let spans = agent.finish()?.spans;
    for traced in [&ids[0], &ids[2]] {
        let id = json!(traced);
        let of_container = spans
            .iter()
            .filter(|span| span.resource["container.id"] == id);
        ensure!(of_container.count() as u64 == 2 * REQUESTS, "{spans:?}");
    }
    ensure!(spans.len() as u64 == 4 * REQUESTS, "{spans:?}");
    for span in &spans {
        ensure!(span.path() != "/healthz", "{span:?}");
        let by_pattern = span.path() == "/users/7";
        ensure!(by_pattern == (span.name == "GET /users/{id}"), "{span:?}");
    }
    Ok(())
}

/// A folder as the kubelet makes one: `annotations` leads through the link `..data` into a folder of this version.
struct Volume {
    folder: PathBuf,
}

impl Volume {
    fn make(scene: &Scene) -> Result<Self> {
        let folder = scene.folder().join("podinfo");
        fs::create_dir(&folder)?;
        symlink("..data/annotations", folder.join("annotations"))?;
        Ok(Self { folder })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("annotations")
    }

    /// Puts a new version in place of the former one in a single step.
    fn write(&self, version: usize, lines: &[&str]) -> Result<()> {
        let name = format!("..version-{version}");
        fs::create_dir(self.folder.join(&name))?;
        let mark = format!("resource.opentelemetry.io/{MARK}=\"{version}\"");
        let text = [lines, &[mark.as_str()]].concat().join("\n");
        fs::write(self.folder.join(&name).join("annotations"), text)?;
        symlink(&name, self.folder.join("..data_tmp"))?;
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data"))?;
        Ok(())
    }
}

/// Each container obeys the file, from its first version to its last.
fn changes(scene: &Scene) -> Result<()> {
    let volume = Volume::make(scene)?;
    volume.write(0, ROUNDS[0].lines)?;
    let pod = namespace::Pod::start(scene)?;
    let servers = NAMES
        .iter()
        .map(|name| serve(scene, &pod, name))
        .collect::<Result<Vec<_>>>()?;
    let agent = Setup::sharing_namespace(scene, pod.new_container()?)?
        .arg("--annotations-file")
        .arg(volume.file())
        .start()?;
    for (version, round) in ROUNDS.iter().enumerate() {
        if version > 0 {
            volume.write(version, round.lines)?;
        }
        perform(&agent, &servers, version, round).with_context(|| format!("round {version}"))?;
    }
    let status = agent.status()?;
    for name in NAMES {
        let warnings = container(&status, name)?["warnings"].to_string();
        for word in WARNED_OF {
            ensure!(warnings.contains(word), "{name}: no {word:?} in {warnings}");
        }
    }
    must_trace(&agent.finish()?)
}

/// Requests under one version of the file, and what the kernel and the metrics tell of them.
fn perform(agent: &Agent, servers: &[Server], version: usize, round: &Round) -> Result<()> {
    await_version(agent, version)?;
    let measured = |name: &str| -> Result<u64> {
        let metrics = agent.settle()?;
        let labels = [("k8s_container_name", name)];
        metrics.sum_where("http_server_request_duration_seconds_count", &labels)
    };
    for ((server, name), seen) in servers.iter().zip(NAMES).zip(&round.seen) {
        let (before, produced) = (measured(name)?, agent.settle()?.produced()?);
        for _ in 0..REQUESTS {
            for path in ["items", "small"] {
                let port = server.port;
                load::fetch(&format!("http://127.0.0.1:{port}/{path}/{version}"))?;
            }
        }
        let count = measured(name)?.saturating_sub(before);
        let expected = seen.measured * REQUESTS;
        ensure!(count == expected, "{name}: {count} of {expected} measured");
        let records = agent.settle()?.produced()? - produced;
        ensure!(
            seen.measured > 0 || records == 0,
            "{name}: {records} records"
        );
    }
    Ok(())
}

/// Every span of every round, and no other.
fn must_trace(finished: &Finished) -> Result<()> {
    let mut all = 0;
    for (version, round) in ROUNDS.iter().enumerate() {
        let mark = version.to_string();
        for (name, seen) in NAMES.iter().zip(&round.seen) {
            for route in seen.traced {
                let spans = finished.spans.iter().filter(|span| {
                    span.name == *route
                        && span.path().ends_with(&format!("/{version}"))
                        && span.resource["k8s.container.name"] == *name
                        && span.resource[MARK] == *mark.as_str()
                });
                let count = spans.count() as u64;
                ensure!(
                    count == REQUESTS,
                    "round {version}, {name}: {count} of {route:?}; {}",
                    finished.losses()
                );
                all += count;
            }
        }
    }
    let spans = finished.spans.len() as u64;
    ensure!(spans == all, "{spans} spans: {:?}", finished.spans);
    Ok(())
}

/// Waits until `/status` shows a version for both containers.
fn await_version(agent: &Agent, version: usize) -> Result<()> {
    let mut last = Value::Null;
    let mut in_force = || {
        last = agent.status()?;
        let mut marks = NAMES.iter().map(|name| container(&last, name));
        let version = version.to_string();
        let all = marks.try_fold(true, |all, container| {
            anyhow::Ok(all && container?["resource"][MARK] == version)
        })?;
        Ok(all.then_some(()))
    };
    wait_for("the new version", NOTICE_LIMIT, &mut in_force)
        .with_context(|| format!("last seen: {last:#}"))
}

/// What `/status` says of a container.
fn container<'a>(status: &'a Value, name: &str) -> Result<&'a Value> {
    let containers = status["containers"].as_array().context("no containers")?;
    containers
        .iter()
        .find(|container| container["resource"]["k8s.container.name"] == name)
        .with_context(|| format!("no container {name} in {status:#}"))
}

/// A container with a server, and with a termination log as the kubelet mounts it, which tells its name.
fn serve(scene: &Scene, pod: &namespace::Pod, name: &str) -> Result<Server> {
    let port = free_port()?;
    let command = (kind("node")?.command)(scene, port)?;
    let log = "pods/01234567-89ab-cdef-0123-456789abcdef/containers";
    let log = scene.folder().join(log).join(name).join("89abcdef");
    fs::create_dir_all(log.parent().context("a file has a folder")?)?;
    fs::write(&log, "")?;
    let mut words = pod.new_container()?;
    words.extend(
        [
            "sh",
            "-c",
            r#"mount --bind "$1" "$1" && shift && exec "$@""#,
            "sh",
        ]
        .map(OsString::from),
    );
    words.push(log.into());
    Server::start(name, wrapped(&words, &command)?, scene, port)
}

/// The message says which volume is missing.
fn absent(scene: &Scene) -> Result<()> {
    let pod = namespace::Pod::start(scene)?;
    let log = Setup::sharing_namespace(scene, pod.new_container()?)?
        .arg("--annotations-file")
        .arg(scene.folder().join("absent"))
        .refused()?;
    ensure!(log.contains("downwardAPI"), "{log}");
    Ok(())
}
