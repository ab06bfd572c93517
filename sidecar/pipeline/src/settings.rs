//! Settings per container, compiled. Equal ones are compiled once, however many containers have them.
//!
//! Flows and exchanges hold a key, not the settings: what is compiled is bounded by the number of containers, however
//! often their settings change and however long an exchange takes.

use crate::config::{ConfigError, SlotConfig};
use crate::detection::Detector;
use crate::endpoints::{Endpoints, Role, Transport};
use crate::model::Slot;
use crate::protocol::Protocol;
use crate::routes::Patterns;
use crate::sampling::Sampler;
use hashbrown::HashMap;
use slotmap::{SlotMap, new_key_type};
use std::collections::VecDeque;

/// Replaced settings that are kept for the exchanges that began under them. An exchange that outlasts so many changes
/// ends under those of its container's settings that are in force then.
const MAX_RETIRED: usize = 16;

new_key_type! {
    /// Names compiled settings; never leads to others once they are gone.
    pub(crate) struct SettingsKey;
}

/// A [`SlotConfig`] that was checked, and what is made of it.
pub(crate) struct Settings {
    config: SlotConfig,
    pub(crate) patterns: Patterns,
    ignored: Vec<IgnoredPath>,
    pub(crate) detector: Detector,
    /// The containers that have them now; the defaults have one more.
    containers: usize,
}

/// A path that gives nothing, or the beginning of such paths.
#[derive(Debug)]
pub(crate) enum IgnoredPath {
    Exact(String),
    Prefix(String),
}

impl IgnoredPath {
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        if !text.starts_with('/') {
            return Err(ConfigError::IgnorePath(text.to_owned()));
        }
        Ok(match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        })
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

/// Why a flow is of no interest to its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// Its server port is not listed.
    Port,
    /// Ports are listed, and its own is not known yet.
    PortUnknown,
    /// Its protocol is not enabled.
    Protocol,
}

impl Settings {
    /// Checks settings and makes what is made of them.
    pub(crate) fn compile(
        config: SlotConfig,
        table: &'static [Protocol],
    ) -> Result<Self, ConfigError> {
        if !config.sampler.is_valid() {
            return Err(ConfigError::Sampler);
        }
        let ignored = config.ignore_paths.iter();
        Ok(Self {
            patterns: Patterns::new(&config.routes)?,
            ignored: ignored
                .map(|path| IgnoredPath::parse(path))
                .collect::<Result<_, _>>()?,
            detector: Detector::new(table, config.protocols.as_deref())?,
            config,
            containers: 0,
        })
    }

    pub(crate) const fn sampler(&self) -> &Sampler {
        &self.config.sampler
    }

    pub(crate) fn ignores(&self, path: &str) -> bool {
        self.ignored.iter().any(|ignored| ignored.matches(path))
    }

    /// Why a flow between these ends is of no interest, whichever of them is the server.
    pub(crate) fn early_objection(&self, endpoints: &Endpoints) -> Option<Unwanted> {
        self.objection_to_port(endpoints, &[Role::Client, Role::Server])
    }

    /// Why a flow of this protocol is of no interest, if it is not.
    pub(crate) fn objection(
        &self,
        endpoints: &Endpoints,
        role: Role,
        protocol: &'static Protocol,
    ) -> Option<Unwanted> {
        let of_protocol = || (!self.detector.enables(protocol)).then_some(Unwanted::Protocol);
        self.objection_to_port(endpoints, &[role])
            .or_else(of_protocol)
    }

    /// Why a flow is of no interest if the local end has one of these roles.
    fn objection_to_port(&self, endpoints: &Endpoints, roles: &[Role]) -> Option<Unwanted> {
        let ports = self.config.ports.as_ref()?;
        if endpoints.transport == Transport::Unknown {
            return Some(Unwanted::PortUnknown);
        }
        let is_listed = roles
            .iter()
            .filter_map(|&role| endpoints.server_port(role))
            .any(|port| ports.contains(&port));
        (!is_listed).then_some(Unwanted::Port)
    }
}

/// The settings of all containers. Its owner keeps it bounded: it configures the containers that it observes, fewer
/// than [`pilotfish_abi::MAX_SLOTS`], and drops each when it ends.
pub(crate) struct SettingsTable {
    protocols: &'static [Protocol],
    compiled: SlotMap<SettingsKey, Settings>,
    defaults: SettingsKey,
    of_slot: HashMap<Slot, SettingsKey>,
    /// What no container has any more, the oldest first.
    retired: VecDeque<SettingsKey>,
    /// Changes with every change, so that a flow need not look its container up to know that nothing has changed.
    generation: u64,
}

/// The settings of a flow's container, as the flow last saw them.
#[derive(Clone, Copy)]
pub(crate) struct InForce {
    pub(crate) key: SettingsKey,
    generation: u64,
}

impl SettingsTable {
    pub(crate) fn new(
        defaults: SlotConfig,
        protocols: &'static [Protocol],
    ) -> Result<Self, ConfigError> {
        let mut compiled = SlotMap::with_key();
        let defaults = compiled.insert(Settings {
            containers: 1,
            ..Settings::compile(defaults, protocols)?
        });
        Ok(Self {
            protocols,
            compiled,
            defaults,
            of_slot: HashMap::new(),
            retired: VecDeque::new(),
            generation: 0,
        })
    }

    /// Replaces the settings of a container; after an error the former ones are in force.
    pub(crate) fn configure(&mut self, slot: Slot, config: &SlotConfig) -> Result<(), ConfigError> {
        let mut known = self.compiled.iter();
        let equal = known.find(|(_, settings)| settings.config == *config);
        let key = match equal {
            Some((key, _)) => key,
            None => self
                .compiled
                .insert(Settings::compile(config.clone(), self.protocols)?),
        };
        // Added before the former one is released: they may be the same.
        if let Some(settings) = self.compiled.get_mut(key) {
            settings.containers = settings.containers.saturating_add(1);
        }
        let former = self.of_slot.insert(slot, key);
        if former.unwrap_or(self.defaults) != key {
            self.generation = self.generation.wrapping_add(1);
        }
        if let Some(former) = former {
            self.release(former);
        }
        Ok(())
    }

    /// Lets the defaults hold for a container again.
    pub(crate) fn forget(&mut self, slot: Slot) {
        if let Some(key) = self.of_slot.remove(&slot) {
            self.generation = self.generation.wrapping_add(1);
            self.release(key);
        }
    }

    /// What is in force for a flow that begins now.
    pub(crate) fn current(&self, slot: Slot) -> InForce {
        InForce {
            key: self.key_of(slot),
            generation: self.generation,
        }
    }

    /// The settings with this key, which a container has or had.
    pub(crate) fn get(&self, key: SettingsKey, slot: Slot) -> Option<&Settings> {
        let current = || self.compiled.get(self.key_of(slot));
        self.compiled.get(key).or_else(current)
    }

    /// Takes over what has changed for a flow; the former settings' key if anything has.
    pub(crate) fn refresh(&self, in_force: &mut InForce, slot: Slot) -> Option<SettingsKey> {
        if in_force.generation == self.generation {
            return None;
        }
        let former = in_force.key;
        *in_force = self.current(slot);
        (former != in_force.key).then_some(former)
    }

    /// True if settings enable a protocol that the former ones did not, as far as those are known.
    pub(crate) fn enables_more(&self, settings: &Settings, former: SettingsKey) -> bool {
        let former = self.compiled.get(former);
        former.is_none_or(|former| settings.detector.enables_more(&former.detector))
    }

    fn key_of(&self, slot: Slot) -> SettingsKey {
        self.of_slot.get(&slot).copied().unwrap_or(self.defaults)
    }

    fn release(&mut self, key: SettingsKey) {
        let Some(settings) = self.compiled.get_mut(key) else {
            return;
        };
        settings.containers = settings.containers.saturating_sub(1);
        if settings.containers > 0 {
            return;
        }
        self.retired.push_back(key);
        if self.retired.len() > MAX_RETIRED
            && let Some(oldest) = self.retired.pop_front()
            && let Some(settings) = self.compiled.get(oldest)
            && settings.containers == 0
        {
            self.compiled.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_RETIRED, SettingsTable};
    use crate::config::SlotConfig;
    use crate::model::Slot;
    use crate::protocol::PROTOCOLS;

    fn with_route(route: impl Into<String>) -> SlotConfig {
        SlotConfig {
            routes: vec![route.into()],
            ..SlotConfig::default()
        }
    }

    fn table() -> SettingsTable {
        SettingsTable::new(SlotConfig::default(), PROTOCOLS).unwrap()
    }

    #[test]
    fn equal_settings_are_compiled_once() {
        let mut table = table();
        for slot in 1..500 {
            table.configure(Slot(slot), &with_route("/{id}")).unwrap();
        }
        assert_eq!(table.compiled.len(), 2);
        let shared = table.key_of(Slot(1));
        assert!((1..500).all(|slot| table.key_of(Slot(slot)) == shared));
        assert_eq!(table.compiled[shared].containers, 499);
        table.configure(Slot(500), &SlotConfig::default()).unwrap();
        assert_eq!(table.key_of(Slot(500)), table.defaults);
        for slot in 1..=500 {
            table.forget(Slot(slot));
        }
        assert_eq!(table.compiled[shared].containers, 0);
        assert_eq!(table.compiled[table.defaults].containers, 1);
        assert_eq!(table.key_of(Slot(1)), table.defaults);
    }

    #[test]
    fn changes_without_end_keep_a_few() {
        let mut table = table();
        table.configure(Slot(1), &with_route("/first")).unwrap();
        let first = table.key_of(Slot(1));
        for change in 0..1000 {
            let config = with_route(format!("/{change}"));
            table.configure(Slot(1), &config).unwrap();
            assert!(table.compiled.len() <= MAX_RETIRED + 2);
            assert!(table.get(first, Slot(1)).is_some());
        }
        assert!(table.compiled.get(first).is_none());
        let config = &table.get(first, Slot(1)).unwrap().config;
        assert_eq!(
            *config,
            with_route("/999"),
            "what is gone is what is in force"
        );
    }

    #[test]
    fn settings_that_come_back_are_not_dropped_with_the_retired() {
        let mut table = table();
        let lasting = with_route("/lasting");
        table.configure(Slot(1), &lasting).unwrap();
        let key = table.key_of(Slot(1));
        table.forget(Slot(1));
        table.configure(Slot(2), &lasting).unwrap();
        for change in 0..100 {
            let config = with_route(format!("/{change}"));
            table.configure(Slot(1), &config).unwrap();
        }
        assert_eq!(table.key_of(Slot(2)), key);
        assert_eq!(table.compiled[key].config, lasting);
        table.configure(Slot(2), &lasting).unwrap();
        assert_eq!(table.compiled[key].containers, 1);
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let mut table = table();
        table.configure(Slot(1), &with_route("/{id}")).unwrap();
        let mut in_force = table.current(Slot(1));
        assert!(table.configure(Slot(1), &with_route("/{")).is_err());
        assert_eq!(table.refresh(&mut in_force, Slot(1)), None);
        assert_eq!(table.key_of(Slot(1)), in_force.key);
        assert_eq!(table.compiled.len(), 2);
    }

    #[test]
    fn only_a_change_of_the_container_is_taken_over() {
        let mut table = table();
        let mut in_force = table.current(Slot(1));
        let mut changed = |table: &SettingsTable| table.refresh(&mut in_force, Slot(1)).is_some();
        table.configure(Slot(2), &with_route("/{id}")).unwrap();
        assert!(!changed(&table));
        table.configure(Slot(1), &with_route("/{id}")).unwrap();
        assert!(changed(&table));
        table.configure(Slot(1), &with_route("/{id}")).unwrap();
        assert!(!changed(&table));
        table.forget(Slot(1));
        assert!(changed(&table));
    }
}
