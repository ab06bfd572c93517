use super::{
    Account, MAX_HELD_BYTES, MAX_HELD_RECORDS, Operation, PATIENCE, Piece, Pieces, Reassembly,
};
use crate::protocol::{Direction, Moment};
use crate::stats::Stats;
use proptest::prelude::*;

/// What came out, bytes by their value and gaps by their length.
#[derive(Default)]
struct Output {
    account: Account,
    pieces: Vec<(Direction, Out, Moment)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Out {
    Bytes(Vec<u8>),
    Gap(u64),
    End,
}

impl Pieces for Output {
    fn piece(&mut self, direction: Direction, piece: Piece<'_>, at: Moment) {
        let piece = match piece {
            Piece::Bytes(bytes) => Out::Bytes(bytes.to_vec()),
            Piece::Gap(length) => Out::Gap(length),
            Piece::End => Out::End,
        };
        self.pieces.push((direction, piece, at));
    }

    fn account(&mut self) -> &mut Account {
        &mut self.account
    }
}

impl Output {
    fn stats(&self) -> &Stats {
        &self.account.stats
    }

    /// The direction's stream with `None` for every missing byte; checks that offsets close up.
    fn stream(&self, direction: Direction) -> Vec<Option<u8>> {
        let mut stream = Vec::new();
        for (_, piece, at) in self.pieces.iter().filter(|(of, ..)| *of == direction) {
            assert_eq!(at.offset, stream.len() as u64);
            match piece {
                Out::Bytes(bytes) => stream.extend(bytes.iter().copied().map(Some)),
                Out::Gap(length) => stream.extend((0..*length).map(|_| None)),
                Out::End => {}
            }
        }
        stream
    }
}

fn operation(direction: Direction, offset: u64, bytes: &[u8], time: u64) -> Operation<'_> {
    Operation {
        direction,
        offset,
        total: bytes.len() as u64,
        bytes,
        time,
        tid: 1,
        end: false,
        opposite: 0,
    }
}

/// The same, after the opposite direction had come to `opposite`.
fn after(opposite: u64, operation: Operation<'_>) -> Operation<'_> {
    Operation {
        opposite,
        ..operation
    }
}

fn received(offset: u64, bytes: &[u8], time: u64) -> Operation<'_> {
    operation(Direction::Received, offset, bytes, time)
}

fn sent(offset: u64, bytes: &[u8], time: u64) -> Operation<'_> {
    operation(Direction::Sent, offset, bytes, time)
}

fn end(direction: Direction, offset: u64, time: u64) -> Operation<'static> {
    Operation {
        end: true,
        ..operation(direction, offset, b"", time)
    }
}

/// A flow whose first record has come.
fn started() -> (Reassembly, Output) {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(operation(Direction::Received, 0, b"x", 0), &mut out);
    (streams, out)
}

#[test]
fn a_hole_holds_the_other_direction_back_too() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(sent(3, b"def", 2), &mut out);
    streams.push(operation(Direction::Received, 0, b"x", 3), &mut out);
    assert!(out.pieces.is_empty() && streams.is_waiting());
    streams.push(sent(0, b"abc", 1), &mut out);
    let order: Vec<_> = out
        .pieces
        .iter()
        .map(|(_, piece, _)| piece.clone())
        .collect();
    assert_eq!(
        order,
        [b"abc", b"def"]
            .map(|bytes| Out::Bytes(bytes.to_vec()))
            .into_iter()
            .chain([Out::Bytes(b"x".to_vec())])
            .collect::<Vec<_>>()
    );
    assert!(!streams.is_waiting());
    assert_eq!((out.account.held_bytes, streams.held_bytes), (0, 0));
}

#[test]
fn overlapping_bytes_are_trimmed() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(sent(0, b"abcd", 1), &mut out);
    streams.push(sent(2, b"cdef", 2), &mut out);
    streams.push(sent(0, b"ab", 3), &mut out);
    let text: Vec<u8> = out.stream(Direction::Sent).into_iter().flatten().collect();
    assert_eq!(text, b"abcdef");
    assert_eq!(out.stats().bytes_duplicate, 4);
}

#[test]
fn an_old_operation_with_a_longer_tail_gives_only_its_tail() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(sent(0, b"abcd", 1), &mut out);
    streams.push(
        Operation {
            total: 10,
            ..sent(0, b"ab", 2)
        },
        &mut out,
    );
    assert_eq!(out.pieces.last().unwrap().1, Out::Gap(6));
}

#[test]
fn records_and_bytes_held_are_bounded() {
    let (mut streams, mut out) = started();
    for index in 0..=MAX_HELD_RECORDS as u64 {
        assert_eq!(out.stats().holes, 0);
        streams.push(sent(100 + index, b"x", index), &mut out);
    }
    assert_eq!(
        (
            out.stats().holes,
            out.stats().gap_bytes,
            streams.is_waiting()
        ),
        (1, 100, false)
    );

    let (mut streams, mut out) = started();
    streams.push(sent(1, &vec![b'x'; MAX_HELD_BYTES + 1], 0), &mut out);
    assert_eq!((out.stats().holes, out.account.held_bytes), (1, 0));
}

#[test]
fn all_flows_together_are_bounded() {
    let mut out = Output::default();
    let block = vec![b'x'; MAX_HELD_BYTES];
    let mut flows: Vec<Reassembly> = (0..300).map(|_| started().0).collect();
    for flow in &mut flows {
        flow.push(sent(1, &block, 0), &mut out);
        assert!(out.account.held_bytes <= super::MAX_HELD_BYTES_TOTAL);
    }
    assert_eq!(
        out.stats().holes,
        300 - (super::MAX_HELD_BYTES_TOTAL / MAX_HELD_BYTES) as u64
    );
}

#[test]
fn patience_ends_by_record_time() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(sent(5, b"x", 7), &mut out);
    streams.on_tick(7 + PATIENCE - 1, &mut out);
    assert!(out.pieces.is_empty());
    streams.on_tick(7 + PATIENCE, &mut out);
    assert_eq!(
        out.stream(Direction::Sent),
        [None, None, None, None, None, Some(b'x')]
    );
}

#[test]
fn the_end_of_a_direction_comes_after_missing_bytes() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(end(Direction::Sent, 4, 1), &mut out);
    streams.flush(&mut out);
    let pieces: Vec<_> = out
        .pieces
        .iter()
        .map(|(_, piece, _)| piece.clone())
        .collect();
    assert_eq!(pieces, [Out::Gap(4), Out::End]);
    streams.push(sent(4, b"late", 2), &mut out);
    assert_eq!(out.stats().bytes_after_end, 4);
}

#[test]
fn an_end_that_is_told_twice_is_one_end() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    for direction in [Direction::Sent, Direction::Received, Direction::Sent] {
        assert!(!streams.is_over() || direction == Direction::Sent);
        streams.push(end(direction, 0, 1), &mut out);
    }
    assert!(streams.is_over());
    assert_eq!(out.pieces.len(), 2);
    assert_eq!(out.stats().bytes_after_end, 0);
}

#[test]
fn a_flow_without_its_first_record_begins_where_it_is_joined() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(operation(Direction::Received, 1000, b"ask", 1), &mut out);
    assert!(out.pieces.is_empty());
    streams.on_tick(1 + PATIENCE, &mut out);
    streams.push(sent(500, b"answer", 2), &mut out);
    streams.on_tick(2 + PATIENCE, &mut out);
    let pieces: Vec<_> = out.pieces.iter().map(|(_, piece, _)| piece).collect();
    let bytes = |text: &[u8]| Out::Bytes(text.to_vec());
    assert_eq!(
        pieces,
        [
            &Out::Gap(1000),
            &bytes(b"ask"),
            &Out::Gap(500),
            &bytes(b"answer")
        ]
    );
    let counted = |stats: &Stats| {
        (
            stats.flows_rejoined,
            stats.holes,
            stats.gaps,
            stats.gap_bytes,
        )
    };
    assert_eq!(counted(out.stats()), (1, 0, 0, 0));

    streams.push(sent(510, b"later", 3), &mut out);
    streams.on_tick(3 + PATIENCE, &mut out);
    assert_eq!(counted(out.stats()), (1, 1, 1, 4));
}

#[test]
fn a_direction_without_its_first_record_has_a_hole_if_the_other_is_known_from_its_start() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(operation(Direction::Received, 0, b"ask", 1), &mut out);
    streams.push(sent(500, b"answer", 2), &mut out);
    streams.on_tick(2 + PATIENCE, &mut out);
    let stats = out.stats();
    assert_eq!(
        (stats.flows_rejoined, stats.holes, stats.gap_bytes),
        (0, 1, 500)
    );
}

/// Cuts a stream of bytes into operations of these lengths.
fn cut(
    direction: Direction,
    bytes: &[u8],
    lengths: &[usize],
    time: u64,
) -> Vec<(Direction, u64, Vec<u8>, u64)> {
    let mut operations = Vec::new();
    let mut offset = 0;
    let mut lengths = lengths.iter().cycle();
    while offset < bytes.len() {
        let length = (*lengths.next().unwrap()).min(bytes.len() - offset);
        let time = time + 2 * operations.len() as u64;
        operations.push((
            direction,
            offset as u64,
            bytes[offset..offset + length].to_vec(),
            time,
        ));
        offset += length;
    }
    operations
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1_usize..40, 1..8)
}

proptest! {
    /// Any chunking, and any disorder within the bounds, gives the same bytes.
    #[test]
    fn disorder_is_undone(
        bytes in proptest::collection::vec(any::<u8>(), 1..400),
        (one, two) in (lengths(), lengths()),
        displacement in proptest::collection::vec(0_usize..8, 1..30),
    ) {
        let mut operations = cut(Direction::Sent, &bytes, &one, 0);
        operations.extend(cut(Direction::Received, &bytes, &two, 1));
        operations.sort_by_key(|operation| operation.3);
        // Each record moves by fewer places than a flow holds records.
        let moved_before = |index: usize, direction: Direction| -> u64 {
            let of = operations[..index].iter().filter(|(of, ..)| *of != direction);
            of.map(|(_, _, bytes, _)| bytes.len() as u64).sum()
        };
        let mut order: Vec<_> = operations.iter().enumerate().collect();
        order.sort_by_key(|(index, _)| index + displacement[index % displacement.len()]);
        let (mut streams, mut out) = (Reassembly::default(), Output::default());
        for (index, (direction, offset, bytes, time)) in order {
            let opposite = moved_before(index, *direction);
            streams.push(after(opposite, operation(*direction, *offset, bytes, *time)), &mut out);
        }
        let expected: Vec<_> = bytes.iter().copied().map(Some).collect();
        prop_assert_eq!(out.stream(Direction::Sent), expected.clone());
        prop_assert_eq!(out.stream(Direction::Received), expected);
        prop_assert_eq!((out.stats().holes, out.account.held_bytes), (0, 0));
    }

    /// Losses, repetition, disorder and cut captures never give a wrong byte and never lose count.
    #[test]
    fn losses_never_give_wrong_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 1..400),
        lengths in lengths(),
        fates in proptest::collection::vec((0_u8..6, 0_usize..40), 1..60),
    ) {
        let operations = cut(Direction::Sent, &bytes, &lengths, 0);
        let mut order: Vec<_> = operations.iter().enumerate().collect();
        order.sort_by_key(|(index, _)| index + fates[index % fates.len()].1);
        let (mut streams, mut out) = started();
        for (index, (direction, offset, bytes, time)) in order {
            let whole = operation(*direction, *offset, bytes, *time);
            match fates[index % fates.len()].0 {
                0 => {}
                1 => streams.push(Operation { bytes: &bytes[..bytes.len() / 2], ..whole }, &mut out),
                2 => (0..2).for_each(|_| streams.push(whole, &mut out)),
                3 => {
                    streams.push(whole, &mut out);
                    streams.on_tick(time + PATIENCE, &mut out);
                }
                _ => streams.push(whole, &mut out),
            }
        }
        streams.push(end(Direction::Sent, bytes.len() as u64, 10_000), &mut out);
        streams.flush(&mut out);
        let stream = out.stream(Direction::Sent);
        prop_assert_eq!(stream.len(), bytes.len());
        prop_assert!(stream.iter().zip(&bytes).all(|(got, &sent)| got.is_none_or(|got| got == sent)));
        prop_assert_eq!(out.pieces.last().map(|(_, piece, _)| piece.clone()), Some(Out::End));
        prop_assert_eq!(stream.iter().filter(|byte| byte.is_none()).count() as u64, out.stats().gap_bytes);
        prop_assert_eq!(out.account.held_bytes, 0);
    }

    /// Operations that no kernel would report are harmless.
    #[test]
    fn nonsense_is_harmless(
        operations in proptest::collection::vec((any::<bool>(), any::<u64>(), any::<u32>(), any::<u64>(), any::<bool>(), any::<u64>()), 0..60),
    ) {
        let (mut streams, mut out) = (Reassembly::default(), Output::default());
        for (is_sent, offset, total, time, end, opposite) in operations {
            let direction = if is_sent { Direction::Sent } else { Direction::Received };
            let bytes = &[7; 32][..total.min(32) as usize];
            streams.push(Operation { total: total.into(), end, opposite, ..operation(direction, offset, bytes, time) }, &mut out);
            streams.on_tick(time, &mut out);
            prop_assert!(streams.held.len() <= MAX_HELD_RECORDS);
        }
        streams.flush(&mut out);
        prop_assert!(!streams.is_waiting());
    }
}

#[test]
fn what_the_other_direction_had_moved_comes_first() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(received(0, b"ask", 1), &mut out);
    // The record of the next request overtakes that of the answer.
    streams.push(after(6, received(3, b"more", 3)), &mut out);
    streams.push(after(3, sent(0, b"answer", 2)), &mut out);
    let order: Vec<_> = out
        .pieces
        .iter()
        .map(|(direction, ..)| *direction)
        .collect();
    assert_eq!(
        order,
        [Direction::Received, Direction::Sent, Direction::Received]
    );
    assert_eq!((out.stats().gaps, streams.is_waiting()), (0, false));
}

#[test]
fn a_record_shows_what_was_lost_in_the_other_direction() {
    let (mut streams, mut out) = (Reassembly::default(), Output::default());
    streams.push(received(0, b"ask", 1), &mut out);
    streams.push(after(6, received(3, b"more", 3)), &mut out);
    streams.on_tick(3 + PATIENCE, &mut out);
    let order: Vec<_> = out
        .pieces
        .iter()
        .map(|(of, piece, _)| (*of, piece.clone()))
        .collect();
    assert_eq!(
        order,
        [
            (Direction::Received, Out::Bytes(b"ask".to_vec())),
            (Direction::Sent, Out::Gap(6)),
            (Direction::Received, Out::Bytes(b"more".to_vec())),
        ]
    );
    assert!(out.pieces[1].2.unwitnessed);
}
