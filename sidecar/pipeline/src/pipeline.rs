//! The entry: records and time in, results out.

use crate::config::{Config, ConfigError, SlotConfig};
use crate::endpoints::Endpoints;
use crate::exchanges::Exchanges;
use crate::flow::{Flow, Shared};
use crate::idle::IdleWatch;
use crate::model::{Encrypted, Sink, Slot};
use crate::protocol::{Direction, PROTOCOLS, Protocol};
use crate::reassembly::{Account, Operation};
use crate::record::Record;
use crate::routes::Routes;
use crate::settings::SettingsTable;
use crate::spans::Finisher;
use crate::stats::Stats;
use hashlink::LruCache;
use hashlink::lru_cache::Entry;
use pilotfish_abi::{Header, Kind, flag};
use std::collections::BTreeSet;

/// Nanoseconds between two ticks of every parser.
const PARSER_TICK: u64 = 1_000_000_000;

/// Turns records into spans and measurements.
///
/// Memory is bounded: flows, the bytes that each and all of them keep, exchanges in progress and routes all
/// have a limit, and what is dropped for it is counted in [`Stats`].
pub struct Pipeline {
    /// By cookie of the socket or TLS connection, least recently used first.
    flows: LruCache<u64, Flow>,
    max_flows: usize,
    /// Flows that wait for a record, closed ones among them; in a fixed order, so that a replay gives the same ids.
    awaited: BTreeSet<u64>,
    idle: IdleWatch,
    /// Flows as (last user's tgid, cookie) whose close may not be seen, but the end of their user is: of unix sockets, and
    /// of TLS connections without a known socket.
    users: BTreeSet<(u32, u64)>,
    shared: Shared,
    last_parser_tick: u64,
}

impl Pipeline {
    /// Checks the settings and makes an empty pipeline.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Self::with_protocols(config, PROTOCOLS)
    }

    /// As [`Self::new`], with another table of protocols than [`PROTOCOLS`].
    pub fn with_protocols(config: Config, table: &'static [Protocol]) -> Result<Self, ConfigError> {
        config.check_limits()?;
        let settings = SettingsTable::new(config.defaults, table)?;
        Ok(Self {
            flows: LruCache::new_unbounded(),
            max_flows: config.max_flows,
            awaited: BTreeSet::new(),
            idle: IdleWatch::new(config.max_flows),
            users: BTreeSet::new(),
            shared: Shared {
                account: Account::default(),
                exchanges: Exchanges::new(config.seed, settings),
                finisher: Finisher::new(Routes::new(config.max_routes)),
            },
            last_parser_tick: 0,
        })
    }

    /// Gives a container its own settings in place of the former ones; after an error those stay in force.
    ///
    /// They hold for exchanges that begin afterwards. A flow whose protocol was recognised keeps its parser; if the
    /// new settings want no exchange of it, those in progress finish and it is read no longer. A flow that the former
    /// settings did not want, but the new ones may, is read from its next bytes on.
    ///
    /// To be undone by [`Self::forget`], so that settings do not outnumber containers.
    pub fn configure(&mut self, slot: Slot, config: &SlotConfig) -> Result<(), ConfigError> {
        self.shared.exchanges.settings.configure(slot, config)
    }

    /// Takes one record. Records of one direction of a flow may come slightly out of order.
    pub fn on_record(&mut self, record: &Record<'_>, sink: &mut dyn Sink) {
        let stats = &mut self.shared.account.stats;
        stats.records = stats.records.saturating_add(1);
        match record.kind {
            Kind::Send | Kind::Receive => self.on_bytes(record, sink),
            Kind::SendEnd | Kind::ReceiveEnd | Kind::Close => self.on_end(record, sink),
            Kind::Exit => self.on_exit(record.header.tgid, sink),
            Kind::Fork | Kind::Exec | Kind::Newcomer => {}
        }
    }

    /// Tells the time: `now` is `CLOCK_MONOTONIC` in nanoseconds, `unix_offset` the Unix time minus it. To be called
    /// once before the first record, then every 100 ms or so.
    pub fn on_tick(&mut self, now: u64, unix_offset: i64, sink: &mut dyn Sink) {
        self.shared.finisher.unix_offset = unix_offset;
        let Self {
            flows,
            awaited,
            idle,
            shared,
            ..
        } = self;
        let mut past = Vec::new();
        awaited.retain(|cookie| {
            let Some(flow) = flows.peek_mut(cookie) else {
                return false;
            };
            flow.on_tick(now, shared, sink);
            if flow.is_over() || flow.is_past(now) {
                past.push(*cookie);
            }
            watch(idle, *cookie, flow, now);
            flow.awaited = flow.is_waiting();
            flow.awaited
        });
        for cookie in past {
            self.end_flow(cookie, sink);
        }
        self.end_idle(now, sink);
        if now.saturating_sub(self.last_parser_tick) >= PARSER_TICK {
            self.last_parser_tick = now;
            for (_, flow) in &mut self.flows {
                flow.tick_parser(now, &mut self.shared, sink);
            }
        }
    }

    /// Drops all state of a container that has ended, its settings too.
    pub fn forget(&mut self, slot: Slot, sink: &mut dyn Sink) {
        let of_slot = self.flows.iter().filter(|(_, flow)| flow.slot() == slot);
        let cookies: Vec<u64> = of_slot.map(|(&cookie, _)| cookie).collect();
        for cookie in cookies {
            self.end_flow(cookie, sink);
        }
        self.shared.finisher.forget(slot);
        self.shared.exchanges.settings.forget(slot);
    }

    /// Shutdown: finishes or abandons every flow.
    pub fn finish(&mut self, sink: &mut dyn Sink) {
        while let Some((&cookie, _)) = self.flows.iter().next() {
            self.end_flow(cookie, sink);
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.shared.account.stats
    }

    /// Flows in the table now.
    pub fn flows_open(&self) -> usize {
        self.flows.len()
    }

    /// Exchanges in progress now.
    pub fn exchanges_open(&self) -> usize {
        self.shared.exchanges.len()
    }

    /// Bytes of traffic that detection and parsers keep now, until more of it comes; at most 32 MiB.
    pub fn bytes_kept(&self) -> usize {
        self.shared.account.kept_bytes
    }

    fn on_bytes(&mut self, record: &Record<'_>, sink: &mut dyn Sink) {
        let header = &record.header;
        if self.flows.len() >= self.max_flows && !self.flows.contains_key(&header.cookie) {
            self.evict(sink);
        }
        let flow = match self.flows.entry(header.cookie) {
            Entry::Occupied(mut entry) => {
                entry.to_back();
                entry.into_mut()
            }
            Entry::Vacant(entry) => {
                let stats = &mut self.shared.account.stats;
                let Some(endpoints) = Endpoints::from_header(header) else {
                    stats.records_unusable = stats.records_unusable.saturating_add(1);
                    return;
                };
                let left = self.idle.resume(header.cookie);
                let late = header.flags & flag::JOINED_LATE != 0;
                stats.flows_opened = stats.flows_opened.saturating_add(1);
                stats.flows_late = stats
                    .flows_late
                    .saturating_add(u64::from(late || left.is_some()));
                stats.flows_tls = stats.flows_tls.saturating_add(u64::from(endpoints.tls));
                let slot = Slot(header.slot);
                let settings = &self.shared.exchanges.settings;
                let flow = Flow::new(slot, endpoints, settings, late, left);
                stats.flows_outside_ports = stats
                    .flows_outside_ports
                    .saturating_add(u64::from(flow.is_outside_ports()));
                entry.insert(flow)
            }
        };
        let former = flow.ends_with();
        flow.used_by(header.tgid);
        flow.seen_in(header);
        follow_user(&mut self.users, header.cookie, former, flow);
        let no_buffer = header.flags & flag::NO_BUFFER != 0;
        let bytes = if no_buffer { &[] } else { record.payload };
        flow.on_operation(
            operation(record.kind, header, bytes),
            &mut self.shared,
            sink,
        );
        // A straggler of a closed flow may have been all that was missing.
        if flow.is_over() {
            self.end_flow(header.cookie, sink);
        } else {
            watch(&mut self.idle, header.cookie, flow, header.time);
            await_flow(&mut self.awaited, header.cookie, flow);
        }
    }

    /// The end of a direction, or of the transport. It means nothing for a flow of which nothing was seen.
    fn on_end(&mut self, record: &Record<'_>, sink: &mut dyn Sink) {
        let Header {
            cookie,
            time,
            total,
            opposite: received,
            ..
        } = record.header;
        if record.header.flags & flag::UNSEEN != 0 {
            self.tell_unseen(&record.header, sink);
        }
        let Some(flow) = self.flows.get_mut(&cookie) else {
            return;
        };
        if record.header.flags & flag::CARRIES_TLS != 0 {
            // What was not seen of it is no loss: its plaintext is another flow.
            self.end_flow(cookie, sink);
            return;
        }
        let former = flow.ends_with();
        flow.seen_in(&record.header);
        follow_user(&mut self.users, cookie, former, flow);
        let end = operation(record.kind, &record.header, &[]);
        flow.on_operation(end, &mut self.shared, sink);
        if record.kind == Kind::Close {
            let read_up_to = Operation {
                direction: Direction::Received,
                offset: received,
                end: false,
                ..end
            };
            flow.on_operation(read_up_to, &mut self.shared, sink);
            flow.on_close(time, total);
        }
        if flow.is_over() {
            self.end_flow(cookie, sink);
        } else {
            await_flow(&mut self.awaited, cookie, flow);
        }
    }

    /// A TLS connection whose library was used past every probe: its ciphertext was taken for seen, and is not.
    fn tell_unseen(&mut self, header: &Header, sink: &mut dyn Sink) {
        let slot = Slot(header.slot);
        let table = &self.shared.exchanges.settings;
        let (Some(endpoints), Some(settings)) = (
            Endpoints::from_header(header),
            table.get(table.current(slot).key, slot),
        ) else {
            return;
        };
        if settings.early_objection(&endpoints).is_none() {
            let stats = &mut self.shared.account.stats;
            stats.flows_encrypted = stats.flows_encrypted.saturating_add(1);
            sink.encrypted(Encrypted {
                slot,
                tgid: header.tgid,
                tid: header.tid,
            });
        }
    }

    fn on_exit(&mut self, tgid: u32, sink: &mut dyn Sink) {
        // 0 stands for every process whose id is not known.
        if tgid == 0 {
            return;
        }
        while let Some(&(_, cookie)) = self.users.range((tgid, 0)..=(tgid, u64::MAX)).next() {
            self.end_flow(cookie, sink);
        }
    }

    /// Ends flows that have been silent for long and whose end no record may tell.
    fn end_idle(&mut self, now: u64, sink: &mut dyn Sink) {
        for cookie in self.idle.take_due(now) {
            let Some(flow) = self.flows.peek_mut(&cookie) else {
                continue;
            };
            flow.idle_check = None;
            if flow.is_idle(now) {
                let stats = &mut self.shared.account.stats;
                stats.flows_idle = stats.flows_idle.saturating_add(1);
                self.idle.leave(cookie, flow.left());
                self.end_flow(cookie, sink);
            } else {
                watch(&mut self.idle, cookie, flow, now);
            }
        }
    }

    fn evict(&mut self, sink: &mut dyn Sink) {
        if let Some((&cookie, _)) = self.flows.iter().next() {
            let stats = &mut self.shared.account.stats;
            stats.flows_evicted = stats.flows_evicted.saturating_add(1);
            self.remove_flow(cookie, sink);
        }
    }

    fn end_flow(&mut self, cookie: u64, sink: &mut dyn Sink) {
        if self.remove_flow(cookie, sink) {
            let stats = &mut self.shared.account.stats;
            stats.flows_ended = stats.flows_ended.saturating_add(1);
        }
    }

    fn remove_flow(&mut self, cookie: u64, sink: &mut dyn Sink) -> bool {
        let Some(flow) = self.flows.remove(&cookie) else {
            return false;
        };
        if let Some(user) = flow.ends_with() {
            self.users.remove(&(user, cookie));
        }
        self.awaited.remove(&cookie);
        if let Some(check) = flow.idle_check {
            self.idle.remove(check, cookie);
        }
        flow.end(&mut self.shared, sink);
        true
    }
}

fn await_flow(awaited: &mut BTreeSet<u64>, cookie: u64, flow: &mut Flow) {
    if !flow.awaited && flow.is_waiting() {
        flow.awaited = true;
        awaited.insert(cookie);
    }
}

/// Keeps the flows that end with a process: by the one that uses this flow now, if by any.
fn follow_user(users: &mut BTreeSet<(u32, u64)>, cookie: u64, former: Option<u32>, flow: &Flow) {
    let user = flow.ends_with();
    if user == former {
        return;
    }
    if let Some(former) = former {
        users.remove(&(former, cookie));
    }
    if let Some(user) = user {
        users.insert((user, cookie));
    }
}

/// Has a flow checked for silence, unless it will be early enough or may stay until its close is told.
fn watch(idle: &mut IdleWatch, cookie: u64, flow: &mut Flow, now: u64) {
    let Some(check) = flow.next_idle_check(now) else {
        return;
    };
    match flow.idle_check {
        Some(planned) if planned <= check => return,
        // Only now is the flow known to be rejoined.
        Some(planned) => idle.remove(planned, cookie),
        None => {}
    }
    flow.idle_check = Some(check);
    idle.add(check, cookie);
}

fn operation<'a>(kind: Kind, header: &Header, bytes: &'a [u8]) -> Operation<'a> {
    let direction = match kind {
        Kind::Receive | Kind::ReceiveEnd => Direction::Received,
        _ => Direction::Sent,
    };
    let carries_bytes = matches!(kind, Kind::Send | Kind::Receive);
    Operation {
        direction,
        offset: header.offset,
        total: if carries_bytes {
            header.total.into()
        } else {
            0
        },
        bytes,
        time: header.time,
        // The kernel tells of an end on whichever thread runs at the time.
        tid: if carries_bytes { header.tid } else { 0 },
        end: !carries_bytes,
        // The end of one direction waits for nothing in the other.
        opposite: if carries_bytes { header.opposite } else { 0 },
    }
}
