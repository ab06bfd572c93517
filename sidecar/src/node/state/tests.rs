use super::*;
use pilotfish_workload::Identity;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

fn announcement(id: &str) -> Announcement {
    Announcement {
        id: id.to_owned(),
        pid: 1,
        identity: Identity::default(),
        annotations: [("pilotfish.dev/instrument".to_owned(), "true".to_owned())].into(),
        labels: [].into(),
        warnings: Vec::new(),
        program: None,
    }
}

struct Scene {
    held: tempfile::TempDir,
    activity: Activity,
    stats: Arc<NodeStats>,
}

impl Scene {
    fn new() -> Self {
        Self {
            held: tempfile::tempdir().unwrap(),
            activity: Activity::default(),
            stats: Arc::default(),
        }
    }

    /// As an agent that has just started.
    fn open(&self) -> StateDirectory {
        let path = self.held.path().join("containers");
        StateDirectory::open(&path, self.activity.clone(), Arc::clone(&self.stats)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.held.path().join("containers").join(name)
    }

    fn files(&self) -> BTreeSet<String> {
        fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// Process 10 started at 100, 20 at 200, and so on.
fn alive(pid: i32) -> Option<u64> {
    u64::try_from(pid * 10).ok()
}

fn ids(remembered: &[Remembered]) -> Vec<&str> {
    let mut ids: Vec<_> = remembered
        .iter()
        .map(|entry| entry.announcement.id.as_str())
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_restart_finds_what_still_runs() {
    let scene = Scene::new();
    let mut state = scene.open();
    state.attached(&announcement("a"), 10, 100);
    state.attached(&announcement("b"), 20, 200);
    state.attached(&announcement("c"), 30, 300);
    state.removed("b");
    assert!(state.knows("a") && !state.knows("b"));

    let found = scene.open().remembered(alive).unwrap();
    assert_eq!(ids(&found), ["a", "c"]);
    assert_eq!(
        found
            .iter()
            .find(|entry| entry.pid == 10)
            .unwrap()
            .announcement,
        announcement("a")
    );
    assert_eq!(
        found.iter().find(|entry| entry.pid == 10).unwrap().start,
        100
    );
    for name in scene.files() {
        assert_eq!(
            fs::metadata(scene.path(&name)).unwrap().mode() & 0o7777,
            0o600
        );
    }
    assert_eq!(fs::metadata(scene.path("")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn an_ended_process_a_recycled_number_and_another_boot_are_forgotten() {
    let scene = Scene::new();
    let mut state = scene.open();
    state.attached(&announcement("recycled"), 10, 99);
    state.attached(&announcement("ended"), -1, 5);
    state.attached(&announcement("other-boot"), 20, 200);
    let path = scene.path("other-boot.json");
    let mut entry: Remembered = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    entry.boot = "another".to_owned();
    fs::write(&path, serde_json::to_vec(&entry).unwrap()).unwrap();
    assert!(
        scene
            .open()
            .remembered(|pid| alive(pid).filter(|_| pid > 0))
            .unwrap()
            .is_empty()
    );
    assert!(scene.files().is_empty());
}

#[test]
fn corrupt_files_are_removed_and_foreign_ones_stay() {
    let scene = Scene::new();
    let mut state = scene.open();
    state.attached(&announcement("good"), 10, 100);
    fs::write(scene.path("empty.json"), "").unwrap();
    fs::write(scene.path("broken.json"), "{\"announcement\":").unwrap();
    fs::copy(scene.path("good.json"), scene.path("renamed.json")).unwrap();
    fs::write(scene.path("half.tmp"), "{").unwrap();
    fs::write(scene.path("long.json"), vec![b' '; MAX_FILE + 1]).unwrap();
    fs::write(scene.path("README"), "mine").unwrap();
    fs::write(scene.path(".hidden.json"), "mine").unwrap();
    fs::create_dir(scene.path("directory.json")).unwrap();
    let secret = scene.held.path().join("secret");
    fs::write(&secret, "mine").unwrap();
    std::os::unix::fs::symlink(&secret, scene.path("link.json")).unwrap();
    assert_eq!(ids(&scene.open().remembered(alive).unwrap()), ["good"]);
    let kept = [
        "good.json",
        "README",
        ".hidden.json",
        "directory.json",
        "link.json",
    ];
    assert_eq!(scene.files(), kept.map(str::to_owned).into());
    assert_eq!(fs::read(&secret).unwrap(), b"mine");
}

#[test]
fn a_container_announced_again_is_one_file_with_the_last_word() {
    let scene = Scene::new();
    let mut state = scene.open();
    state.attached(&announcement("a"), 10, 100);
    let mut later = announcement("a");
    later.labels.insert("app".to_owned(), "shop".to_owned());
    state.attached(&later, 10, 100);
    assert_eq!(scene.files(), ["a.json".to_owned()].into());
    assert_eq!(
        scene.open().remembered(alive).unwrap()[0].announcement,
        later
    );
}

#[test]
fn the_agent_is_idle_when_the_last_container_is_gone() {
    let scene = Scene::new();
    let mut state = scene.open();
    assert!(scene.activity.is_idle());
    state.attached(&announcement("a"), 10, 100);
    state.attached(&announcement("a"), 10, 100);
    assert!(!scene.activity.is_idle());
    state.removed("unknown");
    assert!(!scene.activity.is_idle());
    state.removed("a");
    state.removed("a");
    assert!(scene.activity.is_idle());
}

#[test]
fn an_id_never_leads_out_of_the_directory() {
    let scene = Scene::new();
    let outside = scene.held.path().join("x.json");
    fs::write(&outside, "mine").unwrap();
    scene.open().removed("../x");
    assert!(outside.exists());
}

#[test]
fn a_directory_that_is_gone_is_counted_and_no_end() {
    let scene = Scene::new();
    let mut state = scene.open();
    fs::remove_dir(scene.path("")).unwrap();
    state.attached(&announcement("a"), 10, 100);
    assert_eq!(scene.stats.state_failures.load(Ordering::Relaxed), 1);
    assert!(state.knows("a"));
    state.removed("a");
    assert!(scene.activity.is_idle());
}

#[test]
fn a_thousand_containers_leave_nothing() {
    let scene = Scene::new();
    let mut state = scene.open();
    for number in 0..1000 {
        state.attached(&announcement(&format!("c{number}")), 10, 100);
    }
    assert_eq!(scene.files().len(), 1000);
    assert_eq!(scene.open().remembered(alive).unwrap().len(), 1000);
    for number in 0..1000 {
        state.removed(&format!("c{number}"));
    }
    assert!(scene.files().is_empty());
    assert!(scene.activity.is_idle());
}
