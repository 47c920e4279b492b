//! Offsets as `kafka-consumer-groups` writes and reads them: `topic,partition,offset`, a line each, without a header.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::types::TopicPartition;

/// The offsets as CSV.
pub(super) fn write<'r>(rows: impl Iterator<Item = (&'r str, i32, i64)>, header: bool) -> String {
    let mut text = String::new();
    if header {
        text.push_str("topic,partition,offset\n");
    }
    for (topic, partition, offset) in rows {
        // A topic's name has nothing that would need quotes, and writing to a string cannot fail.
        let _ = writeln!(text, "{topic},{partition},{offset}");
    }
    text
}

/// Reads offsets, with or without a header, and with or without the consumer group in front, which must be `group`.
///
/// # Errors
/// Every line that cannot be read, by its number.
pub(super) fn read(text: &str, group: &str) -> Result<BTreeMap<TopicPartition, i64>, Vec<(usize, String)>> {
    let (mut offsets, mut faults) = (BTreeMap::new(), Vec::new());
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().zip(1..);
    for (index, (line, number)) in lines.filter(|(line, _)| !line.trim().is_empty()).enumerate() {
        let fields = fields(line);
        if index == 0 && is_header(&fields) {
            continue;
        }
        match row(&fields, group) {
            Ok((topic_partition, offset)) => {
                let twice = offsets.insert(topic_partition, offset).is_some();
                faults.extend(twice.then(|| (number, "the same partition twice".to_owned())));
            }
            Err(fault) => faults.push((number, fault)),
        }
    }
    if offsets.is_empty() && faults.is_empty() {
        faults.push((1, "no line with an offset".to_owned()));
    }
    if faults.is_empty() { Ok(offsets) } else { Err(faults) }
}

fn is_header(fields: &[String]) -> bool {
    let lower: Vec<String> = fields.iter().map(|field| field.to_ascii_lowercase()).collect();
    let names = ["group", "topic", "partition", "offset"];
    lower == names || lower == names[1..]
}

fn row(fields: &[String], group: &str) -> Result<(TopicPartition, i64), String> {
    let (topic, partition, offset) = match fields {
        [topic, partition, offset] => (topic, partition, offset),
        [named, topic, partition, offset] if named == group => (topic, partition, offset),
        [named, _, _, _] => return Err(format!("the offset of another group group={named:?}")),
        _ => return Err("not topic,partition,offset".to_owned()),
    };
    let partition = partition.parse().ok().filter(|partition| *partition >= 0);
    let partition = partition.ok_or_else(|| "the partition is not a number from 0".to_owned())?;
    let offset: i64 = offset.parse().map_err(|_| "the offset is not a number".to_owned())?;
    if topic.is_empty() {
        Err("no topic".to_owned())
    } else {
        Ok((TopicPartition::new(topic.as_str(), partition), offset))
    }
}

/// The fields of a line; Kafka's tool puts long names in quotes.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field).trim().to_owned()),
            c => field.push(c),
        }
    }
    fields.push(field.trim().to_owned());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tp(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(topic, partition)
    }

    #[test]
    fn what_is_written_is_read_with_and_without_a_header() {
        let rows = [("a.b-c_d", 0, 5), ("a.b-c_d", 1, 0), ("z", 7, i64::MAX)];
        for header in [false, true] {
            let text = write(rows.into_iter(), header);
            assert_eq!(text.lines().next(), Some(if header { "topic,partition,offset" } else { "a.b-c_d,0,5" }));
            let read = read(&text, "job").unwrap();
            assert_eq!(read, rows.map(|(topic, partition, offset)| (tp(topic, partition), offset)).into());
        }
    }

    #[test]
    fn kafkas_own_forms_are_read() {
        let read = |text: &str| read(text, "job").unwrap();
        let expected: BTreeMap<_, _> = [(tp("a-topic-with-a-rather-long-name", 0), 5), (tp("b", 12), 44)].into();
        for text in [
            "\"a-topic-with-a-rather-long-name\",0,5\nb,12,44\n",
            "job,\"a-topic-with-a-rather-long-name\",0,5\r\n\r\njob,b,12,44",
            "\u{feff}TOPIC, PARTITION, OFFSET\na-topic-with-a-rather-long-name, 0, 5\n b,12,44\n",
            "group,topic,partition,offset\njob,a-topic-with-a-rather-long-name,0,5\njob,b,12,44\n",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        // Below zero is what the nearest offset that Kafka has is taken for, as Kafka's tool does.
        assert_eq!(read("b,0,-5"), [(tp("b", 0), -5)].into());
    }

    #[test]
    fn every_line_that_is_none_is_named() {
        let text = "topic,partition,offset\nt,0,1\nt,0,2\nt,x,1\nt,-1,1\nt,1,y\nother,t,1,1\nt,1\n,1,1\nt,1,2,3,4\n";
        let faults = read(text, "job").unwrap_err();
        let lines: Vec<_> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10], "{faults:?}");
        assert!(faults[4].1.contains("group=\"other\""), "{faults:?}");
        // A line of names is one only at the beginning.
        assert_eq!(read("t,0,1\ntopic,partition,offset\n", "job").unwrap_err().len(), 1);
        for empty in ["", "\n\n", "topic,partition,offset\n"] {
            assert_eq!(read(empty, "job").unwrap_err().len(), 1);
        }
    }
}
