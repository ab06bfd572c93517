//! The configuration file: defaults for the flags of `pilotfish sidecar` and `pilotfish node`.
//!
//! Its keys are the long names of the flags, its values scalars or lists. They become clap's defaults, so a flag wins
//! over the environment and that over the file, and the command line's definition is the only schema.

use crate::cli::Cli;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Read if it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/pilotfish/config.yaml";

/// Longest file, bytes.
const MAX_FILE: u64 = 1 << 20;

/// Subcommands that the file is for.
const SUBCOMMANDS: &[&str] = &["sidecar", "node"];

/// Flags that are no settings.
const NO_SETTINGS: &[&str] = &["help", "version", "config"];

/// Why the file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It cannot be read.
    #[error("cannot read the configuration file {file}: {source}")]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a FIFO or the like.
    #[error("the configuration file {0} is no regular file")]
    Kind(PathBuf),
    /// It is too long.
    #[error("the configuration file {0} has more than {MAX_FILE} bytes")]
    TooLong(PathBuf),
    /// It is no YAML mapping of flags to values.
    #[error("{file}: expected lines such as `capture-bytes: 1024`: {reason}")]
    Syntax {
        /// Which.
        file: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// No flag has this name.
    #[error("{file}, line {line}: there is no setting `{key}`{}", hint(nearest.as_deref()))]
    UnknownKey {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        line: u64,
        /// The key.
        key: String,
        /// The most similar name.
        nearest: Option<String>,
    },
    /// The flag does not take this value.
    #[error("{file}, line {line}: `{key}`: {reason}")]
    Value {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        line: u64,
        /// The key.
        key: String,
        /// What the flag says.
        reason: String,
    },
}

/// Why a command line is not executed.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The line itself, or a request for help.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The file.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
}

/// Reads a command line (with the program's name first), the environment, and the configuration file that `--config`
/// names or `default_file`, if there is one.
pub fn parse(arguments: &[OsString], default_file: &Path) -> Result<Cli, ParseError> {
    let command = with_file(Cli::command(), arguments, default_file)?;
    Ok(Cli::from_arg_matches(
        &command.try_get_matches_from(arguments)?,
    )?)
}

fn with_file(
    command: Command,
    arguments: &[OsString],
    default_file: &Path,
) -> Result<Command, ConfigurationError> {
    // What is wrong with the line is said when it is read for good.
    let Ok(matches) = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(arguments)
    else {
        return Ok(command);
    };
    let Some((name, matches)) = matches
        .subcommand()
        .filter(|(name, _)| SUBCOMMANDS.contains(name))
    else {
        return Ok(command);
    };
    let file = match matches.try_get_one::<PathBuf>("config") {
        Ok(Some(named)) => named.clone(),
        _ if default_file.exists() => default_file.to_owned(),
        _ => return Ok(command),
    };
    let text = read(&file)?;
    apply(command, name, &file, &text)
}

/// The command with the file's values as defaults of one subcommand. Settings of the other ones are checked too.
fn apply(
    mut command: Command,
    name: &str,
    file: &Path,
    text: &str,
) -> Result<Command, ConfigurationError> {
    for (key, entry) in settings(file, text)? {
        let line = entry.defined.line();
        let known = SUBCOMMANDS.iter().filter_map(|subcommand| {
            let argument = setting(command.find_subcommand(subcommand)?, &key)?;
            Some((*subcommand, argument))
        });
        let known: BTreeMap<&str, Arg> = known.map(|(of, arg)| (of, arg.clone())).collect();
        let Some(argument) = known.get(name).or_else(|| known.values().next()) else {
            return Err(ConfigurationError::UnknownKey {
                file: file.to_owned(),
                line,
                nearest: nearest(&command, &key),
                key,
            });
        };
        let defaults = values(argument, &entry.value).map_err(|reason| {
            let file = file.to_owned();
            ConfigurationError::Value {
                file,
                line,
                key,
                reason,
            }
        })?;
        if known.contains_key(name) && !defaults.is_empty() {
            let id = argument.get_id().clone();
            command = command.mut_subcommand(name, |subcommand| {
                subcommand.mut_arg(id, |argument| argument.default_values(defaults))
            });
        }
    }
    Ok(command)
}

fn settings(
    file: &Path,
    text: &str,
) -> Result<BTreeMap<String, Spanned<Value>>, ConfigurationError> {
    // `off` is a value of flags, not a falsehood.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options::<Option<_>>(text, options)
        .map(Option::unwrap_or_default)
        .map_err(|error| ConfigurationError::Syntax {
            file: file.to_owned(),
            reason: error.to_string(),
        })
}

/// The argument of a setting.
fn setting<'command>(subcommand: &'command Command, key: &str) -> Option<&'command Arg> {
    subcommand
        .get_arguments()
        .filter(|argument| !NO_SETTINGS.contains(&argument.get_id().as_str()))
        .find(|argument| argument.get_long() == Some(key))
}

fn nearest(command: &Command, key: &str) -> Option<String> {
    SUBCOMMANDS
        .iter()
        .filter_map(|name| command.find_subcommand(name))
        .flat_map(Command::get_arguments)
        .filter_map(Arg::get_long)
        .filter(|long| !NO_SETTINGS.contains(long))
        .map(|long| (strsim::damerau_levenshtein(long, key), long))
        .min()
        .filter(|(distance, long)| *distance <= long.len() / 2)
        .map(|(_, long)| long.to_owned())
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => "; its name is that of a flag without the dashes, see --help".to_owned(),
    }
}

/// What the flag makes of a value of the file, or what is wrong with it, in the flag's own words.
fn values(argument: &Arg, value: &Value) -> Result<Vec<OsString>, String> {
    let Some(line) = as_flags(argument, value)? else {
        return Ok(Vec::new());
    };
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return Ok(vec!["true".into()]);
    }
    // Alone, so that neither another flag nor the environment has a say.
    let alone = Command::new("configuration")
        .no_binary_name(true)
        .arg(argument.clone());
    let matches = alone
        .try_get_matches_from(line)
        .map_err(|error| first_paragraph(&error.to_string()))?;
    let given = matches.get_raw(argument.get_id().as_str());
    Ok(given.into_iter().flatten().map(OsString::from).collect())
}

/// The flags that say the same; `None` for a value that leaves everything as it is.
fn as_flags(argument: &Arg, value: &Value) -> Result<Option<Vec<String>>, String> {
    let key = argument.get_long().unwrap_or_default();
    let takes_value = argument.get_action().takes_values();
    let needs_value = takes_value
        && argument
            .get_num_args()
            .is_none_or(|range| range.min_values() > 0);
    let with = |value: &String| format!("--{key}={value}");
    match value {
        Value::Absent => Ok(None),
        Value::List(list) if list.is_empty() => Ok(None),
        Value::Switch(false) if !needs_value => Ok(None),
        Value::Switch(true) if !needs_value => Ok(Some(vec![format!("--{key}")])),
        Value::Switch(switch) => Ok(Some(vec![with(&switch.to_string())])),
        _ if !takes_value => Err("expected true or false".to_owned()),
        Value::Text(text) => Ok(Some(vec![with(text)])),
        Value::List(list) => Ok(Some(list.iter().map(with).collect())),
    }
}

fn first_paragraph(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.trim().is_empty());
    let text = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

fn read(file: &Path) -> Result<String, ConfigurationError> {
    let fail = |source| ConfigurationError::Read {
        file: file.to_owned(),
        source,
    };
    let opened = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(file)
        .map_err(fail)?;
    if !opened.metadata().map_err(fail)?.is_file() {
        return Err(ConfigurationError::Kind(file.to_owned()));
    }
    let mut text = String::new();
    opened
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    if text.len() as u64 > MAX_FILE {
        return Err(ConfigurationError::TooLong(file.to_owned()));
    }
    Ok(text)
}

/// A value of the file.
#[derive(Debug, PartialEq)]
enum Value {
    /// Nothing after the colon.
    Absent,
    Switch(bool),
    Text(String),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a number, true, false, or a list of such")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Absent)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Switch(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Text(format!("{value:?}")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(value) = list.next_element()? {
            match value {
                Value::Text(text) => texts.push(text),
                Value::Switch(switch) => texts.push(switch.to_string()),
                Value::Absent | Value::List(_) => {
                    return Err(A::Error::custom("a list may hold texts and numbers only"));
                }
            }
        }
        Ok(Value::List(texts))
    }
}

#[cfg(test)]
mod tests;
