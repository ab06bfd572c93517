//! What the options make of the sidecar.

use super::*;
use clap::{Parser, error::ErrorKind};
use serde_json::json;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: InjectArgs,
}

fn parse(options: &[&str]) -> Result<InjectArgs, clap::Error> {
    Line::try_parse_from([&["inject", "-f", "-"], options].concat()).map(|line| line.args)
}

/// The container that these options give.
fn container(options: &[&str]) -> Value {
    let options = parse(options).expect("options").sidecar;
    let pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: web\n";
    let text = inject(pod, &options).expect("a pod").text;
    assert_eq!(uninjected(&text), pod);
    assert_eq!(inject(&text, &options).expect("a pod").text, text);
    values(&text)[0]["spec"]["initContainers"][0].clone()
}

fn original() -> Value {
    definition()["initContainers"][0].clone()
}

#[test]
fn without_options_it_is_the_definition() {
    assert_eq!(container(&[]), original());
}

#[test]
fn the_image_is_the_one_asked_for() {
    let mut expected = original();
    expected["image"] = json!("localhost:5000/pilotfish:1");
    assert_eq!(
        container(&["--image", "localhost:5000/pilotfish:1"]),
        expected
    );
}

#[test]
fn the_port_is_that_of_the_pages() {
    let mut expected = original();
    expected["ports"][0]["containerPort"] = json!(9999);
    let environment = expected["env"].as_array_mut().expect("a list");
    environment.push(json!({"name": "PILOTFISH_LISTEN", "value": "0.0.0.0:9999"}));
    assert_eq!(container(&["--listen-port", "9999"]), expected);
}

#[test]
fn variables_come_last_and_keep_their_text() {
    let mut expected = original();
    let environment = expected["env"].as_array_mut().expect("a list");
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://$(NODE_NAME):4318"),
        ("A", "true"),
        ("B", ""),
        ("C", "---"),
        ("D", "12:30:00"),
        ("E", "a: b # \"c\""),
        ("F", "0x10"),
        ("G", "=x"),
    ] {
        environment.push(json!({"name": name, "value": value}));
    }
    let given = container(&[
        "--env",
        "A=true",
        "--env",
        "B=",
        "--env",
        "C=---",
        "--env",
        "D=12:30:00",
        "--env",
        "E=a: b # \"c\"",
        "--env",
        "F=0x10",
        "--env",
        "G==x",
        "--otlp-endpoint",
        "http://$(NODE_NAME):4318",
    ]);
    assert_eq!(given, expected);
}

#[test]
fn root_gains_no_privileges() {
    let mut expected = original();
    let context = &mut expected["securityContext"];
    context["runAsUser"] = json!(0);
    context["runAsGroup"] = json!(0);
    context["runAsNonRoot"] = json!(false);
    context["allowPrivilegeEscalation"] = json!(false);
    assert_eq!(container(&["--run-as", "root"]), expected);
}

#[test]
fn a_taken_port_can_be_avoided() {
    let pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: web\n    ports: [{containerPort: 9464}]\n";
    let options = parse(&["--listen-port", "9465"]).expect("options").sidecar;
    assert_eq!(
        outcomes(&inject(pod, &options).expect("a pod")),
        [&Outcome::Injected]
    );
}

#[test]
fn one_variable_has_one_value() {
    for options in [
        &["--env", "PILOTFISH_POD_NAME=x"][..],
        &["--env", "A=1", "--env", "A=2"],
        &["--listen-port", "1", "--env", "PILOTFISH_LISTEN=off"],
        &["--env", "PILOTFISH_INJECT_KEPT=volumes: []"],
    ] {
        let options = parse(options).expect("each option by itself").sidecar;
        let error = inject("", &options).expect_err("a contradiction");
        assert!(error.to_string().contains("given twice"), "{error}");
    }
}

#[test]
fn wrong_options_are_errors_of_usage() {
    for options in [
        &["--image", ""][..],
        &["--image", "a b"],
        &["--otlp-endpoint", "collector:4318"],
        &["--listen-port", "0"],
        &["--listen-port", "65536"],
        &["--env", "A"],
        &["--env", "1A=x"],
        &["--env", "A=one\ntwo"],
    ] {
        let error = parse(options).expect_err("wrong");
        assert_eq!(
            error.kind(),
            ErrorKind::ValueValidation,
            "{options:?}: {error}"
        );
    }
    let error = parse(&["--run-as", "nobody"]).expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    let error = parse(&["--uninject", "--image", "a"]).expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
    let error = Line::try_parse_from(["inject"]).expect_err("no file");
    assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
}
