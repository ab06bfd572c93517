//! The table of routes: what was asked of whom, in the last minute.

use crate::queue::Observed;
use crate::visible::visible;
use hashbrown::{DefaultHashBuilder, HashTable};
use pilotfish_pipeline::{Kind, Span, Status, Value};
use sketches_ddsketch::{Config, DDSketch};
use std::hash::BuildHasher;

/// Seconds that the table looks back.
pub(super) const WINDOW: usize = 60;

/// Most routes; further ones share a row until one has been silent for a minute.
pub(super) const MAX_ROUTES: usize = 256;

/// Seconds of one latency sketch.
const SKETCH_SECONDS: u64 = 10;
const SKETCHES: usize = WINDOW / SKETCH_SECONDS as usize;

/// Relative error of the quantiles (`DDSketch`, Masson and others, VLDB 2019).
const ERROR: f64 = 0.02;
/// From a microsecond to ten hours; what is shorter than the widest range of these shares the lowest bin.
const BINS: u32 = 640;

/// Characters of a name that are kept.
const NAME: usize = 200;

/// Row of what exceeds the table.
const OTHERS: &str = "(other routes)";

/// What tells routes apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'a> {
    service: &'a str,
    client: bool,
    name: &'a str,
    address: &'a str,
    port: i64,
}

impl<'a> Key<'a> {
    /// Of a client also where it asks, which its name does not tell.
    fn of(observed: &'a Observed) -> Self {
        let span = &observed.span;
        let client = span.kind == Kind::Client;
        let attribute = |key| {
            let of_client = span.attributes.iter().filter(|_| client);
            of_client
                .filter(|known| known.key == key)
                .map(|known| &known.value)
                .next()
        };
        Self {
            service: who(observed),
            client,
            name: &span.name,
            address: match attribute("server.address") {
                Some(Value::Str(address)) => address,
                _ => "",
            },
            port: match attribute("server.port") {
                Some(Value::Int(port)) => *port,
                _ => 0,
            },
        }
    }
}

/// The name that a person knows the container by.
pub(super) fn who(observed: &Observed) -> &str {
    let resource = &observed.container.resource;
    ["container.name", "service.name", "container.id"]
        .into_iter()
        .find_map(|key| resource.get(key))
        .unwrap_or("-")
}

/// Identity of a route, for the life of the view.
pub(super) type RouteId = u64;

/// One route in the last minute.
pub(super) struct Route {
    pub(super) id: RouteId,
    service: String,
    client: bool,
    name: String,
    address: String,
    port: i64,
    /// Requests and errors by second, modulo the window.
    seconds: [u32; WINDOW],
    errors: [u32; WINDOW],
    sketches: [DDSketch; SKETCHES],
    /// All that were ever counted.
    pub(super) total: u64,
}

impl Route {
    fn new(id: RouteId, key: Key<'_>) -> Self {
        Self {
            id,
            service: key.service.to_owned(),
            client: key.client,
            name: key.name.to_owned(),
            address: key.address.to_owned(),
            port: key.port,
            seconds: [0; WINDOW],
            errors: [0; WINDOW],
            sketches: std::array::from_fn(|_| sketch()),
            total: 0,
        }
    }

    fn key(&self) -> Key<'_> {
        Key {
            service: &self.service,
            client: self.client,
            name: &self.name,
            address: &self.address,
            port: self.port,
        }
    }

    fn count(&mut self, span: &Span, second: u64) {
        let place = second as usize % WINDOW;
        self.total = self.total.saturating_add(1);
        self.seconds[place] = self.seconds[place].saturating_add(1);
        if span.status == Status::Error {
            self.errors[place] = self.errors[place].saturating_add(1);
        }
        let nanos = span.end_unix_nano.saturating_sub(span.start_unix_nano);
        self.sketches[sketch_of(second)].add(nanos.max(1) as f64);
    }

    /// A second begins: what was counted in its place a minute ago goes.
    fn begin(&mut self, second: u64) {
        let place = second as usize % WINDOW;
        self.seconds[place] = 0;
        self.errors[place] = 0;
        if second.is_multiple_of(SKETCH_SECONDS) && self.sketches[sketch_of(second)].count() > 0 {
            self.sketches[sketch_of(second)] = sketch();
        }
    }

    /// Whose requests, fit for a terminal.
    pub(super) fn service(&self) -> String {
        visible(&self.service)
    }

    /// `<-` for what the container answered, `->` for what it asked.
    pub(super) fn arrow(&self) -> &'static str {
        if self.client { "->" } else { "<-" }
    }

    /// What was asked, and of a client where, fit for a terminal.
    pub(super) fn what(&self) -> String {
        let name = cut(&self.name);
        let address = cut(&self.address);
        match (address.as_str(), self.port) {
            ("", _) => name,
            (address, 0) => format!("{name} {address}"),
            (address, port) if address.contains(':') => format!("{name} [{address}]:{port}"),
            (address, port) => format!("{name} {address}:{port}"),
        }
    }

    /// Requests of the last minute.
    pub(super) fn recent(&self) -> u64 {
        self.seconds.iter().copied().map(u64::from).sum()
    }

    /// Errors among them.
    pub(super) fn recent_errors(&self) -> u64 {
        self.errors.iter().copied().map(u64::from).sum()
    }

    /// Nanoseconds that these shares of the last 50 to 60 seconds' requests did not exceed; within 2 %.
    pub(super) fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [Option<u64>; N] {
        let mut merged = sketch();
        for part in self.sketches.iter().filter(|part| part.count() > 0) {
            // Only sketches of unlike configurations do not merge.
            let _ = merged.merge(part);
        }
        shares.map(|share| Some(merged.quantile(share).ok()?? as u64))
    }

    /// Requests by second, the oldest first, the second in progress left out.
    pub(super) fn history(&self, second: u64) -> Vec<u32> {
        (second + 1..second + WINDOW as u64)
            .map(|moment| self.seconds[moment as usize % WINDOW])
            .collect()
    }
}

fn cut(text: &str) -> String {
    visible(&text.chars().take(NAME).collect::<String>())
}

fn sketch() -> DDSketch {
    DDSketch::new(Config::new(ERROR, BINS, 1.0))
}

fn sketch_of(second: u64) -> usize {
    (second / SKETCH_SECONDS) as usize % SKETCHES
}

/// All routes.
pub(super) struct Routes {
    table: HashTable<Route>,
    hasher: DefaultHashBuilder,
    next: RouteId,
    second: u64,
    /// Spans that went into the row of the others.
    pub(super) beyond: u64,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            next: 0,
            second: 0,
            beyond: 0,
        }
    }

    /// Counts a span; the route that it belongs to.
    pub(super) fn count(&mut self, observed: &Observed) -> RouteId {
        let mut key = Key::of(observed);
        let mut hash = self.hasher.hash_one(key);
        let known = self.table.find(hash, |route| route.key() == key).is_some();
        if !known && self.table.len() >= MAX_ROUTES {
            self.beyond += 1;
            key = Key {
                service: "",
                client: false,
                name: OTHERS,
                address: "",
                port: 0,
            };
            hash = self.hasher.hash_one(key);
        }
        let (next, hasher) = (&mut self.next, &self.hasher);
        let route = self
            .table
            .entry(
                hash,
                |route| route.key() == key,
                |route| hasher.hash_one(route.key()),
            )
            .or_insert_with(|| {
                *next += 1;
                Route::new(*next, key)
            })
            .into_mut();
        route.count(&observed.span, self.second);
        route.id
    }

    /// Moves to a second; of a jump over more than the window nothing remains.
    pub(super) fn advance(&mut self, second: u64) {
        let first = (self.second + 1).max(second.saturating_sub(WINDOW as u64 - 1));
        for moment in first..=second {
            for route in &mut self.table {
                route.begin(moment);
            }
        }
        self.second = self.second.max(second);
        if self.table.len() >= MAX_ROUTES {
            self.table.retain(|route| route.recent() > 0);
        }
    }

    /// The second in progress.
    pub(super) fn second(&self) -> u64 {
        self.second
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.table.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{container, span};

    fn answered(name: &str, nanos: u64) -> Observed {
        let mut span = span(1, name);
        span.end_unix_nano = span.start_unix_nano + nanos;
        Observed {
            container: container(),
            span,
        }
    }

    #[test]
    fn quantiles_are_within_two_percent() {
        let mut routes = Routes::new();
        for index in 1..=10_000_u64 {
            routes.count(&answered("GET /", index * 7_919));
        }
        let route = routes.iter().next().unwrap();
        let quantiles = route.quantiles([0.5, 0.95, 0.99]).map(Option::unwrap);
        for (seen, share) in quantiles.into_iter().zip([0.5, 0.95, 0.99]) {
            let exact = share * 10_000.0 * 7_919.0;
            let error = (seen as f64 - exact).abs() / exact;
            assert!(error < ERROR + 0.001, "{share}: {seen} for {exact}");
        }
    }

    #[test]
    fn a_minute_later_nothing_is_recent_and_the_total_stays() {
        let mut routes = Routes::new();
        routes.advance(5);
        routes.count(&answered("GET /", 1_000_000));
        routes.advance(64);
        let route = routes.iter().next().unwrap();
        assert_eq!((route.recent(), route.total), (1, 1));
        assert_eq!(route.history(64).iter().sum::<u32>(), 1);
        routes.advance(65);
        let route = routes.iter().next().unwrap();
        assert_eq!((route.recent(), route.total), (0, 1));
        assert_eq!(route.quantiles([0.5]), [None]);
        routes.count(&answered("GET /", 1_000_000));
        routes.advance(u64::from(u32::MAX));
        assert_eq!(routes.iter().next().unwrap().recent(), 0);
    }

    #[test]
    fn the_table_is_bounded_and_silent_routes_give_way() {
        let mut routes = Routes::new();
        for index in 0..MAX_ROUTES + 10 {
            routes.count(&answered(&format!("GET /{index}"), 1));
        }
        assert_eq!(routes.iter().count(), MAX_ROUTES + 1);
        assert_eq!(routes.beyond, 10);
        let others = routes.iter().find(|route| route.what() == OTHERS).unwrap();
        assert_eq!(others.total, 10);
        routes.advance(61);
        routes.count(&answered("GET /new", 1));
        assert_eq!(routes.iter().count(), 1);
        assert_eq!(routes.beyond, 10);
    }
}
