//! Manifests that come back from an API server: keys sorted, defaults added, other notation.

use super::*;
use serde_json::json;

/// Adds what the API server adds to every container, and to our own volume.
fn with_defaults(spec: &mut Value) {
    for key in ["containers", "initContainers"] {
        for container in spec[key].as_array_mut().into_iter().flatten() {
            container["terminationMessagePath"] = json!("/dev/termination-log");
            container["terminationMessagePolicy"] = json!("File");
            container["imagePullPolicy"] = json!("IfNotPresent");
        }
    }
    let ours = &mut spec["initContainers"][0];
    for variable in ours["env"].as_array_mut().expect("variables") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            field["apiVersion"] = json!("v1");
        }
    }
    let probe = &mut ours["startupProbe"];
    probe["successThreshold"] = json!(1);
    probe["timeoutSeconds"] = json!(1);
    probe["httpGet"]["scheme"] = json!("HTTP");
    if spec["hostNetwork"] == true {
        spec["initContainers"][0]["ports"][0]["hostPort"] = json!(9464);
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if let Some(source) = volume.get_mut("downwardAPI") {
            source["defaultMode"] = json!(420);
            for item in source["items"].as_array_mut().expect("items") {
                item["fieldRef"]["apiVersion"] = json!("v1");
            }
        }
    }
}

/// The document as `kubectl get -o json` would print it.
fn returned(text: &str) -> Option<String> {
    let mut list = json!({"apiVersion": "v1", "kind": "List", "items": values(text)});
    let pods = pod_specs(&mut list);
    for spec in pods {
        spec.get("initContainers")?;
        with_defaults(spec);
    }
    serde_json::to_string_pretty(&list).ok()
}

/// Without what means the same as nothing.
fn without_nothings(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| !field.is_null() && *field != json!([]));
        fields.values_mut().for_each(without_nothings);
    }
    if let Value::Array(items) = value {
        items.iter_mut().for_each(without_nothings);
    }
}

/// Shapes of which every pod gets the sidecar, come back.
fn come_back() -> Vec<(Shape, String)> {
    let shapes = shapes().into_iter();
    shapes
        .filter_map(|shape| Some((returned(&injected(&shape.text).text)?, shape)))
        .map(|(text, shape)| (shape, text))
        .collect()
}

#[test]
fn defaults_are_no_difference() {
    let all = come_back();
    assert!(all.len() >= 20);
    for (shape, text) in all {
        let filtered = injected(&text);
        assert_eq!(
            filtered.text, text,
            "{}: {:?}",
            shape.name, filtered.objects
        );
        assert!(
            outcomes(&filtered).contains(&&Outcome::Unchanged),
            "{}",
            shape.name
        );
    }
}

#[test]
fn another_value_is_a_difference() {
    for (path, value) in [
        ("/image", json!("mine")),
        ("/imagePullPolicy", json!("Never")),
        ("/env/0/value", json!("x")),
        ("/lifecycle", json!({})),
        ("/securityContext/privileged", json!(true)),
    ] {
        let pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: web\n";
        let text = returned(&injected(pod).text).expect("a pod");
        let mut list = values(&text).remove(0);
        let (parent, key) = path.rsplit_once('/').expect("a path");
        let container = &mut pod_specs(&mut list)[0]["initContainers"][0];
        container.pointer_mut(parent).expect("an object")[key] = value;
        let text = serde_json::to_string_pretty(&list).expect("JSON");
        assert_eq!(outcomes(&injected(&text)), [&Outcome::Updated], "{path}");
    }
}

#[test]
fn what_was_added_is_taken_out_in_meaning() {
    for (shape, text) in come_back() {
        let mut before = json!({"apiVersion": "v1", "kind": "List", "items": values(&shape.text)});
        for spec in pod_specs(&mut before) {
            for key in ["containers", "initContainers"] {
                for container in spec[key].as_array_mut().into_iter().flatten() {
                    container["terminationMessagePath"] = json!("/dev/termination-log");
                    container["terminationMessagePolicy"] = json!("File");
                    container["imagePullPolicy"] = json!("IfNotPresent");
                }
            }
        }
        let mut after = values(&uninjected(&text)).remove(0);
        without_nothings(&mut before);
        without_nothings(&mut after);
        // Of a volume that the pod had already, only the defaults differ.
        assert_eq!(before, after, "{}", shape.name);
    }
}
