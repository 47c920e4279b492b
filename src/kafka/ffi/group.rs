//! The committed offsets of a consumer group, as a C call that waits for its answer.

use std::{ffi::c_int, slice, time::Duration};

use rdkafka_sys as sys;

use super::{
    CallError, Client, Code,
    admin::{GRACE, Options, elements},
    copied,
    list::{Element, c_string},
};
use crate::types::TopicPartition;

/// What a group has committed for one partition.
#[derive(Debug, Clone)]
pub(crate) struct GroupOffset {
    pub(crate) topic_partition: TopicPartition,
    /// Below zero: none.
    pub(crate) offset: i64,
    /// What was stored beside it.
    pub(crate) metadata: Vec<u8>,
    pub(crate) code: Code,
}

impl Client {
    /// Everything that a group has committed. `stable`: a partition with a transaction that has not ended yet says so by its code,
    /// [`UNSTABLE_OFFSET_COMMIT`](Code::UNSTABLE_OFFSET_COMMIT), instead of what was committed before.
    pub(crate) fn group_offsets(
        &self,
        group: &str,
        stable: bool,
        limit: Duration,
    ) -> Result<Vec<GroupOffset>, CallError> {
        let name = c_string(group)?;
        let options = Options::new(self, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, limit)?;
        let required = c_int::from(stable);
        // SAFETY: the options live. The default gives what was committed before an open transaction.
        unsafe { CallError::take(sys::rd_kafka_AdminOptions_set_require_stable_offsets(options.as_ptr(), required))? };
        // SAFETY: the name lives and is copied; no partitions means all of them; the request is destroyed once, after the call
        // has copied it.
        let asked = self.send(|queue| unsafe {
            let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), std::ptr::null());
            sys::rd_kafka_ListConsumerGroupOffsets(self.as_ptr(), &raw mut request, 1, options.as_ptr(), queue);
            sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        })?;
        let event = asked.wait(limit + GRACE)?;
        // SAFETY: the event lives, and so do the result, its groups and their lists.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event.as_ptr());
            if result.is_null() {
                return Err(CallError::of(Code::INVALID_ARG));
            }
            let mut count = 0;
            let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
            let Some(&group) = elements(groups.cast_const(), count).first() else {
                return Err(CallError::of(Code::INVALID_ARG));
            };
            let code = Code::of_error(sys::rd_kafka_group_result_error(group));
            if code != Code::NONE {
                return Err(CallError::of(code));
            }
            Ok(read_list(sys::rd_kafka_group_result_partitions(group)))
        }
    }
}

/// # Safety
/// `list` is null or a live list.
unsafe fn read_list(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<GroupOffset> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: the list lives; `cnt` elements lie at `elems`, each with a C string as topic; metadata has its length beside it.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let read = |index| {
            let raw = (*list).elems.add(index);
            let element = Element::read(raw);
            let metadata = (*raw).metadata.cast::<u8>();
            let bytes =
                if metadata.is_null() { &[][..] } else { slice::from_raw_parts(metadata, (*raw).metadata_size) };
            GroupOffset {
                topic_partition: TopicPartition::new(copied((*raw).topic), element.partition),
                offset: element.offset,
                metadata: bytes.to_vec(),
                code: element.code,
            }
        };
        (0..count).map(read).collect()
    }
}
