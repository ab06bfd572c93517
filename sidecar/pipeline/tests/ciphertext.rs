//! Flows that are TLS, seen at their socket: recognised, counted, told once and read no further.

mod wire;

use pilotfish_abi::flag;
use pilotfish_pipeline::{Config, Encrypted, Pipeline, Slot, SlotConfig};
use std::collections::BTreeSet;
use wire::{Bench, Results, Wire};

const MILLISECOND: u64 = 1_000_000;

/// What OpenSSL 3.0 sends first, offering TLS 1.2 at most.
const CLIENT_HELLO: &str = "16030100830100007f0303806e5e9cc90a9bb61468eb1ac2f38403f63b40f922d3f275ec09c0bee62b638e00\
    0004c02b00ff01000052000b000403000102000a000c000a001d0017001e00190018002300000016000000170000000d002a002804030503\
    0603080708080809080a080b080408050806040105010601030303010302040205020602";

/// A request in TLS 1.2.
const APPLICATION_DATA: &str = "170303002a1f27455e47f07fbc3df14ddbaf153fde80e065817f4bb6f52562fa391a904f93658404\
    90980201bc254c";

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(digits).collect()
}

fn http() -> Bench {
    Bench {
        pipeline: Pipeline::new(Config::default()).unwrap(),
        results: Results::default(),
    }
}

#[test]
fn ciphertext_is_recognised_in_pieces_of_any_size_and_told_once() {
    let hello = bytes(CLIENT_HELLO);
    for size in 1..=hello.len() {
        let mut bench = http();
        let mut flow = Wire::new(1, 7, "10.0.0.1:443", "10.0.0.9:5000");
        flow.tid(103);
        for (time, piece) in (1..).zip(hello.chunks(size)) {
            bench.feed(flow.receive(time, piece));
        }
        for time in 200..210 {
            bench.feed(flow.send(time, &bytes(APPLICATION_DATA)));
        }
        let told = Encrypted {
            slot: Slot(7),
            tgid: 100,
            tid: 103,
        };
        assert_eq!(bench.results.encrypted, [told], "pieces of {size}");
        let stats = bench.pipeline.stats();
        assert_eq!((stats.flows_encrypted, stats.flows_unknown), (1, 0));
        assert_eq!(bench.pipeline.bytes_kept(), 0);
        bench.feed(flow.close(300));
        bench.tick(300 + 100 * MILLISECOND);
        assert_eq!(bench.pipeline.flows_open(), 0);
        assert_eq!(bench.pipeline.stats().gaps, 0);
    }
}

/// A client that asks a proxy for a tunnel, and one that gets an upgrade to something else.
#[test]
fn tls_in_a_tunnel_is_told_as_any_other() {
    let connect = &b"CONNECT db:443 HTTP/1.1\r\nHost: db:443\r\n\r\n"[..];
    let upgrade =
        &b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"[..];
    let switched =
        &b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"[..];
    let established = &b"HTTP/1.1 200 Connection established\r\n\r\n"[..];
    for (request, response, first, told) in [
        (connect, established, bytes(CLIENT_HELLO), 1),
        (connect, established, b"EHLO db".to_vec(), 0),
        (upgrade, switched, vec![0x81, 5], 0),
    ] {
        let mut bench = http();
        let mut flow = Wire::new(1, 7, "10.0.0.9:5000", "10.0.0.1:3128");
        bench.feed(flow.send(1, request));
        bench.feed(flow.receive(2, response));
        bench.feed(flow.send(3, &first));
        // What comes later begins with a handshake record too, but does not begin the connection.
        bench.feed(flow.receive(4, &bytes(CLIENT_HELLO)));
        bench.feed(flow.send(5, &bytes(CLIENT_HELLO)));
        assert_eq!(bench.results.encrypted.len(), told, "{first:?}");
        let stats = bench.pipeline.stats();
        assert_eq!(
            (stats.flows_opaque, stats.flows_encrypted),
            (1, told as u64)
        );
        assert_eq!(bench.results.spans.len(), 1, "the request itself");
    }
}

/// A server whose plaintext is seen: the client's hello comes before its socket is known, nothing of it does afterwards.
#[test]
fn a_connection_whose_plaintext_is_seen_is_neither_told_nor_a_loss() {
    let mut bench = http();
    let mut flow = Wire::new(1, 7, "10.0.0.1:443", "10.0.0.9:5000");
    bench.feed(flow.receive(1, &bytes(CLIENT_HELLO)));
    let sent = flow.send(2, &bytes(APPLICATION_DATA));
    let mut close = flow.close(3);
    assert_eq!(close.header.offset, u64::from(sent.header.total));
    close.header.flags |= flag::CARRIES_TLS;
    bench.feed(close);
    bench.tick(3 + 100 * MILLISECOND);
    assert!(bench.results.encrypted.is_empty());
    assert_eq!(bench.pipeline.flows_open(), 0);
    let stats = bench.pipeline.stats();
    assert_eq!((stats.flows_encrypted, stats.gaps, stats.holes), (0, 0, 0));
}

/// A library that was used past the probes: its connection was taken for seen, and only its end tells that it was not.
#[test]
fn a_connection_whose_plaintext_was_not_seen_is_told_at_its_end() {
    let mut bench = http();
    let flow = Wire::new(1, 7, "10.0.0.1:443", "10.0.0.9:5000").tls();
    let mut close = flow.close(3);
    close.header.flags |= flag::UNSEEN;
    bench.feed(close);
    let told = Encrypted {
        slot: Slot(7),
        tgid: 100,
        tid: 0,
    };
    assert_eq!(bench.results.encrypted, [told]);
    assert_eq!(bench.pipeline.stats().flows_encrypted, 1);
    bench.feed(flow.close(4));
    assert_eq!(bench.pipeline.stats().flows_encrypted, 1);
}

#[test]
fn ciphertext_of_a_flow_joined_late_is_recognised_at_a_record() {
    let (mut bench, mut flow) = (
        http(),
        Wire::new(1, 1, "10.0.0.1:443", "10.0.0.9:5000").late(),
    );
    let data = bytes(APPLICATION_DATA);
    bench.feed(flow.receive(10, &data[7..]));
    assert!(bench.results.encrypted.is_empty());
    // As OpenSSL reads: a header, then what it announces.
    bench
        .feed(flow.receive(11, &data[..5]))
        .feed(flow.receive(12, &data[5..]))
        .feed(flow.receive(13, &data));
    assert_eq!(bench.results.encrypted.len(), 1);
    assert_eq!(bench.pipeline.stats().flows_encrypted, 1);
}

#[test]
fn what_is_not_ciphertext_is_not_taken_for_it() {
    let hello = bytes(CLIENT_HELLO);
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut bench = http();
    for (cookie, opening) in [
        request.as_bytes(),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &hello[..10],
        &hello[1..],
        // No connection begins with it.
        &bytes(APPLICATION_DATA),
    ]
    .into_iter()
    .enumerate()
    {
        let mut flow = Wire::new(cookie as u64, 1, "10.0.0.1:80", "10.0.0.9:5000");
        bench.feed(flow.receive(10, opening));
        bench.feed(flow.receive(11, "\r\n"));
    }
    // A body that looks like a record, on a connection that speaks HTTP.
    let mut late = Wire::new(9, 1, "10.0.0.1:80", "10.0.0.9:5000").late();
    bench
        .feed(late.receive(10, request))
        .feed(late.receive(11, &bytes(APPLICATION_DATA)));
    bench.finish();
    assert!(bench.results.encrypted.is_empty());
    assert_eq!(bench.pipeline.stats().flows_encrypted, 0);
}

#[test]
fn what_the_settings_do_not_want_is_not_told() {
    let mut bench = Bench::of(SlotConfig {
        ports: Some(BTreeSet::from([80])),
        ..SlotConfig::default()
    });
    let mut flow = Wire::new(1, 1, "10.0.0.1:443", "10.0.0.9:5000");
    bench.feed(flow.receive(10, &bytes(CLIENT_HELLO)));
    let mut close = Wire::new(2, 1, "10.0.0.1:443", "10.0.0.9:5000")
        .tls()
        .close(20);
    close.header.flags |= flag::UNSEEN;
    bench.feed(close);
    assert!(bench.results.encrypted.is_empty());
    assert_eq!(bench.pipeline.stats().flows_outside_ports, 1);
}
