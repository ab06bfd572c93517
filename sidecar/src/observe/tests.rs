//! The observer with a kernel, a registry and a ledger that remember, and real processes.

mod pod_files;

use super::*;
use crate::{discovery::ScopeWriter, policy::Policy};
use pilotfish_abi::{Scope, Settings};
use pilotfish_pipeline::SlotConfig;
use pilotfish_workload::Identity;
use pilotfish_workload::announcement::{Announcement, Reply};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    os::fd::BorrowedFd,
    path::Path,
    process::{Child, Command as Program, Stdio},
};
use tokio::sync::oneshot;

/// What was said to kernel, registry and ledger, in order.
#[derive(Clone, Debug, Default)]
struct Journal(Arc<Mutex<Vec<Said>>>);

#[derive(Clone, Debug, PartialEq)]
enum Said {
    Resource(u32),
    Configured(u32, Option<BTreeSet<u16>>),
    Enabled(u32, u32),
    Disabled(u32),
    Forgotten(u32),
    Remembered(String, i32),
    StruckOut(String),
}

impl Journal {
    fn say(&self, said: Said) {
        self.0.lock().unwrap().push(said);
    }

    /// What was said since this was last asked.
    fn take(&self) -> Vec<Said> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl ScopeWriter for Journal {
    fn put(&mut self, _pidfd: BorrowedFd<'_>, _scope: Scope) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _pidfd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

impl SlotWriter for Journal {
    fn settings(&mut self, slot: u32, settings: Settings) -> io::Result<()> {
        self.say(match settings.enabled {
            0 => Said::Disabled(slot),
            _ => Said::Enabled(slot, settings.capture),
        });
        Ok(())
    }

    fn watch_cgroup(&mut self, _id: u64, _slot: u32) -> io::Result<()> {
        Ok(())
    }

    fn unwatch_cgroup(&mut self, _id: u64) -> io::Result<()> {
        Ok(())
    }

    fn socket_records(&self, slot: u32) -> u64 {
        u64::from(slot) * 100
    }
}

impl Registry for Journal {
    fn set(&mut self, slot: u32, _resource: Vec<(String, String)>) {
        self.say(Said::Resource(slot));
    }

    fn configure(&mut self, slot: u32, config: &SlotConfig) {
        self.say(Said::Configured(slot, config.ports.clone()));
    }

    fn remove(&mut self, slot: u32) {
        self.say(Said::Forgotten(slot));
    }
}

impl Ledger for Journal {
    fn attached(&mut self, announcement: &Announcement, pid: i32, start: u64) {
        assert!(start > 0);
        self.say(Said::Remembered(announcement.id.clone(), pid));
    }

    fn removed(&mut self, id: &str) {
        self.say(Said::StruckOut(id.to_owned()));
    }
}

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Program::new("sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn policy() -> Policy {
    Policy {
        defaults: SlotConfig::default(),
        capture: 1024,
        max_capture: None,
        max_sample_ratio: None,
        annotations: true,
        tls: true,
    }
}

/// An observer that frees slots as soon as it may.
fn observer(target: Target, pod: Option<(PodFiles, Pod)>) -> (Observer<Journal, Journal>, Journal) {
    let journal = Journal::default();
    let task = Task {
        target,
        options: Options {
            grace: Duration::ZERO,
            ended_grace: Duration::ZERO,
            ..Options::default()
        },
        policy: policy(),
        pod: pod.unwrap_or_default(),
        ledger: Some(Box::new(journal.clone())),
        tls: None,
    };
    let stats = Arc::new(SourceStats::default());
    let observer = Observer::start(task, journal.clone(), journal.clone(), stats).unwrap();
    (observer, journal)
}

fn announcement(id: &str, annotations: &[(&str, &str)]) -> Announcement {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Announcement {
        id: id.to_owned(),
        pid: 0,
        identity: Identity::default(),
        annotations: annotations.iter().map(owned).collect(),
        labels: BTreeMap::new(),
        warnings: Vec::new(),
        program: None,
    }
}

fn attach(
    observer: &mut Observer<Journal, Journal>,
    announcement: Announcement,
    process: &Sleeper,
) -> Reply {
    let (reply, mut answer) = oneshot::channel();
    let pid = Pid::from_raw(process.pid()).unwrap();
    let command = Command::Attach {
        announcement: Box::new(announcement),
        pidfd: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
        reply,
    };
    observer.handle(command).unwrap();
    answer.try_recv().unwrap()
}

fn remove(observer: &mut Observer<Journal, Journal>, id: &str) -> Reply {
    let (reply, mut answer) = oneshot::channel();
    let id = id.to_owned();
    observer.handle(Command::Remove { id, reply }).unwrap();
    answer.try_recv().unwrap()
}

#[tokio::test]
async fn a_slot_is_enabled_last_and_forgotten_after_it_is_disabled() {
    let (mut observer, journal) = observer(Target::Announced, None);
    let app = Sleeper::start();
    let wish = announcement("a", &[("pilotfish.dev/ports", "80")]);
    assert_eq!(attach(&mut observer, wish, &app), Reply::Attached);
    assert_eq!(
        journal.take(),
        [
            Said::Resource(1),
            Said::Configured(1, Some(BTreeSet::from([80]))),
            Said::Enabled(1, 1024),
            Said::Remembered("a".to_owned(), app.pid()),
        ]
    );
    assert_eq!(remove(&mut observer, "a"), Reply::Removed);
    assert_eq!(
        journal.take(),
        [
            Said::Disabled(1),
            Said::StruckOut("a".to_owned()),
            Said::Forgotten(1)
        ]
    );
    assert_eq!(remove(&mut observer, "a"), Reply::Removed);
    assert_eq!(journal.take(), []);
    let counters = lock(&observer.observed).counters;
    assert_eq!((counters.announcements_attached, counters.removals), (1, 1));
}

#[tokio::test]
async fn what_a_slot_has_given_before_is_not_its_new_containers() {
    let (mut observer, _) = observer(Target::Announced, None);
    let app = Sleeper::start();
    let former = |observer: &Observer<_, _>| lock(&observer.observed).former_records(1);
    assert_eq!(former(&observer), 0);
    attach(&mut observer, announcement("a", &[]), &app);
    assert_eq!(former(&observer), 100);
    remove(&mut observer, "a");
    assert_eq!(former(&observer), 0);
}

#[tokio::test]
async fn only_what_changed_is_said_again() {
    let (mut observer, journal) = observer(Target::Announced, None);
    let app = Sleeper::start();
    attach(&mut observer, announcement("a", &[]), &app);
    journal.take();
    let remembered = Said::Remembered("a".to_owned(), app.pid());
    attach(&mut observer, announcement("a", &[]), &app);
    assert_eq!(journal.take(), std::slice::from_ref(&remembered));

    let wish = announcement("a", &[("pilotfish.dev/capture-bytes", "256")]);
    assert_eq!(attach(&mut observer, wish, &app), Reply::Attached);
    assert_eq!(
        journal.take(),
        [Said::Resource(1), Said::Enabled(1, 256), remembered]
    );
}

#[tokio::test]
async fn annotations_switch_off_and_on_again() {
    let (mut observer, journal) = observer(Target::Announced, None);
    let app = Sleeper::start();
    let off = || announcement("a", &[("pilotfish.dev/instrument", "false")]);
    let ignored =
        |reply| matches!(reply, Reply::Ignored { reason } if reason.contains("instrument"));
    assert!(ignored(attach(&mut observer, off(), &app)));
    assert_eq!(journal.take(), []);
    assert_eq!(lock(&observer.observed).discovery.containers().count(), 0);

    attach(&mut observer, announcement("a", &[]), &app);
    journal.take();
    assert!(ignored(attach(&mut observer, off(), &app)));
    assert_eq!(journal.take()[..2], [Said::Disabled(1), Said::Forgotten(1)]);
    assert!(!lock(&observer.observed).decision(1).unwrap().instrument);

    attach(&mut observer, announcement("a", &[]), &app);
    assert_eq!(
        journal.take()[..3],
        [
            Said::Resource(1),
            Said::Configured(1, None),
            Said::Enabled(1, 1024)
        ]
    );
    assert_eq!(lock(&observer.observed).counters.announcements_ignored, 2);
}

#[tokio::test]
async fn what_a_snapshot_does_not_name_has_ended() {
    let (mut observer, journal) = observer(Target::Announced, None);
    let apps = [Sleeper::start(), Sleeper::start(), Sleeper::start()];
    for (id, app) in ["a", "b", "c"].iter().zip(&apps) {
        attach(&mut observer, announcement(id, &[]), app);
    }
    journal.take();
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    let snapshot = Command::Keep {
        ids: ids(&["b", "unknown"]),
        among: ids(&["a", "b", "gone"]),
    };
    observer.handle(snapshot).unwrap();
    assert_eq!(
        journal.take(),
        [
            Said::Disabled(1),
            Said::StruckOut("a".to_owned()),
            Said::Forgotten(1)
        ]
    );
    let left: Vec<_> = lock(&observer.observed)
        .discovery
        .containers()
        .map(|container| container.slot)
        .collect();
    assert_eq!(left, [2, 3], "`c` is another front end's");
}

#[tokio::test]
async fn what_a_container_forked_before_it_was_announced_is_found() {
    let (mut observer, _) = observer(Target::Announced, None);
    let mut shell = Program::new("sh");
    // Both end when the test closes its end of the pipe.
    shell.args(["-c", "exec 3<&0; cat <&3 & echo; wait"]);
    let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut app = Sleeper(shell.spawn().unwrap());
    let forked = app.0.stdout.as_mut().unwrap().read_exact(&mut [0]);
    forked.unwrap();
    assert_eq!(
        attach(&mut observer, announcement("a", &[]), &app),
        Reply::Attached
    );
    let count = |observer: &Observer<_, _>| lock(&observer.observed).discovery.process_count();
    assert_eq!(count(&observer), 1);

    let (done, mut answer) = oneshot::channel();
    observer.handle(Command::Complete { done }).unwrap();
    answer.try_recv().unwrap();
    assert_eq!(count(&observer), 2);
    assert_eq!(observer.due(), None, "no pass is left to do");
}

#[tokio::test]
async fn a_failure_names_the_container_and_is_counted() {
    let (mut observer, journal) = observer(Target::Announced, None);
    let mut app = Sleeper::start();
    app.0.kill().unwrap();
    // Dead, but not reaped: its number is still its own.
    let dead = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    let id = rustix::process::WaitId::Pid(Pid::from_raw(app.pid()).unwrap());
    rustix::process::waitid(id, dead).unwrap();
    let outcome = attach(&mut observer, announcement("a1", &[]), &app);
    assert!(
        matches!(&outcome, Reply::Failed { reason } if reason.contains("a1") && reason.contains("ended before")),
        "{outcome:?}"
    );
    assert_eq!(journal.take(), []);
    assert_eq!(lock(&observer.observed).counters.announcements_failed, 1);
}

#[tokio::test]
async fn a_container_whose_runtime_says_nothing_is_freed_when_it_is_empty() {
    let (mut observer, journal) = observer(Target::Announced, None);
    let mut app = Sleeper::start();
    attach(&mut observer, announcement("a", &[]), &app);
    journal.take();
    app.0.kill().unwrap();
    app.0.wait().unwrap();
    observer.on(|discovery, _| discovery.on_pid_exit()).unwrap();
    assert_eq!(
        journal.take(),
        [
            Said::Disabled(1),
            Said::Forgotten(1),
            Said::StruckOut("a".to_owned())
        ]
    );
    assert_eq!(observer.due(), Some(observer.caught_up + CATCH_UP));
}
