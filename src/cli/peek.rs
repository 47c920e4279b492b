//! `directstream peek`: the records of ranges, an RDD on the command line. Nothing is stored, and no group is joined.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::{
    CommandEnd, Console, Table,
    args::{PeekArgs, PeekRange},
    bytes::{Bytes, Header},
    console::time,
};
use crate::{
    error::{Error, Result, Stage},
    stream::{DirectStream, create_rdd, log_ends},
    types::{Offset, OffsetRange, Record, TopicPartition},
};

/// How long Kafka may take to tell what there is.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
struct Peeked {
    topic: String,
    partition: i32,
    offset: i64,
    /// RFC 3339 in UTC; null if the record has none.
    timestamp: Option<String>,
    headers: Vec<Header>,
    /// Null is Kafka's null.
    key: Option<Bytes>,
    value: Option<Bytes>,
}

/// `peek`.
pub(super) async fn peek(args: PeekArgs, console: &Console) -> Result<CommandEnd> {
    let mut stream = DirectStream::topics(args.ranges.iter().map(|range| range.topic.clone()))
        .bootstrap_servers(&args.bootstrap_servers)
        .isolation_level(args.isolation_level.into());
    for (key, value) in args.command_config.as_deref().map_or(Ok(Vec::new()), properties)? {
        stream = stream.property(key, value);
    }
    let partitions: Vec<TopicPartition> =
        args.ranges.iter().map(|range| TopicPartition::new(range.topic.as_str(), range.partition)).collect();
    let ends = log_ends(&stream, &partitions, ENDS_WITHIN, console.clock()).await?;
    let named = partitions.into_iter().zip(&args.ranges).zip(ends);
    let ranges = named.map(|((topic_partition, range), ends)| within(topic_partition, range, ends));
    let ranges = ranges.collect::<Result<Vec<_>>>()?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    // One more than are shown tells whether there are more.
    let records = create_rdd(&stream, ranges)?.take(limit.saturating_add(1)).map_err(|error| error.at(Stage::Read))?;
    let peeked: Vec<Peeked> = records.iter().take(limit).map(|record| Peeked::of(record, args.bytes)).collect();
    let cut = records.len() > limit;
    console.print(&peeked, |peeked| text(peeked, cut))?;
    Ok(CommandEnd::Done)
}

/// The range that is meant: what is not named is the end that Kafka has.
fn within(topic_partition: TopicPartition, range: &PeekRange, [earliest, latest]: [Offset; 2]) -> Result<OffsetRange> {
    let from = range.from.map_or(earliest, Offset::clamped);
    let until = range.until.map_or(latest.max(from), Offset::clamped);
    if from < earliest || until > latest {
        let text = format!(
            "Kafka does not have all of these offsets from={from} until={until} earliest={earliest} latest={latest}"
        );
        return Err(Error::config(text).on(topic_partition));
    }
    Ok(OffsetRange::new(topic_partition, from, until))
}

/// The properties of a file, as Kafka's own tools read them: `key=value` lines, and comments.
fn properties(file: &Path) -> Result<Vec<(String, String)>> {
    let path = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::config(format!("cannot read the client's properties file={path}")).caused_by(error))?;
    let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with(['#', '!']));
    lines
        .map(|(line, number)| match line.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
            // Not repeated: it may hold a password.
            _ => Err(Error::config(format!("{path}:{number}: not key=value"))),
        })
        .collect()
}

impl Peeked {
    fn of(record: &Record, limit: usize) -> Self {
        let shown = |bytes: &[u8]| Bytes::of(bytes, limit);
        let header = |(name, value): (String, Option<Vec<u8>>)| Header { name, value: value.as_deref().map(shown) };
        Self {
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset().get(),
            timestamp: record.timestamp().as_ms().map(time),
            headers: record.headers().into_iter().map(header).collect(),
            key: record.key().map(shown),
            value: record.value().map(shown),
        }
    }
}

fn text(peeked: &[Peeked], cut: bool) -> String {
    let mut table = Table::new(["TOPIC", "PARTITION", "OFFSET", "TIMESTAMP", "HEADERS", "KEY", "VALUE"]).right([1, 2]);
    for record in peeked {
        let headers: Vec<String> = record
            .headers
            .iter()
            .map(|header| format!("{}={}", header.name, Bytes::cell(header.value.as_ref())))
            .collect();
        table.row([
            record.topic.clone(),
            record.partition.to_string(),
            record.offset.to_string(),
            record.timestamp.clone().unwrap_or_default(),
            headers.join(","),
            Bytes::cell(record.key.as_ref()),
            Bytes::cell(record.value.as_ref()),
        ]);
    }
    let more = if cut { " (--limit shows more)" } else { "" };
    format!("{}\nrecords: {}{more}", table.render(), peeked.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: Option<i64>, until: Option<i64>) -> Result<String> {
        let named = PeekRange { topic: "t".to_owned(), partition: 0, from, until };
        let ends = [Offset::clamped(5), Offset::clamped(9)];
        within(TopicPartition::new("t", 0), &named, ends).map(|range| range.to_string())
    }

    #[test]
    fn an_end_that_is_not_named_is_the_log_s_and_none_is_beyond_it() {
        let told = |from: i64, until: i64| format!("OffsetRange(topic: 't', partition: 0, range: [{from} -> {until}])");
        assert_eq!(range(None, None).unwrap(), told(5, 9));
        assert_eq!(range(Some(6), None).unwrap(), told(6, 9));
        assert_eq!(range(None, Some(6)).unwrap(), told(5, 6));
        assert_eq!(range(Some(9), Some(9)).unwrap(), told(9, 9));
        for outside in [(Some(4), Some(6)), (Some(5), Some(10)), (Some(10), None)] {
            assert!(range(outside.0, outside.1).unwrap_err().to_string().contains("earliest=5 latest=9"));
        }
    }

    #[test]
    fn properties_are_read_as_kafkas_own_tools_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.properties");
        std::fs::write(&file, "# comment\n\nsecurity.protocol = SSL\nsasl.password=a=b\n").unwrap();
        let read = properties(&file).unwrap();
        let read: Vec<(&str, &str)> = read.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(read, [("security.protocol", "SSL"), ("sasl.password", "a=b")]);
        std::fs::write(&file, "a=b\nhunter2\n").unwrap();
        let told = properties(&file).unwrap_err().to_string();
        assert!(told.ends_with(":2: not key=value") && !told.contains("hunter2"), "{told}");
    }
}
