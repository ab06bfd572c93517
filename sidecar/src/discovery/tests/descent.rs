//! Named processes and their descendants.

use super::*;

#[test]
fn a_tree_is_seeded_and_nothing_else() {
    let tree = Family::start(
        "sleep 1000 & echo $!; sh -c 'sleep 1001 & echo $!; echo $$; wait' & wait",
        3,
    );
    let _bystander = Family::start("sleep 1002 & echo $!; wait", 1);
    let discovery = discovery_of(tree.root());

    let expected = sorted(tree.pids.iter().copied().chain([tree.root()]));
    assert_eq!(seeded(&discovery), expected);
    assert_eq!(scoped(&discovery), expected);
    assert_eq!(discovery.counters().processes_seeded, 4);
}

#[test]
fn one_slot_for_the_tree_named_by_its_root() {
    let tree = Family::start("sleep 1000 & echo $!; wait", 1);
    let discovery = discovery_of(tree.root());

    let containers: Vec<_> = discovery.containers().collect();
    assert_eq!(containers.len(), 1);
    let slot = containers[0].slot;
    assert!(
        discovery
            .writer
            .scope
            .values()
            .all(|scope| scope.slot == slot)
    );
    assert_eq!(containers[0].first.pid, tree.root());
    let resource: BTreeMap<_, _> = discovery
        .resource(slot, &BTreeMap::new())
        .unwrap()
        .into_iter()
        .collect();
    let executable = std::fs::read_link(format!("/proc/{}/exe", tree.root())).unwrap();
    assert_eq!(
        resource["service.name"],
        executable.file_name().unwrap().to_str().unwrap()
    );
    assert!(
        !resource.contains_key("process.pid"),
        "there are two processes"
    );
}

#[test]
fn two_named_processes_outside_of_containers_have_a_slot_each() {
    let (one, other) = (
        Family::start("sleep 1000 & echo $!; wait", 1),
        Family::start("echo $$; exec sleep 1001", 1),
    );
    let mut discovery = discovery(Target::Processes(vec![one.root(), other.root()]));
    let changes = discovery.initial_pass().unwrap();

    let slots: BTreeSet<_> = discovery
        .writer
        .scope
        .values()
        .map(|scope| scope.slot)
        .collect();
    assert_eq!(slots.len(), 2);
    let added = |change: &&Change| matches!(change, Change::ContainerAdded { .. });
    assert_eq!(changes.iter().filter(added).count(), 2);
    assert_eq!(
        discovery.writer.scope[&one.root()].slot,
        discovery.writer.scope[&one.pids[0]].slot
    );
}

#[test]
fn a_fork_record_brings_the_child_into_the_table_without_seeding_it_again() {
    let tree = Family::start("echo $$; exec sleep 1000", 1);
    let mut discovery = discovery_of(tree.root());
    let slot = discovery.containers().next().unwrap().slot;
    // Another process of the test stands for the child, because the record decides, not /proc.
    let later = Family::start("echo $$; exec sleep 1001", 1);

    let fork = Event::Fork {
        slot,
        parent: std::process::id(),
        child: later.root().unsigned_abs(),
    };
    let changes = discovery.on_event(fork);
    assert_eq!(
        changes,
        [Change::ProcessAdded {
            slot,
            pid: later.root()
        }]
    );
    assert_eq!(
        seeded(&discovery),
        [tree.root()],
        "the kernel has done that"
    );
    assert_eq!(discovery.counters().processes_inherited, 1);
    assert_eq!(
        discovery.on_event(fork),
        [],
        "a record that comes twice changes nothing"
    );
}

#[test]
fn records_that_name_nothing_known_are_counted() {
    let tree = Family::start("echo $$; exec sleep 1000", 1);
    let mut discovery = discovery_of(tree.root());
    let slot = discovery.containers().next().unwrap().slot;
    for event in [
        Event::Fork {
            slot: slot + 1,
            parent: 1,
            child: 1,
        },
        Event::Fork {
            slot,
            parent: 1,
            child: 0,
        },
        Event::Fork {
            slot,
            parent: 1,
            child: u32::MAX,
        },
        Event::Exec { tgid: 0 },
        Event::Exit { tgid: u32::MAX },
        Event::Newcomer { tgid: 0 },
    ] {
        assert_eq!(discovery.on_event(event), []);
    }
    assert_eq!(discovery.counters().records_without_process, 6);
    assert_eq!(scoped(&discovery), [tree.root()]);
}

#[test]
fn a_newcomer_that_is_no_descendant_stays_outside() {
    let tree = Family::start("echo $$; exec sleep 1000", 1);
    let other = Family::start("echo $$; exec sleep 1001", 1);
    let mut discovery = discovery_of(tree.root());
    assert_eq!(
        discovery.on_event(Event::Newcomer {
            tgid: other.root().unsigned_abs()
        }),
        []
    );
    assert_eq!(
        discovery.on_event(Event::Exec {
            tgid: other.root().unsigned_abs()
        }),
        []
    );
    assert_eq!(seeded(&discovery), [tree.root()]);
}

#[test]
fn an_exec_renames_a_container_that_is_named_by_it() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$; read go; exec sleep 1000"])
        .stdin(Stdio::piped());
    let mut family = Family::start_with(&mut command, 1);
    let mut discovery = discovery_of(family.root());
    let slot = discovery.containers().next().unwrap().slot;
    let before = discovery.resource(slot, &BTreeMap::new()).unwrap();

    drop(family.shell.stdin.take());
    while std::fs::read_to_string(format!("/proc/{}/comm", family.root())).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    let changes = discovery.on_event(Event::Exec {
        tgid: family.root().unsigned_abs(),
    });
    let pid = family.root();
    assert_eq!(
        changes,
        [
            Change::ContainerRenamed { slot },
            Change::ProcessExecuted { slot, pid }
        ]
    );
    let after = discovery.resource(slot, &BTreeMap::new()).unwrap();
    assert_ne!(before, after);
    assert!(
        after
            .iter()
            .any(|(key, value)| key == "process.executable.name"
                && value == &discovery.container(slot).unwrap().first.executable)
    );
}

#[test]
fn the_slow_pass_finds_what_records_missed() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$; read go; sleep 1000 & wait"])
        .stdin(Stdio::piped());
    let mut family = Family::start_with(&mut command, 1);
    let mut discovery = discovery_of(family.root());
    assert_eq!(discovery.slow_pass(Instant::now()), []);

    drop(family.shell.stdin.take());
    let children = format!("/proc/{0}/task/{0}/children", family.root());
    let child = loop {
        if let Ok(child) = std::fs::read_to_string(&children)
            .unwrap()
            .trim()
            .parse::<i32>()
        {
            break child;
        }
        std::thread::yield_now();
    };
    let changes = discovery.slow_pass(Instant::now());
    let slot = discovery.containers().next().unwrap().slot;
    assert_eq!(changes, [Change::ProcessAdded { slot, pid: child }]);
    assert_eq!(discovery.counters().missed_by_records, 1);
    assert!(seeded(&discovery).contains(&child));
}

#[test]
fn a_named_process_must_be_there_and_must_be_a_workload() {
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let pid = i32::try_from(gone.id()).unwrap();
    let error = discovery(Target::Processes(vec![pid]))
        .initial_pass()
        .unwrap_err();
    assert!(
        matches!(error, DiscoveryError::NoSuchProcess { pid: named } if named == pid),
        "{error}"
    );
    for pid in [0, -1, i32::MIN] {
        let error = discovery(Target::Processes(vec![pid]))
            .initial_pass()
            .unwrap_err();
        assert!(
            matches!(error, DiscoveryError::NoSuchProcess { .. }),
            "{error}"
        );
    }
    let ourselves = i32::try_from(std::process::id()).unwrap();
    let error = discovery(Target::Processes(vec![ourselves]))
        .initial_pass()
        .unwrap_err();
    assert!(matches!(error, DiscoveryError::Refused { .. }), "{error}");
}

#[test]
fn the_process_table_is_bounded() {
    let tree = Family::start("for i in 1 2 3 4; do sleep 1000 & echo $!; done; wait", 4);
    let options = Options {
        max_processes: 3,
        ..Options::default()
    };
    let target = Target::Processes(vec![tree.root()]);
    let own = OwnContainer::detect().unwrap();
    let mut discovery = Discovery::new(target, Recorder::default(), own, options).unwrap();
    discovery.initial_pass().unwrap();
    assert_eq!(scoped(&discovery).len(), 3);
    assert_eq!(seeded(&discovery).len(), 3);
    assert!(discovery.counters().processes_beyond_bound >= 2);
}

#[test]
fn a_kernel_that_refuses_is_reported() {
    let tree = Family::start("echo $$; exec sleep 1000", 1);
    let mut discovery = discovery(Target::Processes(vec![tree.root()]));
    discovery.writer().refusal = Some(nix::errno::Errno::ENOMEM as i32);
    let error = discovery.initial_pass().unwrap_err();
    assert!(matches!(error, DiscoveryError::Refused { .. }), "{error}");
    assert_eq!(discovery.counters().scope_failures, 1);
    assert_eq!(discovery.process_count(), 0);
}
