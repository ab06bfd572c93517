//! The node image as a pod: the one of `manifests/kubernetes/node/daemon-set.yaml`, a plug-in of containerd.

use crate::hook::{SERVER, of_container};
use crate::identity::must_name;
use crate::pod_sidecar::{CAPABILITIES, PAGES};
use anyhow::{Context, Result, ensure};
use integration::pages::Pages;
use integration::runtime::{
    self, Container, Containerd, Kubelet, Machine, NODE, Pod, Release, hook,
};
use integration::{Need, Scene, Trials, kubernetes, load, place, span};
use serde_json::{Value, json};
use std::fs;

/// Requests to each container.
const REQUESTS: u64 = 20;

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("node_pod");
    let agent = [Need::Bpf, Need::Tool("bpftool")];
    let needs = [runtime::needs(Release::V2.trees()), agent.into()].concat();
    trials.add_with("containerd_2", &needs, |scene| {
        let machine = Machine::layered(scene, Release::V2.trees())?;
        machine.in_network(|| annotated(scene, &machine))
    });
}

/// The pod of the `DaemonSet`, which prints its spans.
fn node_pod() -> Result<(Value, String)> {
    let folder = kubernetes::manifests().join("node");
    let set = kubernetes::objects(&fs::read_to_string(folder.join("daemon-set.yaml"))?)?.remove(0);
    let mut spec = set["spec"]["template"]["spec"].clone();
    let environment = spec["containers"][0]["env"].as_array_mut();
    environment
        .context("the agent has no environment")?
        .push(json!({ "name": "PILOTFISH_PRINT", "value": "json" }));
    let metadata = json!({
        "name": "pilotfish-node-x2x9z",
        "namespace": "pilotfish",
        "uid": "8a6b2f64-1c0d-4e57-9c31-0f6de0a94b13",
    });
    let configuration = fs::read_to_string(folder.join("config.yaml"))?;
    Ok((json!({ "metadata": metadata, "spec": spec }), configuration))
}

/// The annotated container of another pod is seen from its first request on; its neighbour is not.
fn annotated(scene: &Scene, machine: &Machine) -> Result<()> {
    let containerd = Containerd::start(machine, &Release::V2.configuration(""))?;
    containerd.import(&place::node_image()?)?;
    let (object, configuration) = node_pod()?;
    let kubelet = Kubelet::new(machine, containerd.cri()?).with_config_map(
        "pilotfish-node",
        "config.yaml",
        &configuration,
    );
    let agent = kubelet.run(&object)?;
    let pages = Pages::at(PAGES);
    let agents = machine.running(&["/pilotfish", "node"])?;
    let &[pid] = &agents[..] else {
        anyhow::bail!("not one agent: {agents:?}");
    };
    let status = fs::read_to_string(machine.path(&format!("/proc/{pid}/status")))?;
    let effective = format!("CapEff:\t{CAPABILITIES}");
    ensure!(status.contains(&effective), "{status}");
    let outside = machine.outside(pid).context("the agent has ended")?;
    ensure!(scene.remember_loaded(outside)? > 0, "no program");

    let cri = kubelet.cri();
    let pod = Pod::new("shop", "cart").annotation(hook::INSTRUMENT, "server");
    let sandbox = cri.run_pod(&pod)?;
    let server = load::first_request(8080, "/first", || {
        cri.run(&sandbox, &pod, &Container::new("server", SERVER))
    })?;
    let other = Container::new("other", &["prompt", "8081"]);
    cri.run(&sandbox, &pod, &other)?;
    load::ask_first(8081, "/unseen")?;
    for number in 0..REQUESTS {
        for port in [8080, 8081] {
            load::fetch(&format!("http://127.0.0.1:{port}/later/{number}"))?;
        }
    }
    pages.settle()?;
    cri.remove_pod(&sandbox)?;
    let container = agent.id("pilotfish-node")?;
    cri.stop(container)?;
    let [output, log] = agent.log(machine, "pilotfish-node")?;
    let code = cri.exit_code(container)?;
    ensure!(code == Some(0), "exit code {code:?}:\n{log}");

    let spans = span::parse(&output)?;
    let own = of_container(&spans, &server);
    ensure!(own.len() as u64 == 1 + REQUESTS, "{}: {log}", own.len());
    ensure!(spans.len() == own.len(), "{spans:?}");
    must_name(own[0], &server)?;
    let node = own[0].resource.get("k8s.node.name");
    ensure!(node.is_some_and(|name| name == NODE), "{:?}", own[0]);
    cri.remove_pod(&agent.sandbox)
}
