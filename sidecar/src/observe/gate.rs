//! The one place where a slot is switched on and off, in an order that leaves no span without a resource.

use crate::{discovery::ScopeWriter, instrument::KernelScope, policy::Decision};
use pilotfish_abi::Settings;
use pilotfish_pipeline::SlotConfig;
use std::{collections::BTreeMap, io};

/// The kernel's side of slots.
pub trait SlotWriter: ScopeWriter {
    /// Sets how the tasks of a slot are observed; [`Settings::default`] switches the slot off.
    fn settings(&mut self, slot: u32, settings: Settings) -> io::Result<()>;
    /// From now on a process that executes a program inside this cgroup v2 group is in scope.
    ///
    /// # Errors
    /// When [`pilotfish_abi::MAX_CGROUPS`] are watched already.
    fn watch_cgroup(&mut self, id: u64, slot: u32) -> io::Result<()>;
    /// Ends that.
    fn unwatch_cgroup(&mut self, id: u64) -> io::Result<()>;
    /// Records of sockets that a slot has given so far, whichever containers had it.
    fn socket_records(&self, slot: u32) -> u64;
}

impl SlotWriter for KernelScope {
    fn settings(&mut self, slot: u32, settings: Settings) -> io::Result<()> {
        Self::settings(self, slot, settings)
    }

    fn watch_cgroup(&mut self, id: u64, slot: u32) -> io::Result<()> {
        Self::watch_cgroup(self, id, slot)
    }

    fn unwatch_cgroup(&mut self, id: u64) -> io::Result<()> {
        Self::unwatch_cgroup(self, id)
    }

    fn socket_records(&self, slot: u32) -> u64 {
        Self::socket_records(self, slot)
    }
}

/// Who has to know of containers before their first span: exporters and pipeline, or the recorded file.
pub trait Registry {
    /// A container appeared or changed its name.
    fn set(&mut self, slot: u32, resource: Vec<(String, String)>);
    /// How its traffic is to be read, from the records on that come after this.
    fn configure(&mut self, slot: u32, config: &SlotConfig);
    /// A container is gone, or no longer observed.
    fn remove(&mut self, slot: u32);
}

/// Switches slots. The kernel observes one only after registry and reader know its resource and its settings, and
/// these forget it only after the kernel has ceased.
#[derive(Debug)]
pub struct Gate<R> {
    registry: R,
    open: BTreeMap<u32, (Settings, SlotConfig)>,
    /// Watched cgroups by slot.
    cgroups: BTreeMap<u32, u64>,
}

impl<R: Registry> Gate<R> {
    /// Everything closed.
    pub fn new(registry: R) -> Self {
        Self {
            registry,
            open: BTreeMap::new(),
            cgroups: BTreeMap::new(),
        }
    }

    /// Does with a slot what was decided; also when it is open already.
    pub fn obey(
        &mut self,
        kernel: &mut impl SlotWriter,
        slot: u32,
        resource: Vec<(String, String)>,
        decision: &Decision,
    ) -> io::Result<()> {
        if !decision.instrument {
            return self.close(kernel, slot);
        }
        self.registry.set(slot, resource);
        let before = self.open.get(&slot);
        if before.is_none_or(|(_, config)| *config != decision.slot) {
            self.registry.configure(slot, &decision.slot);
        }
        if before.is_none_or(|(settings, _)| *settings != decision.settings) {
            kernel.settings(slot, decision.settings)?;
        }
        let now = (decision.settings, decision.slot.clone());
        self.open.insert(slot, now);
        Ok(())
    }

    /// Observes nothing in this slot any more.
    pub fn close(&mut self, kernel: &mut impl SlotWriter, slot: u32) -> io::Result<()> {
        self.silence(kernel, slot)?;
        if self.open.remove(&slot).is_some() {
            self.registry.remove(slot);
        }
        Ok(())
    }

    /// The kernel tells nothing more of this slot; what it has told still finds its resource.
    pub fn silence(&mut self, kernel: &mut impl SlotWriter, slot: u32) -> io::Result<()> {
        self.unwatch(kernel, slot);
        if let Some((settings, _)) = self.open.get_mut(&slot)
            && settings.enabled != 0
        {
            kernel.settings(slot, Settings::default())?;
            *settings = Settings::default();
        }
        Ok(())
    }

    /// Lets the kernel catch what enters the container by its cgroup. Where that is refused, the exec records of
    /// newcomers and the slow pass do the same a little later.
    pub fn watch(&mut self, kernel: &mut impl SlotWriter, slot: u32, cgroup: u64) {
        if self.cgroups.get(&slot) == Some(&cgroup) {
            return;
        }
        self.unwatch(kernel, slot);
        match kernel.watch_cgroup(cgroup, slot) {
            Ok(()) => {
                self.cgroups.insert(slot, cgroup);
            }
            Err(error) => tracing::warn!(slot, %error, "cgroup is not watched"),
        }
    }

    fn unwatch(&mut self, kernel: &mut impl SlotWriter, slot: u32) {
        if let Some(cgroup) = self.cgroups.remove(&slot)
            && let Err(error) = kernel.unwatch_cgroup(cgroup)
        {
            tracing::warn!(slot, %error, "cgroup is still watched");
        }
    }
}
