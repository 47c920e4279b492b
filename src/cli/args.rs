//! The arguments of every command. Raw values only: they become settings elsewhere.

mod health;
mod offsets;

use std::{ffi::OsStr, path::PathBuf, sync::LazyLock};

use clap::{Arg, Args, Parser, Subcommand, ValueEnum, builder::TypedValueParser, error::ErrorKind};

pub use health::HealthArgs;
pub use offsets::{
    OffsetsChangeArgs, OffsetsCommand, OffsetsExportArgs, OffsetsResetArgs, OffsetsSetArgs, OffsetsShowArgs, Scenario,
};

static VERSION_LINE: LazyLock<String> =
    LazyLock::new(|| format!("{} (librdkafka {})", crate::report::VERSION, crate::report::librdkafka_version()));

/// Kafka into your database, exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "directstream",
    version = VERSION_LINE.as_str(),
    about = "Kafka into your database, exactly once",
    long_about = None,
    after_help = "Start here: directstream demo",
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How stdout is written: a table for people, or one JSON document.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = OutputFormat::Table,
        value_name = "table|json",
        hide_possible_values = true
    )]
    pub output: OutputFormat,
}

/// How stdout is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    Table,
    /// One JSON document, and nothing else.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the promise being kept, in a minute and without any server.
    #[command(after_help = "Example:\n  directstream demo --records 200000 --kills 5")]
    Demo(DemoArgs),

    /// Move a topic into a table, exactly once, as the job file says.
    #[command(after_help = "Examples:\n  directstream run orders.toml\n  \
        directstream run orders.toml --until-latest --set stream.batch_interval=1s")]
    Run(RunArgs),

    /// Ask a running job whether it is alive and makes progress: 0 if so, else 3. For containers and supervisors.
    #[command(after_help = "Examples:\n  directstream health orders.toml\n  \
        directstream health --address 127.0.0.1:9464 --ready")]
    Health(HealthArgs),

    /// Look at the committed offsets of a job, or move them.
    Offsets {
        /// What to do with them.
        #[command(subcommand)]
        command: OffsetsCommand,
    },

    /// Tell how far the committed offsets are behind Kafka.
    #[command(
        after_help = "Examples:\n  directstream lag orders.toml\n  directstream lag orders.toml --watch --every 10s"
    )]
    Lag(LagArgs),

    /// List the batches that were committed last.
    #[command(after_help = "Example:\n  directstream batches orders.toml --last 5 --output json")]
    Batches(BatchesArgs),

    /// Read Kafka again and compare it with the ledger and the tables: each record once, none missing.
    #[command(after_help = "Examples:\n  directstream verify orders.toml\n  \
        directstream verify orders.toml --since 1000 --output json")]
    Verify(VerifyArgs),

    /// List, show, replay or discard the records that were refused.
    DeadLetters {
        /// What to do with them.
        #[command(subcommand)]
        command: DeadLettersCommand,
    },

    /// Show the records of ranges of a topic. Nothing is stored and no group is joined.
    #[command(after_help = "Examples:\n  directstream peek orders:0:40..45 --bootstrap-servers localhost:9092\n  \
        directstream peek orders:0:4711.. --limit 10 --output json")]
    Peek(PeekArgs),

    /// Create, remove or look at the tables in which directstream keeps its offsets.
    Migrate {
        /// What to do with them.
        #[command(subcommand)]
        command: MigrateCommand,
    },

    /// Show the settings in effect and where each came from, secrets hidden; connects to nothing.
    #[command(after_help = "Example:\n  directstream check-config orders.toml --set stream.batch_interval=1s")]
    CheckConfig(JobArgs),

    /// Print what completes the words of this program in a shell.
    #[command(after_help = "Example:\n  directstream completions bash > /etc/bash_completion.d/directstream")]
    Completions(CompletionsArgs),

    /// Print the manual page.
    #[command(after_help = "Example:\n  directstream man > /usr/local/share/man/man1/directstream.1")]
    Man,
}

/// Which job, and the settings changed for this one command.
#[derive(Debug, Clone, Args)]
pub struct JobArgs {
    /// The job file.
    #[arg(value_name = "JOB.toml")]
    pub job: PathBuf,

    /// Sets one key of the job file, over file and environment; may be given more than once. Anyone on the machine can
    /// read a command line: give secrets in a file or the environment instead.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = KeyAndValue)]
    pub set: Vec<(String, String)>,

    /// Let Kafka client settings through that load code, run commands or print secrets.
    #[arg(long)]
    pub allow_unsafe_kafka_options: bool,
}

/// `demo`
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How many records to produce.
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub records: u64,

    /// Into how many partitions.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100))]
    pub partitions: i32,

    /// How often to kill the engine on the way.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub kills: u64,
}

/// `run`
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Stop when the offsets that were latest at start are committed.
    #[arg(long)]
    pub until_latest: bool,

    /// If another process owns the application, wait for ever until it is gone. Without this: wait 10 s, then exit with 5.
    #[arg(long, conflicts_with = "take_over")]
    pub standby: bool,

    /// If another process owns the application, take it over now.
    #[arg(long)]
    pub take_over: bool,
}

/// `lag`
#[derive(Debug, Clone, Args)]
pub struct LagArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Only this topic; may be given more than once. Without it: all topics of the job.
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,

    /// Look again and again, until a signal comes: a line each time, with rates; with --output json a document a line.
    #[arg(long)]
    pub watch: bool,

    /// How long from look to look.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = offsets::duration, requires = "watch")]
    pub every: std::time::Duration,
}

/// `batches`
#[derive(Debug, Clone, Args)]
pub struct BatchesArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// How many batches, newest first.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub last: u32,
}

/// `verify`
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Only the batches from this number on. Then rows too many cannot be told, only those that are missing.
    #[arg(long, default_value_t = 1, value_name = "BATCH", value_parser = clap::value_parser!(u64).range(1..))]
    pub since: u64,
}

/// `dead-letters ...`
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List refused records: where they lie in Kafka, which step refused them, and why.
    #[command(
        after_help = "Example:\n  directstream dead-letters list orders.toml --topic orders --since 2026-01-31T00:00:00Z"
    )]
    List(DeadLettersListArgs),

    /// Show a refused record with its key, value and headers.
    #[command(after_help = "Example:\n  directstream dead-letters show orders.toml orders:0:4711")]
    Show(DeadLettersShowArgs),

    /// Write refused records into the tables after all, once what refused them is mended. A dry run unless --execute.
    ///
    /// The job may run meanwhile. A record's rows and the end of its dead letter are one transaction; what is refused again
    /// stays. Replayed records count as later than all that the tables have: `last` takes their values.
    #[command(after_help = "Example:\n  directstream dead-letters replay orders.toml --topic orders --execute")]
    Replay(DeadLettersChangeArgs),

    /// Delete refused records for good. A dry run unless --execute.
    #[command(after_help = "Example:\n  directstream dead-letters discard orders.toml orders:0:4711 --execute")]
    Discard(DeadLettersChangeArgs),
}

/// Which dead letters; without any of these, all of the job.
#[derive(Debug, Clone, Args)]
pub struct DeadLettersFilter {
    /// Only this topic.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,

    /// Only this partition.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,

    /// Only those refused at this time or later, as in 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = Milliseconds)]
    pub since: Option<i64>,
}

/// `dead-letters list`
#[derive(Debug, Clone, Args)]
pub struct DeadLettersListArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Which.
    #[command(flatten)]
    pub filter: DeadLettersFilter,

    /// How many at most, in the order of topic, partition and offset.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// `dead-letters show`
#[derive(Debug, Clone, Args)]
pub struct DeadLettersShowArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Which one.
    #[arg(value_name = "TOPIC:PARTITION:OFFSET", value_parser = PlaceOfRecord)]
    pub place: RecordPlace,

    /// How much of its key and of its value is shown, in bytes.
    #[arg(long, default_value_t = 4_096, value_name = "N")]
    pub bytes: usize,
}

/// `dead-letters replay` and `dead-letters discard`
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["places", "topic", "partition", "since", "all"])))]
pub struct DeadLettersChangeArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Which ones; several may be named.
    #[arg(value_name = "TOPIC:PARTITION:OFFSET", value_parser = PlaceOfRecord, conflicts_with_all = ["topic", "partition", "since", "all"])]
    pub places: Vec<RecordPlace>,

    /// Which.
    #[command(flatten)]
    pub filter: DeadLettersFilter,

    /// All of the job.
    #[arg(long, conflicts_with_all = ["topic", "partition", "since"])]
    pub all: bool,

    /// Do it. Without this only the number is told.
    #[arg(long)]
    pub execute: bool,
}

/// Where a record lies in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPlace {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Reads `TOPIC:PARTITION:OFFSET`.
#[derive(Debug, Clone, Copy)]
struct PlaceOfRecord;

impl TypedValueParser for PlaceOfRecord {
    type Value = RecordPlace;

    fn parse_ref(&self, command: &clap::Command, _: Option<&Arg>, text: &OsStr) -> Result<RecordPlace, clap::Error> {
        let place = || {
            let mut parts = text.to_str()?.rsplitn(3, ':');
            let (offset, partition, topic) = (parts.next()?, parts.next()?, parts.next()?);
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            let named = !topic.is_empty() && partition >= 0 && offset >= 0;
            named.then(|| RecordPlace { topic: topic.to_owned(), partition, offset })
        };
        place().ok_or_else(|| {
            let told = "a record is named TOPIC:PARTITION:OFFSET, such as orders:0:4711";
            command.clone().error(ErrorKind::ValueValidation, told)
        })
    }
}

/// Reads a time in RFC 3339 as milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy)]
struct Milliseconds;

impl TypedValueParser for Milliseconds {
    type Value = i64;

    fn parse_ref(&self, command: &clap::Command, _: Option<&Arg>, text: &OsStr) -> Result<i64, clap::Error> {
        let time = text.to_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.map(jiff::Timestamp::as_millisecond).ok_or_else(|| {
            let told = "a time is RFC 3339 with an offset, such as 2026-01-31T00:00:00Z";
            command.clone().error(ErrorKind::ValueValidation, told)
        })
    }
}

/// `peek`
#[derive(Debug, Clone, Args)]
pub struct PeekArgs {
    /// Which records: until is not one of them. Without from the first that there is, without until the last.
    #[arg(value_name = "TOPIC:PARTITION:FROM..UNTIL", required = true, value_parser = RangeOfRecords)]
    pub ranges: Vec<PeekRange>,

    /// Brokers to begin with: host:port, separated by commas.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    pub bootstrap_servers: String,

    /// A file with further properties of the client: key=value lines in librdkafka's names.
    #[arg(long, value_name = "FILE")]
    pub command_config: Option<PathBuf>,

    /// Which records of transactional producers are seen.
    #[arg(long, value_enum, default_value_t = Isolation::ReadCommitted, value_name = "read_committed|read_uncommitted", hide_possible_values = true)]
    pub isolation_level: Isolation,

    /// How many records at most, range by range.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,

    /// How much of each key, value and header is shown, in bytes.
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub bytes: usize,
}

/// Kafka's isolation levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Isolation {
    /// Only committed ones.
    ReadCommitted,
    /// All of them.
    ReadUncommitted,
}

impl From<Isolation> for crate::config::IsolationLevel {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::ReadCommitted => Self::ReadCommitted,
            Isolation::ReadUncommitted => Self::ReadUncommitted,
        }
    }
}

/// Records of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset; `None` is the first that Kafka has.
    pub from: Option<i64>,
    /// The offset after the last; `None` is the end.
    pub until: Option<i64>,
}

/// Reads `TOPIC:PARTITION:FROM..UNTIL`.
#[derive(Debug, Clone, Copy)]
struct RangeOfRecords;

impl TypedValueParser for RangeOfRecords {
    type Value = PeekRange;

    fn parse_ref(&self, command: &clap::Command, _: Option<&Arg>, text: &OsStr) -> Result<PeekRange, clap::Error> {
        let range = || {
            let mut parts = text.to_str()?.rsplitn(3, ':');
            let (offsets, partition, topic) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
            let (from, until) = offsets.split_once("..")?;
            let end = |text: &str| if text.is_empty() { Some(None) } else { text.parse::<i64>().ok().map(Some) };
            let (from, until) = (end(from)?, end(until)?);
            let forward = from.is_none_or(|from| from >= 0) && until.is_none_or(|until| until >= from.unwrap_or(0));
            let named = !topic.is_empty() && partition >= 0 && forward;
            named.then(|| PeekRange { topic: topic.to_owned(), partition, from, until })
        };
        range().ok_or_else(|| {
            let told = "a range is TOPIC:PARTITION:FROM..UNTIL, such as orders:0:40..45 or orders:0:40..";
            command.clone().error(ErrorKind::ValueValidation, told)
        })
    }
}

/// `completions`
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// Of which shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `migrate ...`
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Create the tables, or bring them up to this version's shape.
    #[command(after_help = "Example:\n  directstream migrate up orders.toml")]
    Up(JobArgs),

    /// Remove the tables and with them all committed offsets in this database.
    #[command(after_help = "Examples:\n  directstream migrate down orders.toml\n  \
        directstream migrate down orders.toml --to 1")]
    Down(MigrateDownArgs),

    /// Show which migrations are applied.
    #[command(after_help = "Example:\n  directstream migrate status orders.toml")]
    Status(JobArgs),
}

/// `migrate down`
#[derive(Debug, Clone, Args)]
pub struct MigrateDownArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Only what is above this version. Without it everything goes.
    #[arg(long, default_value_t = 0, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
    pub to: i64,
}

/// Reads `KEY=VALUE`. clap's own message would repeat the text, which may hold a password that somebody gave all the same.
#[derive(Debug, Clone, Copy)]
struct KeyAndValue;

impl TypedValueParser for KeyAndValue {
    type Value = (String, String);

    fn parse_ref(&self, command: &clap::Command, _: Option<&Arg>, text: &OsStr) -> Result<Self::Value, clap::Error> {
        match text.to_str().and_then(|text| text.split_once('=')) {
            Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
            _ => {
                let told = "--set takes KEY=VALUE, such as stream.batch_interval=1s";
                Err(command.clone().error(ErrorKind::ValueValidation, told))
            }
        }
    }
}
