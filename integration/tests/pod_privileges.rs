//! The image as a native sidecar with less than it wants: the pod starts whatever is missing, and somebody is told.

use crate::pod_sidecar::{
    CAPABILITIES, LIMIT, PAGES, SIDECAR, Servers, add, await_status, end, has_processes,
    must_have_capabilities, pod,
};
use anyhow::{Context, Result, ensure};
use integration::pages::Pages;
use integration::process::wait_for;
use integration::runtime::{Kubelet, Machine, Release};
use integration::{Kind, Scene, Tally, Trials, load, program};
use serde_json::{Value, json};

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("pod_privileges");
    add(
        trials,
        "variants",
        Release::V2,
        |scene, machine, kubelet| {
            VARIANTS.iter().try_for_each(|variant| {
                let performed = variant.perform(scene, machine, &kubelet);
                performed.with_context(|| variant.name)
            })
        },
    );
    add(
        trials,
        "port_taken",
        Release::V2,
        |scene, machine, kubelet| port_taken(scene, machine, &kubelet),
    );
}

/// A sidecar with other privileges than the manifest's.
struct Variant {
    name: &'static str,
    /// What is different in its `securityContext`; null removes.
    context: fn() -> Value,
    /// The effective set of an agent that observes.
    observes: Option<&'static str>,
    /// Words that the pages and the log have to say.
    says: &'static [&'static str],
}

const VARIANTS: &[Variant] = &[
    Variant {
        name: "user 0 without new privileges",
        context: || {
            json!({
                "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": null, "allowPrivilegeEscalation": false,
            })
        },
        observes: Some(CAPABILITIES),
        says: &[],
    },
    // The runtime's own process has the capabilities when it executes the agent, which therefore gains none.
    Variant {
        name: "another user without new privileges",
        context: || json!({ "allowPrivilegeEscalation": false }),
        observes: Some(CAPABILITIES),
        says: &[],
    },
    Variant {
        name: "without capabilities",
        context: || json!({ "capabilities": { "drop": ["ALL"] } }),
        observes: None,
        says: &["CAP_BPF"],
    },
    Variant {
        name: "without CAP_PERFMON",
        context: || json!({ "capabilities": { "drop": ["ALL"], "add": ["BPF", "SYS_PTRACE"] } }),
        observes: None,
        says: &["CAP_PERFMON"],
    },
    // Nothing but the root user's processes is there when the pod has to start.
    Variant {
        name: "without CAP_SYS_PTRACE",
        context: || json!({ "capabilities": { "drop": ["ALL"], "add": ["BPF", "PERFMON"] } }),
        observes: Some("000000c000000000"),
        says: &[],
    },
];

impl Variant {
    /// Whatever its privileges, the pod starts.
    fn perform(&self, scene: &Scene, machine: &Machine, kubelet: &Kubelet<'_>) -> Result<()> {
        let servers = Servers::prepare(scene)?;
        let mut object = pod(scene, &servers)?;
        let context = &mut object["spec"]["initContainers"][0]["securityContext"];
        let context = context.as_object_mut().context("no securityContext")?;
        context.extend((self.context)().as_object().cloned().unwrap_or_default());
        context.retain(|_, value| !value.is_null());
        let running = kubelet.run(&object)?;
        servers.await_answers()?;
        let pages = Pages::at(PAGES);
        let observing = pages.metrics()?.sum("pilotfish_observing")?;
        let [_, log] = running.log(machine, SIDECAR)?;
        ensure!(
            observing == u64::from(self.observes.is_some()),
            "{observing}:\n{log}"
        );
        let health = kubelet
            .cri()
            .exec(running.id(SIDECAR)?, &["/pilotfish", "health"])?;
        ensure!(health.code == 0, "{health:?}");
        if let Some(capabilities) = self.observes {
            must_have_capabilities(scene, machine, capabilities)?;
            await_status("nginx", |status| has_processes(status, "web", 3))?;
            let tally = load::run(servers.nginx.0, &load::numbered(2, 10))?;
            pages.settle()?;
            let spans = end(machine, kubelet, &running)?;
            tally.must_equal(&Tally::of_spans(&spans, Kind::Server)?, "nginx", "spans")?;
        } else {
            let (code, ready) = load::fetch(&pages.url("/readyz"))?;
            ensure!(code == 200 && pages.status()?["observing"] == false);
            for word in self.says {
                ensure!(ready.contains(word) && log.contains(word), "{ready}\n{log}");
            }
            let spans = end(machine, kubelet, &running)?;
            ensure!(spans.is_empty(), "{spans:?}");
        }
        kubelet.cri().remove_pod(&running.sandbox)
    }
}

/// Somebody has the pages' port: the pod starts, and is observed without them.
fn port_taken(scene: &Scene, machine: &Machine, kubelet: &Kubelet<'_>) -> Result<()> {
    let program = "/usr/local/bin/prompt";
    machine.copy_in(&program::static_c("prompt.c")?, program, 0o755)?;
    let occupant = machine.command(program, [PAGES.to_string()]);
    let _occupant = machine.spawn("occupant", occupant)?;
    load::ask_first(PAGES, "/")?;
    let servers = Servers::prepare(scene)?;
    let running = kubelet.run(&pod(scene, &servers)?)?;
    servers.await_answers()?;
    let asked = format!("http://127.0.0.1:{}/items/1", servers.nginx.0);
    let log = wait_for("a span", LIMIT, || {
        load::fetch(&asked)?;
        let [spans, log] = running.log(machine, SIDECAR)?;
        Ok(spans.contains("/items/1").then_some(log))
    })?;
    for word in ["no page is served", "--listen"] {
        ensure!(log.contains(word), "no {word:?} in {log}");
    }
    end(machine, kubelet, &running).map(drop)
}
