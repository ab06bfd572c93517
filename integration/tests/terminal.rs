//! What a person sees who starts the agent on a terminal, and what the terminal is like afterwards.

use anyhow::{Context, Result, ensure};
use integration::agent::Setup;
use integration::server::{Server, kind};
use integration::terminal::Terminal;
use integration::{Scene, Trials, load, place};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::time::Duration;

/// Bound for anything that the view is to show, or the agent's end.
const LIMIT: Duration = Duration::from_secs(20);

const ROUTE: &str = "GET /items/{id}";

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("terminal");
    trials.add("live_view_counts_as_the_client", &["nginx"], live_view);
    trials.add("sigterm_gives_the_terminal_back", &["nginx"], terminated);
    trials.add(
        "ctrl_z_stops_the_whole_job_and_fg_shows_the_view_again",
        &["nginx", "bash"],
        stopped_and_continued,
    );
    trials.add("lines_on_a_terminal_without_a_cursor", &["nginx"], lines);
    trials.add("lines_in_a_file", &["nginx"], lines_in_a_file);
}

fn on_terminal(scene: &Scene, server: &Server, kind: &str) -> Result<Terminal> {
    Setup::watching(scene, &[server.pid()])?
        .env("TERM", kind)
        .env("LC_ALL", "C.UTF-8")
        .env("NO_COLOR", "")
        .on_terminal(160, 40)
}

/// The row of a route: a sight of it, and its count.
fn count_of(terminal: &Terminal, route: &str) -> Option<u64> {
    let lines = terminal.lines();
    let row = lines
        .iter()
        .find(|line| line.starts_with("<-") && line.contains(route))?;
    let (_, figures) = row.split_once(route)?;
    figures.split_whitespace().next()?.parse().ok()
}

fn ask(server: &Server, times: usize) -> Result<u64> {
    let asks = (0..times)
        .map(|number| load::Ask::Get(format!("/items/{number}")))
        .collect();
    Ok(load::run(server.port, &vec![asks])?.total())
}

fn live_view(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let mut terminal = on_terminal(scene, &server, "xterm-256color")?;
    terminal.wait_for("the view", LIMIT, |terminal| {
        let text = terminal.text();
        (terminal.shows_alternate_screen() && text.contains("no request yet")).then_some(())
    })?;
    let mut sent = ask(&server, 137)?;
    terminal.wait_for("the route with the client's count", LIMIT, |terminal| {
        (count_of(terminal, ROUTE) == Some(sent)).then_some(())
    })?;
    let trace = terminal
        .lines()
        .into_iter()
        .find(|line| line.contains(" trace "))
        .context("no trace is shown")?;
    ensure!(trace.contains("1 span"), "{trace}");

    terminal.press("?")?;
    terminal.wait_for("the help", LIMIT, |terminal| {
        terminal.text().contains("ctrl-c").then_some(())
    })?;
    terminal.press("?")?;
    terminal.resize(80, 24)?;
    terminal.wait_for("the view at another size", LIMIT, |terminal| {
        let lines = terminal.lines();
        (lines.last().is_some_and(|line| line.contains("q quit"))
            && lines.iter().any(|line| line.contains(ROUTE)))
        .then_some(())
    })?;
    terminal.resize(20, 5)?;
    terminal.wait_for("the view in a corner", LIMIT, |terminal| {
        let lines = terminal.lines();
        (lines[0].starts_with("pilotfish") && lines[2].starts_with("<- nginx")).then_some(())
    })?;
    terminal.resize(160, 40)?;
    sent += ask(&server, 63)?;
    terminal.wait_for("the count of all requests", LIMIT, |terminal| {
        (count_of(terminal, ROUTE) == Some(sent)).then_some(())
    })?;
    // The first is what the kernel says of a size, be it the same.
    let word_of_a_size = |terminal: &Terminal| terminal.signal(Signal::SIGWINCH);
    let ctrl_l = |terminal: &Terminal| terminal.press("\u{c}");
    for redraw in [word_of_a_size, ctrl_l] {
        terminal.exchange();
        redraw(&terminal)?;
        terminal.wait_for("the view on another terminal", LIMIT, |terminal| {
            let whole = terminal.text().contains("q quit") && terminal.shows_alternate_screen();
            (whole && count_of(terminal, ROUTE) == Some(sent)).then_some(())
        })?;
    }
    terminal.press("j")?;
    terminal.wait_for("the traces of the selected route", LIMIT, |terminal| {
        terminal.text().contains("TRACES of ").then_some(())
    })?;

    ensure!(
        !terminal.is_as_before()?,
        "the view has not changed the terminal: nothing is shown of its return"
    );
    terminal.press("q")?;
    ended_well(terminal)
}

fn terminated(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let mut terminal = on_terminal(scene, &server, "xterm-256color")?;
    terminal.wait_for("the view", LIMIT, |terminal| {
        terminal.text().contains("no request yet").then_some(())
    })?;
    // No shell could continue it, so it does not stop.
    terminal.press("\u{1a}")?;
    let sent = ask(&server, 7)?;
    terminal.wait_for("the client's count", LIMIT, |terminal| {
        (count_of(terminal, ROUTE) == Some(sent)).then_some(())
    })?;
    terminal.signal(Signal::SIGTERM)?;
    ended_well(terminal)
}

/// A shell with job control; when its job has stopped or ended, it says so and waits for a line before it goes on.
const SHELL: &str = "\"$@\"; echo stopped; read -r; fg >/dev/null; exit $?";

/// The job is a shell that waits for the agent, as a script is: it has to stop too, or nobody gets the terminal.
fn stopped_and_continued(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let script = "\"$@\"; exit $?";
    let words = ["bash", "-mc", SHELL, "shell", "sh", "-c", script, "script"];
    let mut terminal = Setup::watching(scene, &[server.pid()])?
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8")
        .wrapped(words.map(OsString::from).into(), &place::agent_binary()?)
        .on_terminal(160, 40)?;
    terminal.wait_for("the view", LIMIT, |terminal| {
        terminal.text().contains("no request yet").then_some(())
    })?;
    let mut sent = ask(&server, 11)?;
    terminal.wait_for("the client's count", LIMIT, |terminal| {
        (count_of(terminal, ROUTE) == Some(sent)).then_some(())
    })?;

    terminal.press("\u{1a}")?;
    terminal.wait_for("the shell", LIMIT, |terminal| {
        terminal.text().contains("stopped").then_some(())
    })?;
    ensure!(
        terminal.is_as_before()?,
        "the stopped agent has kept the terminal:\n{}",
        terminal.text()
    );
    // The kernel's programs go on, and the ring has room for these.
    sent += ask(&server, 5)?;
    terminal.press("\n")?;
    terminal.wait_for("the view once more", LIMIT, |terminal| {
        (terminal.shows_alternate_screen() && count_of(terminal, ROUTE) == Some(sent)).then_some(())
    })?;
    terminal.press("q")?;
    ended_well(terminal)
}

fn ended_well(mut terminal: Terminal) -> Result<()> {
    let status = terminal.wait(LIMIT)?;
    ensure!(
        status.code() == Some(0),
        "the agent ended with {status}:\n{}",
        terminal.text()
    );
    ensure!(
        terminal.is_as_before()?,
        "the terminal is not as it was:\n{}",
        terminal.text()
    );
    Ok(())
}

fn lines(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let mut terminal = on_terminal(scene, &server, "dumb")?;
    let sent = ask(&server, 9)?;
    terminal.wait_for("a line for each request", LIMIT, |terminal| {
        let lines = terminal.lines();
        let shown = lines
            .iter()
            .filter(|line| line.contains("<- GET /items/{id}"))
            .count() as u64;
        (shown == sent && !terminal.shows_alternate_screen()).then_some(())
    })?;
    terminal.press("\u{3}")?;
    ended_well(terminal)
}

/// `--print live` where there is no terminal: lines, and a word about it.
fn lines_in_a_file(scene: &Scene) -> Result<()> {
    let server = kind("nginx")?.start(scene)?;
    let mut agent = Setup::watching(scene, &[server.pid()])?
        .showing("live")
        .start()?;
    let sent = ask(&server, 9)?;
    agent.settle()?;
    agent.process().stop(Signal::SIGTERM, LIMIT)?;
    let log = agent.process().log();
    let lines = log
        .lines()
        .filter(|line| line.contains("<- GET /items/{id}"))
        .count() as u64;
    ensure!(lines == sent, "{lines} lines for {sent} requests:\n{log}");
    ensure!(
        log.contains("no live view; spans are printed as text"),
        "{log}"
    );
    ensure!(
        !log.contains("\u{1b}[?1049h"),
        "the file has a terminal's commands in it"
    );
    Ok(())
}
