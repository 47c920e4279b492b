//! Defaults, then the file, then the environment, then `--set`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fs, io,
    path::Path,
    sync::Arc,
};

use super::{
    fill::fill_table,
    finding::{Faults, Finding, Origin},
    job::Job,
    kafka, output,
    output::Surroundings,
    read::{Reader, Readings, Section, join},
    report,
    secret::offending_word,
    store, stream,
    tree::{self, Entry, Table, Value},
};

/// Variables of the environment that begin so are keys: `DIRECTSTREAM__STREAM__BATCH_INTERVAL`.
const VARIABLE_PREFIX: &str = "DIRECTSTREAM__";

/// A job file is a few hundred lines at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The longest application id: it becomes part of group and file names.
const NAME_BYTES_MAX: usize = 200;

/// The variables of the environment, as one look found them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let utf8 = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self(env::vars_os().filter_map(utf8).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    /// The names alone: the environment is where secrets live.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What is loaded beside the file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The environment: layered over the file, and filled into its `${VAR}`.
    pub environment: Environment,
    /// The key and the value of every `--set`, in order.
    pub sets: Vec<(String, String)>,
    /// Lets librdkafka keys through that load code, run commands or print secrets.
    pub allow_unsafe_kafka_options: bool,
}

/// A job without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The job.
    pub job: Job,
    /// What its author should know.
    pub warnings: Vec<Finding>,
}

/// Reads a job file and everything that lies over it.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Loaded, Faults> {
    let file = path.display().to_string();
    let unreadable = |message: String| {
        let fault = Finding { origin: Origin::Default, path: String::new(), message, word: None };
        Faults::new(Arc::from(file.as_str()), vec![fault])
    };
    let read = || -> io::Result<Result<String, String>> {
        if fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Ok(Err("a job file has at most 1 MiB".to_owned()));
        }
        let bytes = fs::read(path)?;
        Ok(String::from_utf8(bytes).map_err(|_| "a job file is UTF-8 text".to_owned()))
    };
    let text = match read() {
        Ok(Ok(text)) => text,
        Ok(Err(message)) => return Err(unreadable(message)),
        Err(error) => return Err(unreadable(format!("cannot read the job file: {}", error.kind()))),
    };
    parse(&file, &text, options)
}

/// The same for a text that is at hand; `file` is what it is called in messages.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(file: &str, text: &str, options: &LoadOptions) -> Result<Loaded, Faults> {
    parse_noting(file, text, options).0
}

/// As [`parse`], with the key paths that were asked for.
pub(super) fn parse_noting(
    file: &str,
    text: &str,
    options: &LoadOptions,
) -> (Result<Loaded, Faults>, BTreeSet<String>) {
    let file: Arc<str> = Arc::from(file);
    let mut table = match tree::parse(&file, text) {
        Ok(table) => table,
        // What else stands in a file that is not TOML can only be guessed.
        Err(faults) => return (Err(Faults::new(file, faults)), BTreeSet::new()),
    };
    let mut faults = Vec::new();
    flatten_properties(&mut table);
    lay_environment_over(&mut table, &options.environment, &mut faults);
    lay_sets_over(&mut table, &options.sets, &mut faults);
    fill_table(&mut table, "", &options.environment, &mut faults);
    let reader = Reader::default();
    for fault in faults {
        reader.fault(fault);
    }
    let job = job(&Section::root(&reader, &table), options);
    reader.unknown_keys(&table, "", "");
    let Readings { faults, warnings, origins, asked } = reader.finish();
    let result = match job {
        Some(job) if faults.is_empty() => Ok(Loaded { job: Job { origins, ..job }, warnings }),
        _ => Err(Faults::new(file, faults)),
    };
    (result, asked)
}

fn job(root: &Section<'_>, options: &LoadOptions) -> Option<Job> {
    let name = root.require("name").and_then(|found| found.parse(application));
    let kafka = kafka::read(&root.section("kafka"), options);
    let stream = stream::read(&root.section("stream"));
    let input = stream::read_input(&root.section("input"));
    let store = store::read(&root.section("store"));
    let around = Surroundings {
        store: store.as_ref().map(|store| store.url.kind()),
        format: input.as_ref().map(|input| input.format),
    };
    let outputs = output::read(root, around);
    let around = report::Around {
        application: name.as_deref(),
        store: store.as_ref().map(|store| &store.url),
        environment: &options.environment,
    };
    let report = report::read(&root.section("report"), around);
    Some(Job {
        name: name?,
        kafka: kafka?,
        stream: stream?,
        input: input?,
        store: store?,
        outputs: outputs?,
        report: report?,
        origins: super::Origins::default(),
    })
}

fn application(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || !text.chars().all(legal) {
        return Err("an application id is letters, digits, dot, underscore and hyphen".to_owned());
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(format!("an application id has at most {NAME_BYTES_MAX} characters"));
    }
    Ok(text.to_owned())
}

/// Everything after `kafka.properties.` is one key, also where the file wrote it without quotes, which in TOML makes a
/// table in a table of it.
fn flatten_properties(table: &mut Table) {
    let Some(kafka) = table.entries.iter_mut().find(|entry| entry.key == "kafka") else { return };
    let Value::Table(kafka) = &mut kafka.node.value else { return };
    let Some(properties) = kafka.entries.iter_mut().find(|entry| entry.key == "properties") else { return };
    let Value::Table(properties) = &mut properties.node.value else { return };
    let mut flat = Vec::new();
    flatten(std::mem::take(&mut properties.entries), "", &mut flat);
    properties.entries = flat;
}

fn flatten(entries: Vec<Entry>, path: &str, flat: &mut Vec<Entry>) {
    for entry in entries {
        let key = join(path, &entry.key);
        match entry.node.value {
            Value::Table(table) => flatten(table.entries, &key, flat),
            _ => flat.push(Entry { key, ..entry }),
        }
    }
}

fn lay_environment_over(table: &mut Table, environment: &Environment, faults: &mut Vec<Finding>) {
    for (name, value) in &environment.0 {
        let Some(path) = name.strip_prefix(VARIABLE_PREFIX) else { continue };
        let lower = path.to_ascii_lowercase();
        let path = match lower.strip_prefix("kafka__properties__") {
            // A variable's name can hold no dots, and librdkafka's keys hold no underscores but in log_level.
            Some(key) => vec!["kafka".to_owned(), "properties".to_owned(), key.replace('_', ".")],
            None => lower.split("__").map(str::to_owned).collect(),
        };
        lay_over(table, &path, value, &Origin::Environment(name.clone()), faults);
    }
}

fn lay_sets_over(table: &mut Table, sets: &[(String, String)], faults: &mut Vec<Finding>) {
    for (path, value) in sets {
        lay_over(table, &set_path(path.trim()), value, &Origin::Set, faults);
    }
}

/// The words of a dotted path. Names that the user makes up may hold dots themselves.
fn set_path(path: &str) -> Vec<String> {
    let words = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    if let Some(key) = path.strip_prefix("kafka.properties.") {
        return vec!["kafka".to_owned(), "properties".to_owned(), key.trim_matches('"').to_owned()];
    }
    match path.strip_prefix("kafka.start.offsets.").and_then(|rest| rest.rsplit_once('.')) {
        Some((topic, partition)) => {
            let mut path = words("kafka.start.offsets");
            path.extend([topic.trim_matches('"').to_owned(), partition.to_owned()]);
            path
        }
        None => words(path),
    }
}

fn lay_over(table: &mut Table, path: &[String], value: &str, origin: &Origin, faults: &mut Vec<Finding>) {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let result = if words.iter().any(|word| word.is_empty()) {
        Err("not a key path".to_owned())
    } else {
        table.lay_over(&words, value, origin)
    };
    if let Err(message) = result {
        let path = offending_word(&path.join("."));
        faults.push(Finding { origin: origin.clone(), path: path.clone(), message, word: Some(path) });
    }
}
