//! A real Prometheus that scrapes agents and is asked as Grafana asks it.

use anyhow::{Context, Result, ensure};
use integration::process::wait_for;
use integration::scene::free_port;
use integration::{Process, Scene, load, place};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

/// Bound for what takes a scrape or two, a second apart.
const LIMIT: Duration = Duration::from_secs(45);

/// Labels and latest value of one series.
#[derive(Debug)]
pub(super) struct Sample {
    labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// From one scrape of a target to a later one, milliseconds since the Unix epoch.
///
/// At such an end `increase` has nothing to extrapolate: it is the difference of two known samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The process and its API.
pub(super) struct Prometheus {
    process: Process,
    port: u16,
}

impl Sample {
    /// A label, empty where there is none.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

impl Window {
    /// `$__range`: a millisecond longer, for newer versions leave the sample at the very start of a range out.
    pub(super) fn range(self) -> String {
        format!("{}ms", self.end - self.start + 1)
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

impl Prometheus {
    /// Scrapes each job's one target, a port on the loopback interface, every second, and evaluates the alerts.
    pub(super) fn start(scene: &Scene, jobs: &[(&str, u16)]) -> Result<Self> {
        let rules = place::workspace().join("manifests/grafana/alerts.yaml");
        let mut configuration = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n",
            rules.display()
        );
        for (job, port) in jobs {
            writeln!(
                configuration,
                "- {{job_name: {job}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}"
            )?;
        }
        let file = scene.folder().join("prometheus.yml");
        fs::write(&file, configuration)?;
        let port = free_port()?;
        let mut command = place::command("prometheus")?;
        command.arg(format!("--config.file={}", file.display()));
        let data = scene.folder().join("tsdb");
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start("prometheus", command, scene.folder())?;
        let prometheus = Self { process, port };
        wait_for("prometheus' start", LIMIT, || {
            let url = format!("http://127.0.0.1:{port}/-/ready");
            Ok(matches!(load::fetch(&url), Ok((200, _))).then_some(()))
        })
        .with_context(|| prometheus.process.log_tail())?;
        Ok(prometheus)
    }

    /// The data of an API's answer, or what it complains of.
    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        let request = load::client().get(url);
        let request = parameters
            .iter()
            .fold(request, |request, (key, value)| request.query(key, value));
        let text = request.call()?.body_mut().read_to_string()?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(answer["status"] == "success", "{}", answer["error"]);
        ensure!(answer.get("warnings").is_none(), "{}", answer["warnings"]);
        Ok(answer["data"].take())
    }

    /// Values of a label among the series of a selector.
    pub(super) fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let found = self.get(&format!("label/{label}/values"), &[("match[]", selector)])?;
        Ok(serde_json::from_value(found)?)
    }

    /// An instant query at the end of a window.
    pub(super) fn at_end(&self, query: &str, window: Window) -> Result<Vec<Sample>> {
        samples(&self.get("query", &[("query", query), ("time", &seconds(window.end))])?)
    }

    /// A range query in steps of a second that end with the window: the latest number of each series that has one.
    pub(super) fn over(&self, query: &str, window: Window) -> Result<Vec<Sample>> {
        let steps = (window.end - window.start).div_ceil(1000);
        let (start, end) = (seconds(window.end - steps * 1000), seconds(window.end));
        samples(&self.get(
            "query_range",
            &[
                ("query", query),
                ("start", &start),
                ("end", &end),
                ("step", "1"),
            ],
        )?)
    }

    /// Waits until a sum of a job's counters is a number, and gives back when the job was scraped last.
    pub(super) fn await_sum(&self, job: &str, counter: &str, expected: u64) -> Result<u64> {
        let series = format!("{counter}{{job=\"{job}\"}}");
        let mut last = None;
        wait_for("the expected count", LIMIT, || {
            last = self.now(&format!("sum({series})"))?;
            Ok((last == Some(expected as f64)).then_some(()))
        })
        .with_context(|| format!("{series}: expected {expected}, last answer {last:?}"))?;
        let time = self.now(&format!("max(timestamp({series}))"))?;
        Ok((time.context("no scrape")? * 1000.0).round() as u64)
    }

    fn now(&self, query: &str) -> Result<Option<f64>> {
        let samples = samples(&self.get("query", &[("query", query)])?)?;
        Ok(samples.first().map(|sample| sample.value))
    }

    /// The alerts, once each has been evaluated without an error: name, expression and state.
    pub(super) fn alerts(&self) -> Result<Vec<(String, String, String)>> {
        wait_for("the evaluation of the alerts", LIMIT, || {
            let data = self.get("rules", &[("type", "alert")])?;
            let groups = data["groups"].as_array().context("groups")?;
            let rules = groups.iter().filter_map(|group| group["rules"].as_array());
            let rules: Vec<_> = rules.flatten().collect();
            ensure!(
                rules.iter().all(|rule| rule["health"] != "err"),
                "{rules:?}"
            );
            let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            let evaluated = !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok");
            Ok(evaluated.then(|| {
                rules
                    .iter()
                    .map(|rule| (text(rule, "name"), text(rule, "query"), text(rule, "state")))
                    .collect()
            }))
        })
    }
}

/// Of each series in a vector or matrix the latest value that is a number.
fn samples(data: &Value) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for series in data["result"].as_array().context("no series")? {
        let points = match series["values"].as_array() {
            Some(points) => points.iter().rev().collect(),
            None => vec![&series["value"]],
        };
        let numbers = points
            .into_iter()
            .filter_map(|point| point[1].as_str()?.parse::<f64>().ok());
        if let Some(value) = numbers.into_iter().find(|number| !number.is_nan()) {
            samples.push(Sample {
                labels: serde_json::from_value(series["metric"].clone())?,
                value,
            });
        }
    }
    Ok(samples)
}
