//! Logs: structured, to standard error only, one line each, for people or as JSON.
//!
//! What is logged comes partly from elsewhere (server answers, names), so control characters are escaped and long texts
//! cut. Lines of the client libraries of Kafka and ZooKeeper, which repeat themselves many times a second when a server is
//! away, pass a rate limit. Payloads and secrets are never given to a log call in the first place.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use tracing::{Event, Level, Subscriber, field::Field, span};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use super::{
    rate_limit::RateLimit,
    terminal::Terminal,
    text::{push_printable, shortened},
};
use crate::{
    clock::Clock,
    error::{Error, Result},
};

/// A text longer than this is cut. Server answers may hold whole statements.
const TEXT_BYTES_MAX: usize = 2 * 1024;

/// The same line of such a library comes at most so often.
const REPEAT_INTERVAL: Duration = Duration::from_secs(30);

/// Without a filter by the user: what an operator wants to know, and of the HTTP and SQL libraries only trouble.
/// ZooKeeper's tells each try to connect; that it is away is told by who wants it.
const FILTER_DEFAULT: &str = "info,hyper=warn,sqlx=warn,zookeeper_client=error";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// How and what to log.
#[derive(Debug)]
pub struct LogSettings {
    format: LogFormat,
    colours: bool,
    filter: EnvFilter,
}

impl LogSettings {
    /// Reads `DIRECTSTREAM_LOG` or else `RUST_LOG` (what to log, such as `info` or `directstream=debug`),
    /// `DIRECTSTREAM_LOG_FORMAT` (`human` or `json`), and `NO_COLOR`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a variable of ours that cannot be read. `RUST_LOG` may be meant
    /// for others: what cannot be read there is left out.
    pub fn read(variable: impl Fn(&str) -> Option<String>, on_terminal: bool) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let format = match set("DIRECTSTREAM_LOG_FORMAT").as_deref() {
            None | Some("human") => LogFormat::Human,
            Some("json") => LogFormat::Json,
            Some(_) => return Err(Error::config("DIRECTSTREAM_LOG_FORMAT must be human or json")),
        };
        let filter = match (set("DIRECTSTREAM_LOG"), set("RUST_LOG")) {
            (Some(ours), _) => EnvFilter::try_new(&ours).map_err(|error| {
                Error::config("cannot read DIRECTSTREAM_LOG, expected a level such as info or directstream=debug")
                    .caused_by(error)
            })?,
            (None, Some(rust_log)) => EnvFilter::new(rust_log),
            (None, None) => EnvFilter::new(FILTER_DEFAULT),
        };
        let colours = on_terminal && format == LogFormat::Human && set("NO_COLOR").is_none();
        Ok(Self { format, colours, filter })
    }
}

/// Sends this process's logs to `terminal`, those of libraries that use the `log` crate included. Once per process; a
/// program that embeds the library may install its own subscriber instead.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the process has a log already.
pub fn init_logs(settings: LogSettings, terminal: Terminal, clock: Arc<dyn Clock>) -> Result<()> {
    let LogSettings { format, colours, filter } = settings;
    let lines = LogLines::new(format, colours, clock, move |line| terminal.write(line));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| Error::internal("cannot set up the log").caused_by(error))
}

/// Makes a line of each event and hands it out.
pub(super) struct LogLines {
    format: LogFormat,
    colours: bool,
    clock: Arc<dyn Clock>,
    repeats: Mutex<RateLimit<String>>,
    out: Box<dyn Fn(&str) + Send + Sync>,
}

impl LogLines {
    pub(super) fn new(
        format: LogFormat,
        colours: bool,
        clock: Arc<dyn Clock>,
        out: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let repeats = Mutex::new(RateLimit::every(REPEAT_INTERVAL));
        Self { format, colours, clock, repeats, out: Box::new(out) }
    }

    /// Whether the line is to be written; if so, it says how many like it were not.
    fn admit(&self, fields: &mut Fields, target: &str) -> bool {
        if !target.ends_with("rdkafka") && !target.starts_with("zookeeper_client") {
            return true;
        }
        // Lines about the same trouble differ in times, ports and counts.
        let class = fields.message.chars().filter(|char| !char.is_ascii_digit()).collect();
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        match repeats.admit(class, self.clock.monotonic()) {
            Some(0) => true,
            Some(held_back) => {
                fields.named.push(("held_back", held_back.into()));
                true
            }
            None => false,
        }
    }

    fn human(&self, level: Level, target: &str, fields: &Fields) -> String {
        let mut line = String::with_capacity(160);
        let (dim, colour, plain) = if self.colours { ("\x1b[2m", colour(level), "\x1b[0m") } else { ("", "", "") };
        line.push_str(&format!("{dim}{}{plain} {colour}{level:>5}{plain} {dim}{target}:{plain} ", self.time()));
        push_printable(&mut line, &fields.message);
        for (name, value) in &fields.named {
            line.push(' ');
            line.push_str(name);
            line.push('=');
            match value {
                Value::String(text) if is_plain(text) => line.push_str(text),
                Value::String(text) => {
                    line.push('"');
                    push_printable(&mut line, &text.replace('\\', "\\\\").replace('"', "\\\""));
                    line.push('"');
                }
                other => line.push_str(&other.to_string()),
            }
        }
        line.push('\n');
        line
    }

    fn json(&self, level: Level, target: &str, fields: &Fields) -> String {
        let mut line = String::with_capacity(200);
        let level = level.as_str().to_ascii_lowercase();
        let first = [
            ("time", self.time().into()),
            ("level", level.into()),
            ("target", target.into()),
            ("message", Value::from(&*fields.message)),
        ];
        line.push('{');
        for (name, value) in first.iter().chain(&fields.named) {
            if line.len() > 1 {
                line.push(',');
            }
            line.push_str(&format!("\"{name}\":"));
            // JSON's own escapes leave a few that a terminal acts on.
            for char in value.to_string().chars() {
                if char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                    line.push_str(&format!("\\u{:04x}", u32::from(char)));
                } else {
                    line.push(char);
                }
            }
        }
        line.push_str("}\n");
        line
    }

    fn time(&self) -> String {
        let time = Timestamp::from_millisecond(self.clock.now_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
        format!("{time:.3}")
    }
}

/// Whether the text may stand in a line without quotes.
fn is_plain(text: &str) -> bool {
    let plain = |char: char| char.is_alphanumeric() || "-_./:@+%,".contains(char);
    !text.is_empty() && text.chars().all(plain)
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLines {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Lines of the `log` crate carry their own target as a field.
        let own_target = fields.log_target.take();
        let target = own_target.as_deref().unwrap_or_else(|| event.metadata().target());
        if !self.admit(&mut fields, target) {
            return;
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                // What the event itself or an inner span says wins.
                let new = of_span.named.iter().filter(|(name, _)| !fields.has(name)).cloned().collect::<Vec<_>>();
                fields.named.extend(new);
            }
        }
        let level = *event.metadata().level();
        let line = match self.format {
            LogFormat::Human => self.human(level, target, &fields),
            LogFormat::Json => self.json(level, target, &fields),
        };
        (self.out)(&line);
    }
}

impl fmt::Debug for LogLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLines").field("format", &self.format).finish_non_exhaustive()
    }
}

/// What an event or a span carries.
#[derive(Default)]
struct Fields {
    message: String,
    log_target: Option<String>,
    named: Vec<(&'static str, Value)>,
}

impl Fields {
    fn has(&self, name: &str) -> bool {
        self.named.iter().any(|(known, _)| *known == name)
    }

    fn add(&mut self, field: &Field, value: Value) {
        // A span's field may be recorded again.
        self.named.retain(|(name, _)| *name != field.name());
        self.named.push((field.name(), value));
    }

    fn add_text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => self.message = shortened(text, TEXT_BYTES_MAX).into_owned(),
            "log.target" => self.log_target = Some(text.to_owned()),
            name if name.starts_with("log.") => {}
            _ => self.add(field, Value::from(&*shortened(text, TEXT_BYTES_MAX))),
        }
    }
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        // The `log` crate's lines carry their source line as a number.
        if !field.name().starts_with("log.") {
            self.add(field, value.into());
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let text = value.downcast_ref::<Error>().map_or_else(|| value.to_string(), Error::chain);
        self.add_text(field, &text);
    }
}
