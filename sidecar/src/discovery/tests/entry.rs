//! Who enters an announced container later, and who only looks like it.

use super::announced::announce;
use super::group::Group;
use super::*;

#[test]
fn a_newcomer_is_placed_by_its_cgroup() {
    let group = Group::new();
    let app = group.start("", 1);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, &group.id, app.root()).0.unwrap();
    let newcomer = |discovery: &mut Discovery<Recorder>, pid: i32| {
        discovery.on_event(Event::Newcomer {
            tgid: pid.unsigned_abs(),
        })
    };

    // `docker exec`, and what a container makes below its own group.
    let nested = group.below("nested");
    for entered in [&group, &nested] {
        let process = entered.start("", 1);
        let pid = process.root();
        assert_eq!(
            newcomer(&mut discovery, pid),
            [Change::ProcessAdded { slot, pid }]
        );
    }
    let other = Group::new();
    for outside in [
        other.start("", 1),
        Family::start("echo $$; exec sleep 1001", 1),
    ] {
        assert_eq!(newcomer(&mut discovery, outside.root()), []);
    }
    assert_eq!(
        newcomer(
            &mut discovery,
            i32::try_from(std::process::id()).expect("a process id")
        ),
        []
    );
}

#[test]
fn a_container_in_the_root_group_is_only_what_descends_from_it() {
    let app = Family::start("sleep 1001 & echo $!; wait", 1);
    let bystander = Family::start("echo $$; exec sleep 1002", 1);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, "a", app.root()).0.unwrap();
    discovery.slow_pass(Instant::now());
    assert_eq!(scoped(&discovery), sorted([app.root(), app.pids[0]]));
    let newcomer = Event::Newcomer {
        tgid: bystander.root().unsigned_abs(),
    };
    assert_eq!(discovery.on_event(newcomer), []);
    assert!(discovery.container(slot).is_some());
}

/// `podman run --cgroups=disabled`, or a runtime without a cgroup manager: the first process stays in the group of the
/// session that started it, and what else the session does is nobody's business.
#[test]
fn a_group_that_was_there_before_the_container_is_not_its_own() {
    let session = Group::new();
    let processes = session.start("sleep 1001 & echo $!; sleep 1002 & echo $!;", 3);
    let (root, bystander) = (processes.pids[0], processes.pids[1]);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, "a", root).0.unwrap();
    assert_eq!(discovery.group_leader(slot), None);
    discovery.slow_pass(Instant::now());
    for tgid in [
        bystander.unsigned_abs(),
        session.start("", 1).root().unsigned_abs(),
    ] {
        assert_eq!(discovery.on_event(Event::Newcomer { tgid }), []);
    }
    let executed = Event::Exec {
        tgid: root.unsigned_abs(),
    };
    discovery.on_event(executed);
    assert_eq!(discovery.group_leader(slot), None);
    discovery.slow_pass(Instant::now());
    assert_eq!(scoped(&discovery), [root]);
}

#[test]
fn a_group_of_another_name_is_its_own_if_it_was_made_for_it() {
    let group = Group::new();
    let app = group.start("", 1);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, "a", app.root()).0.unwrap();
    assert_eq!(discovery.group_leader(slot), Some(app.root()));
    let entered = group.start("", 1);
    discovery.slow_pass(Instant::now());
    assert_eq!(scoped(&discovery), sorted([app.root(), entered.root()]));
}

/// Probes that a kubelet executes in containers come by the hundred: each costs a look at one process.
#[test]
fn an_entry_that_the_kernel_recognised_needs_no_pass_over_proc() {
    let group = Group::new();
    let app = group.start("", 1);
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, &group.id, app.root()).0.unwrap();
    let (entered, _unheard) = (group.start("", 1), group.start("", 1));
    let pid = entered.root();
    let executed = Event::Exec {
        tgid: pid.unsigned_abs(),
    };
    assert_eq!(
        discovery.on_event(executed),
        [Change::ProcessAdded { slot, pid }]
    );
}

#[test]
fn a_first_process_that_reaches_its_group_late_is_followed_there() {
    let runtime = Group::new();
    let group = Group::new();
    let processes = runtime.start("sleep 1001 & echo $!;", 2);
    let root = processes.pids[0];
    let mut discovery = discovery(Target::Announced);
    let slot = announce(&mut discovery, &group.id, root).0.unwrap();
    assert_eq!(discovery.group_leader(slot), None);
    group.take(root);
    let changes = discovery.on_event(Event::Exec {
        tgid: root.unsigned_abs(),
    });
    assert!(
        changes.contains(&Change::ContainerRenamed { slot }),
        "the kernel is told of the group: {changes:?}"
    );
    assert_eq!(discovery.group_leader(slot), Some(root));
}
