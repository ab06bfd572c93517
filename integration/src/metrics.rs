//! Reading the agent's Prometheus page.

use anyhow::{Context, Result};

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Wraps the text of a `/metrics` page.
    pub fn new(page: String) -> Self {
        Self(page)
    }

    /// Sum over all series of `name`; 0 without any.
    pub fn sum(&self, name: &str) -> Result<u64> {
        self.sum_where(name, &[])
    }

    /// Sum over the series of `name` that carry all `labels`; 0 without any.
    pub fn sum_where(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        let mut sum = 0.0;
        for line in self.0.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            let matches =
                |(key, value): &(&str, &str)| series_labels.contains(&format!("{key}=\"{value}\""));
            if series_name == name && labels.iter().all(matches) {
                sum += value
                    .parse::<f64>()
                    .with_context(|| format!("not a number in {line:?}"))?;
            }
        }
        Ok(sum as u64)
    }

    /// True if a series of `name` exists.
    pub fn has(&self, name: &str) -> bool {
        self.0.lines().any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        })
    }

    /// Records that the kernel's programs set out to deliver.
    pub fn produced(&self) -> Result<u64> {
        self.sum("pilotfish_kernel_records_produced_total")
    }

    /// Records that the full ring buffer refused.
    pub fn lost(&self) -> Result<u64> {
        self.sum("pilotfish_kernel_records_lost_ring_full_total")
    }

    /// Records that reached the pipeline.
    pub fn delivered(&self) -> Result<u64> {
        self.sum("pilotfish_records_delivered_total")
    }

    /// The whole page, for messages.
    pub fn page(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_label() {
        let metrics = Metrics::new(
            "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\"} 4\na_b 9\nc 1e3\n".to_owned(),
        );
        assert_eq!(metrics.sum("a").expect("numbers"), 7);
        assert_eq!(metrics.sum_where("a", &[("x", "1")]).expect("numbers"), 3);
        assert_eq!(metrics.sum("c").expect("numbers"), 1000);
        assert_eq!(metrics.sum("absent").expect("numbers"), 0);
        assert!(metrics.has("a_b") && !metrics.has("a_"));
    }
}
