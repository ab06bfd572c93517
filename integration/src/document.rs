//! Commands of the documentation, as a trial runs them.
//!
//! The info string of a fenced block, of which a page shows only the colours, says what becomes of it:
//!
//! | block | what |
//! |---|---|
//! | `sh run=NAME` | run once, in the order of the document, by the trial NAME |
//! | `sh look=NAME` | run until what it prints is as the next block says |
//! | `sh undo=NAME` | run once at the end, when the trial has looked at what the others left |
//! | `text` right after one of them | what it prints, shortened: [`is_shown`] |
//! | `sh not-run` | run by no trial, which the section has to say in the words "not run" |
//!
//! Anything else in a language that is not a shell's is left alone.

use anstream::adapter::strip_str;
use anyhow::{Context, Result, bail, ensure};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::collections::BTreeSet;

/// What a section has to say if it has commands that no trial runs.
const ADMISSION: &str = "not run";

/// What is left out of a line, or, alone, of the lines.
const ELLIPSIS: &str = "...";

/// Hexadecimal words of this length and more are identifiers.
const IDENTIFIER: usize = 8;

/// How a block is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Once.
    Once,
    /// Until it prints what is shown.
    Until,
    /// Once, at the end.
    Undo,
}

/// A block of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How.
    pub manner: Manner,
    /// What a shell is given.
    pub script: String,
    /// What it prints, line by line; empty where nothing is shown.
    pub shown: Vec<String>,
}

/// The shell blocks of a document.
#[derive(Clone, Debug, Default)]
pub struct Document {
    steps: Vec<(String, Step)>,
}

impl Document {
    /// Reads Markdown.
    ///
    /// # Errors
    ///
    /// Where a shell block says neither who runs it nor that nobody does, where a section hides that some of its
    /// commands are not run, and where the output to wait for is missing.
    pub fn read(markdown: &str) -> Result<Self> {
        let mut document = Self::default();
        for section in sections(markdown) {
            document
                .add(&section)
                .with_context(|| format!("in the section {:?}", section.heading))?;
        }
        Ok(document)
    }

    fn add(&mut self, section: &Section) -> Result<()> {
        for (position, (info, text)) in section.blocks.iter().enumerate() {
            let mut words = info.split_whitespace();
            match words.next() {
                Some("sh") => (),
                None => bail!("a block has no info string: {text}"),
                Some(_) => continue,
            }
            let mark = words
                .next()
                .with_context(|| format!("nothing says who runs {text}"))?;
            let (manner, name) = match mark.split_once('=') {
                Some(("run", name)) => (Manner::Once, name),
                Some(("look", name)) => (Manner::Until, name),
                Some(("undo", name)) => (Manner::Undo, name),
                None if mark == "not-run" => {
                    let admitted = section.text.to_lowercase().contains(ADMISSION);
                    ensure!(admitted, "the text does not say {ADMISSION:?} of {text}");
                    continue;
                }
                _ => bail!("the mark {mark} is not known"),
            };
            let shown = match section.blocks.get(position + 1) {
                Some((info, output)) if info == "text" => {
                    output.lines().map(str::to_owned).collect()
                }
                _ => Vec::new(),
            };
            ensure!(
                manner != Manner::Until || !shown.is_empty(),
                "no block `text` says what to wait for after {text}"
            );
            let script = text.clone();
            let step = Step {
                manner,
                script,
                shown,
            };
            self.steps.push((name.to_owned(), step));
        }
        Ok(())
    }

    /// The steps of one trial, in order.
    pub fn steps(&self, name: &str) -> Vec<&Step> {
        let own = self.steps.iter().filter(|(of, _)| of == name);
        own.map(|(_, step)| step).collect()
    }

    /// The trials that it wants to be run by.
    pub fn names(&self) -> BTreeSet<&str> {
        self.steps.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// A heading with what follows it up to the next one.
#[derive(Default)]
struct Section {
    heading: String,
    text: String,
    blocks: Vec<(String, String)>,
}

fn sections(markdown: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let (mut in_heading, mut in_block) = (false, false);
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        if matches!(event, Event::Start(Tag::Heading { .. })) {
            sections.push(Section::default());
        }
        let Some(section) = sections.last_mut() else {
            continue;
        };
        match event {
            Event::Start(Tag::Heading { .. }) => in_heading = true,
            Event::End(TagEnd::Heading(_)) => in_heading = false,
            Event::Start(Tag::CodeBlock(kind)) => {
                in_block = true;
                let info = match kind {
                    CodeBlockKind::Fenced(info) => info.into_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                section.blocks.push((info, String::new()));
            }
            Event::End(TagEnd::CodeBlock) => in_block = false,
            Event::Text(text) if in_heading => section.heading.push_str(&text),
            Event::Text(text) if in_block => {
                if let Some((_, block)) = section.blocks.last_mut() {
                    block.push_str(&text);
                }
            }
            Event::Text(text) | Event::Code(text) => section.text.push_str(&text),
            Event::SoftBreak => section.text.push(' '),
            _ => (),
        }
    }
    sections
}

/// Whether an output has the shown lines in their order, others perhaps between them. `...` stands for anything. What
/// differs from run to run only has to be there: words with digits, and identifiers; but numbers of at most three
/// digits, such as statuses and counts, have to be the same.
pub fn is_shown(shown: &[String], output: &str) -> bool {
    let mut lines = output.lines().map(masked);
    shown
        .iter()
        .filter(|line| line.trim() != ELLIPSIS)
        .all(|wanted| lines.any(|line| is_like(wanted, &line)))
}

fn is_like(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split(ELLIPSIS).map(masked);
    let start = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(start.as_str()) else {
        return false;
    };
    let mut parts: Vec<String> = parts.collect();
    let Some(end) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part.as_str()) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(&end)
}

/// A line as it is compared: what a terminal shows of it with single spaces, and `#` for what differs from run to run.
fn masked(line: &str) -> String {
    let visible = strip_str(line).to_string();
    let words: Vec<&str> = visible.split_whitespace().collect();
    let line = words.join(" ");
    let mut masked = String::with_capacity(line.len());
    let mut rest = line.as_str();
    while let Some(next) = rest.chars().next() {
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(next.len_utf8()));
        masked.push_str(if varies(word) { "#" } else { word });
        rest = after;
    }
    masked
}

/// Times, durations, addresses and versions are words as a whole.
fn belongs(character: char) -> bool {
    character.is_ascii_alphanumeric() || ".:-".contains(character)
}

fn varies(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_number = digits == word.len() && digits <= 3;
    let is_identifier =
        word.len() >= IDENTIFIER && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_identifier || digits > 0 && !is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# One\n\ntext\n\n```sh run=one\nstart\nask\n```\n\nmore\n\n```sh look=one\nprint\n```\n\nIt prints:\n\n\
```text\na line\n...\n```\n\n```yaml\nkey: value\n```\n\n```sh undo=one\nend\n```\n\n\
## Two\n\nThis is **not run** here.\n\n```sh not-run\nelsewhere\n```\n";

    #[test]
    fn steps_are_found_in_their_order() {
        let document = Document::read(PAGE).expect("a document");
        let steps = document.steps("one");
        let manners: Vec<Manner> = steps.iter().map(|step| step.manner).collect();
        assert_eq!(manners, [Manner::Once, Manner::Until, Manner::Undo]);
        assert_eq!(steps[0].script, "start\nask\n");
        assert!(steps[0].shown.is_empty());
        assert_eq!(steps[1].shown[0], "a line");
        assert_eq!(steps[2].script, "end\n");
        assert_eq!(document.names(), BTreeSet::from(["one"]));
    }

    #[test]
    fn what_hides_that_it_is_not_run_is_refused() {
        for (good, bad, reason) in [
            ("**not run**", "run", "does not say"),
            ("sh not-run", "sh", "who runs"),
            ("sh not-run", "sh later=two", "not known"),
            ("sh not-run", "", "no info string"),
            ("```text", "```json", "what to wait for"),
        ] {
            let error = Document::read(&PAGE.replace(good, bad)).expect_err(bad);
            let message = format!("{error:#}");
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn counts_of_a_metrics_page_are_compared() {
        let page = "up{id=\"bdf094bccc83b528\",status=\"200\",name=\"nginx\"} 1\n";
        let is = |shown: &str| is_shown(&[shown.to_owned()], page);
        assert!(is("up{id=\"00aa11bb22cc...\",status=\"200\",...} 1"));
        assert!(!is("up{id=\"00aa11bb22cc...\",status=\"200\",...} 2"));
        assert!(!is("up{id=\"00aa11bb22cc...\",status=\"404\",...} 1"));
    }

    #[test]
    fn output_is_compared_by_what_stays_the_same() {
        let output =
            "starting\n09:15:33.898 nginx   <- GET /   200  101.4us  trace d0b1be2d\nend\n";
        let is = |shown: &str| is_shown(&[shown.to_owned(), "end".to_owned()], output);
        assert!(is("05:14:27.149 nginx <- GET / 200 1.2ms trace deadbeef"));
        assert!(is("05:14:27.149 nginx <- GET / ..."));
        assert!(!is("05:14:27.149 nginx <- GET / 404 1.2ms trace 97ef31d0"));
        assert!(!is("05:14:27.149 nginx -> GET / ..."));
        assert!(!is("nginx ..."));
        assert!(is("... nginx <- ... 200 ... trace 97ef31d0"));
        assert!(!is("... nginx <- ... 404 ... trace 97ef31d0"));
        let turned = ["end".to_owned(), "starting".to_owned()];
        assert!(!is_shown(&turned, output));
    }
}
