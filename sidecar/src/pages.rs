//! What the agent's pages show: `/metrics`, `/readyz`, `/status`.

use crate::{
    consume::SharedView,
    instrument::{Probes, socket_records},
    observe::{SharedObserved, lock},
    policy::Decision,
    source::SourceStats,
    tls::TlsPages,
};
use pilotfish_abi::{Counter, SlotCounters};
use pilotfish_export::{
    Containers, Stats as ExportStats,
    admin::{Pages, Readiness},
    prometheus::{self, Format, Row},
};
use procfs::process::{Process, Stat};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whoever announces containers, as the pages see it.
pub trait FrontEnd: Send + Sync {
    /// What it counts.
    fn rows(&self) -> Vec<Row>;
    /// Why it is not ready yet.
    fn not_ready(&self) -> Option<String>;
}

/// Everything that the pages read. None of it is owned here.
pub struct AgentPages {
    /// The programs, for their counters.
    pub probes: Arc<Mutex<Probes>>,
    /// Processes, containers and decisions.
    pub observed: SharedObserved,
    /// The exporters' containers.
    pub containers: Containers,
    /// The exporters' accounts.
    pub export: ExportStats,
    /// The reader's counters.
    pub source: Arc<SourceStats>,
    /// The pipeline's counters.
    pub pipeline: SharedView,
    /// The search for TLS libraries, if there is one.
    pub tls: Option<TlsPages>,
    /// Cleared when the agent begins to end.
    pub running: Arc<AtomicBool>,
    /// Whether `/metrics` shows the containers' metrics (`OTEL_METRICS_EXPORTER`), or only the agent's own.
    pub prometheus: bool,
    /// Whether nobody is kept waiting for processes that cannot be observed.
    pub fail_open: bool,
    /// Whoever announces containers.
    pub front_end: Option<Arc<dyn FrontEnd>>,
}

impl Pages for AgentPages {
    fn metrics(&self, format: Format) -> String {
        let containers = if self.prometheus {
            self.containers.all()
        } else {
            Vec::new()
        };
        prometheus::render(format, &containers, self.rows())
    }

    /// The pages are served once everything found at the start is in scope; what could not be put there is named.
    fn ready(&self) -> Readiness {
        let mut ready = self.observes_what_it_found();
        let idle = lock(&self.observed).discovery.idle();
        ready.notes.extend(idle.map(str::to_owned));
        ready
    }

    fn status(&self) -> Value {
        let view = self
            .pipeline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "observing": true,
            "ready": self.ready(),
            "containers": self.container_status(),
            "discovery": self.discovery_status(),
            "kernel": self.kernel_status(),
            "reader": {
                "records_delivered": self.source.delivered.load(Ordering::Relaxed),
                "records_malformed": self.source.malformed.load(Ordering::Relaxed),
                "process_records_lost": self.source.lifecycle_lost.load(Ordering::Relaxed),
            },
            "pipeline": {
                "flows_open": view.flows,
                "exchanges_open": view.exchanges,
                "counters": view.stats.iter().map(|(name, _, value)| (name, value)).collect::<BTreeMap<_, _>>(),
            },
            "tls": self.tls.as_ref().map(tls_status),
            "exporters": self.export.exporters(),
        })
    }
}

impl AgentPages {
    fn observes_what_it_found(&self) -> Readiness {
        let (mut reasons, mut notes) = (Vec::new(), Vec::new());
        if !self.running.load(Ordering::Acquire) {
            reasons.push("the agent is ending".to_owned());
        }
        reasons.extend(self.front_end.iter().filter_map(|front| front.not_ready()));
        let discovery = &lock(&self.observed).discovery;
        if let Some(advice) = discovery.advice() {
            let count = discovery.unreadable().count();
            let weighty = if self.fail_open {
                &mut notes
            } else {
                &mut reasons
            };
            weighty.push(format!("{count} processes are not observed: {advice}"));
        }
        Readiness { reasons, notes }
    }

    fn kernel_totals(&self) -> SlotCounters {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.total_counters().unwrap_or_default()
    }

    fn recursion_misses(&self) -> Vec<(&'static str, u64)> {
        self.probes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recursion_misses()
    }

    fn kernel_status(&self) -> Value {
        let totals = self.kernel_totals();
        json!({
            "counters": named(&totals),
            "programs_skipped_by_recursion": self.recursion_misses().into_iter().collect::<BTreeMap<_, _>>(),
        })
    }

    fn discovery_status(&self) -> Value {
        let observed = lock(&self.observed);
        let discovery = &observed.discovery;
        json!({
            "commands": observed.counters.iter().map(|(name, _, value)| (name, value)).collect::<BTreeMap<_, _>>(),
            "pod_files_warnings": observed.pod_warnings(),
            "processes": discovery.process_count(),
            "unreadable_processes": discovery.unreadable().collect::<Vec<_>>(),
            "advice": discovery.advice(),
            "idle": discovery.idle(),
            "counters": discovery.counters().iter().map(|(name, _, value)| (name, value)).collect::<BTreeMap<_, _>>(),
        })
    }

    /// A container that yields nothing says why.
    fn container_status(&self) -> Value {
        let observed = lock(&self.observed);
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let containers = observed.discovery.containers().map(|container| {
            let slot = container.slot;
            let counters = probes.counters(slot).unwrap_or_default();
            let resource: BTreeMap<String, String> = observed
                .resource(slot)
                .unwrap_or_default()
                .into_iter()
                .collect();
            let decision = observed.decision(slot);
            let records = socket_records(&counters).saturating_sub(observed.former_records(slot));
            json!({
                "slot": slot,
                "resource": resource,
                "processes": container.processes,
                "settings": decision.map(settings),
                "warnings": decision.map(|decision| decision.warnings.as_slice()).unwrap_or_default(),
                "kernel_counters_of_slot": named(&counters),
                "note": decision.and_then(|decision| note(decision, records)),
            })
        });
        containers.collect()
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            observing(true),
            Row::gauge(
                "ready",
                "1 while everything found is observed; 0 means that /readyz says what is not.",
                f64::from(u8::from(
                    self.observes_what_it_found() == Readiness::default(),
                )),
            ),
            Row::counter(
                "records_delivered",
                "Records taken from the ring buffer. It follows the traffic.",
                self.source.delivered.load(Ordering::Relaxed),
            ),
            Row::counter(
                "records_malformed",
                "Records that could not be understood. Never, unless agent and eBPF programs do not belong together.",
                self.source.malformed.load(Ordering::Relaxed),
            ),
            Row::counter(
                "process_records",
                "Records about forks, executions and exits taken from the ring buffer.",
                self.source.lifecycle.load(Ordering::Relaxed),
            ),
            Row::counter(
                "process_records_lost",
                "Process records dropped because discovery was behind. The slow pass finds what they told; the agent lacks CPU.",
                self.source.lifecycle_lost.load(Ordering::Relaxed),
            ),
        ];
        rows.extend(self.kernel_rows());
        rows.extend(self.pipeline_rows());
        rows.extend(self.discovery_rows());
        rows.extend(self.tls_rows());
        rows.extend(self.export.rows());
        rows.extend(self.front_end.iter().flat_map(|front| front.rows()));
        rows.extend(own_process_rows());
        rows
    }

    fn kernel_rows(&self) -> Vec<Row> {
        let totals = self.kernel_totals();
        let counters = Counter::ALL
            .iter()
            .map(|&counter| Row::counter(counter.metric(), counter.help(), totals.get(counter)));
        let skipped = self
            .recursion_misses()
            .into_iter()
            .map(|(program, misses)| {
                Row::counter(
                    "kernel_programs_skipped",
                    "Runs of a program skipped by the kernel because it was already running on that CPU: what they would have told is lost.",
                    misses,
                )
                .label("program", program)
            });
        counters.chain(skipped).collect()
    }

    fn pipeline_rows(&self) -> Vec<Row> {
        let view = self
            .pipeline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut rows = vec![
            Row::gauge(
                "flows_open",
                "Connections in the table, as many as are open and observed. It is bounded.",
                view.flows as f64,
            ),
            Row::gauge(
                "exchanges_open",
                "Requests whose response has not ended. It is bounded.",
                view.exchanges as f64,
            ),
        ];
        rows.extend(
            view.stats
                .iter()
                .map(|(name, help, value)| Row::counter(name, help, value)),
        );
        rows
    }

    fn tls_rows(&self) -> Vec<Row> {
        let of = |tls: &TlsPages| -> Vec<Row> {
            tls.stats
                .iter()
                .map(|(name, help, value)| Row::counter(name, help, value))
                .collect()
        };
        self.tls.as_ref().map(of).unwrap_or_default()
    }

    fn discovery_rows(&self) -> Vec<Row> {
        let observed = lock(&self.observed);
        let discovery = &observed.discovery;
        let mut rows = vec![
            Row::gauge(
                "processes",
                "Processes that are observed.",
                discovery.process_count() as f64,
            ),
            Row::gauge(
                "containers",
                "Containers that are observed; 0 of a sidecar means that it does not share the application's pid namespace.",
                discovery.containers().count() as f64,
            ),
            Row::gauge(
                "annotation_warnings",
                "Parts of annotations that are not obeyed; /status says which and why.",
                observed.warning_count() as f64,
            ),
        ];
        let counters = discovery.counters().iter();
        rows.extend(
            counters
                .chain(observed.counters.iter())
                .map(|(name, help, value)| Row::counter(name, help, value)),
        );
        rows
    }
}

/// Whether this agent traces at all.
pub(crate) fn observing(yes: bool) -> Row {
    Row::gauge(
        "observing",
        "0 if tracing could not start and the agent stays all the same (--fail-open).",
        f64::from(u8::from(yes)),
    )
}

/// What was decided about a container.
fn settings(decision: &Decision) -> Value {
    let slot = &decision.slot;
    json!({
        "observed": decision.instrument,
        "capture_bytes": decision.settings.capture,
        "sampler": slot.sampler.to_string(),
        "protocols": slot.protocols,
        "ports": slot.ports,
        "routes": slot.routes,
        "ignore_paths": slot.ignore_paths,
        "tls": decision.tls,
    })
}

/// Why a container yields nothing; `records` are those of its sockets.
fn note(decision: &Decision, records: u64) -> Option<&'static str> {
    if !decision.instrument {
        return Some("switched off by its annotations");
    }
    if decision.slot.protocols.as_ref().is_some_and(Vec::is_empty) {
        return Some("no protocol is left for it");
    }
    if decision.slot.ports.as_ref().is_some_and(BTreeSet::is_empty) {
        return Some("no port is left for it");
    }
    (records == 0).then_some("no socket of this container has carried data since it was found")
}

/// Which processes have TLS, and what is seen of it.
fn tls_status(tls: &TlsPages) -> Value {
    let processes: Vec<Value> = tls
        .status
        .processes()
        .into_iter()
        .map(|(pid, process)| {
            json!({
                "pid": pid,
                "probed": process.probed.iter().map(|(path, library)| json!({ "path": path, "library": library })).collect::<Vec<_>>(),
                "single_stepped_probes": process.stepped,
                "not_covered": process.not_covered.iter().map(|file| json!({ "path": file.path, "reason": file.reason })).collect::<Vec<_>>(),
                "others": process.others,
            })
        })
        .collect();
    json!({
        "attachment": "uprobe_multi",
        "processes": processes,
        "counters": tls.stats.iter().map(|(name, _, value)| (name, value)).collect::<BTreeMap<_, _>>(),
    })
}

fn named(counters: &SlotCounters) -> BTreeMap<&'static str, u64> {
    Counter::ALL
        .iter()
        .map(|&counter| (counter.name(), counters.get(counter)))
        .collect()
}

/// Which agent this is and what it costs; names and units are those of Prometheus's own client libraries.
pub(crate) fn own_process_rows() -> Vec<Row> {
    let mut rows = vec![
        Row::gauge(
            "build_info",
            "Always 1; the label is the version of the agent.",
            1.0,
        )
        .label("version", env!("CARGO_PKG_VERSION")),
    ];
    if let Ok(stat) = Process::myself().and_then(|process| process.stat()) {
        rows.extend(cost_rows(&stat));
    }
    rows
}

fn cost_rows(stat: &Stat) -> Vec<Row> {
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    let resident = stat.rss.saturating_mul(procfs::page_size());
    let mut rows = vec![
        Row {
            value: seconds(stat.utime.saturating_add(stat.stime)),
            ..Row::counter(
                "process_cpu_seconds",
                "CPU time of the agent, user and system, seconds. Its rate is the cores that the agent takes; it \
                 follows the traffic.",
                0,
            )
        },
        Row::gauge(
            "process_resident_memory_bytes",
            "Resident memory of the agent. It follows open connections, routes and queues, all of them bounded.",
            resident as f64,
        ),
    ];
    if let Ok(boot) = procfs::boot_time_secs() {
        rows.push(Row::gauge(
            "process_start_time_seconds",
            "Start of the agent, seconds since the Unix epoch. A rise is a restart: all counters began anew.",
            boot as f64 + seconds(stat.starttime),
        ));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_agents_own_rows_are_named_as_prometheus_has_them() {
        let page = prometheus::render(Format::Text, &[], own_process_rows());
        let value = |series: &str| -> f64 {
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {series} in\n{page}"))
                .parse()
                .unwrap()
        };
        assert!(page.contains("# TYPE pilotfish_process_cpu_seconds_total counter\n"));
        assert!(value("pilotfish_process_cpu_seconds_total") >= 0.0);
        assert!(value("pilotfish_process_resident_memory_bytes") > 0.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        // The kernel gives the boot's time in whole seconds.
        let start = value("pilotfish_process_start_time_seconds");
        assert!(start > 0.0 && start <= now.as_secs_f64() + 1.0, "{start}");
        let version = env!("CARGO_PKG_VERSION");
        let info = value(&format!("pilotfish_build_info{{version=\"{version}\"}}"));
        assert!((info - 1.0).abs() < f64::EPSILON);
    }
}
