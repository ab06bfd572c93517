//! Input that means harm, or nothing.

use super::*;
use proptest::{collection::vec, prelude::*, sample::Index, test_runner::RngSeed};
use std::fmt::Write as _;

/// Pieces of YAML that change what stands around them.
const PIECES: &[&str] = &[
    "\n",
    "\r\n",
    "\t",
    " ",
    "  ",
    "- ",
    ": ",
    "# x\n",
    "---\n",
    "...\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "&a ",
    "*a",
    "!!map ",
    "<<: *a\n",
    "? ",
    "~",
    "null",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\0",
    "é",
    "spec:\n",
    "initContainers: []\n",
    "volumes:\n",
    "volumes: null\n",
    "shareProcessNamespace: true\n",
    "hostPID: true\n",
    "%YAML 1.1\n",
];

#[derive(Clone, Debug)]
enum Change {
    Insert(Index, Index),
    Remove(Index, usize),
    Repeat(Index, usize),
    End(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), at()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        4 => (at(), 1_usize..40).prop_map(|(at, length)| Change::Remove(at, length)),
        2 => (at(), 1_usize..200).prop_map(|(at, length)| Change::Repeat(at, length)),
        1 => at().prop_map(Change::End),
    ]
}

/// A place between two characters.
fn place(text: &str, at: Index) -> usize {
    text.floor_char_boundary(at.index(text.len() + 1))
}

fn changed(mut text: String, change: &Change) -> String {
    match change {
        Change::Insert(at, piece) => text.insert_str(place(&text, *at), piece.get::<&str>(PIECES)),
        Change::Remove(at, length) => {
            let start = place(&text, *at);
            let end = text.floor_char_boundary(start + length);
            text.replace_range(start..end, "");
        }
        Change::Repeat(at, length) => {
            let start = place(&text, *at);
            let end = text.floor_char_boundary(start + length);
            let part = text[start..end].to_owned();
            text.insert_str(start, &part);
        }
        Change::End(at) => text.truncate(place(&text, *at)),
    }
    text
}

/// A result is right, whatever went in: it says the same twice, and can be taken back to the byte.
fn check(text: &str) {
    let Ok(once) = inject(text, &SidecarOptions::default()) else {
        return;
    };
    let twice = injected(&once.text);
    assert_same(&twice.text, &once.text);
    assert_same(&uninjected(&once.text), text);
}

/// Tells where two long texts differ, instead of both.
fn assert_same(one: &str, other: &str) {
    let differs = one
        .bytes()
        .zip(other.bytes())
        .take_while(|(one, other)| one == other);
    let at = differs.count();
    let around = |text: &str| {
        let bytes = text
            .as_bytes()
            .get(at.saturating_sub(60)..)
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned()
    };
    assert!(
        one == other,
        "{:?}\n  instead of {:?}",
        around(one),
        around(other)
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn damaged_manifests_are_read_right_or_not_at_all(
        shape in any::<Index>(),
        changes in vec(change(), 1..4),
    ) {
        let shapes: Vec<Shape> = shapes().into_iter().filter(|shape| shape.text.len() < 4000).collect();
        let text = shape.get(&shapes).text.clone();
        check(&changes.iter().fold(text, changed));
    }

    #[test]
    fn pieces_are_read_right_or_not_at_all(pieces in vec(any::<Index>(), 0..30)) {
        let pieces: String = pieces.iter().map(|piece| *piece.get(PIECES)).collect();
        check(&pieces);
        check(&format!("apiVersion: v1\nkind: Pod\nspec:\n  containers: [{{name: a}}]\n  {pieces}"));
        check(&format!("apiVersion: v1\nkind: Pod\nspec:{pieces}\n  containers:\n  - name: a\n"));
    }
}

#[test]
fn nested_aliases_cost_nothing() {
    let mut text =
        "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n    l0: &l0 [lol, lol, lol]\n"
            .to_owned();
    for level in 1..30 {
        let previous = level - 1;
        let items = vec![format!("*l{previous}"); 10].join(", ");
        writeln!(text, "    l{level}: &l{level} [{items}]").expect("memory");
    }
    text += "spec:\n  containers:\n  - name: web\n    ports: *l29\n";
    let filtered = injected(&text);
    assert_eq!(outcomes(&filtered), [&Outcome::Injected]);
    assert_eq!(uninjected(&filtered.text), text);
}

#[test]
fn merge_keys_that_lead_everywhere_end() {
    let mut text = "a0: &a0 {x: 1}\n".to_owned();
    for level in 1..30 {
        let previous = level - 1;
        writeln!(
            text,
            "a{level}: &a{level} {{<<: [*a{previous}, *a{previous}, *a{previous}, *a{previous}]}}"
        )
        .expect("memory");
    }
    text += "self: &self {<<: *self}\n<<: [*self, *a29, *a29]\n";
    assert_eq!(injected(&text).text, text);
}

#[test]
fn depth_is_bounded() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
    ] {
        let error = inject(&text, &SidecarOptions::default()).expect_err("too deep");
        assert!(matches!(
            error,
            InjectError::Filter(FilterError::Tree(TreeError::Syntax { .. }))
        ));
    }
}

#[test]
fn the_number_of_values_is_bounded() {
    let text = format!("[{}]", "1,".repeat(2_000_001));
    let error = inject(&text, &SidecarOptions::default()).expect_err("too many");
    assert!(matches!(
        error,
        InjectError::Filter(FilterError::Tree(TreeError::TooManyNodes))
    ));
}

#[test]
fn what_becomes_too_much_is_told_as_that() {
    let pod = r#""apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"web"}]}"#;
    let text = format!("{{{pod},\"x\":[{}1]}}", "1,".repeat(1_999_960));
    let error = inject(&text, &SidecarOptions::default()).expect_err("too many");
    assert!(
        matches!(
            error,
            InjectError::Filter(FilterError::Tree(TreeError::TooManyNodes))
        ),
        "{error}"
    );
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    let text =
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  {{- range .Values.containers }}\n";
    let error = inject(text, &SidecarOptions::default()).expect_err("a template");
    assert!(error.to_string().starts_with("line "), "{error}");
}
