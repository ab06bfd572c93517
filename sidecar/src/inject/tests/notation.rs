//! Where the sidecar is put, and in which notation.

use super::*;

/// The lines of the result in front of which, and after which, the lines of the sidecar were left out.
fn outline(text: &str) -> String {
    let result = injected(text).text;
    assert_eq!(uninjected(&result), text);
    let mut within = None;
    let mut outline = String::new();
    for line in result.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if within.is_some_and(|column| indent > column) {
            continue;
        }
        within = None;
        outline.push_str(line);
        if line.trim_start().starts_with("- name: pilotfish") {
            within = Some(indent);
        }
    }
    outline
}

#[test]
fn new_keys_stand_in_front_of_the_first_one_and_its_comments() {
    let text = "kind: Pod\napiVersion: v1\nspec: # of one container\n\n  # the container\n  containers:\n  - name: a\n# end\n";
    assert_eq!(
        outline(text),
        "kind: Pod\napiVersion: v1\nspec: # of one container\n  shareProcessNamespace: true\n  initContainers:\n  - name: pilotfish\n  volumes:\n  - name: pilotfish-podinfo\n\n  # the container\n  containers:\n  - name: a\n# end\n"
    );
}

#[test]
fn the_sidecar_is_the_first_of_the_init_containers() {
    let text = "kind: Pod\napiVersion: v1\nspec:\n    initContainers:\n        # waits\n        - name: wait\n    containers:\n        - name: a\n    volumes:\n        # big\n        - name: b\n          emptyDir:\n";
    assert_eq!(
        outline(text),
        "kind: Pod\napiVersion: v1\nspec:\n    shareProcessNamespace: true\n    initContainers:\n        - name: pilotfish\n        # waits\n        - name: wait\n    containers:\n        - name: a\n    volumes:\n        - name: pilotfish-podinfo\n        # big\n        - name: b\n          emptyDir:\n"
    );
}

#[test]
fn empty_values_give_way_and_their_comments_stay() {
    let text = "kind: Pod\napiVersion: v1\nspec:\n  shareProcessNamespace: # not yet\n  containers:\n    - name: a\n  volumes: [] # none\n  initContainers: ~";
    assert_eq!(
        outline(text),
        "kind: Pod\napiVersion: v1\nspec:\n  shareProcessNamespace: true # not yet\n  containers:\n    - name: a\n  volumes: # none\n    - name: pilotfish-podinfo\n  initContainers:\n    - name: pilotfish\n"
    );
}

#[test]
fn line_breaks_are_those_of_the_file() {
    let text = "kind: Pod\r\napiVersion: v1\r\nspec:\r\n  containers:\r\n  - name: a\r\n";
    let result = injected(text).text;
    assert_eq!(result.matches('\n').count(), result.matches("\r\n").count());
    assert_eq!(uninjected(&result), text);
}

#[test]
fn json_stays_json_in_its_own_layout() {
    for shape in shapes() {
        let json = |text: &str| {
            let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
            values.collect::<Result<Vec<_>, _>>().ok()
        };
        if json(&shape.text).is_some() {
            assert!(
                json(&injected(&shape.text).text).is_some(),
                "{}",
                shape.name
            );
        }
    }
    let minified = r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a"}]}}"#;
    let result = injected(minified).text;
    let compact = serde_json::to_string(&values(&result)[0]).expect("JSON");
    assert_eq!(result.len(), compact.len());
    assert!(!result.contains(": ") && !result.contains('\n'));
    let pretty = serde_json::to_string_pretty(&values(minified)[0]).expect("JSON");
    let result = injected(&pretty).text;
    let expected = serde_json::to_string_pretty(&values(&result)[0]).expect("JSON");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.trim_end_matches(',').to_owned())
            .collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&result), sorted(&expected));
}

#[test]
fn the_record_is_only_there_where_it_is_needed() {
    let pod = |lines: &str| {
        format!("kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - name: a\n{lines}")
    };
    let recorded = |lines: &str| injected(&pod(lines)).text.contains(definition::RECORD);
    assert!(!recorded(""));
    assert!(!recorded("  volumes:\n  - name: b\n"));
    assert!(recorded("  volumes: []\n"));
    assert!(recorded("  shareProcessNamespace: true\n"));
}

#[test]
fn a_pod_s_own_choice_to_share_processes_outlives_the_sidecar() {
    let text = "kind: Pod\napiVersion: v1\nspec:\n  shareProcessNamespace: yes\n  containers:\n  - name: a\n";
    let result = injected(text).text;
    assert!(result.contains("shareProcessNamespace: yes\n"), "{result}");
    assert_eq!(uninjected(&result), text);
}

#[test]
fn a_spoilt_record_is_refused() {
    let text = "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - name: a\n  volumes: []\n";
    let result = injected(text).text;
    let record = r#"value: "volumes: []""#;
    assert!(result.contains(record), "{result}");
    for spoilt in [
        r#"value: "volumes: [b]""#,
        r#"value: "volumes: {}""#,
        r#"value: "volumes: none""#,
        r#"value: "volumes: [], hostPID: true""#,
        r#"value: "volumes: [""#,
    ] {
        let spoilt = result.replace(record, spoilt);
        let filtered = uninject(&spoilt).expect("a pod");
        assert_eq!(outcomes(&filtered), [&Outcome::Refused(Refusal::Record)]);
        assert_eq!(filtered.text, spoilt);
    }
}

#[test]
fn words_are_told_from_numbers_as_both_versions_of_yaml_have_it() {
    for text in [
        "pilotfish:0.1.0",
        "10m",
        "0.0.0.0:9464",
        "1.2.3",
        "/readyz",
        "nan",
        "12e",
    ] {
        assert!(tree::is_text(text), "{text}");
    }
    for text in [
        "",
        "~",
        "null",
        "True",
        "off",
        "12",
        "-1.5",
        "1e3",
        "0x1f",
        "0o17",
        "12:30:00",
        "1_000",
        "2024-01-01",
        ".inf",
        "<<",
    ] {
        assert!(!tree::is_text(text), "{text}");
    }
}
