//! What is counted about NRI.

use pilotfish_export::prometheus::Row;
use pilotfish_nri::Stats;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($name:ident, $help:literal;)+) => {
        /// Totals since start, and those of the connection.
        #[derive(Debug, Default)]
        pub struct NriStats {
            /// The connection's.
            pub plugin: Arc<Stats>,
            $(#[doc = $help] pub $name: AtomicU64,)+
        }

        impl NriStats {
            /// The rows of `/metrics`.
            pub fn rows(&self) -> Vec<Row> {
                let mut rows = vec![Row::gauge(
                    "nri_connected",
                    "1 while a runtime tells of its containers through NRI; 0 means that new containers are not seen.",
                    self.plugin.connected() as f64,
                )];
                let of_connection = self.plugin.counters();
                rows.extend(of_connection.map(|(name, help, value)| Row::counter(name, help, value)));
                rows.extend([$(Row::counter(
                    concat!("nri_", stringify!($name)),
                    $help,
                    self.$name.load(Ordering::Relaxed),
                )),+]);
                rows
            }
        }
    };
}

stats! {
    attached, "Containers attached because NRI told of them. It follows their starts.";
    ignored, "Containers told of by NRI that do not ask to be observed.";
    failed, "Selected containers told of by NRI that could not be attached. The log says which and why.";
    without_process, "Selected containers whose first process the runtime did not tell, or which had ended: they are not observed.";
    removes, "Ends of selected containers told of by NRI.";
}
