//! The operator's ceilings and a container's wishes: what is done about a container in the end.
//!
//! Annotations only narrow. What cannot be obeyed is left out with a warning that names the key, and the rest holds.

#[cfg(test)]
mod tests;

use pilotfish_abi::{MAX_CAPTURE, Settings};
use pilotfish_pipeline::config::{check_ignore_path, check_route, known_protocol};
use pilotfish_pipeline::{ConfigError, Sampler, SlotConfig};
use pilotfish_workload::annotations::{MAX_WARNINGS, Wishes, resolve};
use pilotfish_workload::{Identity, service};
use std::collections::{BTreeMap, BTreeSet};

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Settings of a container that asks for nothing.
    pub defaults: SlotConfig,
    /// Bytes captured per operation for a container that asks for nothing, at most [`MAX_CAPTURE`].
    pub capture: u32,
    /// Most bytes per operation that a container may ask for; `None`: [`Self::capture`].
    pub max_capture: Option<u32>,
    /// Largest share of traces that a container may ask for; `None`: that of the operator's sampler.
    pub max_sample_ratio: Option<f64>,
    /// Whether annotations are obeyed at all.
    pub annotations: bool,
    /// Whether plaintext of TLS is seen.
    pub tls: bool,
}

/// A container about which is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// What is known of it.
    pub identity: &'a Identity,
    /// Its own annotations and its pod's.
    pub annotations: &'a BTreeMap<String, String>,
    /// Labels of its pod that name the service.
    pub labels: &'a BTreeMap<String, String>,
}

/// What is done about a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether it is observed: false only if its annotations say so.
    pub instrument: bool,
    /// What the kernel is told.
    pub settings: Settings,
    /// What the pipeline is told.
    pub slot: SlotConfig,
    /// Whether its processes may be probed for plaintext of TLS.
    pub tls: bool,
    /// `service.*` as they follow from identity and annotations, and the attributes that the annotations add.
    pub asked: BTreeMap<String, String>,
    /// What could not be obeyed, for people.
    pub warnings: Vec<String>,
}

impl Policy {
    /// Decides about one container. The result depends on nothing else.
    pub fn decide(&self, asking: Asking<'_>) -> Decision {
        let mut wishes = self.wishes(asking);
        let mut warnings = std::mem::take(&mut wishes.warnings);
        let mut refused = Vec::new();
        let slot = self.slot_for(&wishes, &mut refused);
        if wishes.tls == Some(true) && !self.tls {
            refused
                .push("tls: \"on\" is not possible, the operator has switched it off".to_owned());
        }
        warnings.extend(bounded(refused));
        let instrument = wishes.instrument != Some(false);
        let capture = self.capture_for(wishes.capture_bytes);
        Decision {
            instrument,
            settings: if instrument {
                Settings {
                    enabled: 1,
                    capture,
                }
            } else {
                Settings::default()
            },
            slot,
            tls: instrument && self.tls && wishes.tls != Some(false),
            asked: asked(asking, wishes),
            warnings,
        }
    }

    /// Whether its annotations say that this container is not to be observed.
    pub fn refuses(&self, asking: Asking<'_>) -> bool {
        self.wishes(asking).instrument == Some(false)
    }

    fn wishes(&self, asking: Asking<'_>) -> Wishes {
        if !self.annotations {
            return Wishes::default();
        }
        resolve(asking.annotations, asking.identity.name_in_pod())
    }

    fn capture_for(&self, wish: Option<u32>) -> u32 {
        let cap = self.max_capture.unwrap_or(self.capture);
        wish.map_or(self.capture, |bytes| bytes.min(cap))
            .min(MAX_CAPTURE)
    }

    fn slot_for(&self, wishes: &Wishes, warnings: &mut Vec<String>) -> SlotConfig {
        let defaults = &self.defaults;
        let sampler = match wishes.sample_ratio {
            Some(ratio) => with_ratio(&defaults.sampler, ratio, self.max_sample_ratio),
            None => defaults.sampler.clone(),
        };
        let mut slot = SlotConfig {
            sampler,
            routes: Vec::new(),
            ignore_paths: ignored(&defaults.ignore_paths, &wishes.ignore_paths, warnings),
            protocols: protocols(
                defaults.protocols.as_deref(),
                wishes.protocols.as_ref(),
                warnings,
            ),
            ports: ports(defaults.ports.as_ref(), wishes.ports.as_ref(), warnings),
        };
        slot.routes = routes(&slot, &defaults.routes, &wishes.routes, warnings);
        slot
    }
}

/// As many warnings as are kept of any source, and how many there are besides.
fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    if more > 0 {
        warnings.truncate(MAX_WARNINGS);
        warnings.push(format!("and {more} more warnings"));
    }
    warnings
}

/// The operator's kind of sampler (whether it asks the parent first) with the ratio that a container asks for, up to
/// `max` or else to the operator's own: `always_on` becomes `traceidratio`, `parentbased_always_on` becomes
/// `parentbased_traceidratio`, `always_off` stays.
fn with_ratio(sampler: &Sampler, wish: f64, max: Option<f64>) -> Sampler {
    let own = match sampler {
        Sampler::ParentBased(root) => {
            return Sampler::ParentBased(Box::new(with_ratio(root, wish, max)));
        }
        Sampler::AlwaysOn => 1.0,
        Sampler::AlwaysOff => 0.0,
        Sampler::TraceIdRatio(ratio) => *ratio,
    };
    let ratio = wish.min(max.unwrap_or(own));
    if ratio.total_cmp(&own).is_eq() {
        sampler.clone()
    } else {
        Sampler::TraceIdRatio(ratio)
    }
}

/// What both want; `None` is all.
fn protocols(
    operator: Option<&[String]>,
    wish: Option<&BTreeSet<String>>,
    warnings: &mut Vec<String>,
) -> Option<Vec<String>> {
    let Some(wish) = wish else {
        return operator.map(<[String]>::to_vec);
    };
    let (known, unknown): (Vec<_>, Vec<_>) = wish.iter().partition(|name| known_protocol(name));
    let not_known = |name| format!("protocols: {name:?} is not known");
    warnings.extend(unknown.into_iter().map(not_known));
    if known.is_empty() {
        // A value that cannot be read changes nothing, as everywhere.
        return operator.map(<[String]>::to_vec);
    }
    let allowed = |name: &String| operator.is_none_or(|names| names.contains(name));
    let mut both = Vec::new();
    for name in known {
        if allowed(name) {
            both.push(name.clone());
        } else {
            warnings.push(format!(
                "protocols: {name:?} is not enabled by the operator"
            ));
        }
    }
    if both.is_empty() {
        warnings.push("protocols: none is left, nothing is recognised".to_owned());
    }
    Some(both)
}

fn ports(
    operator: Option<&BTreeSet<u16>>,
    wish: Option<&BTreeSet<u16>>,
    warnings: &mut Vec<String>,
) -> Option<BTreeSet<u16>> {
    let (Some(operator), Some(wish)) = (operator, wish) else {
        return operator.or(wish).cloned();
    };
    let both: BTreeSet<u16> = operator.intersection(wish).copied().collect();
    if both.is_empty() {
        warnings.push("ports: none of them is among the operator's, nothing is read".to_owned());
    }
    Some(both)
}

fn ignored(operator: &[String], wish: &[String], warnings: &mut Vec<String>) -> Vec<String> {
    let mut all = operator.to_vec();
    for path in wish {
        match check_ignore_path(path) {
            Ok(()) if all.contains(path) => {}
            Ok(()) => all.push(path.clone()),
            Err(error) => warnings.push(format!("ignore-paths: {error}")),
        }
    }
    all
}

/// The container's patterns, then the operator's, without those that cannot be used together with earlier ones.
fn routes(
    slot: &SlotConfig,
    operator: &[String],
    wish: &[String],
    warnings: &mut Vec<String>,
) -> Vec<String> {
    let mut usable = Vec::new();
    for pattern in wish {
        match check_route(pattern) {
            Ok(()) if usable.contains(pattern) => {}
            Ok(()) => usable.push(pattern.clone()),
            Err(error) => warnings.push(format!("routes: {error}")),
        }
    }
    let mut wished = usable.len();
    usable.extend(operator.iter().cloned());
    let mut together = SlotConfig {
        routes: usable,
        ..slot.clone()
    };
    // Each round drops one pattern, so it ends; only routes can contradict each other.
    while let Err(error) = together.check() {
        let ConfigError::Route { pattern, .. } = &error else {
            break;
        };
        let Some(place) = together.routes.iter().rposition(|known| known == pattern) else {
            break;
        };
        if place < wished {
            wished -= 1;
            warnings.push(format!("routes: {error}"));
        }
        together.routes.remove(place);
    }
    together.routes
}

fn asked(asking: Asking<'_>, wishes: Wishes) -> BTreeMap<String, String> {
    let named = service(asking.identity, &wishes, asking.labels);
    let mut asked = wishes.resource;
    asked.extend(
        named
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value)),
    );
    asked
}
