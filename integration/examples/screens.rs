//! Takes the screens of the live view for its documentation: the demo's nginx and Python services in a network of their
//! own, a client, and `pilotfish sidecar` on a pseudo-terminal of two widths. `cargo xtask screens` calls it.
#![allow(clippy::print_stdout, reason = "it tells what it writes")]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use integration::agent::Setup;
use integration::process::wait_for;
use integration::terminal::Terminal;
use integration::{Process, Scene, load, place};
use nix::sched::{CloneFlags, unshare};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Columns and rows of the screens.
const SCREENS: [(u16, u16); 2] = [(80, 24), (160, 40)];

/// Traffic before the first screen: the last minute is to be full.
const TRAFFIC: Duration = Duration::from_secs(62);

/// Bound for each start, and for a screen.
const LIMIT: Duration = Duration::from_secs(30);

/// Ports of the demo's configuration.
const NGINX: u16 = 8080;
const SHOP: u16 = 8000;
const STOCK: u16 = 8001;

/// Writes the screens between the markers of a document.
#[derive(Parser)]
struct Options {
    /// A document with a pair of markers for each screen, `<!-- screen 80x24 -->` and `<!-- end of screen -->`
    document: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let path = options.document.display().to_string();
    let mut text = std::fs::read_to_string(&options.document)
        .with_context(|| format!("cannot read {path}"))?;
    for (columns, rows) in SCREENS {
        // A document without the markers is refused before a minute of traffic.
        replaced(&text, columns, rows, "")?;
    }
    for (size, screen) in SCREENS.into_iter().zip(take_screens()?) {
        text = replaced(&text, size.0, size.1, &screen)?;
    }
    std::fs::write(&options.document, text).with_context(|| format!("cannot write {path}"))?;
    println!("{path}: {} screens", SCREENS.len());
    Ok(())
}

/// The document with this screen between its markers.
fn replaced(text: &str, columns: u16, rows: u16, screen: &str) -> Result<String> {
    let begin = format!("<!-- screen {columns}x{rows} -->\n");
    let missing = || format!("the document has no pair of markers `{}`", begin.trim());
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest
        .split_once("<!-- end of screen -->")
        .with_context(missing)?;
    Ok(format!(
        "{before}{begin}```text\n{screen}\n```\n<!-- end of screen -->{after}"
    ))
}

fn take_screens() -> Result<Vec<String>> {
    own_network()?;
    let scene = Scene::new()?;
    let services = start_services(&scene)?;
    let pids: Vec<u32> = services.iter().map(Process::pid).collect();
    let (columns, rows) = SCREENS[0];
    let mut terminal = Setup::watching(&scene, &pids)?
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8")
        .on_terminal(columns, rows)?;
    under_load(&mut terminal)?;
    alone()?;
    let screens = SCREENS.map(|size| take(&mut terminal, size));
    terminal.press("q")?;
    let status = terminal.wait(LIMIT)?;
    ensure!(status.success(), "pilotfish ended with {status}");
    screens.into_iter().collect()
}

/// Looks at the terminal while clients are at work.
fn under_load(terminal: &mut Terminal) -> Result<()> {
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let running = &running;
                scope.spawn(move || send(client, running))
            })
            .collect();
        let end = Instant::now() + TRAFFIC;
        let watched = terminal.wait_for("the end of the traffic", TRAFFIC + LIMIT, |_| {
            (Instant::now() >= end).then_some(())
        });
        running.store(false, Ordering::Relaxed);
        for client in clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        watched
    })
}

/// One request after the other: the newest traces, which the screens show, are the same in each run.
fn alone() -> Result<()> {
    let agent = load::client();
    for path in [
        "health",
        "users/41",
        "orders/16",
        "reports/7",
        "users/42",
        "orders/17",
    ] {
        let url = format!("http://127.0.0.1:{NGINX}/{path}");
        agent.get(url).call().map(drop)?;
    }
    Ok(())
}

/// Ports of the demo may be taken on this machine; in a network namespace they are not.
fn own_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of one's own needs root")?;
    let status = place::command("ip")?
        .args(["link", "set", "lo", "up"])
        .status()?;
    ensure!(status.success(), "`ip link set lo up`: {status}");
    Ok(())
}

fn start_services(scene: &Scene) -> Result<[Process; 3]> {
    let demo = place::workspace().join("images/demo");
    let service = |name: &str, port: u16| {
        // Debian's own, which knows Debian's Flask.
        let mut command = Command::new("/usr/bin/gunicorn");
        command
            .args(["--workers", "1", "--bind", &format!("127.0.0.1:{port}")])
            .arg("--chdir")
            .arg(&demo)
            .arg(format!("{name}:app"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Process::start(name, command, scene.folder())
    };
    let stock = service("stock", STOCK)?;
    let shop = service("shop", SHOP)?;
    for port in [STOCK, SHOP] {
        wait_for("a Python service", LIMIT, || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port))
                .ok()
                .map(drop))
        })?;
    }
    let nginx = Process::start("nginx", nginx(scene.folder(), &demo)?, scene.folder())?;
    wait_for("nginx", LIMIT, || {
        Ok(load::fetch(&format!("http://127.0.0.1:{NGINX}/health"))
            .ok()
            .map(drop))
    })?;
    Ok([nginx, shop, stock])
}

/// With the demo's configuration, whose files go into our folder instead of the container's `/tmp`.
fn nginx(folder: &Path, demo: &Path) -> Result<Command> {
    let text = std::fs::read_to_string(demo.join("nginx.conf"))?;
    let configuration = folder.join("nginx.conf");
    std::fs::write(
        &configuration,
        text.replace("/tmp/", &format!("{}/", folder.display())),
    )?;
    let mut command = place::command("nginx")?;
    command
        .args(["-e", "stderr", "-c"])
        .arg(configuration)
        .current_dir(folder);
    Ok(command)
}

/// Requests until told to stop: mostly one sort, few slow ones and few errors. The first client has ups and downs.
fn send(client: u32, running: &AtomicBool) -> Result<()> {
    let agent = load::client();
    let base = format!("http://127.0.0.1:{NGINX}");
    let mut turn = client;
    while running.load(Ordering::Relaxed) {
        turn += 1;
        let get = |path: String| agent.get(format!("{base}{path}")).call().map(drop);
        match turn % 12 {
            0..=5 => get(format!("/users/{turn}"))?,
            6..=8 => get(format!("/orders/{turn}"))?,
            9 => get(format!("/reports/{turn}"))?,
            10 => get("/health".to_owned())?,
            _ => agent
                .post(format!("{base}/checkout"))
                .header("content-type", "application/json")
                .send(r#"{"total": 300}"#)
                .map(drop)?,
        }
        let pause = if client == 0 {
            u64::from(turn % 300) / 3
        } else {
            25
        };
        std::thread::sleep(Duration::from_millis(pause));
    }
    Ok(())
}

/// The view at a size, with the last request's trace on top.
fn take(terminal: &mut Terminal, (columns, rows): (u16, u16)) -> Result<String> {
    let mut last = String::new();
    terminal.resize(columns, rows)?;
    terminal.wait_for("the view", LIMIT, |terminal| {
        let lines = terminal.lines();
        let newest = lines.iter().skip_while(|line| *line != "TRACES").nth(1);
        let whole = lines.len() == usize::from(rows)
            && lines.last().is_some_and(|line| line.contains("? help"))
            && newest.is_some_and(|line| line.ends_with(" 5 spans"));
        // A page of which the terminal has half is another a moment later.
        let text = terminal.text();
        let is_calm = text == last;
        last.clone_from(&text);
        (whole && is_calm).then_some(text)
    })
}
