//! The pod's network: a namespace of its own, joined to the host by one pair of interfaces.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};

use super::footprint::Footprint;
use crate::command;

/// Where the pod can be reached from this machine, and from nowhere else.
pub(super) struct Network {
    /// The pod's address.
    pub(super) pod: Ipv4Addr,
    /// The namespace, as a path.
    pub(super) path: String,
}

/// Makes the namespace and the pair. Removed with the footprint.
pub(super) fn create(footprint: &Footprint) -> Result<Network> {
    let namespace = footprint.namespace();
    let inside = ["-netns", namespace.as_str()];
    let outer = footprint.interface();
    let (host, pod) = free_addresses()?;
    let (host, pod_cidr) = (format!("{host}/30"), format!("{pod}/30"));

    ip(&[], &["netns", "add", &namespace])?;
    ip(&inside, &["link", "set", "lo", "up"])?;
    ip(
        &[],
        &[
            "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
        ],
    )?;
    ip(&[], &["address", "add", &host, "dev", &outer])?;
    ip(&[], &["link", "set", &outer, "up"])?;
    ip(&inside, &["address", "add", &pod_cidr, "dev", "eth0"])?;
    ip(&inside, &["link", "set", "eth0", "up"])?;
    Ok(Network {
        pod,
        path: format!("/run/netns/{namespace}"),
    })
}

fn ip(options: &[&str], arguments: &[&str]) -> Result<()> {
    command::output(Command::new("ip").args(options).args(arguments)).map(drop)
}

/// Two addresses of a network that no interface is in. 198.18.0.0/15 is set aside for test set-ups (RFC 2544), so it
/// collides with no real network.
fn free_addresses() -> Result<(Ipv4Addr, Ipv4Addr)> {
    let taken = command::output(Command::new("ip").args(["-oneline", "-4", "address", "show"]))?;
    let third = (0..=u8::MAX)
        .find(|third| !taken.contains(&format!(" 198.18.{third}.")))
        .context("every network of 198.18.0.0/16 is in use on this machine")?;
    Ok((
        Ipv4Addr::new(198, 18, third, 1),
        Ipv4Addr::new(198, 18, third, 2),
    ))
}
