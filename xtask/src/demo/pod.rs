//! The two containers: the application, and pilotfish beside it.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::container::Container;
use super::footprint::Footprint;
use super::{http, interrupt, network};
use crate::workspace::Workspace;

/// Port of nginx.
pub(super) const NGINX: u16 = 8080;
/// Port of the Python application behind it.
pub(super) const SHOP: u16 = 8000;
/// Port of the service that the application calls.
pub(super) const STOCK: u16 = 8001;
/// Port of the agent's metrics page.
pub(super) const METRICS: u16 = 9464;

const START_LIMIT: Duration = Duration::from_secs(20);

/// Both containers, running.
pub(super) struct Pod {
    /// Where it can be reached.
    pub(super) address: Ipv4Addr,
    /// The application's container.
    pub(super) app: Container,
    /// The agent's container.
    pub(super) sidecar: Container,
    /// What the agent prints its spans to.
    pub(super) spans: PathBuf,
}

impl Pod {
    /// Starts the application, waits until it answers, starts the agent and waits until it is ready.
    pub(super) fn start(workspace: &Workspace, footprint: &Footprint) -> Result<Self> {
        let network = network::create(footprint)?;
        let definitions = workspace.path("images/demo");
        let demo = definitions.display().to_string();
        let app = Container::start(
            footprint,
            "app",
            &definitions.join("app.config.json"),
            &[("demo", &demo), ("network", &network.path)],
        )?;
        interrupt::poll(START_LIMIT, || app.check_alive(), || answers(network.pod))
            .with_context(|| format!("the application does not answer; {}", app.last_words()))?;

        let out = footprint.directory().join("out");
        fs::create_dir(&out)?;
        // The agent has no user of its own on this machine, and its container no right to override file modes.
        fs::set_permissions(&out, Permissions::from_mode(0o777))?;
        let sidecar = Container::start(
            footprint,
            "sidecar",
            &definitions.join("sidecar.config.json"),
            &[
                ("agent", &workspace.agent().display().to_string()),
                ("out", &out.display().to_string()),
                ("app_pid", &app.pid.to_string()),
                ("network", &network.path),
            ],
        )?;
        let pod = Self {
            address: network.pod,
            app,
            sidecar,
            spans: out.join("spans.jsonl"),
        };
        pod.await_readiness()?;
        Ok(pod)
    }

    fn await_readiness(&self) -> Result<()> {
        let ready = || match http::get(self.address, METRICS, "/readyz")? {
            response if response.status == 200 => Ok(()),
            response => bail!(
                "/readyz answers {}: {}",
                response.status,
                response.body.trim()
            ),
        };
        interrupt::poll(START_LIMIT, || self.sidecar.check_alive(), ready)
            .with_context(|| format!("pilotfish is not ready; {}", self.sidecar.last_words()))
    }
}

/// All three services, through their own doors: nothing observes yet, so this leaves no trace.
fn answers(pod: Ipv4Addr) -> Result<()> {
    for path in ["/health", "/orders/1"] {
        let status = http::get(pod, NGINX, path)?.status;
        if status != 200 {
            bail!("{path} answers {status}");
        }
    }
    Ok(())
}
