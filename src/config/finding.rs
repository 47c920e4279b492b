//! What is wrong with a job file, all of it at once, each with its place.

use std::{collections::BTreeMap, error::Error as StdError, fmt, sync::Arc};

use crate::error::Error;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// It was not given.
    #[default]
    Default,
    /// The job file.
    File {
        /// The file, as it was named.
        file: Arc<str>,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// `--set` on the command line.
    Set,
}

impl Origin {
    /// A higher one wins.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Set => 3,
        }
    }

    /// Whether a secret given this way can be read by others: a file is copied about, a command line is public.
    pub(super) fn is_readable_by_others(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Set)
    }

    fn place(&self) -> (u8, usize, usize) {
        match self {
            Self::File { line, column, .. } => (self.rank(), *line, *column),
            _ => (self.rank(), 0, 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, .. } => write!(f, "{file}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// Where the values of a job came from, by key path. A key that is not in it has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where the value of the key `path` came from.
    #[must_use]
    pub fn of(&self, path: &str) -> Origin {
        self.0.get(path).cloned().unwrap_or_default()
    }

    pub(super) fn insert(&mut self, path: String, origin: Origin) {
        self.0.insert(path, origin);
    }
}

/// One thing that is wrong, or that one should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The value that it is about; [`Origin::Default`] if there is none, as when it is missing.
    pub origin: Origin,
    /// The key path, empty if it is about the whole file.
    pub path: String,
    /// What is wrong, in one line without a secret.
    pub message: String,
    /// The offending word; of a URL its scheme alone.
    pub word: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => {}
            Origin::File { file, line, column } => write!(f, "{file}:{line}:{column}: ")?,
            other => write!(f, "{other}: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.word {
            // The word was escaped when it was taken.
            Some(word) => write!(f, " word=\"{word}\""),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a job file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// What is wrong: at least one thing.
    pub faults: Vec<Finding>,
}

impl Faults {
    pub(super) fn new(file: Arc<str>, mut faults: Vec<Finding>) -> Self {
        faults.sort_by_key(|fault| fault.origin.place());
        Self { file, faults }
    }
}

impl fmt::Display for Faults {
    /// One line for each fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if fault.origin == Origin::Default {
                write!(f, "{}: ", self.file)?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl StdError for Faults {}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        let message = format!("the job file has faults file={} faults={}", faults.file, faults.faults.len());
        Self::config(message).caused_by(faults)
    }
}
