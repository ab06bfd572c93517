use super::*;
use crate::cli::{Command as Subcommand, Listen, NodeArgs, SidecarArgs};
use std::collections::BTreeSet;

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn parse_with(text: &str, line: &[&str]) -> Result<Cli, ParseError> {
    let file = file(text);
    let mut arguments: Vec<OsString> = vec!["pilotfish".into()];
    arguments.extend(line.iter().map(OsString::from));
    parse(&arguments, file.path())
}

fn node(text: &str, line: &[&str]) -> NodeArgs {
    let line = [&["node"], line].concat();
    match parse_with(text, &line).unwrap().command {
        Subcommand::Node(args) => args,
        other => panic!("{other:?}"),
    }
}

fn sidecar(text: &str, line: &[&str]) -> SidecarArgs {
    let line = [&["sidecar"], line].concat();
    match parse_with(text, &line).unwrap().command {
        Subcommand::Sidecar(args) => args,
        other => panic!("{other:?}"),
    }
}

fn refused(text: &str) -> String {
    parse_with(text, &["node"]).unwrap_err().to_string()
}

#[test]
fn the_file_gives_defaults_of_every_kind() {
    let text = "\
# a comment
socket: /run/elsewhere/hook.sock
exit-when-idle: 30
adopt: false
capture-bytes: 2048
route:
  - /users/{id}
  - /orders/{id}
protocols: [http1]
sampler: parentbased_traceidratio
sampler-arg: 0.25
print: json
listen: off
";
    let args = node(text, &[]);
    assert_eq!(args.socket, Path::new("/run/elsewhere/hook.sock"));
    assert_eq!(args.exit_when_idle, Some(30));
    assert!(!args.adopt);
    assert_eq!(args.agent.kernel.capture_bytes, 2048);
    assert_eq!(args.agent.pipeline.routes, ["/users/{id}", "/orders/{id}"]);
    assert_eq!(args.agent.pipeline.protocols, ["http1"]);
    assert_eq!(args.agent.pipeline.sampler_arg.as_deref(), Some("0.25"));
    assert_eq!(args.agent.output.print, Some(crate::cli::Print::Json));
    assert_eq!(args.listen, Listen::Off);
}

#[test]
fn the_file_wins_over_the_address_that_pages_have_by_default() {
    let listen = |line: &[&str]| sidecar("listen: 0.0.0.0:9000\n", line).listen();
    let from_file = Listen::On("0.0.0.0:9000".parse().unwrap());
    assert_eq!(listen(&["--pid", "5"]), from_file);
    assert_eq!(listen(&["--pid", "5", "--listen", "off"]), Listen::Off);
}

#[test]
fn a_flag_wins_over_the_file() {
    let text = "capture-bytes: 2048\nring-bytes: 4194304\nroute: [/a, /b]\n";
    let args = node(text, &["--capture-bytes", "512", "--route", "/c"]);
    assert_eq!(args.agent.kernel.capture_bytes, 512);
    assert_eq!(args.agent.kernel.ring_bytes, 4_194_304);
    assert_eq!(args.agent.pipeline.routes, ["/c"]);
}

/// `PATH` stands for the flag's own variable: a test must not change the environment that its threads share.
#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let with = |arguments: &[&str]| {
        let command = Cli::command().mut_subcommand("node", |node| {
            node.mut_arg("service_name", |argument| argument.env("PATH"))
        });
        let text = "service-name: from-file\nsampler: always_off\n";
        let command = apply(command, "node", Path::new("f"), text).unwrap();
        let line = [&["pilotfish", "node"], arguments].concat();
        let cli = Cli::from_arg_matches(&command.try_get_matches_from(line).unwrap()).unwrap();
        match cli.command {
            Subcommand::Node(args) => (
                args.agent.pipeline.service_name,
                args.agent.pipeline.sampler,
            ),
            other => panic!("{other:?}"),
        }
    };
    let sampler = Some("always_off".to_owned());
    let variable = std::env::var("PATH").unwrap();
    assert_eq!(with(&[]), (Some(variable), sampler.clone()));
    let flag = Some("from-flag".to_owned());
    assert_eq!(with(&["--service-name=from-flag"]), (flag, sampler));
}

#[test]
fn one_file_serves_both_subcommands() {
    let text = "socket: /run/x/y.sock\ncapture-bytes: 128\n";
    assert_eq!(sidecar(text, &[]).agent.kernel.capture_bytes, 128);
    assert_eq!(node(text, &[]).agent.kernel.capture_bytes, 128);
}

#[test]
fn other_subcommands_do_not_read_it() {
    assert!(parse_with("nonsense: 1\n", &["check"]).is_ok());
    assert!(parse_with("nonsense: 1\n", &["run", "--", "true"]).is_ok());
}

#[test]
fn an_empty_file_and_an_absent_default_say_nothing() {
    for text in ["", "# nothing\n", "---\n", "route:\nprotocols: []\n"] {
        let args = node(text, &[]);
        assert_eq!(
            args.agent.kernel.capture_bytes,
            pilotfish_abi::DEFAULT_CAPTURE,
            "{text:?}"
        );
        assert!(args.agent.pipeline.routes.is_empty(), "{text:?}");
    }
    let arguments = ["pilotfish", "node"].map(OsString::from);
    assert!(parse(&arguments, Path::new("/nonexistent/config.yaml")).is_ok());
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let error = parse_with("", &["node", "--config", "/nonexistent/c.yaml"]).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/c.yaml"), "{error}");
    let named = file("capture-bytes: 100\n");
    let path = named.path().to_str().unwrap();
    assert_eq!(
        node("capture-bytes: 200\n", &["--config", path])
            .agent
            .kernel
            .capture_bytes,
        100
    );
}

#[test]
fn unknown_keys_name_line_and_neighbour() {
    let error = refused("socket: /a/b\n\ncapture-byte: 5\n");
    assert!(error.contains("line 3"), "{error}");
    assert!(
        error.contains("`capture-byte`; did you mean `capture-bytes`?"),
        "{error}"
    );
    let error = refused("zzzzzzzzzzzzzzzzzz: 5\n");
    assert!(!error.contains("did you mean"), "{error}");
    for key in ["config", "help"] {
        assert!(
            refused(&format!("{key}: x\n")).contains("no setting"),
            "{key}"
        );
    }
}

#[test]
fn bad_values_name_file_key_and_reason() {
    let error = refused("capture-bytes: 5\n");
    assert!(error.contains("line 1: `capture-bytes`"), "{error}");
    assert!(error.contains("64..=16384"), "{error}");
    let error = refused("print: html\n");
    assert!(error.contains("html") && error.contains("json"), "{error}");
    assert!(refused("capture-bytes: [100, 200]\n").contains("`capture-bytes`"));
    assert!(refused("capture-bytes: true\n").contains("`capture-bytes`"));
    assert!(refused("listen: 9464\n").contains("ADDRESS:PORT"));
}

#[test]
fn what_is_no_mapping_of_settings_is_refused() {
    for text in [
        "- a\n",
        "just text\n",
        "a: {b: c}\n",
        "a: [[b]]\n",
        "a: 1\na: 2\n",
        "a: [1\n",
    ] {
        let error = parse_with(text, &["node"]).unwrap_err();
        assert!(
            matches!(
                error,
                ParseError::Configuration(ConfigurationError::Syntax { .. })
            ),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn only_bounded_regular_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(read(&fifo), Err(ConfigurationError::Kind(_))));
    assert!(matches!(
        read(directory.path()),
        Err(ConfigurationError::Kind(_))
    ));
    let long = file(&" ".repeat(MAX_FILE as usize + 1));
    assert!(matches!(
        read(long.path()),
        Err(ConfigurationError::TooLong(_))
    ));
}

#[test]
fn a_request_for_help_is_no_error_of_the_file() {
    let error = parse_with("nonsense: 1\n", &["node", "--help"]).unwrap_err();
    assert!(matches!(
        error,
        ParseError::CommandLine(_) | ParseError::Configuration(_)
    ));
}

/// Helm tells of a wrong key before anything is installed; the agent would only when its pod starts.
#[test]
fn the_charts_schema_has_the_settings_of_the_node_agent() {
    let schema = include_str!("../../../manifests/helm/pilotfish/values.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let config = &schema["properties"]["node"]["properties"]["config"];
    assert_eq!(config["additionalProperties"], false, "{config}");
    let described = config["properties"].as_object().expect("its keys");
    let command = Cli::command();
    let node = command.find_subcommand("node").unwrap();
    let flags = node.get_arguments().filter_map(Arg::get_long);
    let settings: BTreeSet<&str> = flags.filter(|flag| setting(node, flag).is_some()).collect();
    let described: BTreeSet<&str> = described.keys().map(String::as_str).collect();
    assert_eq!(described, settings);
}
