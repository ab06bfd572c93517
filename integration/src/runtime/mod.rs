//! Real container runtimes in private machines.
//!
//! ```text
//! let machine = Machine::start(scene)?;                      // Debian 13: runc, crun, podman, docker, containerd 1.7
//! machine.copy_in(&hook, "/usr/local/bin/pilotfish-hook", 0o755)?;
//! machine.output("ip", ["address"])?;                        // run to the end, standard output
//! let agent = machine.spawn("agent", machine.command("pilotfish", ["node"]))?;
//! machine.in_network(|| load::run(8080, &mix))?;             // the machine's loopback, from the trial
//! machine.path("/run/pilotfish.sock");                       // a file inside, from outside
//! machine.in_network(|| {                                    // an agent in the machine, scraped by the trial
//!     let agent = Setup::sharing_namespace(scene, machine.words())?.start()?; ...
//! })?;
//!
//! let podman = Podman::prepare(&machine, "crun", &["--hooks-dir=/etc/hooks.d"])?;
//! podman.output(["run", "--detach", "--network=host", image::PROMPT, "prompt", "8080"])?;
//!
//! let machine = Machine::layered(scene, Release::V2.trees())?;
//! let containerd = Containerd::start(&machine, &Release::V2.configuration(""))?;
//! containerd.ctr(["run", "--detach", "--net-host", image::PROMPT, "one", "prompt", "8080"])?;
//! let cri = containerd.cri()?;                               // the CRI client: pods, containers, exec
//!
//! let kubelet = Kubelet::new(&machine, containerd.cri()?);   // runs Pod manifests
//! let pod = kubelet.run(&json!({ "metadata": { ... }, "spec": { ... } }))?;
//!
//! let docker = Docker::start(&machine, &docker::configuration())?;
//! docker.output(["run", "--detach", "--network=host", image::PROMPT, "prompt", "8080"])?;
//!
//! let bundle = Bundle::make(&machine, "/bundle", &["prompt", "8080"], |config| { ... })?;
//! bundle.run("runc", "one")?;
//!
//! hook::install(&machine)?;                                  // the OCI hook, for bundles: `hook::add(config, &[])`
//! machine.in_network(|| {                                    // and the agent that it talks to
//!     let agent = Setup::node(scene, &machine)?.start()?; ...
//!     hook::await_observed(&agent, &machine, &["one"])
//! })?;
//! ```
//!
//! Trials say [`needs`], so that they are ignored, loudly, where the trees are missing. Every runtime finds the images
//! [`image::PROMPT`] and [`image::PAUSE`]; there is no registry. Containers that share the machine's network are
//! reached through [`Machine::in_network`]. The trial's folder and the agent's binary are visible in a machine at the
//! same places. A machine has a pid namespace of its own: numbers that programs inside print mean nothing outside.
//! Everything ends with the machine, which removes its control groups; its root, `/run` and `/tmp` are memory.

mod bundle;
mod containerd;
mod cri;
pub mod docker;
pub mod groups;
pub mod hook;
pub mod image;
mod kubelet;
mod machine;
mod podman;
pub mod stock;
mod tree;

pub use bundle::Bundle;
pub use containerd::{Containerd, Release};
pub use cri::{Answer, Container, Cri, Pod};
pub use docker::Docker;
pub use kubelet::{Kubelet, NODE, Running};
pub use machine::Machine;
pub use podman::Podman;
pub use tree::Tree;

use crate::trial::Need;

/// Where the image archive is in a machine.
const IMAGES: &str = "/var/lib/images.tar";

/// Where an archive with an image of ours is in a machine.
const ARCHIVE: &str = "/var/lib/pilotfish.tar";

/// Programs without which no machine starts.
const TOOLS: &[&str] = &["unshare", "nsenter", "gcc", "busybox"];

/// What a trial needs that starts a machine with these trees above Debian 13.
pub fn needs(above: &[Tree]) -> Vec<Need> {
    [Need::Root, Need::Tree(Tree::Debian13)]
        .into_iter()
        .chain(above.iter().copied().map(Need::Tree))
        .chain(TOOLS.iter().copied().map(Need::Tool))
        .collect()
}
