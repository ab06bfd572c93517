//! The servers: one of each way in which TLS comes into a process.

use anyhow::{Context, Result};
use integration::nginx::Nginx;
use integration::place;
use integration::scene::{Scene, free_port};
use integration::server::Server;
use integration::tls::{Certificate, server};
use std::fs;
use std::os::unix::fs::symlink;

/// A server and how hard it is driven.
#[derive(Debug)]
pub(crate) struct Served {
    /// As in the table.
    pub(crate) name: &'static str,
    pub(crate) server: Server,
    /// The kind of library that `/status` has to name.
    pub(crate) library: &'static str,
    /// The mapped file whose text has the breakpoints.
    pub(crate) probed: &'static str,
    /// Connections of wrk, each of which waits some milliseconds before each request.
    pub(crate) connections: u32,
    pub(crate) pause: u32,
}

impl Served {
    /// What its spans and metrics call it, which is what its executable is called.
    pub(crate) fn service(&self) -> Result<String> {
        let executable = fs::read_link(format!("/proc/{}/exe", self.server.pid()))?;
        let name = executable.file_name().context("an executable has a name")?;
        Ok(name.to_string_lossy().into_owned())
    }
}

/// Starts nginx, and of Python, Node.js and Go what is installed.
pub(crate) fn start(scene: &Scene, certificate: &Certificate) -> Result<Vec<Served>> {
    let mut servers = vec![Served {
        name: "nginx",
        server: nginx(scene, certificate)?,
        library: "openssl",
        probed: "/libssl.so.3",
        connections: 64,
        pause: 20,
    }];
    for (name, probed, connections) in [
        ("python_http_server", "/libssl.so.3", 8),
        ("node", "/node", 16),
        ("go", "/server.go.bin", 16),
    ] {
        let kind = server::kind(name)?;
        if !kind.tools.iter().all(|tool| place::tool(tool).is_some()) {
            eprintln!("without {name}, which is not installed");
            continue;
        }
        servers.push(Served {
            name,
            server: kind.start(scene, certificate)?,
            library: kind.library,
            probed,
            connections,
            pause: 40,
        });
    }
    Ok(servers)
}

/// One worker, whose log goes nowhere: it would be the largest file of the machine.
fn nginx(scene: &Scene, certificate: &Certificate) -> Result<Server> {
    let port = free_port()?;
    let folder = scene.folder().join(format!("nginx-{port}"));
    fs::create_dir_all(&folder)?;
    symlink("/dev/null", folder.join("access.log")).context("cannot do without an access log")?;
    let command = Nginx::new(port)
        .workers(1)
        .tls(certificate)
        .command(scene)?;
    server::start("nginx", command, scene, port)
}
