//! What a partition's error means to an operator.

use crate::{
    error::{Error, Stage},
    kafka::{Code, IsolationLevel, KafkaProperties, OffsetLookup},
    types::{LogTruncated, OffsetRange},
};

/// An error that came out of a partition's queue.
#[derive(Debug)]
pub(super) struct PartitionFailure {
    pub(super) code: Code,
    pub(super) offset: i64,
    pub(super) text: String,
}

impl PartitionFailure {
    /// The error of `range`. Asks the brokers why the offset is gone, if it is.
    pub(super) fn into_error(
        self,
        range: &OffsetRange,
        isolation: IsolationLevel,
        lookup: Option<&OffsetLookup>,
    ) -> Error {
        let Self { code, offset, text } = self;
        let text = text.replace(['\n', '\r'], " ");
        let error = match code {
            Code::AUTO_OFFSET_RESET | Code::OFFSET_OUT_OF_RANGE => lost(&text, range, isolation, lookup),
            Code::TOPIC_AUTHORIZATION_FAILED => Error::unavailable(format!(
                "the principal may not read the topic: give it READ on the topic code={code}"
            )),
            Code::UNKNOWN_TOPIC_OR_PARTITION | Code::UNKNOWN_PARTITION_LOCAL | Code::UNKNOWN_TOPIC_LOCAL => {
                Error::unavailable(format!("the topic or partition does not exist code={code}"))
            }
            Code::BAD_MSG | Code::CORRUPT_MESSAGE => {
                Error::corrupt(format!("a record batch in Kafka is damaged: {text} offset={offset} code={code}"))
            }
            Code::MESSAGE_TOO_LARGE => Error::config(format!(
                "a record is larger than this client takes: raise kafka.properties receive.message.max.bytes \
                 offset={offset} code={code}"
            )),
            _ => Error::unavailable(format!("cannot read the partition: {text} offset={offset} code={code}")),
        };
        error.at(Stage::Read).in_range(range.clone())
    }
}

/// Why an offset is not there: by the broker's own text, else by what the partition now holds.
fn lost(text: &str, range: &OffsetRange, isolation: IsolationLevel, lookup: Option<&OffsetLookup>) -> Error {
    if text.contains("truncation") {
        return Error::offsets_lost(format!("the log was truncated below the committed offset: {text} {LogTruncated}"))
            .caused_by(LogTruncated);
    }
    let from = range.from_offset;
    let partitions = std::slice::from_ref(&range.topic_partition);
    let first_of = |answers: Vec<crate::kafka::PartitionOffset>| answers.first().and_then(|one| one.outcome.offset());
    let earliest = lookup.and_then(|lookup| first_of(lookup.earliest(partitions, isolation)));
    let latest = lookup.and_then(|lookup| first_of(lookup.latest(partitions, isolation)));
    match (earliest, latest) {
        (Some(earliest), _) if earliest > from => Error::offsets_lost(format!(
            "records were deleted before they were read reason=retention earliest_offset={earliest}"
        )),
        (_, Some(latest)) if latest < from => Error::offsets_lost(format!(
            "the log ends before the committed offset: it was truncated, or the topic was created again \
             reason=truncated latest_offset={latest}"
        )),
        _ => Error::offsets_lost(format!("the offset is not in the log: {text}")),
    }
}

/// No progress, and nobody says why.
pub(super) fn stalled(
    range: &OffsetRange,
    waited_ms: u128,
    cause: Option<String>,
    properties: &KafkaProperties,
) -> Error {
    let cause = cause.unwrap_or_else(|| "the brokers sent neither records nor an error".to_owned());
    Error::unavailable(format!(
        "cannot complete the range: {cause} waited_ms={waited_ms} security_protocol={}",
        properties.security_protocol()
    ))
    .at(Stage::Read)
    .in_range(range.clone())
}
