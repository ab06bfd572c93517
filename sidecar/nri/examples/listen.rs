//! Prints what an NRI runtime tells: `listen [SOCKET]`.

use pilotfish_nri::{DEFAULT_SOCKET, Handler, Moment, Plugin, Snapshot, Stats};
use std::{path::PathBuf, sync::Arc};

struct Printer;

impl Handler for Printer {
    fn configured(&mut self, runtime: &str, version: &str) {
        println!("configured by {runtime} {version}");
    }

    fn synchronized(&mut self, snapshot: Snapshot) {
        println!("{snapshot:#?}");
    }

    async fn happened(&mut self, moment: Moment) {
        let process = std::fs::read_link(format!("/proc/{}/exe", moment.container.pid));
        println!("{:?} of process {process:?}", moment.event);
        println!("{:#?}\n{:#?}", moment.pod, moment.container);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    tracing_subscriber::fmt().init();
    let socket = std::env::args_os().nth(1);
    let socket = socket.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from);
    let stats = Arc::new(Stats::default());
    match Plugin::new(&socket, Printer, stats).run().await {}
}
