use super::model::Facts;
use super::*;
use crate::identity::{Containers, Resource};
use crate::queue::Observed;
use crate::sample::span;
use pilotfish_pipeline::{Attribute, Kind, Slot, Span, SpanId, Status, Value};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::fmt::Write as _;

fn drawn(model: &Model, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| page::draw(model, Theme::new(true), frame.area(), frame.buffer_mut()))
        .unwrap();
    terminal.backend().clone()
}

fn text(model: &Model, width: u16, height: u16) -> String {
    drawn(model, width, height).to_string()
}

fn observed(service: &str, span: Span) -> Arc<Observed> {
    let containers = Containers::new();
    containers.insert(Slot(1), Resource::from_iter([("service.name", service)]));
    Arc::new(Observed {
        container: containers.get(Slot(1)).unwrap(),
        span,
    })
}

/// A proxy, the application behind it and what that asks: children are finished first.
fn order(number: u64, millis: u64) -> Vec<Arc<Observed>> {
    let made = |own: u8, parent: Option<u8>, name: &str, from: u64, to: u64| {
        let mut made = span(1, name);
        made.trace_id.0[..8].copy_from_slice(&number.to_be_bytes());
        made.span_id = SpanId([own; 8]);
        made.parent_span_id = parent.map(|parent| SpanId([parent; 8]));
        let start = made.start_unix_nano + number * 1_000_000;
        made.start_unix_nano = start + from * millis * 10_000;
        made.end_unix_nano = start + to * millis * 10_000;
        made
    };
    let asked = |own, parent, to: &str, from, until| {
        let mut asked = made(own, Some(parent), "GET", from, until);
        asked.kind = Kind::Client;
        asked.attributes.extend([
            Attribute {
                key: "server.address",
                value: Value::Str(to.into()),
            },
            Attribute {
                key: "server.port",
                value: Value::Int(8000),
            },
        ]);
        asked
    };
    vec![
        observed("stock", made(5, Some(4), "GET /stock/{id}", 12, 90)),
        observed("shop", asked(4, 3, "stock", 10, 92)),
        observed("shop", made(3, Some(2), "GET /orders/{id}", 3, 98)),
        observed("nginx", asked(2, 1, "shop", 1, 99)),
        observed("nginx", made(1, None, "GET /orders/{id}", 0, 100)),
    ]
}

fn failed() -> Arc<Observed> {
    let mut span = span(1, "POST /checkout");
    span.trace_id.0[0] = 0xff;
    span.status = Status::Error;
    for attribute in &mut span.attributes {
        if attribute.key == "http.response.status_code" {
            attribute.value = Value::Int(500);
        }
    }
    observed("nginx", span)
}

fn busy() -> Model {
    let mut model = Model::new();
    model.learn(
        Facts {
            containers: 3,
            processes: 7,
            losses: Vec::new(),
        },
        0,
        Some("2026-11-23T05:14:27.149Z  INFO ready".to_owned()),
    );
    for second in 0..30 {
        model.advance(Duration::from_secs(second));
        for number in 0..=second % 7 {
            model.take(&order(second * 10 + number, 20 + second));
        }
    }
    model.take(&[failed()]);
    model
}

#[test]
fn the_view_at_80_columns() {
    insta::assert_snapshot!(drawn(&busy(), 80, 24));
}

#[test]
fn the_view_at_160_columns() {
    insta::assert_snapshot!(drawn(&busy(), 160, 30));
}

#[test]
fn a_selected_route_shows_its_own_traces() {
    let mut model = busy();
    let rows: Vec<_> = model.rows().iter().map(|route| route.what()).collect();
    let checkout = rows
        .iter()
        .position(|what| what == "POST /checkout")
        .unwrap();
    for _ in 0..=checkout {
        assert_eq!(model.press(Key::Down), Demand::Nothing);
    }
    insta::assert_snapshot!(drawn(&model, 80, 24));
    model.press(Key::Back);
    assert!(model.selection().is_none());
    model.press(Key::Up);
    assert_eq!(
        model.selection().unwrap().what(),
        "POST /checkout",
        "the last row"
    );
}

#[test]
fn the_order_of_rows_stands_still_while_one_is_selected() {
    let mut model = busy();
    let names = |model: &Model| -> Vec<String> {
        model
            .rows()
            .iter()
            .map(|route| route.service() + &route.what())
            .collect()
    };
    model.press(Key::Down);
    let before = names(&model);
    let many: Vec<_> = (0..500).map(|_| failed()).collect();
    model.take(&many);
    assert_eq!(names(&model), before);
    model.press(Key::Back);
    assert_eq!(names(&model)[0], "nginxPOST /checkout");
}

#[test]
fn a_pause_shows_what_was_and_counts_what_came() {
    let mut model = busy();
    let before = (model.spans, model.recent(), model.second());
    model.press(Key::Pause);
    model.take(&order(9_999, 20));
    model.advance(Duration::from_secs(500));
    assert_eq!((model.spans, model.recent(), model.second()), before);
    assert!(text(&model, 80, 24).contains("PAUSED, 5 spans not shown"));
    model.press(Key::Pause);
    model.advance(Duration::from_secs(501));
    assert_eq!(model.second(), before.2 + 1, "time stood still meanwhile");
    assert!(!text(&model, 80, 24).contains("PAUSED"));
}

#[test]
fn losses_have_a_line_of_their_own() {
    let mut model = busy();
    assert!(!text(&model, 80, 24).contains("lost:"));
    let facts = Facts {
        losses: vec![("records, ring full", 12)],
        ..model.facts.clone()
    };
    model.learn(facts, 7, None);
    let text = text(&model, 80, 24);
    assert!(
        text.contains("lost:  7 spans not in this view  12 records, ring full"),
        "{text}"
    );
}

#[test]
fn the_help_names_every_key() {
    let mut model = busy();
    model.press(Key::Help);
    insta::assert_snapshot!(drawn(&model, 80, 24));
}

#[test]
fn before_the_first_request_it_says_so() {
    assert!(text(&Model::new(), 80, 24).contains("no request yet"));
}

#[test]
fn only_a_change_asks_for_another_page() {
    let mut model = busy();
    assert!(std::mem::take(&mut model.changed));
    model.advance(Duration::from_millis(29_500));
    model.learn(model.facts.clone(), 0, model.message.clone());
    assert!(!model.changed);
    model.advance(Duration::from_secs(30));
    assert!(model.changed);
}

/// Every size has a page, and no page holds anything that a terminal obeys or that hides or turns what is beside it.
#[test]
fn hostile_names_stay_within_their_cells_at_every_size() {
    let mut hostile = String::from("GET /");
    for code in (0..0x20).chain([
        0x7f, 0x85, 0x9b, 0xad, 0x61c, 0x200b, 0x200d, 0x202e, 0x2066,
    ]) {
        hostile.push(char::from_u32(code).unwrap());
    }
    write!(hostile, "\u{1b}]0;owned\u{7}日本{}", "e\u{301}".repeat(500)).unwrap();
    let mut model = busy();
    let mut span = span(1, &hostile);
    span.trace_id.0[0] = 0xfe;
    span.kind = Kind::Client;
    for key in ["server.address", "url.path"] {
        span.attributes.push(Attribute {
            key,
            value: Value::Str(hostile.as_str().into()),
        });
    }
    model.take(&[observed(&hostile, span)]);
    model.learn(Facts::default(), 3, Some(hostile.clone()));
    for (width, height) in (0..170)
        .flat_map(|width| [(width, 24), (width, 7)])
        .chain((0..60).map(|height| (80, height)))
    {
        let backend = drawn(&model, width, height);
        for cell in backend.buffer().content() {
            let shown = cell.symbol();
            assert_eq!(crate::visible::visible(shown), shown, "{width}x{height}");
        }
    }
    assert!(text(&model, 160, 40).contains("\u{fffd}]0;owned\u{fffd}日本e\u{fffd}"));
}

#[test]
fn keys_are_those_of_the_help() {
    let pressed = |code, modifiers| key(&Event::Key(KeyEvent::new(code, modifiers)));
    let plain = |code| pressed(code, KeyModifiers::NONE);
    assert_eq!(plain(KeyCode::Char('j')), Some(Key::Down));
    assert_eq!(plain(KeyCode::Char('k')), Some(Key::Up));
    assert_eq!(plain(KeyCode::Char('q')), Some(Key::Quit));
    assert_eq!(plain(KeyCode::Esc), Some(Key::Back));
    assert_eq!(
        pressed(KeyCode::Char('c'), KeyModifiers::CONTROL),
        Some(Key::Quit)
    );
    assert_eq!(
        pressed(KeyCode::Char('z'), KeyModifiers::CONTROL),
        Some(Key::Suspend)
    );
    assert_eq!(plain(KeyCode::Char('c')), None);
    assert_eq!(
        pressed(KeyCode::Char('l'), KeyModifiers::CONTROL),
        Some(Key::Redraw)
    );
    assert_eq!(Model::new().press(Key::Redraw), Demand::Redraw);
    assert_eq!(Model::new().press(Key::Quit), Demand::Quit);
    assert_eq!(Model::new().press(Key::Suspend), Demand::Suspend);
}

/// `docker attach` gives the program another terminal, and signals a size that may be the one before.
#[test]
fn every_word_of_a_size_asks_for_the_whole_page() {
    let mut model = Model::new();
    assert_eq!(demand(&Event::Resize(80, 24), &mut model), Demand::Redraw);
    assert_eq!(demand(&Event::FocusGained, &mut model), Demand::Nothing);
}

#[test]
fn one_span_is_no_spans_and_no_error_no_percentage() {
    let mut model = Model::new();
    model.press(Key::Pause);
    model.unseen = 1;
    let shown = text(&model, 80, 24);
    assert!(shown.contains("PAUSED, 1 span not shown"), "{shown}");
    assert!(shown.contains("errors -  "), "{shown}");
}

#[test]
fn the_log_is_the_views_before_its_thread_runs() {
    let messages = Messages::default();
    let source = Source {
        facts: Box::new(Facts::default),
        messages: messages.clone(),
    };
    let view = run(Arc::new(Queue::new(1, 1, 1)), source);
    assert!(messages.take("ready", false));
    drop(view);
    assert!(!messages.take("a view that never ran", false));
}

#[test]
fn a_panic_gives_the_log_back() {
    let messages = Messages::default();
    let held = Held::new(messages.clone());
    assert!(messages.take("while the view has the terminal", false));
    let view = std::thread::spawn(move || {
        let _held = held;
        panic!("a panic that the test wants");
    });
    assert!(view.join().is_err());
    assert!(!messages.take("afterwards", true), "nobody would see it");
}
