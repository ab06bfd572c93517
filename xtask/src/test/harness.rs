//! Runs `cargo test`, passes its output on and counts what it says.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anstream::{eprintln, println};

use super::tally::Tally;
use crate::command;

/// Runs a test command. One that fails without naming a failed test (it did not compile, or a test killed its
/// process) counts as one failure under its own name.
pub(super) fn run(command: &mut Command) -> Tally {
    let name = command::line(command);
    match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Ok(child) => follow(child, name),
        Err(error) => {
            eprintln!("cannot start `{name}`: {error}");
            failure(name)
        }
    }
}

fn failure(name: String) -> Tally {
    Tally {
        failed: vec![name],
        ..Tally::default()
    }
}

fn follow(mut child: Child, name: String) -> Tally {
    let mut tally = Tally::default();
    for line in child
        .stdout
        .take()
        .into_iter()
        .flat_map(|output| BufReader::new(output).split(b'\n'))
        .map_while(Result::ok)
    {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        count(&mut tally, &line);
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    if !succeeded && tally.failed.is_empty() {
        tally.failed.push(name);
    }
    tally
}

/// Reads one line of a test harness: `test NAME ... ok|FAILED|ignored[, REASON]`, and
/// `test result: ok. 3 passed; 0 failed; ...`, whose count of passed tests is the one that holds (a test that prints
/// may tear its own line apart).
fn count(tally: &mut Tally, line: &str) {
    let Some(rest) = line.strip_prefix("test ") else {
        return;
    };
    if let Some(result) = rest.strip_prefix("result: ") {
        tally.passed += passed(result).unwrap_or(0);
        return;
    }
    let Some((name, outcome)) = rest.rsplit_once(" ... ") else {
        return;
    };
    // Some harnesses pad names to one width.
    let name = name.trim_end();
    if outcome == "FAILED" {
        tally.failed.push(name.to_owned());
    } else if let Some(reason) = outcome.strip_prefix("ignored") {
        tally.ignored.push(format!("{name}{reason}"));
    }
}

fn passed(result: &str) -> Option<u64> {
    let (before, _) = result.split_once(" passed;")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| count(&mut tally, line));
        tally
    }

    #[test]
    fn a_harness_report_is_counted() {
        let tally = tally_of(
            "running 4 tests\n\
             test a::b ... ok\n\
             test a::c   ... FAILED\n\
             test a::d ... ignored, needs CAP_BPF\n\
             test src/lib.rs - e (line 3) ... ok\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            tally,
            Tally {
                passed: 2,
                failed: vec!["a::c".to_owned()],
                ignored: vec!["a::d, needs CAP_BPF".to_owned()],
            }
        );
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn several_harnesses_add_up() {
        let one = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(tally_of(&one.repeat(3)).to_string(), "36 passed, 0 failed");
    }

    #[test]
    fn a_command_that_names_no_test_fails_by_its_own_name() {
        let tally = run(Command::new("sh").args(["-c", "exit 101"]));
        assert_eq!(tally.failed, ["sh -c exit 101"]);
    }

    #[test]
    fn output_that_is_not_a_report_counts_nothing() {
        assert_eq!(
            tally_of("test\ntest result:\ntest result: odd\ntesting\n"),
            Tally::default()
        );
    }
}
