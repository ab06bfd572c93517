//! Admission: from one process to its place, and into the scope.

use pilotfish_abi::Scope;
use pilotfish_workload::{CgroupIdentity, Identity};
use tracing::debug;

use super::containers::{First, Key};
use super::own::Belongs;
use super::subject::{InspectError, Subject};
use super::table::Tracked;
use super::{Change, Discovery, ScopeWriter, Target};

/// Why a process did not get into the scope, where that was not simply because it is none of our business.
/// Each is counted where it is made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missed {
    Vanished,
    Unreadable,
    Failed,
    TableFull,
    SlotsTaken,
    KernelRefused,
}

/// Where a process belongs.
pub(super) enum Place {
    /// In no container of ours to observe.
    Outside,
    /// In a container that has a slot.
    Known(u32),
    /// In a container that needs one.
    New(Key, Box<Identity>),
}

impl<W: ScopeWriter> Discovery<W> {
    /// Inspects a process and puts it in scope if it qualifies: true if it is now in scope.
    pub(super) fn admit(&mut self, pid: i32) -> Result<bool, Missed> {
        let placed = Subject::open(pid).and_then(|subject| Ok((self.place(&subject)?, subject)));
        let (place, subject) = placed.map_err(|error| self.missed(pid, &error))?;
        self.unreadable.remove(&pid);
        let Some(slot) = self.slot_for(place, &subject)? else {
            return Ok(false);
        };
        self.seed(subject, slot)?;
        Ok(true)
    }

    /// Takes a child into the table that the kernel has put in scope.
    pub(super) fn inherit(&mut self, slot: u32, parent: i32, child: i32) -> Result<(), Missed> {
        let subject = Subject::open(child).map_err(|error| self.missed(child, &error))?;
        if self
            .table
            .get(child)
            .is_some_and(|known| known.start == subject.start)
        {
            return Ok(());
        }
        // With another parent, either the real one is gone or the child is, and its number used again.
        if subject.parent != parent {
            match self.is_in(&subject, slot) {
                Ok(true) => {}
                Ok(false) => return Err(self.missed(child, &InspectError::Vanished)),
                Err(error) => return Err(self.missed(child, &error)),
            }
        }
        self.check_room(child)?;
        self.counters.processes_inherited += 1;
        self.track(subject, slot);
        Ok(())
    }

    /// Whether a process can be one of a container's, whoever its parent is now.
    fn is_in(&self, subject: &Subject, slot: u32) -> Result<bool, InspectError> {
        match self.target {
            Target::SharedNamespace => {
                let place = self.place(subject)?;
                Ok(matches!(place, Place::Known(known) if known == slot))
            }
            Target::Announced => self.may_be_orphan(subject, slot),
            // A tree has nothing more to check against; the kernel's scope, which decides, does not go by numbers.
            Target::Processes(_) => Ok(true),
        }
    }

    /// A process in the table runs another program: it may have moved to another container since its fork.
    pub(super) fn executed(&mut self, pid: i32, tracked: Tracked) -> Result<(), Missed> {
        let subject = Subject::open(pid).map_err(|error| self.missed(pid, &error))?;
        let place = match self.place(&subject) {
            // It was let in when its identity could be read; a program that hides it since does not move it.
            Err(InspectError::Denied) => Place::Known(tracked.slot),
            place => place.map_err(|error| self.missed(pid, &error))?,
        };
        match self.slot_for(place, &subject)? {
            Some(slot) if slot == tracked.slot && subject.start == tracked.start => {
                self.ran_another_program(&subject, slot);
            }
            Some(slot) => {
                self.counters.processes_moved += 1;
                self.seed(subject, slot)?;
            }
            None => self.withdraw(&subject),
        }
        Ok(())
    }

    /// Drops a process from the table; the kernel frees its scope with the task.
    pub(super) fn untrack(&mut self, pid: i32) {
        self.exits.forget(pid);
        if let Some(Tracked { slot, .. }) = self.table.remove(pid) {
            self.counters.processes_exited += 1;
            self.containers.leave(slot, pid);
            self.changes.push(Change::ProcessRemoved { slot, pid });
        }
    }

    fn place(&self, subject: &Subject) -> Result<Place, InspectError> {
        // `--pid 1` has us among its descendants; observing our own export would feed on itself.
        if subject.kernel_thread || subject.pid.unsigned_abs() == std::process::id() {
            return Ok(Place::Outside);
        }
        match &self.target {
            Target::SharedNamespace => self.place_by_container(subject),
            Target::Processes(named) => self.place_by_descent(subject, named),
            Target::Announced => self.place_by_announcement(subject),
        }
    }

    fn place_by_container(&self, subject: &Subject) -> Result<Place, InspectError> {
        let mount_namespace = subject.mount_namespace()?;
        let cgroup = subject.cgroup()?;
        let isolation = self.own.isolation(mount_namespace, &cgroup);
        let id = CgroupIdentity::parse(&cgroup, isolation).container_id;
        match self.own.belongs(mount_namespace, &cgroup, id.as_deref()) {
            Belongs::ToUs => return Ok(Place::Outside),
            Belongs::Undecidable => return Err(InspectError::Denied),
            Belongs::ToOthers => {}
        }
        let key_of = |id: Option<String>| match (id, mount_namespace) {
            (Some(id), _) => Key::Container(id),
            (None, Some(inode)) => Key::MountNamespace(inode),
            (None, None) => Key::Cgroup(cgroup.clone()),
        };
        // The mount table is long and read once per container, not once per process.
        if let Some(slot) = self.containers.slot_of(&key_of(id)) {
            return Ok(Place::Known(slot));
        }
        let identity = Identity::from_text(&cgroup, &subject.mountinfo()?, isolation);
        Ok(self.known_or_new(key_of(identity.container_id.clone()), identity))
    }

    fn place_by_descent(&self, subject: &Subject, named: &[i32]) -> Result<Place, InspectError> {
        let tracked = |pid: i32| self.table.get(pid);
        let own = tracked(subject.pid).filter(|known| known.start == subject.start);
        let inherited = own
            .or_else(|| tracked(subject.parent))
            .map(|known| known.slot);
        let is_root = named.contains(&subject.pid) && !self.roots_seeded;
        if inherited.is_none() && !is_root {
            return Ok(Place::Outside);
        }
        let cgroup = subject.cgroup()?;
        let isolation = self.own.isolation(subject.mount_namespace()?, &cgroup);
        let id = CgroupIdentity::parse(&cgroup, isolation).container_id;
        if let Some(slot) = inherited {
            let container = self.containers.get(slot).map(|container| &container.key);
            let stays = id
                .as_ref()
                .is_none_or(|id| container == Some(&Key::Container(id.clone())));
            if stays {
                return Ok(Place::Known(slot));
            }
        }
        let identity = Identity::from_text(&cgroup, &subject.mountinfo()?, isolation);
        let key = match identity.container_id.clone() {
            Some(id) => Key::Container(id),
            None => Key::Process {
                pid: subject.pid,
                start: subject.start,
            },
        };
        Ok(self.known_or_new(key, identity))
    }

    fn known_or_new(&self, key: Key, identity: Identity) -> Place {
        match self.containers.slot_of(&key) {
            Some(slot) => Place::Known(slot),
            None => Place::New(key, Box::new(identity)),
        }
    }

    /// The slot of a place.
    fn slot_for(&mut self, place: Place, subject: &Subject) -> Result<Option<u32>, Missed> {
        match place {
            Place::Outside => Ok(None),
            Place::Known(slot) => Ok(Some(slot)),
            Place::New(key, identity) => self.add_container(key, *identity, subject).map(Some),
        }
    }

    /// Takes a slot. The kernel observes nothing in it before it is told to (see `observe`).
    pub(super) fn add_container(
        &mut self,
        key: Key,
        identity: Identity,
        subject: &Subject,
    ) -> Result<u32, Missed> {
        let Some(slot) = self.containers.next_slot() else {
            self.counters.containers_beyond_bound += 1;
            return Err(Missed::SlotsTaken);
        };
        let first = self.newly_first(subject);
        self.containers.insert(slot, key, identity, first);
        self.changes.push(Change::ContainerAdded { slot });
        Ok(slot)
    }

    /// As [`first`], but a process that waits to execute its program is named by that program already.
    fn newly_first(&self, subject: &Subject) -> First {
        let mut first = first(subject);
        if let Some((pid, program)) = &self.options.launching
            && *pid == subject.pid
        {
            first.executable.clone_from(program);
        }
        first
    }

    /// Puts a process in scope: its life is checked once more after its identity was read.
    pub(super) fn seed(&mut self, subject: Subject, slot: u32) -> Result<(), Missed> {
        self.check_room(subject.pid)?;
        let scope = Scope {
            slot,
            tgid: subject.pid.unsigned_abs(),
        };
        subject
            .check_alive()
            .map_err(|error| self.missed(subject.pid, &error))?;
        if let Err(error) = self.writer.put(subject.pidfd(), scope) {
            // The kernel says "no such process" of one that exited since; everything else is its refusal.
            if matches!(InspectError::from(error), InspectError::Vanished) {
                return Err(self.missed(subject.pid, &InspectError::Vanished));
            }
            self.counters.scope_failures += 1;
            debug!(
                pid = subject.pid,
                slot, "the kernel refused to put a process in scope"
            );
            return Err(Missed::KernelRefused);
        }
        self.counters.processes_seeded += 1;
        self.track(subject, slot);
        Ok(())
    }

    fn check_room(&mut self, pid: i32) -> Result<(), Missed> {
        if self.table.has_room_for(pid) {
            return Ok(());
        }
        self.counters.processes_beyond_bound += 1;
        Err(Missed::TableFull)
    }

    fn track(&mut self, subject: Subject, slot: u32) {
        let (pid, start) = (subject.pid, subject.start);
        if self.table.get(pid).is_some() {
            self.untrack(pid);
        }
        let older = self
            .containers
            .get(slot)
            .is_some_and(|container| start < container.first.start);
        if older {
            self.rename(&subject, slot);
        }
        self.table.insert(pid, Tracked { slot, start });
        self.containers.join(slot, pid);
        if !self.exits.watch(pid, subject.into_pidfd()) {
            self.counters.exits_unwatched += 1;
        }
        self.changes.push(Change::ProcessAdded { slot, pid });
    }

    fn ran_another_program(&mut self, subject: &Subject, slot: u32) {
        let pid = subject.pid;
        let names_it = self
            .containers
            .get(slot)
            .is_some_and(|container| container.first.pid == pid);
        self.regroup(subject, slot);
        if names_it {
            self.rename(subject, slot);
        }
        self.changes.push(Change::ProcessExecuted { slot, pid });
    }

    fn rename(&mut self, subject: &Subject, slot: u32) {
        let found_here = self.target != Target::Announced;
        // Names only: without them the container keeps those that it has, as it keeps those that were announced.
        let identity = found_here
            .then(|| self.identity(subject).ok())
            .flatten()
            .unwrap_or_default();
        if self.containers.rename(slot, first(subject), identity) {
            self.changes.push(Change::ContainerRenamed { slot });
        }
    }

    fn identity(&self, subject: &Subject) -> Result<Identity, InspectError> {
        let cgroup = subject.cgroup()?;
        let isolation = self.own.isolation(subject.mount_namespace()?, &cgroup);
        Ok(Identity::from_text(
            &cgroup,
            &subject.mountinfo()?,
            isolation,
        ))
    }

    pub(super) fn withdraw(&mut self, subject: &Subject) {
        match self
            .writer
            .remove(subject.pidfd())
            .map_err(InspectError::from)
        {
            Ok(()) => self.counters.processes_withdrawn += 1,
            Err(InspectError::Vanished) => self.counters.processes_vanished += 1,
            Err(error) => {
                self.counters.scope_failures += 1;
                debug!(pid = subject.pid, %error, "the kernel refused to take a process out of scope");
            }
        }
        self.untrack(subject.pid);
    }

    /// Counts why a process was missed.
    pub(super) fn missed(&mut self, pid: i32, error: &InspectError) -> Missed {
        match error {
            InspectError::Vanished => {
                self.counters.processes_vanished += 1;
                Missed::Vanished
            }
            InspectError::Denied => {
                // Once per process, not once per pass.
                if self.unreadable.len() < self.options.max_processes && self.unreadable.insert(pid)
                {
                    self.counters.processes_unreadable += 1;
                }
                Missed::Unreadable
            }
            InspectError::Failed(error) => {
                self.counters.inspection_failures += 1;
                debug!(pid, error, "a process could not be inspected");
                Missed::Failed
            }
        }
    }
}

fn first(subject: &Subject) -> First {
    First {
        pid: subject.pid,
        start: subject.start,
        executable: subject.executable(),
    }
}
