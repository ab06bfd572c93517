//! Staying without tracing: a pod whose start waits for this container starts all the same.

use crate::{
    cli::Listen,
    pages::{observing, own_process_rows},
};
use pilotfish_export::{
    admin::{Admin, Pages, Readiness},
    prometheus::{self, Format},
};
use serde_json::{Value, json};
use std::{future::Future, sync::Arc};

/// Serves pages that say why nothing is observed, until `until` completes. Where the port is taken, it only waits.
pub async fn stay(reason: String, listen: Listen, until: impl Future<Output = ()>) {
    tracing::error!(reason, "nothing is observed");
    if let Some(admin) = bind_if_free(listen).await {
        tracing::info!(address = %admin.address(), "serving /metrics, /healthz, /readyz, /status");
        tokio::spawn(admin.serve(Arc::new(IdlePages { reason })));
    }
    until.await;
}

/// The pages' server, or none with a word about it in the log.
pub(crate) async fn bind_if_free(listen: Listen) -> Option<Admin> {
    let Listen::On(address) = listen else {
        return None;
    };
    match Admin::bind(address).await {
        Ok(admin) => Some(admin),
        Err(error) => {
            tracing::error!(%error, "no page is served");
            None
        }
    }
}

/// Pages of an agent that observes nothing.
struct IdlePages {
    reason: String,
}

impl Pages for IdlePages {
    fn metrics(&self, format: Format) -> String {
        let rows = std::iter::once(observing(false)).chain(own_process_rows());
        prometheus::render(format, &[], rows.collect())
    }

    fn ready(&self) -> Readiness {
        Readiness {
            reasons: Vec::new(),
            notes: vec![format!("nothing is observed: {}", self.reason)],
        }
    }

    fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "observing": false,
            "reason": self.reason,
            "ready": self.ready(),
            "containers": [],
        })
    }
}
