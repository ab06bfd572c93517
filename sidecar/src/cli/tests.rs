use super::*;
use clap::{CommandFactory, error::ErrorKind};
use pilotfish_pipeline::Sampler;

fn sidecar(line: &[&str]) -> Result<SidecarArgs, clap::Error> {
    let cli = Cli::try_parse_from([&["pilotfish", "sidecar"], line].concat())?;
    match cli.command {
        Command::Sidecar(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn ratios_lie_between_0_and_1() {
    assert_eq!(parse_ratio("0.25"), Ok(0.25));
    for text in ["1.5", "-0.1", "NaN", "half", ""] {
        assert!(parse_ratio(text).is_err(), "{text}");
    }
}

#[test]
fn wrong_samplers_and_protocols_are_errors_of_usage() {
    for (flag, value, advice) in [
        ("--sampler", "jaeger_remote", "parentbased_traceidratio"),
        ("--sampler-arg", "1.5", "0 to 1"),
        ("--protocols", "http1,gopher", "choose from http2, http1"),
    ] {
        let error = sidecar(&[flag, value]).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::ValueValidation | ErrorKind::InvalidValue
            ),
            "{error}"
        );
        assert!(error.to_string().contains(advice), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    let line = ["--sampler-arg", "0.25", "--protocols", "http1"];
    let pipeline = sidecar(&line).unwrap().agent.pipeline;
    assert_eq!(pipeline.sampler_arg.as_deref(), Some("0.25"));
    assert_eq!(pipeline.protocols, ["http1"]);
}

#[test]
fn executables_are_left_out_by_their_file_names() {
    let names = |line: &[&str]| sidecar(line).map(|args| args.agent.kernel.tls_exclude);
    assert_eq!(names(&[]).unwrap(), [""; 0]);
    let given = names(&["--tls-exclude", "fibres,server"]).unwrap();
    assert_eq!(given, ["fibres", "server"]);
    let error = names(&["--tls-exclude", "/usr/bin/server"]).unwrap_err();
    assert!(error.to_string().contains("without directories"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn every_sampler_offered_is_one() {
    for name in SAMPLERS {
        let args = sidecar(&["--sampler", name]).unwrap();
        let sampler = Sampler::from_env_values(args.agent.pipeline.sampler.as_deref(), None);
        assert!(sampler.is_ok(), "{name}");
    }
}

#[test]
fn pages_of_named_processes_stay_on_the_host_unless_told_otherwise() {
    for (line, expected) in [
        (&[][..], "0.0.0.0:9464"),
        (&["--pid", "5"], "127.0.0.1:9464"),
        (&["--pid", "5", "--listen", "0.0.0.0:1"], "0.0.0.0:1"),
    ] {
        let expected = Listen::On(expected.parse().unwrap());
        assert_eq!(sidecar(line).unwrap().listen(), expected);
    }
    let off = sidecar(&["--pid", "5", "--listen", "off"]).unwrap();
    assert_eq!(off.listen(), Listen::Off);
}

#[test]
fn a_recorder_takes_its_processes_from_where_a_sidecar_does() {
    let command = Cli::command();
    let variable = |name: &str| {
        let pids = command
            .find_subcommand(name)?
            .get_arguments()
            .find(|argument| argument.get_long() == Some("pid"))?;
        pids.get_env().map(std::ffi::OsStr::to_owned)
    };
    assert_eq!(variable("record"), Some("PILOTFISH_PID".into()));
    assert_eq!(variable("record"), variable("sidecar"));
}

#[test]
fn listen_accepts_addresses_and_off() {
    assert_eq!(parse_listen("off"), Ok(Listen::Off));
    assert_eq!(
        parse_listen("[::1]:9464"),
        Ok(Listen::On("[::1]:9464".parse().expect("address")))
    );
    assert!(parse_listen("9464").is_err());
}
