//! The known differences: the step and its reason.

/// The service checks a request against its API schema first and answers `ValidationException`.
const SCHEMA: &str =
    "a value outside the API schema is a ValidationException at AWS; kinesis-local has no such layer";
/// kinesis-local answers HTTP 500 without a JSON body.
const CRASH: &str = "kinesis-local fails with an internal exception and sends no error that the SDK can read";
const FILTER: &str =
    "kinesis-local returns every shard; the documentation: only those that were open at the trim horizon";
const RANGES: &str =
    "kinesis-local cuts the hash-key space one key too low; at AWS the second of two shards starts at 2^127";

/// Each step whose answers differ, and why.
pub(crate) const DIFFERENCES: &[(&str, &str)] = &[
    ("create a stream of no shards", SCHEMA),
    ("create a stream with a bad name", SCHEMA),
    ("list one stream", "kinesis-local predates NextToken in ListStreams"),
    ("two shards: hash ranges", RANGES),
    ("two shards: list no shards", CRASH),
    ("put to a hash key that is none", CRASH),
    ("put with an empty key", SCHEMA),
    ("put with a key of 257 letters", SCHEMA),
    ("put 1 MiB without its key", "the documented limit is on data and partition key together"),
    ("put after an alien number", CRASH),
    ("put 0 records", SCHEMA),
    ("put 501 records", SCHEMA),
    (
        "iterator at a number of another shard",
        "AWS answers InvalidArgumentException (kinesalite's tests against AWS), kinesis-local ResourceNotFoundException",
    ),
    (
        "iterator at number zero",
        "a number that no shard hands out: refused by both, as alien here, as not found there",
    ),
    ("iterator of a shard that is none", SCHEMA),
    (
        "encryption of a record read",
        "the API reference shows no EncryptionType on records of a stream without encryption",
    ),
    ("read up to 0 records", SCHEMA),
    ("read by a junk iterator", CRASH),
    ("split at the lower end", "kinesis-local makes a child without hash keys"),
    (
        "split at the upper end",
        "kinesis-local makes a child of a single hash key; AWS wants less than the end",
    ),
    (
        "split it again",
        "AWS: InvalidArgumentException, 'has already been merged or split' (github.com/mhart/kinesalite/issues/109)",
    ),
    (
        "merge with a closed shard",
        "AWS: InvalidArgumentException, 'has already been merged or split', as for a split",
    ),
    ("after a split and a merge: hash ranges", RANGES),
    ("after a split and a merge: list no shards", CRASH),
    ("after a split and a merge: filter at trim horizon", FILTER),
    ("update to 0 shards", SCHEMA),
];
