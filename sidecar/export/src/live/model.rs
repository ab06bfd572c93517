//! What the live view knows: a pure function of spans, keys and time.

use super::routes::{Route, RouteId, Routes};
use super::traces::{Trace, Traces};
use crate::queue::Observed;
use std::sync::Arc;
use std::time::Duration;

/// What the agent knows beside its spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Containers under observation.
    pub containers: usize,
    /// Processes under observation.
    pub processes: usize,
    /// What was lost and how often, those above zero.
    pub losses: Vec<(&'static str, u64)>,
}

/// A key that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    /// Select nothing, close the help.
    Back,
    Pause,
    Help,
    /// Draw the whole page: something else wrote on the terminal, or it is another one.
    Redraw,
    Quit,
    /// Stop the process until the shell continues it.
    Suspend,
}

/// What a key demands of the terminal's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Nothing,
    Redraw,
    Quit,
    Suspend,
}

/// The state of the view.
pub(super) struct Model {
    routes: Routes,
    traces: Traces,
    selected: Option<RouteId>,
    /// The rows' order, kept from the selection on: a row must not move away below the finger.
    order: Vec<RouteId>,
    /// Spans counted, and errors among them.
    pub(super) spans: u64,
    /// Spans that came during a pause.
    pub(super) unseen: u64,
    /// Spans that the queue of the view had no room for.
    pub(super) dropped: u64,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) facts: Facts,
    pub(super) message: Option<String>,
    /// Time before the present pause, less earlier pauses.
    shown: Duration,
    /// The clock at the last look.
    clock: Duration,
    pub(super) changed: bool,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            routes: Routes::new(),
            traces: Traces::default(),
            selected: None,
            order: Vec::new(),
            spans: 0,
            unseen: 0,
            dropped: 0,
            paused: false,
            help: false,
            facts: Facts::default(),
            message: None,
            shown: Duration::ZERO,
            clock: Duration::ZERO,
            changed: true,
        }
    }

    /// Takes spans in; during a pause they are only counted.
    pub(super) fn take(&mut self, batch: &[Arc<Observed>]) {
        self.changed = true;
        if self.paused {
            self.unseen = self.unseen.saturating_add(batch.len() as u64);
            return;
        }
        for observed in batch {
            self.spans = self.spans.saturating_add(1);
            let route = self.routes.count(observed);
            self.traces.add(observed, route, self.selected);
        }
    }

    /// Moves to a time since the view's start. The view's own time stands still during a pause.
    pub(super) fn advance(&mut self, clock: Duration) {
        let passed = clock.saturating_sub(self.clock);
        self.clock = self.clock.max(clock);
        if self.paused {
            return;
        }
        self.shown += passed;
        if self.shown.as_secs() > self.routes.second() {
            self.routes.advance(self.shown.as_secs());
            if self.selection().is_none() {
                self.selected = None;
            }
            self.changed = true;
        }
    }

    /// What the agent says about itself.
    pub(super) fn learn(&mut self, facts: Facts, dropped: u64, message: Option<String>) {
        let same = self.facts == facts && self.dropped == dropped && self.message == message;
        self.changed |= !same;
        self.facts = facts;
        self.dropped = dropped;
        self.message = message;
    }

    pub(super) fn press(&mut self, key: Key) -> Demand {
        self.changed = true;
        match key {
            Key::Up => {
                self.select(|index, last| index.map_or(last, |index| index.saturating_sub(1)));
            }
            Key::Down => {
                self.select(|index, last| index.map_or(0, |index| (index + 1).min(last)));
            }
            Key::Back if self.help => self.help = false,
            Key::Back => self.selected = None,
            Key::Pause => {
                self.paused = !self.paused;
                self.unseen = 0;
            }
            Key::Help => self.help = !self.help,
            Key::Redraw => return Demand::Redraw,
            Key::Quit => return Demand::Quit,
            Key::Suspend => return Demand::Suspend,
        }
        Demand::Nothing
    }

    fn select(&mut self, next: impl Fn(Option<usize>, usize) -> usize) {
        self.order = self.rows().iter().map(|route| route.id).collect();
        let Some(last) = self.order.len().checked_sub(1) else {
            return;
        };
        let index = next(self.selected_row(), last);
        self.selected = self.order.get(index).copied();
    }

    fn selected_row(&self) -> Option<usize> {
        let selected = self.selected?;
        self.order.iter().position(|id| *id == selected)
    }

    /// The selected route.
    pub(super) fn selection(&self) -> Option<&Route> {
        let selected = self.selected?;
        self.routes.iter().find(|route| route.id == selected)
    }

    /// The busiest of the last minute first; as they were while one is selected, later ones at the end.
    pub(super) fn rows(&self) -> Vec<&Route> {
        let mut rows: Vec<(usize, std::cmp::Reverse<Option<u32>>, &Route)> = self
            .routes
            .iter()
            .map(|route| {
                let kept = self.selected.and_then(|_| {
                    let mut order = self.order.iter();
                    order.position(|id| *id == route.id)
                });
                let place = kept.unwrap_or(usize::MAX);
                // Rows change places only when one has become twice as busy as another: they are to be read.
                let busy = std::cmp::Reverse(route.recent().checked_ilog2());
                (place, busy, route)
            })
            .collect();
        rows.sort_by_key(|(place, busy, route)| (*place, *busy, route.id));
        rows.into_iter().map(|(_, _, route)| route).collect()
    }

    /// Newest first; of the selected route, if one is.
    pub(super) fn traces(&self) -> impl Iterator<Item = &Trace> {
        self.traces.newest(self.selected)
    }

    /// Seconds that the view has shown.
    pub(super) fn second(&self) -> u64 {
        self.routes.second()
    }

    /// Spans and errors of the last minute.
    pub(super) fn recent(&self) -> (u64, u64) {
        self.routes.iter().fold((0, 0), |(all, errors), route| {
            (all + route.recent(), errors + route.recent_errors())
        })
    }

    /// Seconds that the last minute has had so far.
    pub(super) fn window(&self) -> u64 {
        (self.routes.second() + 1).min(super::routes::WINDOW as u64)
    }

    /// Spans that went into the row of the others.
    pub(super) fn beyond(&self) -> u64 {
        self.routes.beyond
    }
}
