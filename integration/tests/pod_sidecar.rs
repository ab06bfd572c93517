//! The image as a native sidecar: the pod that `sidecar/src/inject/sidecar.yaml` makes, run through the CRI as a kubelet
//! does it, beside a stock nginx and a stock Python.

use anyhow::{Context, Result, ensure};
use integration::nginx::Nginx;
use integration::pages::Pages;
use integration::process::wait_for;
use integration::runtime::{self, Containerd, Kubelet, Machine, NODE, Release, Running, image};
use integration::scene::free_port;
use integration::{Kind, Need, Scene, Span, Tally, Trials, kubernetes, load, place, server, span};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// What the documentation promises of the agent's privileges: `CAP_BPF`, `CAP_PERFMON`, `CAP_SYS_PTRACE`.
pub(crate) const CAPABILITIES: &str = "000000c000080000";

/// The sidecar's container.
pub(crate) const SIDECAR: &str = "pilotfish";

/// Names of the pod.
const POD: &str = "cart-7d9f8c6b5-x2x9z";
const UID: &str = "8a6b2f64-1c0d-4e57-9c31-0f6de0a94b12";

/// Bound for what the agent has to notice by itself; it looks at files every two seconds, through /proc every ten.
pub(crate) const LIMIT: Duration = Duration::from_secs(25);

/// Port of the pages, by default.
pub(crate) const PAGES: u16 = 9464;

/// What stock programs need of the machine's file system, as volumes of the pod: its Debian is their image.
const DISTRIBUTION: [(&str, &str, &str); 5] = [
    ("usr", "/usr", "/usr"),
    ("lib", "/usr/lib", "/lib"),
    ("lib64", "/usr/lib64", "/lib64"),
    ("passwd", "/etc/passwd", "/etc/passwd"),
    ("group", "/etc/group", "/etc/group"),
];

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("pod_sidecar");
    for (name, release, root) in [
        ("containerd_1_6", Release::V1_6, "/var/lib/kubelet"),
        ("containerd_1_7", Release::V1_7, "/var/lib/kubelet"),
        (
            "containerd_2",
            Release::V2,
            "/var/snap/microk8s/common/var/lib/kubelet",
        ),
    ] {
        add(trials, name, release, move |scene, machine, kubelet| {
            traced(scene, machine, &kubelet.with_root(root))
        });
    }
}

/// A trial with a containerd that has the image, within the machine's network.
pub(crate) fn add(
    trials: &mut Trials,
    name: &str,
    release: Release,
    run: impl Fn(&Scene, &Machine, Kubelet<'_>) -> Result<()> + Send + Sync + 'static,
) {
    let agent = [Need::Bpf, Need::Tool("bpftool"), Need::Tool("nginx")];
    let needs = [runtime::needs(release.trees()), agent.into()].concat();
    trials.add_with(name, &needs, move |scene| {
        let machine = Machine::layered(scene, release.trees())?;
        machine.in_network(|| {
            let containerd = Containerd::start(&machine, &release.configuration(""))?;
            containerd.import(&place::agent_image()?)?;
            run(scene, &machine, Kubelet::new(&machine, containerd.cri()?))
        })
    });
}

/// Two stock servers and how they are started inside of a container.
pub(crate) struct Servers {
    pub(crate) nginx: (u16, Vec<String>),
    pub(crate) python: (u16, Vec<String>),
}

impl Servers {
    pub(crate) fn prepare(scene: &Scene) -> Result<Self> {
        let (first, second) = (free_port()?, free_port()?);
        let mut nginx = vec!["/usr/sbin/nginx".to_owned()];
        let command = Nginx::new(first).command(scene)?;
        nginx.extend(
            command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned()),
        );
        let script = scene.folder().join("server.py");
        fs::copy(place::fixture("server.py"), &script)?;
        let python = [
            "/usr/bin/python3",
            &script.to_string_lossy(),
            &second.to_string(),
        ];
        Ok(Self {
            nginx: (first, nginx),
            python: (second, python.map(str::to_owned).into()),
        })
    }

    /// Sources and places of what their containers need to see.
    pub(crate) fn mounts(scene: &Scene) -> Vec<(String, String, String)> {
        let folder = scene.folder().to_string_lossy().into_owned();
        let owned = |(name, from, to): (&str, &str, &str)| {
            (name.to_owned(), from.to_owned(), to.to_owned())
        };
        let mut mounts: Vec<_> = DISTRIBUTION.into_iter().map(owned).collect();
        mounts.push(("trial".to_owned(), folder.clone(), folder));
        mounts
    }

    /// Waits until both answer.
    pub(crate) fn await_answers(&self) -> Result<()> {
        server::wait_until_answers(self.nginx.0, || true)?;
        server::wait_until_answers(self.python.0, || true)
    }
}

/// A pod with both servers and the sidecar of the manifest, which prints its spans.
pub(crate) fn pod(scene: &Scene, servers: &Servers) -> Result<Value> {
    let manifest = place::workspace().join("sidecar/src/inject/sidecar.yaml");
    let mut spec = kubernetes::objects(&fs::read_to_string(manifest)?)?.remove(0);
    let environment = spec["initContainers"][0]["env"].as_array_mut();
    environment
        .context("the sidecar has no environment")?
        .push(json!({ "name": "PILOTFISH_PRINT", "value": "json" }));
    let mounts = Servers::mounts(scene);
    let volumes = spec["volumes"].as_array_mut().context("no volumes")?;
    volumes.extend(
        mounts
            .iter()
            .map(|(name, from, _)| json!({ "name": name, "hostPath": { "path": from } })),
    );
    let seen: Vec<Value> = mounts
        .iter()
        .map(|(name, _, to)| json!({ "name": name, "mountPath": to }))
        .collect();
    let containers = [("web", &servers.nginx.1), ("api", &servers.python.1)];
    spec["containers"] = containers
        .map(|(name, command)| {
            json!({
                "name": name, "image": image::PROMPT, "command": command, "volumeMounts": seen,
            })
        })
        .into();
    Ok(json!({
        "metadata": {
            "name": POD, "namespace": "shop", "uid": UID,
            "labels": {
                "app.kubernetes.io/name": "cart",
                "app.kubernetes.io/version": "2.1",
                "pod-template-hash": "7d9f8c6b5",
            },
            "annotations": {
                "kubernetes.io/config.source": "api",
                "pilotfish.dev/routes": "/items/{item}",
                "api.pilotfish.dev/ignore-paths": "/missing/*",
            },
        },
        "spec": spec,
    }))
}

/// Everything that both servers answer is told, with the identity that the kubelet and the Downward API give; and what
/// annotations and labels say is obeyed, from their first version to their second.
fn traced(scene: &Scene, machine: &Machine, kubelet: &Kubelet<'_>) -> Result<()> {
    let servers = Servers::prepare(scene)?;
    let mut object = pod(scene, &servers)?;
    let mut running = kubelet.run(&object)?;
    let pages = Pages::at(PAGES);
    must_have_capabilities(scene, machine, CAPABILITIES)?;
    servers.await_answers()?;
    await_status("both containers", |status| {
        has_processes(status, "web", 3) && has_processes(status, "api", 1)
    })?;
    let mut nginx = load::run(servers.nginx.0, &load::numbered(3, 20))?;
    let mut python = load::run(servers.python.0, &load::numbered(3, 20))?.without_path("/missing/");
    pages.settle()?;

    let metadata = &mut object["metadata"];
    metadata["labels"]["app.kubernetes.io/name"] = "basket".into();
    metadata["annotations"] = json!({ "pilotfish.dev/routes": "/items/{number}" });
    kubelet.update(&mut running, &object)?;
    await_status("the new labels", |status| {
        ["web", "api"].iter().all(|name| {
            container(status, name)
                .is_some_and(|container| container["resource"]["service.name"] == "basket")
        })
    })?;
    nginx.merge(load::run(servers.nginx.0, &load::numbered(2, 10))?);
    python.merge(load::run(servers.python.0, &load::numbered(2, 10))?);
    let metrics = pages.settle()?;
    ensure!(metrics.sum("pilotfish_observing")? == 1);
    let health = kubelet
        .cri()
        .exec(running.id(SIDECAR)?, &["/pilotfish", "health"])?;
    ensure!(health.code == 0, "{health:?}");

    let spans = end(machine, kubelet, &running)?;
    for (name, tally) in [("web", &nginx), ("api", &python)] {
        must_match(&spans, &running, name, tally)?;
    }
    for (route, rounds) in [("GET /items/{item}", 3 * 7), ("GET /items/{number}", 2 * 4)] {
        let named = spans.iter().filter(|span| span.name == route).count();
        ensure!(named >= rounds, "{named} spans are named {route}");
    }
    let all = spans
        .iter()
        .filter(|span| span.kind == Kind::Server)
        .count() as u64;
    let expected = nginx.total() + python.total();
    ensure!(all == expected, "{all} spans of {expected} requests");
    kubelet.cri().remove_pod(&running.sandbox)
}

/// The agent's privileges are those that are documented, no more. Remembers what it has loaded.
pub(crate) fn must_have_capabilities(scene: &Scene, machine: &Machine, wanted: &str) -> Result<()> {
    let agents = machine.running(&["/pilotfish", "sidecar"])?;
    let &[agent] = &agents[..] else {
        anyhow::bail!("not one agent: {agents:?}");
    };
    let status = fs::read_to_string(machine.path(&format!("/proc/{agent}/status")))?;
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let line = format!("{set}:\t{wanted}");
        ensure!(status.contains(&line), "no {line:?} in\n{status}");
    }
    let outside = machine.outside(agent).context("the agent has ended")?;
    let loaded = scene.remember_loaded(outside)?;
    ensure!(loaded > 0, "the agent holds no eBPF program");
    Ok(())
}

/// The sidecar's spans after its orderly end, without the questions whether a server is up.
pub(crate) fn end(
    machine: &Machine,
    kubelet: &Kubelet<'_>,
    running: &Running,
) -> Result<Vec<Span>> {
    let sidecar = running.id(SIDECAR)?;
    kubelet.cri().stop(sidecar)?;
    let [output, log] = running.log(machine, SIDECAR)?;
    let code = kubelet.cri().exit_code(sidecar)?;
    ensure!(code == Some(0), "exit code {code:?}:\n{log}");
    let mut spans = span::parse(&output)?;
    spans.retain(|span| span.path() != "/small");
    Ok(spans)
}

/// The spans of one container are exactly these exchanges, and each has the container's whole identity.
fn must_match(spans: &[Span], running: &Running, name: &str, tally: &Tally) -> Result<()> {
    let id = running.id(name)?;
    let own: Vec<Span> = spans
        .iter()
        .filter(|span| {
            span.resource
                .get("container.id")
                .is_some_and(|found| found == id)
        })
        .cloned()
        .collect();
    tally.must_equal(&Tally::of_spans(&own, Kind::Server)?, name, "its spans")?;
    let instance = format!("shop.{POD}.{name}");
    for span in &own {
        for (key, value) in [
            ("container.runtime", "containerd"),
            ("container.name", name),
            ("k8s.container.name", name),
            ("k8s.pod.name", POD),
            ("k8s.pod.uid", UID),
            ("k8s.namespace.name", "shop"),
            ("k8s.node.name", NODE),
            ("host.name", NODE),
            ("service.namespace", "shop"),
            ("service.version", "2.1"),
            ("service.instance.id", &instance),
        ] {
            let found = span.resource.get(key);
            ensure!(found.is_some_and(|found| found == value), "{key}: {span:?}");
        }
    }
    for service in ["cart", "basket"] {
        let named = own
            .iter()
            .filter(|span| span.resource["service.name"] == service);
        ensure!(named.count() > 0, "no span of the service {service}");
    }
    Ok(())
}

/// What `/status` says of a container.
fn container<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let containers = status["containers"].as_array()?;
    containers
        .iter()
        .find(|container| container["resource"]["k8s.container.name"] == name)
}

pub(crate) fn has_processes(status: &Value, name: &str, count: usize) -> bool {
    container(status, name)
        .and_then(|container| container["processes"].as_array())
        .is_some_and(|processes| processes.len() == count)
}

/// Waits until `/status` is as wanted.
pub(crate) fn await_status(what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
    let mut last = Value::Null;
    wait_for(what, LIMIT, || {
        last = Pages::at(PAGES).status()?;
        Ok(wanted(&last).then_some(()))
    })
    .with_context(|| format!("last seen: {:#}", last["containers"]))
}
