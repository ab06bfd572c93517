//! Announced containers: real processes in cgroups of their own.

use super::group::Group;
use super::*;
use pilotfish_workload::Identity;
use pilotfish_workload::announcement::Announcement;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;

fn pidfd(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

fn announcement(id: &str) -> Announcement {
    Announcement {
        id: id.to_owned(),
        pid: 0,
        identity: Identity::default(),
        annotations: BTreeMap::new(),
        labels: BTreeMap::new(),
        warnings: Vec::new(),
        program: None,
    }
}

pub(super) fn announce(
    discovery: &mut Discovery<Recorder>,
    id: &str,
    pid: i32,
) -> (Result<u32, AnnounceError>, Vec<Change>) {
    let outcome = discovery.announce(announcement(id), pidfd(pid).as_fd());
    (outcome, discovery.take_changes())
}

fn ids(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn all_of_an_announced_container_and_nothing_else() {
    let group = Group::new();
    let app = group.start("sleep 1001 & echo $!;", 2);
    let (child, root) = (app.pids[0], app.pids[1]);
    let entered = group.start("", 1);
    let _bystander = Family::start("echo $$; exec sleep 1002", 1);
    let mut discovery = discovery(Target::Announced);
    assert_eq!(discovery.initial_pass().unwrap(), []);

    let (slot, changes) = announce(&mut discovery, &group.id, root);
    let slot = slot.unwrap();
    assert_eq!(
        changes,
        [
            Change::ContainerAdded { slot },
            Change::ProcessAdded { slot, pid: root }
        ]
    );
    discovery.slow_pass(Instant::now());
    assert_eq!(seeded(&discovery), sorted([child, root, entered.root()]));
    assert_eq!(scoped(&discovery), sorted([child, root, entered.root()]));
    let container = discovery.container(slot).unwrap();
    assert_eq!(container.identity.container_id, Some(group.id.clone()));
    assert_eq!(discovery.counters().passes_cut, 0);
}

#[test]
fn the_same_container_twice_is_one() {
    let group = Group::new();
    let app = group.start("", 1);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, &group.id, app.root()).0.unwrap();

    assert_eq!(
        announce(&mut discovery, &group.id, app.root()),
        (Ok(slot), Vec::new())
    );
    let mut news = announcement(&group.id);
    news.identity.pod_name = Some("shop-0".to_owned());
    news.annotations
        .insert("pilotfish.dev/ports".to_owned(), "80".to_owned());
    let outcome = discovery.announce(news.clone(), pidfd(app.root()).as_fd());
    assert_eq!(outcome, Ok(slot));
    assert_eq!(
        discovery.take_changes(),
        [Change::ContainerRenamed { slot }]
    );
    let container = discovery.container(slot).unwrap();
    assert_eq!(container.identity.pod_name, news.identity.pod_name);
    let announced = container.announced.as_ref().unwrap();
    assert_eq!(announced.announcement.annotations, news.annotations);
    assert_eq!(scoped(&discovery), [app.root()]);
    assert_eq!(discovery.counters().processes_seeded, 1);
}

#[test]
fn a_container_that_ends_before_or_while_it_is_attached_leaves_nothing() {
    let mut discovery = discovery(Target::Announced);
    let mut dead = Family::start("echo $$; exec sleep 1000", 1);
    let fd = pidfd(dead.root());
    dead.shell.kill().unwrap();
    wait_for_exit_of(&fd);
    for reaped in [false, true] {
        if reaped {
            dead.shell.wait().unwrap();
        }
        let outcome = discovery.announce(announcement("a"), fd.as_fd());
        assert_eq!(outcome, Err(AnnounceError::Ended), "reaped: {reaped}");
    }

    let dying = Command::new("sleep").arg("1000").spawn().unwrap();
    let fd = pidfd(i32::try_from(dying.id()).unwrap());
    discovery.writer.kill_before_put = Some(dying);
    let outcome = discovery.announce(announcement("a"), fd.as_fd());
    assert_eq!(outcome, Err(AnnounceError::Ended));

    assert_eq!(discovery.take_changes(), []);
    assert_eq!(discovery.containers().count(), 0);
    assert_eq!(discovery.process_count(), 0);
    assert!(!discovery.is_announced("a"));
    assert_eq!(discovery.counters().processes_vanished, 3);
}

#[test]
fn an_id_that_is_used_again_is_another_container() {
    let mut discovery = discovery(Target::Announced);
    let mut first = Family::start("echo $$; exec sleep 1000", 1);
    let before = announce(&mut discovery, "a", first.root()).0.unwrap();
    first.shell.kill().unwrap();
    first.shell.wait().unwrap();

    let second = Family::start("echo $$; exec sleep 1000", 1);
    let (after, changes) = announce(&mut discovery, "a", second.root());
    let after = after.unwrap();
    assert_ne!(before, after, "late records of the first keep their own");
    let pid = first.root();
    assert_eq!(
        changes,
        [
            Change::ProcessRemoved { slot: before, pid },
            Change::ContainerEnded { slot: before },
            Change::ContainerAdded { slot: after },
            Change::ProcessAdded {
                slot: after,
                pid: second.root()
            },
        ]
    );
    let now = Instant::now();
    assert_eq!(discovery.sweep(now), []);
    assert_eq!(
        discovery.sweep(now + Options::default().ended_grace),
        [Change::ContainerRemoved { slot: before }]
    );
    assert!(discovery.is_announced("a"));
}

#[test]
fn a_process_stays_in_its_container_until_a_nested_one_is_announced() {
    let outer = Group::new();
    let inner = outer.below("inner");
    let sibling = Group::new();
    let app = outer.start("sleep 1001 & echo $!; sleep 1002 & echo $!;", 3);
    let (first, second, root) = (app.pids[0], app.pids[1], app.pids[2]);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, &outer.id, root).0.unwrap();
    for child in [first, second] {
        // It left its container's cgroup after the fork, for one that was not announced.
        sibling.take(child);
        let forked = Event::Fork {
            slot,
            parent: root.unsigned_abs(),
            child: child.unsigned_abs(),
        };
        let pid = child;
        assert_eq!(
            discovery.on_event(forked),
            [Change::ProcessAdded { slot, pid }]
        );
        let executed = Event::Exec {
            tgid: child.unsigned_abs(),
        };
        assert_eq!(
            discovery.on_event(executed),
            [Change::ProcessExecuted { slot, pid }]
        );
    }

    inner.take(first);
    inner.take(second);
    let nested = announce(&mut discovery, &inner.id, first).0.unwrap();
    assert_ne!(nested, slot);
    let slot_of = |pid: i32| discovery.writer.scope[&pid].slot;
    assert_eq!(
        [slot_of(root), slot_of(first), slot_of(second)],
        [slot, nested, nested]
    );
    let executed = Event::Exec {
        tgid: second.unsigned_abs(),
    };
    assert_eq!(
        discovery.on_event(executed),
        [Change::ProcessExecuted {
            slot: nested,
            pid: second
        }]
    );
    assert_eq!(scoped(&discovery), sorted([root, first, second]));
}

#[test]
fn a_fork_record_of_a_recycled_number_is_not_believed() {
    let group = Group::new();
    let app = group.start("", 1);
    let bystander = Family::start("echo $$; exec sleep 1000", 1);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, &group.id, app.root()).0.unwrap();
    let fork = Event::Fork {
        slot,
        parent: app.root().unsigned_abs(),
        child: bystander.root().unsigned_abs(),
    };
    assert_eq!(discovery.on_event(fork), []);
    assert_eq!(scoped(&discovery), [app.root()]);
}

#[test]
fn an_ended_container_goes_at_once_with_whatever_lives_of_it() {
    let group = Group::new();
    let app = group.start("", 1);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, &group.id, app.root()).0.unwrap();
    let start = Instant::now();
    let pid = app.root();
    assert_eq!(discovery.end(&ids(&["unknown"]), start), []);
    assert_eq!(
        discovery.end(&ids(&[&group.id]), start),
        [
            Change::ProcessRemoved { slot, pid },
            Change::ContainerEnded { slot }
        ]
    );
    assert!(seeded(&discovery).is_empty());
    assert_eq!(discovery.counters().processes_withdrawn, 1);
    assert!(
        discovery.resource(slot, &BTreeMap::new()).is_some(),
        "late records still find their resource"
    );
    // It lives on, in the container's cgroup, and is nobody's.
    let newcomer = Event::Newcomer {
        tgid: pid.unsigned_abs(),
    };
    assert_eq!(discovery.on_event(newcomer), []);
    let due = start + Options::default().ended_grace;
    assert_eq!(discovery.next_expiry(), Some(due));
    assert_eq!(
        discovery.slow_pass(due),
        [Change::ContainerRemoved { slot }]
    );
    assert_eq!(discovery.next_expiry(), None);
    assert_eq!(discovery.process_count(), 0);
}

#[test]
fn slots_run_out_with_a_reason_and_a_count() {
    let mut discovery = discovery(Target::Announced);
    let app = Family::start("echo $$; exec sleep 1000", 1);
    for number in 1..pilotfish_abi::MAX_SLOTS {
        // The last announcement has the process; its container is the one that is full of it.
        let (slot, _) = announce(&mut discovery, &format!("id{number}"), app.root());
        assert_eq!(slot, Ok(number));
    }
    let (refused, changes) = announce(&mut discovery, "one-too-many", app.root());
    assert_eq!((refused, changes), (Err(AnnounceError::SlotsTaken), vec![]));
    assert_eq!(discovery.counters().containers_beyond_bound, 1);
    assert!(!discovery.is_announced("one-too-many"));

    discovery.end(&ids(&["id7"]), Instant::now());
    discovery.sweep(Instant::now() + Options::default().ended_grace);
    assert_eq!(
        announce(&mut discovery, "one-too-many", app.root()).0,
        Ok(7)
    );
}

#[test]
fn a_thousand_in_a_minute_fit() {
    let mut discovery = discovery(Target::Announced);
    let app = Family::start("echo $$; exec sleep 1000", 1);
    let mut now = Instant::now();
    let mut removed = 0;
    for number in 0..1000 {
        let id = format!("id{number}");
        announce(&mut discovery, &id, app.root()).0.unwrap();
        discovery.end(&ids(&[&id]), now);
        now += Duration::from_millis(60);
        removed += discovery.sweep(now).len();
        assert!(discovery.containers().count() <= 20);
    }
    now += Options::default().ended_grace;
    removed += discovery.sweep(now).len();
    assert_eq!((removed, discovery.containers().count()), (1000, 0));
    assert_eq!(discovery.process_count(), 0);
    assert!(seeded(&discovery).is_empty());
}

#[test]
fn what_is_not_a_containers_first_process_is_refused() {
    let mut discovery = discovery(Target::Announced);
    let file = std::fs::File::open("/proc/self/stat").unwrap();
    let outcome = discovery.announce(announcement("a"), file.as_fd());
    assert!(matches!(outcome, Err(AnnounceError::NoPidfd(_))));
    let own = i32::try_from(std::process::id()).unwrap();
    assert_eq!(
        announce(&mut discovery, "a", own).0,
        Err(AnnounceError::Own)
    );
    discovery.own.identity.container_id = Some("ours".to_owned());
    let app = Family::start("echo $$; exec sleep 1000", 1);
    assert_eq!(
        announce(&mut discovery, "ours", app.root()).0,
        Err(AnnounceError::Own)
    );
    let mut tree = discovery_of(app.root());
    assert_eq!(
        announce(&mut tree, "a", app.root()).0,
        Err(AnnounceError::NotServed)
    );
    assert_eq!(discovery.containers().count(), 0);
}

#[test]
fn a_refusal_of_the_kernel_leaves_nothing() {
    let mut discovery = discovery(Target::Announced);
    discovery.writer.refusal = Some(nix::errno::Errno::EPERM as i32);
    let app = Family::start("echo $$; exec sleep 1000", 1);
    assert_eq!(
        announce(&mut discovery, "a", app.root()),
        (Err(AnnounceError::KernelRefused), vec![])
    );
    assert_eq!(discovery.containers().count(), 0);
    assert_eq!(discovery.counters().scope_failures, 1);
}

fn wait_for_exit_of(pidfd: &OwnedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::NONE).unwrap(), 1);
}

/// Between its fork and its program the first process runs the runtime's, which must not name the container.
#[test]
fn before_it_executes_a_container_is_named_by_what_it_will_execute() {
    let family = Family::start(
        "(sleep 1001 & wait) & echo $!; (sleep 1001 & wait) & echo $!; echo $$; exec sleep 1000",
        3,
    );
    let mut discovery = discovery(Target::Announced);
    let mut name = |id: &str, pid: i32, program: Option<&str>| {
        let announcement = announcement(id).about_to_execute(program);
        let slot = discovery.announce(announcement, pidfd(pid).as_fd());
        let container = discovery.container(slot.unwrap()).unwrap();
        container.first.executable.clone()
    };
    assert_eq!(name("told", family.pids[0], Some("/bin/server")), "server");
    assert_eq!(name("untold", family.pids[1], None), "");
    let runs = name("runs", family.pids[2], Some("/bin/server"));
    assert!(!["server", ""].contains(&&*runs), "{runs}");
}
