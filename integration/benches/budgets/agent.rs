//! The agent as it ships: every option at its default but the scope, the exporter and the address of its pages.

use crate::Bench;
use crate::sink::Sink;
use anyhow::{Context, Result, ensure};
use integration::metrics::Metrics;
use integration::process::{Process, wait_for};
use integration::scene::free_port;
use integration::usage;
use integration::{agent, load};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(20);
const END_LIMIT: Duration = Duration::from_secs(15);

/// Where the spans go.
#[derive(Clone, Copy)]
pub(crate) enum Exporter<'a> {
    /// Nowhere; there are none.
    Nothing,
    /// To a collector, as OTLP over HTTP with protobuf.
    Otlp(&'a Sink),
    /// To a file, as JSON lines.
    File(&'a Path),
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Process,
    port: u16,
}

impl Agent {
    /// Starts an agent that watches these processes, and waits until it is ready.
    pub(crate) fn watch(bench: &Bench, pids: &[u32], exporter: Exporter) -> Result<Self> {
        let port = free_port()?;
        let mut command = agent::command(&["sidecar", "--listen"])?;
        command.arg(format!("127.0.0.1:{port}"));
        for pid in pids {
            command.args(["--pid", &pid.to_string()]);
        }
        command.args(["--print", "none"]);
        match exporter {
            Exporter::Nothing => {}
            Exporter::Otlp(sink) => {
                command.args(["--otlp-endpoint", &sink.url()]);
                command.args(["--otlp-protocol", "http/protobuf"]);
            }
            Exporter::File(file) => {
                command.arg("--print-file").arg(file);
            }
        }
        let name = format!("pilotfish-{port}");
        let mut process = Process::start(&name, command, bench.scene.folder())?;
        let url = format!("http://127.0.0.1:{port}/readyz");
        wait_for("readiness of the agent", START_LIMIT, || {
            ensure!(
                process.is_running(),
                "the agent ended: {}",
                process.log_tail()
            );
            Ok(matches!(load::fetch(&url), Ok((200, _))).then_some(()))
        })?;
        let agent = Self { process, port };
        bench.scene.remember_loaded(agent.pid())?;
        Ok(agent)
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its counters.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        let (status, page) = load::fetch(&url)?;
        ensure!(status == 200, "/metrics answered {status}");
        Ok(Metrics::new(page))
    }

    /// Waits until it has probes in a TLS library of a process.
    pub(crate) fn wait_until_probed(&self) -> Result<()> {
        wait_for("that a process is probed", START_LIMIT, || {
            let attached = self.metrics()?.sum("pilotfish_tls_attached_total")?;
            Ok((attached > 0).then_some(()))
        })
    }

    /// Its processor time in seconds, once it has nothing left to do.
    pub(crate) fn cpu_at_rest(&self) -> Result<f64> {
        usage::cpu_seconds_at_rest(self.pid()).context("waiting for the agent")
    }

    /// Ends it as a container's runtime would, with everything exported that it still had.
    pub(crate) fn end(mut self) -> Result<()> {
        let status = self.process.stop(Signal::SIGTERM, END_LIMIT)?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }
}
