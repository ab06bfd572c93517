//! containerd's configuration, versions 2 and 3.

use super::host::{HOOK, Host, fixture, round_trip};
use serde_json::{Value, json};
use toml_edit::DocumentMut;

const CONFIG: &str = "/etc/containerd/config.toml";
const DROP_IN: &str = "/etc/containerd/conf.d/99-pilotfish.toml";
const BASE_SPEC: &str = "/etc/containerd/pilotfish-base-spec-runc.json";
const V2: &str = "io.containerd.grpc.v1.cri";
const V3: &str = "io.containerd.cri.v1.runtime";

fn host(config: &str) -> Host {
    Host::new("containerd").with(CONFIG, &fixture(config))
}

fn nvidia() -> Host {
    host("config-v3.toml").with(
        "/etc/containerd/conf.d/99-nvidia.toml",
        &fixture("99-nvidia.toml"),
    )
}

/// The settings of a handler in a file.
fn handler(host: &Host, file: &str, plugin: &str, name: &str) -> Value {
    let value: Value = toml_edit::de::from_str(&host.read(file)).unwrap();
    value["plugins"][plugin]["containerd"]["runtimes"][name].clone()
}

fn patterns(first: &[&str]) -> Value {
    let ours = [
        "pilotfish.dev/*",
        "*.pilotfish.dev/*",
        "resource.opentelemetry.io/*",
    ];
    json!([first, &ours].concat())
}

#[test]
fn round_trips() {
    for config in [
        "config-v2-kubeadm.toml",
        "config-v2-debian.toml",
        "config-v3.toml",
    ] {
        round_trip(&host(config), &[]);
    }
    round_trip(&nvidia(), &[]);
    let own_spec = fixture("default-spec.json");
    let kind = host("config-v2-kind.toml").with("/etc/containerd/cri-base.json", &own_spec);
    round_trip(&kind, &["--fail-closed"]);
    for version in ["1.7.24", "v2.1.0"] {
        round_trip(&Host::new("containerd"), &["--containerd-version", version]);
        let empty = Host::new("containerd").with(CONFIG, "");
        round_trip(&empty, &["--containerd-version", version]);
    }
}

#[test]
fn version_2_is_edited_in_place_and_keeps_every_other_line() {
    let host = host("config-v2-kubeadm.toml");
    host.install(&[]).succeeded();
    let runc = handler(&host, CONFIG, V2, "runc");
    let expected = json!({
        "runtime_type": "io.containerd.runc.v2",
        "pod_annotations": patterns(&["io.example/*"]),
        "container_annotations": patterns(&[]),
        "base_runtime_spec": BASE_SPEC,
        "options": { "SystemdCgroup": true },
    });
    assert_eq!(runc, expected);
    let text = host.read(CONFIG);
    let mut lines = text.lines();
    let original = fixture("config-v2-kubeadm.toml");
    for line in original
        .lines()
        .filter(|line| !line.contains("pod_annotations"))
    {
        assert!(lines.any(|there| there == line), "`{line}` is gone");
    }
    // A virtual machine's processes are out of sight.
    assert_eq!(
        handler(&host, CONFIG, V2, "kata")["base_runtime_spec"],
        Value::Null
    );
    assert!(!host.path(DROP_IN).exists());
}

#[test]
fn version_2_without_handlers_gets_the_one_that_it_had_by_default() {
    let host = host("config-v2-debian.toml");
    host.install(&[]).succeeded();
    let runc = handler(&host, CONFIG, V2, "runc");
    assert_eq!(runc["runtime_type"], "io.containerd.runc.v2");
    assert_eq!(runc["base_runtime_spec"], BASE_SPEC);
}

#[test]
fn version_2_is_edited_in_the_file_that_containerd_takes() {
    let extra =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/c\"\n";
    let config = format!(
        "imports = [\"extra.toml\"]\n{}",
        fixture("config-v2-debian.toml")
    );
    let host = Host::new("containerd")
        .with(CONFIG, &config)
        .with("/etc/containerd/extra.toml", extra);
    host.install(&[]).succeeded();
    assert_eq!(host.read(CONFIG), config);
    let runc = handler(&host, "/etc/containerd/extra.toml", V2, "runc");
    assert_eq!(runc["base_runtime_spec"], BASE_SPEC);
    host.uninstall().succeeded();
    assert_eq!(host.read("/etc/containerd/extra.toml"), extra);
}

#[test]
fn version_3_gets_a_drop_in() {
    let host = nvidia();
    host.install(&[]).succeeded();
    let expected = json!({
        "base_runtime_spec": BASE_SPEC,
        "pod_annotations": patterns(&[]),
        // containerd replaces lists, so the drop-in repeats what is there.
        "container_annotations": patterns(&["io.example/*"]),
    });
    assert_eq!(handler(&host, DROP_IN, V3, "runc"), expected);
    let nvidia = handler(&host, DROP_IN, V3, "nvidia");
    assert_eq!(
        nvidia["base_runtime_spec"],
        "/etc/containerd/pilotfish-base-spec-nvidia.json"
    );
    let config: DocumentMut = host.read(CONFIG).parse().unwrap();
    let imports: Vec<_> = config["imports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str())
        .collect();
    assert_eq!(imports, [Some("conf.d/99-nvidia.toml"), Some(DROP_IN)]);
    assert!(
        host.read(CONFIG)
            .contains("  # drop-ins of the GPU operator\n")
    );
    assert_eq!(
        host.read("/etc/containerd/conf.d/99-nvidia.toml"),
        fixture("99-nvidia.toml")
    );
}

#[test]
fn a_pattern_that_imports_the_drop_in_is_enough() {
    for pattern in ["/etc/containerd/conf.d/*.toml", "conf.d/*.toml"] {
        let config = format!("version = 3\nimports = ['{pattern}']\n");
        let host = Host::new("containerd").with(CONFIG, &config);
        host.install(&[]).succeeded();
        assert_eq!(host.read(CONFIG), config);
        assert!(host.path(DROP_IN).exists());
        round_trip(&Host::new("containerd").with(CONFIG, &config), &[]);
    }
}

#[test]
fn handlers_can_be_named() {
    let host = nvidia();
    host.install(&["--handler", "nvidia"]).succeeded();
    assert_eq!(handler(&host, DROP_IN, V3, "runc"), Value::Null);
    assert!(!host.path(BASE_SPEC).exists());
    host.install(&["--handler", "gvisor"])
        .failed_with(&["`gvisor`", "runc, nvidia"]);
}

#[test]
fn base_spec_is_the_default_one_with_the_hook() {
    let host = host("config-v3.toml");
    host.install(&["--socket", "/run/p.sock"]).succeeded();
    let mut spec = host.json(BASE_SPEC);
    let hooks = spec.as_object_mut().unwrap().remove("hooks").unwrap();
    let default: Value = serde_json::from_str(&fixture("default-spec.json")).unwrap();
    assert_eq!(spec, default);
    let hook = |stage| {
        json!([{
            "path": HOOK,
            "args": ["pilotfish-hook", "--stage", stage, "--socket", "/run/p.sock"],
            "timeout": 6,
        }])
    };
    let expected = json!({ "createRuntime": hook("createRuntime"), "poststop": hook("poststop") });
    assert_eq!(hooks, expected);
    serde_json::from_value::<oci_spec::runtime::Spec>(host.json(BASE_SPEC)).unwrap();
}

#[test]
fn a_base_spec_of_the_administrator_is_the_base() {
    let own =
        r#"{"ociVersion":"1.0.2","hooks":{"createRuntime":[{"path":"/other"}]},"x":{"y":1e2}}"#;
    let host = host("config-v2-kind.toml").with("/etc/containerd/cri-base.json", own);
    host.install(&[]).succeeded();
    assert_eq!(
        handler(&host, CONFIG, V2, "runc")["base_runtime_spec"],
        BASE_SPEC
    );
    assert_eq!(host.read("/etc/containerd/cri-base.json"), own);
    let spec = host.json(BASE_SPEC);
    let hooks = spec["hooks"]["createRuntime"].as_array().unwrap();
    let paths: Vec<_> = hooks.iter().map(|hook| &hook["path"]).collect();
    assert_eq!(paths, ["/other", HOOK]);
    assert!(
        host.read(BASE_SPEC).contains("1e2"),
        "a number was rewritten"
    );

    // Edits since the installation stay when it is taken back.
    let edited = host.read(CONFIG).replace("pause:3.7", "pause:3.8");
    host.write(CONFIG, &edited);
    host.uninstall().succeeded();
    let expected = fixture("config-v2-kind.toml").replace("pause:3.7", "pause:3.8");
    assert_eq!(host.read(CONFIG), expected);
    assert!(!host.path(BASE_SPEC).exists());
}

#[test]
fn what_cannot_be_understood_is_left_alone() {
    let cases = [
        ("version = 2\n[plugins\n", &["not valid TOML", "line 2"][..]),
        (
            "version = 1\n",
            &["configuration version 1", "containerd config migrate"],
        ),
        (
            "disabled_plugins = [\"cri\"]\n",
            &["configuration version 1"],
        ),
        ("version = 9\n", &["configuration version 9"]),
        (
            "version = 3\nimports = \"a\"\n",
            &["`imports` is not an array"],
        ),
        ("version = 2\nplugins = 3\n", &["`plugins` is not a table"]),
    ];
    for (text, words) in cases {
        let host = Host::new("containerd").with(CONFIG, text);
        let before = host.files();
        host.install(&[]).failed_with(words);
        host.install(&[]).failed_with(&["config.toml"]);
        assert_eq!(host.files(), before);
    }
    let host = host("config-v2-kind.toml").with("/etc/containerd/cri-base.json", "{\n nonsense");
    let before = host.files();
    host.install(&[])
        .failed_with(&["cri-base.json", "not valid JSON", "line 2"]);
    assert_eq!(host.files(), before);
}

#[test]
fn unknown_version_has_to_be_given() {
    let host = Host::new("containerd");
    host.install(&[])
        .failed_with(&["containerd --version", "--containerd-version"]);
    host.install(&["--containerd-version", "next"])
        .failed_with(&["`next`"]);
    assert!(host.files().is_empty());
}

#[test]
fn disabled_cri_is_pointed_out() {
    let config = "version = 2\ndisabled_plugins = [\"cri\"]\n";
    let host = Host::new("containerd").with(CONFIG, config);
    let said = host.install(&[]).succeeded();
    assert!(said.contains("disabled_plugins"), "{said}");
}
