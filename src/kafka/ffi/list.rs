//! Lists of partitions with offsets, as C functions take and fill them.

use std::{
    ffi::{CStr, CString},
    ptr::NonNull,
};

use rdkafka_sys as sys;

use super::{CallError, Code};
use crate::types::TopicPartition;

/// A partition and where in it: an offset, or one of librdkafka's negative specifications.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) topic_partition: &'a TopicPartition,
    pub(crate) offset: i64,
    /// The leader epoch that the offset was read under, if known: the broker then notices a truncated log.
    pub(crate) leader_epoch: Option<i32>,
}

/// A list of partitions that C functions take and fill.
#[derive(Debug)]
pub(super) struct PartitionList(NonNull<sys::rd_kafka_topic_partition_list_t>);

// SAFETY: the list is plain memory with one owner.
unsafe impl Send for PartitionList {}

impl PartitionList {
    pub(super) fn of(places: &[Place<'_>]) -> Result<Self, CallError> {
        let capacity = i32::try_from(places.len()).map_err(|_| CallError::of(Code::INVALID_ARG))?;
        // SAFETY: takes any capacity.
        let raw = unsafe { sys::rd_kafka_topic_partition_list_new(capacity) };
        let list = Self(NonNull::new(raw).ok_or_else(|| CallError::of(Code::INVALID_ARG))?);
        let mut last: Option<(&str, CString)> = None;
        for place in places {
            let name = &*place.topic_partition.topic;
            let topic = match last.take() {
                Some((known, topic)) if known == name => topic,
                _ => c_string(name)?,
            };
            // SAFETY: the list lives and copies the name; the element lives until the next add, its fields may be set.
            unsafe {
                let element = sys::rd_kafka_topic_partition_list_add(
                    list.as_ptr(),
                    topic.as_ptr(),
                    place.topic_partition.partition,
                );
                (*element).offset = place.offset;
                if let Some(epoch) = place.leader_epoch {
                    sys::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
                }
            }
            last = Some((name, topic));
        }
        Ok(list)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    /// Every element as C left it.
    pub(super) fn elements(&self) -> Vec<Element> {
        // SAFETY: the list lives; `cnt` elements lie at `elems`, each with a C string as topic.
        unsafe {
            let list = self.as_ptr();
            let count = usize::try_from((*list).cnt).unwrap_or(0);
            (0..count).map(|index| Element::read((*list).elems.add(index))).collect()
        }
    }

    /// The offset of the first element. No allocation.
    pub(super) fn first_offset(&self) -> Option<i64> {
        // SAFETY: as in `elements`; read only if there is one.
        unsafe {
            let list = self.as_ptr();
            ((*list).cnt > 0).then(|| (*(*list).elems).offset)
        }
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.as_ptr()) }
    }
}

/// One element of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) code: Code,
    pub(super) leader_epoch: Option<i32>,
}

impl Element {
    /// Whether it is about this partition.
    ///
    /// # Safety
    /// `element` points to a live element.
    pub(super) unsafe fn is_of(
        element: *const sys::rd_kafka_topic_partition_t,
        topic_partition: &TopicPartition,
    ) -> bool {
        // SAFETY: the element lives, its topic is a C string.
        unsafe {
            (*element).partition == topic_partition.partition
                && CStr::from_ptr((*element).topic).to_bytes() == topic_partition.topic.as_bytes()
        }
    }

    /// # Safety
    /// `element` points to a live element.
    pub(super) unsafe fn read(element: *const sys::rd_kafka_topic_partition_t) -> Self {
        // SAFETY: the element lives, its topic is a C string; the code is read as an integer.
        unsafe {
            let epoch = sys::rd_kafka_topic_partition_get_leader_epoch(element);
            Self {
                partition: (*element).partition,
                offset: (*element).offset,
                code: Code::of_element(element),
                leader_epoch: (epoch >= 0).then_some(epoch),
            }
        }
    }
}

/// A C string; a NUL inside is an argument that no broker would take.
pub(super) fn c_string(text: &str) -> Result<CString, CallError> {
    CString::new(text).map_err(|_| CallError::of(Code::INVALID_ARG))
}
