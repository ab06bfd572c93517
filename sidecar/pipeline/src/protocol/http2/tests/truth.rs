//! Many streams at a time, and losses wherever they may be: spans may be missing, none may be wrong.

use super::wire::{END, Talk, data};
use super::{Player, ROLES, Step};
use crate::protocol::{Direction, FlowInfo};
use proptest::prelude::*;

const STREAMS: u32 = 24;
/// Some are in the static table, the others come by the dynamic one.
const STATUSES: [&str; 5] = ["200", "418", "404", "503", "201"];

fn status(stream: u32) -> &'static str {
    STATUSES[stream as usize / 2 % STATUSES.len()]
}

/// Requests and responses of all streams, so many at a time; responses come in pieces and in turns.
fn conversation(at_a_time: usize) -> Talk {
    let mut talk = Talk::open();
    let streams: Vec<u32> = (0..STREAMS).map(|index| index * 2 + 1).collect();
    for batch in streams.chunks(at_a_time) {
        for &stream in batch {
            let method = if stream.is_multiple_of(3) {
                "PUT"
            } else {
                "GET"
            };
            let head = talk.request(stream, 0, method, &format!("/p{stream}"));
            talk.ask([head, data(stream, END, &[7; 30])].concat());
        }
        for &stream in batch {
            let head = talk.response(stream, 0, status(stream));
            talk.answer([head, data(stream, 0, &[7; 40])].concat());
        }
        for &stream in batch.iter().rev() {
            talk.answer(data(stream, END, &[7; 20]));
        }
    }
    talk
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// The rest is not captured.
    Tail(usize),
    /// Its record is lost.
    Whole,
}

fn with_losses(talk: &Talk, losses: &[(usize, Loss)]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (index, step) in talk.steps().iter().enumerate() {
        let loss = losses
            .iter()
            .find(|(place, _)| place % talk.steps().len() == index);
        let (Some((_, loss)), Step::Request(bytes) | Step::Response(bytes)) = (loss, step) else {
            steps.push(step.clone());
            continue;
        };
        let is_request = matches!(step, Step::Request(_));
        let kept = match loss {
            Loss::Tail(kept) => kept % bytes.len(),
            Loss::Whole => 0,
        };
        let missing = (bytes.len() - kept) as u64;
        let (kept, gap) = match (is_request, loss) {
            (true, _) => (
                Step::Request(bytes[..kept].into()),
                Step::RequestGap(missing),
            ),
            (false, Loss::Tail(_)) => (
                Step::Response(bytes[..kept].into()),
                Step::ResponseGap(missing),
            ),
            (false, Loss::Whole) => (Step::Response(Vec::new()), Step::ResponseHole(missing)),
        };
        steps.extend([kept, gap]);
    }
    steps
}

/// A client's write may be recorded after the read of what answers it.
fn with_late_requests(mut steps: Vec<Step>, places: &[usize]) -> Vec<Step> {
    for place in places {
        let place = place % steps.len();
        if let [
            Step::Request(_) | Step::RequestGap(_),
            Step::Response(_) | Step::ResponseGap(_) | Step::ResponseHole(_),
        ] = steps[place..(place + 2).min(steps.len())]
        {
            steps.swap(place, place + 1);
        }
    }
    steps
}

/// What is told of a finished stream, as far as it is told, is what was sent.
fn check(line: &str) {
    let mut words = line.split(' ');
    let stream: u32 = words.next().unwrap().parse().unwrap();
    let is_marked = line.ends_with(" ?");
    let method = words.next().unwrap();
    let sent = if stream.is_multiple_of(3) {
        "PUT"
    } else {
        "GET"
    };
    assert!(method == sent || is_marked && method == "HTTP", "{line}");
    let (mut has_path, mut has_status) = (false, false);
    for word in words {
        match word.split_once('=') {
            Some(("req", size)) => assert_eq!(size, "30", "{line}"),
            Some(("res", size)) => assert_eq!(size, "60", "{line}"),
            Some(("error", error)) => assert_eq!(error, status(stream), "{line}"),
            _ if word.starts_with('/') => {
                assert_eq!(word, format!("/p{stream}"), "{line}");
                has_path = true;
            }
            _ if word.starts_with('@') || word == "?" => {}
            _ => {
                assert_eq!(word, status(stream), "{line}");
                has_status = true;
            }
        }
    }
    assert!(has_path && has_status || is_marked, "{line}");
}

fn any_loss() -> impl Strategy<Value = Loss> {
    prop_oneof![(0..200_usize).prop_map(Loss::Tail), Just(Loss::Whole)]
}

proptest! {
    #[test]
    fn none_is_wrong(
        at_a_time in 1..STREAMS as usize,
        losses in prop::collection::vec((any::<usize>(), any_loss()), 0..6),
        begin in 0..60_usize,
        late in prop::collection::vec(any::<usize>(), 0..40),
        is_closed: bool,
    ) {
        let talk = conversation(at_a_time);
        let mut steps = with_losses(&talk, &losses);
        let joined_late = begin % 2 == 1;
        if joined_late {
            steps.drain(..begin.min(steps.len()));
        }
        if is_closed {
            steps.push(Step::ResponseClose);
        }
        steps.push(Step::End);
        for role in ROLES {
            let mut player = Player::new(role, FlowInfo { joined_late, ..FlowInfo::default() });
            if role == Direction::Sent {
                steps = with_late_requests(steps, &late);
            }
            player.play(&steps);
            let lines = player.texts();
            let started = lines.iter().filter(|line| line.starts_with('+')).count();
            let abandoned = lines.iter().filter(|line| line.starts_with('-')).count();
            let finished: Vec<_> = lines.iter().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).collect();
            for line in &finished {
                check(line);
            }
            prop_assert_eq!(started, abandoned + finished.len());
            if losses.is_empty() && !joined_late {
                prop_assert_eq!(finished.len(), STREAMS as usize);
            }
        }
    }
}
