//! The newest traces, put together from the spans of all containers, and each as a waterfall.

use super::routes::RouteId;
use crate::queue::Observed;
use hashlink::LinkedHashMap;
use pilotfish_pipeline::{SpanId, TraceId};
use std::sync::Arc;

/// Most traces that are kept.
const MAX_TRACES: usize = 128;
/// Most of them that are kept for the selected route while others go.
const MAX_SELECTED: usize = 32;
/// Most spans of one trace that are kept.
pub(super) const MAX_SPANS: usize = 64;
/// Most spans of all traces, which is what bounds the bytes.
const MAX_TOTAL: usize = 2_048;

/// A span and the route that it was counted for.
struct Member {
    observed: Arc<Observed>,
    route: RouteId,
}

/// The spans of one trace, in the order of their arrival.
#[derive(Default)]
pub(super) struct Trace {
    members: Vec<Member>,
    /// Spans beyond the bound.
    pub(super) beyond: u64,
}

/// A span's place in the waterfall.
pub(super) struct Bar<'a> {
    pub(super) observed: &'a Observed,
    /// Ancestors within the trace.
    pub(super) depth: usize,
}

impl Trace {
    /// First start and last end, nanoseconds since the Unix epoch.
    pub(super) fn extent(&self) -> (u64, u64) {
        let spans = || self.members.iter().map(|member| &member.observed.span);
        let start = spans().map(|span| span.start_unix_nano).min().unwrap_or(0);
        let end = spans().map(|span| span.end_unix_nano).max().unwrap_or(0);
        (start, end.max(start))
    }

    pub(super) fn id(&self) -> Option<TraceId> {
        Some(self.members.first()?.observed.span.trace_id)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    fn concerns(&self, route: Option<RouteId>) -> bool {
        route.is_some_and(|route| self.members.iter().any(|member| member.route == route))
    }

    /// Children below their parents, each generation by start. A span whose parent is not here stands at the top.
    pub(super) fn waterfall(&self) -> Vec<Bar<'_>> {
        let mut left: Vec<&Observed> = self.members.iter().map(|one| &*one.observed).collect();
        left.sort_by_key(|one| one.span.start_unix_nano);
        let known: Vec<SpanId> = left.iter().map(|one| one.span.span_id).collect();
        let is_top = |one: &&Observed| {
            let parent = one.span.parent_span_id;
            !parent.is_some_and(|parent| parent != one.span.span_id && known.contains(&parent))
        };
        let mut bars = Vec::with_capacity(left.len());
        let tops: Vec<&Observed> = left.iter().copied().filter(is_top).collect();
        left.retain(|one| !is_top(one));
        for top in tops {
            descend(top, 0, &mut left, &mut bars);
        }
        // Spans that call each other parent have no top; they are shown all the same.
        while let Some(&one) = left.first() {
            left.remove(0);
            descend(one, 0, &mut left, &mut bars);
        }
        bars
    }
}

/// Each span leaves `left` as it gets its place, so that this ends whatever parents they claim.
fn descend<'a>(
    observed: &'a Observed,
    depth: usize,
    left: &mut Vec<&'a Observed>,
    bars: &mut Vec<Bar<'a>>,
) {
    let parent = observed.span.span_id;
    bars.push(Bar { observed, depth });
    let of_parent = |one: &&Observed| one.span.parent_span_id == Some(parent);
    while let Some(index) = left.iter().position(of_parent) {
        let child = left.remove(index);
        descend(child, depth + 1, left, bars);
    }
}

/// The traces, the one whose last span came longest ago first.
#[derive(Default)]
pub(super) struct Traces {
    kept: LinkedHashMap<TraceId, Trace>,
    spans: usize,
}

impl Traces {
    pub(super) fn add(
        &mut self,
        observed: &Arc<Observed>,
        route: RouteId,
        selected: Option<RouteId>,
    ) {
        let id = observed.span.trace_id;
        self.kept.to_back(&id);
        let trace = self.kept.entry(id).or_insert_with(Trace::default);
        if trace.members.len() < MAX_SPANS {
            trace.members.push(Member {
                observed: Arc::clone(observed),
                route,
            });
            self.spans += 1;
        } else {
            trace.beyond += 1;
        }
        self.shrink(selected);
    }

    /// The oldest go, but not those of the selected route as long as they are few.
    fn shrink(&mut self, selected: Option<RouteId>) {
        while self.kept.len() > MAX_TRACES || self.spans > MAX_TOTAL {
            let gone = match selected {
                Some(route) => self.oldest_beside(route),
                None => self.kept.pop_front().map(|(_, trace)| trace),
            };
            let Some(gone) = gone else { return };
            self.spans -= gone.members.len();
        }
    }

    fn oldest_beside(&mut self, route: RouteId) -> Option<Trace> {
        let concerned = |trace: &Trace| trace.concerns(Some(route));
        let spared = self.kept.values().filter(|trace| concerned(trace)).count();
        let spare = spared <= MAX_SELECTED && spared < self.kept.len();
        let mut traces = self.kept.iter();
        let (id, _) = traces.find(|(_, trace)| !(spare && concerned(trace)))?;
        let id = *id;
        self.kept.remove(&id)
    }

    /// Newest first; with a route, those that have a span of it.
    pub(super) fn newest(&self, route: Option<RouteId>) -> impl Iterator<Item = &Trace> {
        let shown = move |trace: &&Trace| route.is_none() || trace.concerns(route);
        self.kept.values().rev().filter(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{container, span};

    fn observed(trace: u64, own: u8, parent: Option<u8>, start: u64) -> Arc<Observed> {
        let mut span = span(1, &format!("span {own}"));
        span.trace_id.0[..8].copy_from_slice(&trace.to_be_bytes());
        span.span_id = SpanId([own; 8]);
        span.parent_span_id = parent.map(|parent| SpanId([parent; 8]));
        span.start_unix_nano += start;
        Arc::new(Observed {
            container: container(),
            span,
        })
    }

    fn shape(spans: &[Arc<Observed>]) -> Vec<(String, usize)> {
        let mut traces = Traces::default();
        for span in spans {
            traces.add(span, 1, None);
        }
        let trace = traces.newest(None).next().unwrap();
        let bars = trace.waterfall();
        bars.iter()
            .map(|bar| (bar.observed.span.name.to_string(), bar.depth))
            .collect()
    }

    #[test]
    fn children_stand_below_their_parents_in_order_of_time() {
        let spans = [
            observed(1, 3, Some(1), 60),
            observed(1, 4, Some(2), 20),
            observed(1, 2, Some(1), 10),
            observed(1, 1, Some(99), 0),
            observed(1, 5, Some(98), 30),
        ];
        let expected = [
            ("span 1", 0),
            ("span 2", 1),
            ("span 4", 2),
            ("span 3", 1),
            ("span 5", 0),
        ];
        assert_eq!(
            shape(&spans),
            expected.map(|(name, depth)| (name.to_owned(), depth))
        );
    }

    #[test]
    fn parents_in_a_circle_are_shown_once_each() {
        let spans = [
            observed(1, 1, Some(2), 0),
            observed(1, 2, Some(1), 1),
            observed(1, 3, Some(3), 2),
        ];
        let mut names: Vec<_> = shape(&spans).into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["span 1", "span 2", "span 3"]);
    }

    #[test]
    fn traces_spans_and_their_sum_are_bounded() {
        let mut traces = Traces::default();
        for trace in 0..1000 {
            for own in 0..100 {
                traces.add(&observed(trace, own, None, 0), 1, None);
            }
        }
        let kept: usize = traces.newest(None).map(Trace::len).sum();
        assert_eq!(kept, traces.spans);
        assert_eq!(kept, MAX_TOTAL);
        let newest = traces.newest(None).next().unwrap();
        assert_eq!((newest.len(), newest.beyond), (MAX_SPANS, 36));
        for trace in 1000..3000 {
            traces.add(&observed(trace, 1, None, 0), 1, None);
        }
        assert_eq!(traces.kept.len(), MAX_TRACES);
    }

    #[test]
    fn traces_of_the_selected_route_outlive_the_others() {
        let mut traces = Traces::default();
        for trace in 0..1000 {
            let route = if trace % 100 == 0 { 7 } else { 1 };
            traces.add(&observed(trace, 1, None, 0), route, Some(7));
        }
        assert_eq!(traces.newest(Some(7)).count(), 10);
        for trace in 1000..2000 {
            traces.add(&observed(trace, 1, None, 0), 7, Some(7));
        }
        assert!(traces.newest(Some(7)).count() <= MAX_TRACES);
        assert_eq!(traces.kept.len(), MAX_TRACES);
    }
}
