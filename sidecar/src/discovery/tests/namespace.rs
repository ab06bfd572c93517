//! A shared pid namespace. Each test runs itself once more as the first process of a namespace of its own, which
//! needs root; without it, the test fails.

use super::*;

const INSIDE: &str = "PILOTFISH_TEST_INSIDE_PID_NAMESPACE";

/// True inside; outside, runs the test of this name inside and checks that it ran and passed.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let name = format!("discovery::tests::namespace::{test}");
    let output = Command::new("unshare")
        .args(["--pid", "--mount", "--mount-proc", "--fork", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && out.contains("1 passed"),
        "needs root and unshare(1):\n{out}\n{err}"
    );
    false
}

/// A process tree in a mount namespace of its own, as a container has one.
fn container(script: &str, lines: usize) -> Family {
    Family::start_with(
        Command::new("unshare").args(["--mount", "sh", "-c", script]),
        lines,
    )
}

#[test]
fn every_container_but_our_own_is_seeded() {
    if !inside("every_container_but_our_own_is_seeded") {
        return;
    }
    let app = container("sleep 1000 & echo $!; echo $$; wait", 2);
    let other = container("echo $$; exec sleep 1001", 1);
    let _ours = Family::start("sleep 1002 & echo $!; wait", 1);
    let mut discovery = discovery(Target::SharedNamespace);
    discovery.initial_pass().unwrap();

    assert_eq!(
        seeded(&discovery),
        sorted(app.pids.iter().chain(&other.pids).copied())
    );
    let slot = |pid| discovery.writer.scope[&pid].slot;
    assert_eq!(
        slot(app.pids[0]),
        slot(app.pids[1]),
        "one container, one slot"
    );
    assert_ne!(slot(app.pids[0]), slot(other.pids[0]));
    assert_eq!(discovery.counters().processes_unreadable, 0);
    assert_eq!(discovery.advice(), None);
    assert_eq!(discovery.counters().passes_cut, 0);
}

#[test]
fn a_newcomer_joins_its_container_and_ours_stay_outside() {
    if !inside("a_newcomer_joins_its_container_and_ours_stay_outside") {
        return;
    }
    let mut discovery = discovery(Target::SharedNamespace);
    assert_eq!(discovery.initial_pass().unwrap(), []);
    let app = container("echo $$; exec sleep 1000", 1);
    let ours = Family::start("echo $$; exec sleep 1001", 1);

    let changes = discovery.on_event(Event::Newcomer {
        tgid: app.pids[0].unsigned_abs(),
    });
    let [
        Change::ContainerAdded { slot },
        Change::ProcessAdded { pid, .. },
    ] = changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!(
        (pid, discovery.writer.scope[&pid].slot),
        (app.pids[0], slot)
    );
    assert_eq!(
        discovery.on_event(Event::Newcomer {
            tgid: ours.root().unsigned_abs()
        }),
        []
    );

    // `docker exec`: another process enters the same mount namespace.
    let target = app.pids[0].to_string();
    let entered = Command::new("nsenter")
        .args(["--target", &target, "--mount", "sleep", "1002"])
        .spawn()
        .unwrap();
    let mut entered = Family {
        pids: vec![],
        shell: entered,
    };
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    while namespace(entered.root()) != namespace(app.pids[0]) {
        std::thread::yield_now();
    }
    let changes = discovery.on_event(Event::Newcomer {
        tgid: entered.root().unsigned_abs(),
    });
    assert_eq!(
        changes,
        [Change::ProcessAdded {
            slot,
            pid: entered.root()
        }]
    );
    entered.shell.kill().unwrap();
}

#[test]
fn a_child_that_moved_is_seeded_anew_or_withdrawn() {
    if !inside("a_child_that_moved_is_seeded_anew_or_withdrawn") {
        return;
    }
    let app = container("echo $$; exec sleep 1000", 1);
    let other = container("echo $$; exec sleep 1001", 1);
    let ours = Family::start("echo $$; exec sleep 1002", 1);
    let mut discovery = discovery(Target::SharedNamespace);
    discovery.initial_pass().unwrap();
    let (from, to) = (
        discovery.writer.scope[&app.pids[0]].slot,
        discovery.writer.scope[&other.pids[0]].slot,
    );

    // As if both had been forked in the first container: the kernel scoped them with its slot.
    for pid in [other.pids[0], ours.root()] {
        discovery.untrack(pid);
        let start = start_of(pid).unwrap();
        discovery
            .table
            .insert(pid, table::Tracked { slot: from, start });
        discovery.containers.join(from, pid);
        discovery.writer.scope.insert(
            pid,
            Scope {
                slot: from,
                tgid: pid.unsigned_abs(),
            },
        );
    }
    discovery.take_changes();

    let pid = other.pids[0];
    let moved = discovery.on_event(Event::Exec {
        tgid: pid.unsigned_abs(),
    });
    assert_eq!(
        moved,
        [
            Change::ProcessRemoved { slot: from, pid },
            Change::ProcessAdded { slot: to, pid }
        ]
    );
    assert_eq!(discovery.writer.scope[&pid].slot, to);

    let pid = ours.root();
    let withdrawn = discovery.on_event(Event::Exec {
        tgid: pid.unsigned_abs(),
    });
    assert_eq!(withdrawn, [Change::ProcessRemoved { slot: from, pid }]);
    assert!(!discovery.writer.scope.contains_key(&pid));
    assert_eq!(
        (
            discovery.counters().processes_moved,
            discovery.counters().processes_withdrawn
        ),
        (1, 1)
    );
}

#[test]
fn a_fork_record_for_a_recycled_number_is_not_believed() {
    if !inside("a_fork_record_for_a_recycled_number_is_not_believed") {
        return;
    }
    let app = container("echo $$; exec sleep 1000", 1);
    let ours = Family::start("echo $$; exec sleep 1001", 1);
    let mut discovery = discovery(Target::SharedNamespace);
    discovery.initial_pass().unwrap();
    let slot = discovery.writer.scope[&app.pids[0]].slot;
    let fork = Event::Fork {
        slot,
        parent: app.pids[0].unsigned_abs(),
        child: ours.root().unsigned_abs(),
    };
    assert_eq!(discovery.on_event(fork), []);
    assert_eq!(scoped(&discovery), [app.pids[0]]);
    assert_eq!(discovery.counters().processes_vanished, 1);
}

#[test]
fn what_may_not_be_read_is_not_observed_but_shown() {
    if !inside("what_may_not_be_read_is_not_observed_but_shown") {
        return;
    }
    let app = container("echo $$; exec sleep 1000", 1);
    let mut discovery = discovery(Target::SharedNamespace);
    // This thread only: another user without CAP_SYS_PTRACE.
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
    rustix::thread::set_capabilities(None, sets).unwrap();

    assert_eq!(discovery.initial_pass().unwrap(), []);
    assert!(discovery.unreadable().any(|pid| pid == app.pids[0]));
    assert!(
        discovery
            .advice()
            .is_some_and(|advice| advice.contains("CAP_SYS_PTRACE"))
    );
    let counted = discovery.counters().processes_unreadable;
    assert_eq!(counted, discovery.unreadable().count() as u64);
    discovery.slow_pass(Instant::now());
    assert_eq!(
        discovery.counters().processes_unreadable,
        counted,
        "each process once"
    );
}

#[test]
fn the_hosts_pid_namespace_is_refused() {
    let own = OwnContainer {
        pid_namespace: 0xEFFF_FFFC,
        ..OwnContainer::detect().unwrap()
    };
    // Everything on a host descends from its process 1.
    for target in [Target::SharedNamespace, Target::Processes(vec![40, 1])] {
        let (recorder, options) = (Recorder::default(), Options::default());
        let refused = Discovery::new(target, recorder, own.clone(), options);
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("host's pid namespace") && message.contains("--pid"),
            "{message}"
        );
    }
    Discovery::new(
        Target::Processes(vec![40]),
        Recorder::default(),
        own,
        Options::default(),
    )
    .unwrap();
}

#[test]
fn a_container_outside_of_our_pid_namespace_is_not_visible() {
    use pilotfish_workload::{Identity, announcement::Announcement};
    use std::os::fd::{FromRawFd, OwnedFd};

    if std::env::var_os(INSIDE).is_none() {
        let own = rustix::process::getpid();
        let outside =
            rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
        // The test inside inherits it.
        rustix::io::fcntl_setfd(&outside, rustix::io::FdFlags::empty()).unwrap();
        assert!(!inside(
            "a_container_outside_of_our_pid_namespace_is_not_visible"
        ));
        return;
    }
    let is_pidfd = |fd: &i32| {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        link.to_string_lossy().contains("pidfd")
    };
    let inherited = (3..64).find(is_pidfd).expect("a pidfd from outside");
    // SAFETY: nothing else in this process knows of the descriptor.
    let pidfd = unsafe { OwnedFd::from_raw_fd(inherited) };
    let announcement = Announcement {
        id: "a".to_owned(),
        pid: 1,
        identity: Identity::default(),
        annotations: BTreeMap::new(),
        labels: BTreeMap::new(),
        warnings: Vec::new(),
        program: None,
    };
    let mut discovery = discovery(Target::Announced);
    let refused = discovery.announce(announcement, pidfd.as_fd()).unwrap_err();
    assert_eq!(refused, AnnounceError::NotVisible);
    assert!(refused.to_string().contains("hostPID"));
}
