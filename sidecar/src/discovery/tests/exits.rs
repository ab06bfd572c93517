//! Processes that leave.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

#[test]
fn an_exit_is_noticed_through_the_descriptor() {
    let mut family = Family::start("echo $$; exec sleep 1000", 1);
    let pid = family.root();
    let mut discovery = discovery_of(pid);
    let slot = discovery.containers().next().unwrap().slot;
    assert_eq!(discovery.on_pid_exit(), [], "nothing has happened yet");

    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_for_exit(&discovery);
    assert_eq!(
        discovery.on_pid_exit(),
        [Change::ProcessRemoved { slot, pid }]
    );
    assert_eq!(discovery.process_count(), 0);
    assert_eq!(discovery.on_pid_exit(), [], "an exit is reported once");
    family.shell.wait().unwrap();
}

#[test]
fn many_exits_are_noticed_at_once() {
    let script = "i=0; while [ $i -lt 150 ]; do sleep 1000 & echo $!; i=$((i+1)); done; wait";
    let family = Family::start(script, 150);
    let mut discovery = discovery_of(family.root());
    assert_eq!(discovery.process_count(), 151);
    nix::sys::signal::killpg(Pid::from_raw(family.root()), Signal::SIGKILL).unwrap();
    while discovery.process_count() > 0 {
        wait_for_exit(&discovery);
        discovery.on_pid_exit();
    }
    assert_eq!(discovery.counters().processes_exited, 151);
}

#[test]
fn a_process_that_exits_while_it_is_attached_is_counted() {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut discovery = discovery(Target::Processes(vec![pid]));
    discovery.writer().kill_before_put = Some(child);
    let error = discovery.initial_pass().unwrap_err();
    assert!(
        matches!(error, DiscoveryError::NoSuchProcess { .. }),
        "{error}"
    );
    assert_eq!(discovery.counters().processes_vanished, 1);
    assert_eq!(discovery.counters().scope_failures, 0);
    assert_eq!(discovery.process_count(), 0);
}

#[test]
fn a_process_that_is_dead_but_not_reaped_is_not_attached() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    while !state().contains(") Z ") {
        std::thread::yield_now();
    }
    let error = discovery(Target::Processes(vec![pid]))
        .initial_pass()
        .unwrap_err();
    assert!(
        matches!(error, DiscoveryError::NoSuchProcess { .. }),
        "{error}"
    );
    child.wait().unwrap();
}

#[test]
fn beyond_the_bound_of_pidfds_records_and_the_slow_pass_notice_exits() {
    let family = Family::start("sleep 1000 & echo $!; sleep 1001 & echo $!; wait", 2);
    let options = Options {
        max_pidfds: 0,
        ..Options::default()
    };
    let own = OwnContainer::detect().unwrap();
    let target = Target::Processes(vec![family.root()]);
    let mut discovery = Discovery::new(target, Recorder::default(), own, options).unwrap();
    discovery.initial_pass().unwrap();
    assert_eq!(discovery.counters().exits_unwatched, 3);

    let slot = discovery.containers().next().unwrap().slot;
    let [by_record, by_pass] = family.pids[..] else {
        panic!("two children")
    };
    let exit = Event::Exit {
        tgid: by_record.unsigned_abs(),
    };
    assert_eq!(
        discovery.on_event(exit),
        [Change::ProcessRemoved {
            slot,
            pid: by_record
        }]
    );

    nix::sys::signal::killpg(Pid::from_raw(family.root()), Signal::SIGKILL).unwrap();
    drop(family);
    // The children were reparented: wait until whoever adopted them has reaped them.
    while std::path::Path::new(&format!("/proc/{by_pass}")).exists() {
        std::thread::yield_now();
    }
    let changes = discovery.slow_pass(Instant::now());
    assert!(
        changes.contains(&Change::ProcessRemoved { slot, pid: by_pass }),
        "{changes:?}"
    );
    assert_eq!(discovery.process_count(), 0);
}

#[test]
fn an_exit_record_of_a_watched_process_waits_for_its_pidfd() {
    let family = Family::start("echo $$; exec sleep 1000", 1);
    let mut discovery = discovery_of(family.root());
    assert_eq!(
        discovery.on_event(Event::Exit {
            tgid: family.root().unsigned_abs()
        }),
        []
    );
    assert_eq!(scoped(&discovery), [family.root()]);
}

#[test]
fn a_reused_process_id_is_another_process() {
    let family = Family::start("echo $$; exec sleep 1000", 1);
    let pid = family.root();
    let options = Options {
        max_pidfds: 0,
        ..Options::default()
    };
    let own = OwnContainer::detect().unwrap();
    let mut discovery = Discovery::new(
        Target::Processes(vec![pid]),
        Recorder::default(),
        own,
        options,
    )
    .unwrap();
    discovery.initial_pass().unwrap();
    // As if the entry had been made for an earlier process of that number.
    let slot = discovery.containers().next().unwrap().slot;
    discovery
        .table
        .insert(pid, table::Tracked { slot, start: 1 });
    assert_eq!(
        discovery.slow_pass(Instant::now()),
        [Change::ProcessRemoved { slot, pid }]
    );
    assert_eq!(
        discovery.process_count(),
        0,
        "the number was named, the process was not"
    );
}

#[test]
fn a_slot_is_freed_after_the_grace_period() {
    let mut family = Family::start("echo $$; exec sleep 1000", 1);
    let mut discovery = discovery_of(family.root());
    let slot = discovery.containers().next().unwrap().slot;
    family.shell.kill().unwrap();
    wait_for_exit(&discovery);
    discovery.on_pid_exit();

    let (start, grace) = (Instant::now(), Options::default().grace);
    assert_eq!(discovery.slow_pass(start), []);
    assert!(
        discovery.resource(slot, &BTreeMap::new()).is_some(),
        "late records still find their resource"
    );
    assert_eq!(
        discovery.slow_pass(start + grace),
        [Change::ContainerRemoved { slot }]
    );
    assert!(discovery.resource(slot, &BTreeMap::new()).is_none());
}
