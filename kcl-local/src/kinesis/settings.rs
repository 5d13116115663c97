//! What can be changed about a stream besides its shards, and the hooks for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::ApiError;

use super::control::RECORD_KIB_RANGE;
use super::errors::{constraint, invalid, within};
use super::reshard::not_active;
use super::shard::StoredRecord;
use super::stream::{Stream, StreamStatus};
use super::{Kinesis, StreamRef, millis_of};

/// The hours retention can be set to: a day to a year.
const RETENTION_HOURS: (u32, u32) = (24, 8_760);
const HOUR: u64 = 3_600_000;
const TAGS: usize = 50;

/// A page of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagPage {
    /// Keys and values, in the order of the keys.
    pub tags: Vec<(String, String)>,
    /// Whether more follow.
    pub has_more_tags: bool,
}

impl Kinesis {
    /// Keeps records longer.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException`; `InvalidArgumentException` if `hours`
    /// is less than now or not 24 to 8,760.
    pub fn increase_stream_retention_period<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        hours: u32,
    ) -> Result<(), ApiError> {
        self.change_retention(&stream.into(), hours, "IncreaseStreamRetentionPeriod", |stream, wanted| {
            if wanted >= stream.retention {
                return Ok(());
            }
            Err(invalid(format!(
                "Requested retention period ({hours} hours) for stream {} can not be shorter than existing retention \
                 period ({} hours). Use DecreaseRetentionPeriod API.",
                stream.name,
                stream.retention.div_ceil(HOUR)
            )))
        })
    }

    /// Keeps records for a shorter time; those that are older are gone at once.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException`; `InvalidArgumentException` if `hours`
    /// is more than now or not 24 to 8,760.
    pub fn decrease_stream_retention_period<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        hours: u32,
    ) -> Result<(), ApiError> {
        self.change_retention(&stream.into(), hours, "DecreaseStreamRetentionPeriod", |stream, wanted| {
            if wanted <= stream.retention {
                return Ok(());
            }
            Err(invalid(format!(
                "Requested retention period ({hours} hours) for stream {} can not be longer than existing retention \
                 period ({} hours). Use IncreaseRetentionPeriod API.",
                stream.name,
                stream.retention.div_ceil(HOUR)
            )))
        })
    }

    /// Sets the largest record (data and partition key) a stream takes, 1,024 to 10,240 KiB.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException`, `ValidationException`.
    pub fn update_max_record_size<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        kib: u32,
    ) -> Result<(), ApiError> {
        within(kib, RECORD_KIB_RANGE, "maxRecordSizeInKiB")?;
        self.change_settings(&stream.into(), "UpdateMaxRecordSize", |stream| {
            stream.max_record_kib = kib;
            Ok(())
        })
    }

    /// Adds tags, replacing those of the same key.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException`, `ValidationException`;
    /// `InvalidArgumentException` above 50 tags.
    pub fn add_tags_to_stream<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        tags: BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        self.change_settings(&stream.into(), "AddTagsToStream", |stream| {
            let kept = stream.tags.keys().filter(|key| !tags.contains_key(*key)).count();
            check_tags(&tags, kept)?;
            stream.tags.extend(tags);
            Ok(())
        })
    }

    /// Removes tags; keys that are not there are passed over.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException`.
    pub fn remove_tags_from_stream<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        keys: &[String],
    ) -> Result<(), ApiError> {
        self.change_settings(&stream.into(), "RemoveTagsFromStream", |stream| {
            stream.tags.retain(|key, _| !keys.contains(key));
            Ok(())
        })
    }

    /// Lists up to `limit` tags (default 50) whose keys follow `exclusive_start_key`.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ValidationException`.
    pub fn list_tags_for_stream<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        exclusive_start_key: Option<&str>,
        limit: Option<u32>,
    ) -> Result<TagPage, ApiError> {
        let stream = stream.into();
        let limit = limit.map_or(Ok(50), |limit| within(limit, (1, 50), "limit"))? as usize;
        self.with(|state| {
            let all = &state.resolve(&stream)?.tags;
            let rest =
                all.iter().filter(|(key, _)| exclusive_start_key.is_none_or(|start| key.as_str() > start));
            let mut tags: Vec<_> =
                rest.take(limit + 1).map(|(key, value)| (key.clone(), value.clone())).collect();
            let has_more_tags = tags.len() > limit;
            tags.truncate(limit);
            Ok(TagPage { tags, has_more_tags })
        })
    }

    /// Sets retention to any length, for tests of trimming.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn set_retention<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        retention: Duration,
    ) -> Result<(), ApiError> {
        let stream = stream.into();
        self.altering(|state| {
            let now = state.now;
            let stream = state.resolve(&stream)?;
            stream.expire(now);
            stream.retention = millis_of(retention);
            stream.expire(now);
            Ok(())
        })
    }

    /// Makes every shard iterator of the stream that exists an expired one.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn expire_iterators<'a>(&self, stream: impl Into<StreamRef<'a>>) -> Result<(), ApiError> {
        let stream = stream.into();
        self.altering(|state| {
            let next = state.issued + 1;
            state.resolve(&stream)?.oldest_iterator = next;
            Ok(())
        })
    }

    /// Counts the records ever acknowledged, also those that retention has removed.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn total_records<'a>(&self, stream: impl Into<StreamRef<'a>>) -> Result<u64, ApiError> {
        let stream = stream.into();
        self.with(|state| {
            let stream = state.resolve(&stream)?;
            let shards = stream.shards.values().map(|shard| shard.total());
            Ok(stream.expired_total + shards.sum::<u64>())
        })
    }

    /// Returns all records a shard keeps, whatever the limits.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn records_of<'a>(
        &self,
        stream: impl Into<StreamRef<'a>>,
        shard: &str,
    ) -> Result<Vec<StoredRecord>, ApiError> {
        let stream = stream.into();
        self.with(|state| {
            let now = state.now;
            Ok(state.resolve(&stream)?.shard(shard, now)?.stored_records().collect())
        })
    }

    fn change_retention(
        &self,
        stream: &StreamRef<'_>,
        hours: u32,
        operation: &'static str,
        check: impl FnOnce(&Stream, u64) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let (least, most) = RETENTION_HOURS;
        if !(least..=most).contains(&hours) {
            let bound = if hours < least {
                format!("Minimum allowed retention period is {least}")
            } else {
                format!("Maximum allowed retention period is {most}")
            };
            return Err(invalid(format!(
                "{bound} hours. Requested retention period ({hours} hours) is not allowed."
            )));
        }
        self.change_settings(stream, operation, |stream| {
            let wanted = u64::from(hours) * HOUR;
            check(stream, wanted)?;
            stream.retention = wanted;
            Ok(())
        })
    }

    fn change_settings(
        &self,
        stream: &StreamRef<'_>,
        operation: &'static str,
        change: impl FnOnce(&mut Stream) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        self.altering(|state| {
            state.allow_change(operation)?;
            let now = state.now;
            let found = state.resolve(stream)?;
            if found.status != StreamStatus::Active {
                return Err(not_active(found));
            }
            // What has run out under the old retention stays gone under a longer one.
            found.expire(now);
            change(found)
        })
    }
}

/// Checks the form of tags and that they fit beside `kept` others.
pub(crate) fn check_tags(tags: &BTreeMap<String, String>, kept: usize) -> Result<(), ApiError> {
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > 128 {
            return Err(constraint(key, "tags", "have key length between 1 and 128"));
        }
        if value.chars().count() > 256 {
            return Err(constraint(value, "tags", "have value length less than or equal to 256"));
        }
    }
    if kept + tags.len() > TAGS {
        return Err(invalid(format!("A stream can have at most {TAGS} tags.")));
    }
    Ok(())
}
