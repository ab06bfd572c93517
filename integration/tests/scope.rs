//! Scope: what is not chosen yields nothing, counted in the kernel before the ring buffer.

use anyhow::{Result, ensure};
use integration::server::kind;
use integration::{Agent, Kind, Scene, Trials, load};

pub(crate) fn register(trials: &mut Trials) {
    trials.subject("scope");
    trials.add(
        "a_copy_out_of_scope_yields_no_record",
        &["python3"],
        |scene| copy_out_of_scope(scene, "python_http_server"),
    );
    trials.add(
        "a_prefork_copy_out_of_scope_yields_no_record",
        &["nginx"],
        |scene| copy_out_of_scope(scene, "nginx"),
    );
    trials.add("two_agents_do_not_meet", &["node"], two_agents);
}

/// Two servers of one executable, one chosen.
fn copy_out_of_scope(scene: &Scene, name: &str) -> Result<()> {
    let chosen = kind(name)?.start(scene)?;
    let other = kind(name)?.start(scene)?;
    let agent = Agent::watch(scene, &[chosen.pid()])?;
    let before = agent.settle()?.produced()?;
    let unseen = load::run(other.port, &load::mix(4, 10))?;
    let after = agent.settle()?.produced()?;
    ensure!(unseen.total() > 300, "the other server had traffic");
    ensure!(
        before == after,
        "{} records of {} foreign requests",
        after - before,
        unseen.total()
    );

    let tally = load::run(chosen.port, &load::numbered(2, 20))?;
    let finished = agent.finish()?;
    ensure!(
        finished.metrics.produced()? > after,
        "the chosen server gives records"
    );
    finished.must_match(&tally, Kind::Server)
}

/// Agents side by side, each with a server of its own.
fn two_agents(scene: &Scene) -> Result<()> {
    let servers = [kind("node")?.start(scene)?, kind("node")?.start(scene)?];
    let agents = [
        Agent::watch(scene, &[servers[0].pid()])?,
        Agent::watch(scene, &[servers[1].pid()])?,
    ];
    let tallies = [
        load::run(servers[0].port, &load::numbered(2, 20))?,
        load::run(servers[1].port, &load::numbered(3, 30))?,
    ];
    for (agent, tally) in agents.into_iter().zip(tallies) {
        agent.finish()?.must_match(&tally, Kind::Server)?;
    }
    Ok(())
}
