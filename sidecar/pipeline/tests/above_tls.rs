//! What is told of a connection above TLS is what would be told of it in clear, but for its scheme.

mod wire;

use pilotfish_pipeline::protocol::PROTOCOLS;
use pilotfish_pipeline::{Attribute, Config, Kind, Pipeline, Span, Stats};
use proptest::prelude::*;
use wire::{Bench, Packet, Results, Wire, text};

fn http() -> Bench {
    Bench {
        pipeline: Pipeline::new(Config::default()).unwrap(),
        results: Results::default(),
    }
}

#[test]
fn an_exchange_above_tls_has_another_scheme_and_port() {
    let request = "GET /users/42 HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (mut bench, mut client, mut served) = (
        http(),
        Wire::new(1, 1, "10.0.0.1:4000", "10.0.0.9:8443").tls(),
        Wire::new(2, 2, "10.0.0.1:8443", "10.0.0.9:5000").tls(),
    );
    bench
        .feed(client.send(10, request))
        .feed(client.receive(20, response))
        .feed(served.receive(10, request))
        .feed(served.send(20, response));
    let (client, served) = (bench.span(1, Kind::Client), bench.span(2, Kind::Server));
    let url = "https://shop.example/users/42";
    assert_eq!(text(client, "url.full").as_deref(), Some(url));
    for span in [client, served] {
        for (key, value) in [
            ("url.scheme", "https"),
            ("server.address", "shop.example"),
            ("server.port", "443"),
            ("network.transport", "tcp"),
            ("network.peer.address", "10.0.0.9"),
            ("network.protocol.version", "1.1"),
        ] {
            assert_eq!(text(span, key).as_deref(), Some(value), "{key}");
        }
    }
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_tls, stats.flows_encrypted), (2, 0));
}

/// Of a unix socket no close is seen, but the library tells of the connection's.
#[test]
fn a_response_that_the_close_of_a_connection_over_a_unix_socket_ends() {
    let (mut bench, mut served) = (http(), Wire::unix(1, 1, 100).tls());
    bench
        .feed(served.receive(10, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
        .feed(served.send(20, "HTTP/1.0 200 OK\r\n\r\nabc"));
    let later = 20_000_000_000;
    bench.tick(later);
    bench
        .feed(served.send(later + 1, "def"))
        .feed(served.send_end(later + 2));
    let span = bench.only_span();
    assert_eq!(span.end_unix_nano, later + 1);
    assert_eq!(text(span, "network.transport").as_deref(), Some("unix"));
    assert_eq!(text(span, "http.response.body.size").as_deref(), Some("6"));
}

/// One connection of a container, as records.
#[derive(Clone, Debug)]
struct Traffic {
    sample: (&'static [u8], &'static [u8]),
    is_client: bool,
    late: bool,
    /// Where operations end.
    cuts: Vec<usize>,
    /// Which of the records are lost.
    lost: Vec<usize>,
}

impl Traffic {
    fn packets(&self, mut wire: Wire) -> Vec<Packet> {
        if self.late {
            wire = wire.late();
        }
        let mut packets = Vec::new();
        for (is_answer, all) in [(false, self.sample.0), (true, self.sample.1)] {
            let mut ends: Vec<_> = self.cuts.iter().map(|cut| cut % all.len()).collect();
            ends.extend([0, all.len()]);
            ends.sort_unstable();
            ends.dedup();
            for piece in ends.windows(2) {
                let (time, piece) = (10 + packets.len() as u64, &all[piece[0]..piece[1]]);
                packets.push(if self.is_client == is_answer {
                    wire.receive(time, piece)
                } else {
                    wire.send(time, piece)
                });
            }
        }
        let time = 10 + packets.len() as u64;
        packets.extend([
            wire.receive_end(time),
            wire.send_end(time),
            wire.close(time),
        ]);
        for lost in &self.lost {
            packets.remove(lost % packets.len());
        }
        packets
    }

    /// What the pipeline makes of it.
    fn run(&self, wire: Wire) -> (Vec<Span>, Vec<Vec<Attribute>>, Stats) {
        let mut bench = http();
        for packet in self.packets(wire) {
            bench.feed(packet);
        }
        bench.tick(2_000_000_000);
        bench.finish();
        let measurements = bench.results.measurements.into_iter();
        let mut attributes: Vec<_> = measurements
            .map(|measurement| measurement.attributes.to_vec())
            .collect();
        let mut spans = bench.results.spans;
        let stays = |attribute: &Attribute| {
            !["url.scheme", "url.full", "server.port"].contains(&attribute.key)
        };
        for span in &mut spans {
            span.attributes.retain(stays);
        }
        for attributes in &mut attributes {
            attributes.retain(stays);
        }
        (spans, attributes, bench.pipeline.stats().clone())
    }
}

fn any_traffic() -> impl Strategy<Value = Traffic> {
    let samples: Vec<_> = PROTOCOLS
        .iter()
        .flat_map(|protocol| protocol.samples)
        .copied()
        .collect();
    (
        prop::sample::select(samples),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(any::<usize>(), 0..20),
        prop::collection::vec(any::<usize>(), 0..3),
    )
        .prop_map(|(sample, is_client, late, cuts, lost)| Traffic {
            sample,
            is_client,
            late,
            cuts,
            lost,
        })
}

proptest! {
    #[test]
    fn in_any_pieces_and_with_any_losses_tls_gives_what_a_socket_gives(traffic in any_traffic()) {
        let wire = || Wire::new(1, 1, "10.0.0.1:8000", "10.0.0.9:8001");
        let (spans, measurements, stats) = traffic.run(wire());
        let (above_tls, measured_above_tls, above_tls_stats) = traffic.run(wire().tls());
        prop_assert_eq!(spans, above_tls);
        prop_assert_eq!(measurements, measured_above_tls);
        prop_assert_eq!(Stats { flows_tls: stats.flows_opened, ..stats }, above_tls_stats);
    }
}
