//! The JSON 1.0 protocol over the library's typed calls.

use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use dynoxide::DynoxideError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DynamoDb;
use super::recovery::{self, Recovery};
use crate::wire::{AwsResponse, JSON_1_0};

/// An error answer: the HTTP status and the JSON body.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    body: String,
}

impl Refusal {
    pub(super) fn new(kind: &str, message: &str) -> Self {
        Self { status: 400, body: serde_json::json!({ "__type": kind, "message": message }).to_string() }
    }
}

impl From<DynoxideError> for Refusal {
    fn from(error: DynoxideError) -> Self {
        Self { status: error.status_code(), body: error.to_json() }
    }
}

impl DynamoDb {
    /// Serves one request: `operation` is the part of `X-Amz-Target` after the dot, `body` its JSON.
    pub(crate) fn handle(&self, operation: &str, body: &[u8]) -> AwsResponse {
        match self.answer(operation, body) {
            Ok(body) => AwsResponse::new(200, JSON_1_0, body),
            Err(refusal) => AwsResponse::new(refusal.status, JSON_1_0, Bytes::from(refusal.body)),
        }
    }

    fn answer(&self, operation: &str, body: &[u8]) -> Result<Bytes, Refusal> {
        let db = &self.database;
        match operation {
            "CreateTable" => call(body, |request| db.create_table(request)),
            "DescribeTable" => call(body, |request| db.describe_table(request)),
            "UpdateTable" => call(body, |request| db.update_table(request)),
            "DeleteTable" => {
                let answer = call(body, |request| db.delete_table(request))?;
                self.recovery().forget(&parse::<recovery::TableRequest>(body)?.table_name);
                Ok(answer)
            }
            "ListTables" => call(body, |request| db.list_tables(request)),
            "PutItem" => call(body, |request| db.put_item(request)),
            "GetItem" => call(body, |request| db.get_item(request)),
            "UpdateItem" => call(body, |request| db.update_item(request)),
            "DeleteItem" => call(body, |request| db.delete_item(request)),
            "Query" => call(body, |request| db.query(request)),
            "Scan" => call(body, |request| db.scan(request)),
            "BatchGetItem" => call(body, |request| db.batch_get_item(request)),
            "BatchWriteItem" => call(body, |request| db.batch_write_item(request)),
            "TransactGetItems" => call(body, |request| db.transact_get_items(request)),
            "TransactWriteItems" => call(body, |request| db.transact_write_items(request)),
            "TagResource" => call(body, |request| db.tag_resource(request)),
            "UntagResource" => call(body, |request| db.untag_resource(request)),
            "ListTagsOfResource" => call(body, |request| db.list_tags_of_resource(request)),
            "UpdateTimeToLive" => call(body, |request| db.update_time_to_live(request)),
            "DescribeTimeToLive" => call(body, |request| db.describe_time_to_live(request)),
            "UpdateContinuousBackups" => self.update_continuous_backups(body),
            "DescribeContinuousBackups" => self.describe_continuous_backups(body),
            _ => Err(Refusal::new(
                "com.amazon.coral.service#UnknownOperationException",
                &format!("not served here: {operation}"),
            )),
        }
    }

    pub(super) fn recovery(&self) -> MutexGuard<'_, Recovery> {
        self.recovery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn call<Q, A>(body: &[u8], run: impl FnOnce(Q) -> dynoxide::Result<A>) -> Result<Bytes, Refusal>
where
    Q: DeserializeOwned,
    A: Serialize,
{
    encode(&run(parse(body)?)?)
}

pub(super) fn encode(answer: &impl Serialize) -> Result<Bytes, Refusal> {
    let body = serde_json::to_vec(answer)
        .map_err(|error| DynoxideError::InternalServerError(format!("cannot render the answer: {error}")))?;
    Ok(Bytes::from(body))
}

pub(super) fn parse<Q: DeserializeOwned>(body: &[u8]) -> Result<Q, Refusal> {
    serde_json::from_slice(body).map_err(|error| refused_request(&error.to_string()).into())
}

/// Tells which error a request that cannot be read gets.
///
/// The library's own readers mark their messages with the class of the error; the rest are serde's
/// words, of which DynamoDB takes missing and unknown values for invalid, wrong types for unreadable.
fn refused_request(message: &str) -> DynoxideError {
    let text = message.rsplit_once(" at line ").map_or(message, |(text, _)| text).to_owned();
    for marker in ["VALIDATION:", "VALIDATION_REQUEST:"] {
        if let Some(text) = text.strip_prefix(marker) {
            return DynoxideError::ValidationException(text.to_owned());
        }
    }
    if let Some(text) = text.strip_prefix("SERIALIZATION:") {
        return DynoxideError::SerializationException(text.to_owned());
    }
    let invalid = ["missing field", "unknown variant", "invalid type: null", "Supplied AttributeValue"];
    if invalid.iter().any(|part| text.contains(part)) {
        return DynoxideError::ValidationException(text);
    }
    DynoxideError::SerializationException(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_message_becomes_the_error_it_names() {
        for marker in ["VALIDATION:", "VALIDATION_REQUEST:"] {
            let error = refused_request(&format!("{marker}name too short at line 1 column 20"));
            assert!(matches!(error, DynoxideError::ValidationException(text) if text == "name too short"));
        }
        let error = refused_request("SERIALIZATION:not a list");
        assert!(matches!(error, DynoxideError::SerializationException(text) if text == "not a list"));
    }

    #[test]
    fn a_missing_field_is_invalid_and_a_wrong_type_unreadable() {
        let error = refused_request("missing field `Key` at line 1 column 2");
        assert!(matches!(error, DynoxideError::ValidationException(_)));
        let error = refused_request("invalid type: integer `3`, expected a string at line 1 column 5");
        assert!(matches!(error, DynoxideError::SerializationException(_)));
    }
}
