//! A table as a file and back: every row with every attribute, in DynamoDB's own JSON. Pure.

#![allow(clippy::disallowed_types, reason = "an item of the SDK is a map of this type")]

use std::collections::BTreeMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kcl_lease_dynamo::{Item, StoredRow};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{CliError, CliErrorKind};
use crate::table::{TableRow, TableView};
use crate::write::PlannedWrite;

/// What the field `format` says.
pub const FORMAT: &str = "kcl-table/1";

/// A table in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Backup {
    /// Always [`FORMAT`].
    pub format: String,
    /// The table it was made of.
    pub table: String,
    /// When, as RFC 3339 writes it.
    pub exported_at: String,
    /// The rows, in the order of keys: attribute name → `{"S": "text"}` and so on.
    pub items: Vec<BTreeMap<String, Value>>,
}

impl Backup {
    /// Makes a file's content of a table.
    ///
    /// # Errors
    /// If the SDK does not know the type of an attribute.
    pub fn of(view: &TableView, exported_at: String) -> Result<Self, CliError> {
        let items = view.rows.values().map(|row| {
            row.item
                .iter()
                .map(|(name, value)| Ok((name.clone(), to_json(value)?)))
                .collect::<Result<BTreeMap<_, _>, String>>()
        });
        let items = items
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| CliError::new(CliErrorKind::Invalid, format!("cannot export: {error}")))?;
        Ok(Self { format: FORMAT.to_owned(), table: view.table.clone(), exported_at, items })
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// If it is not a whole export.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let invalid = |message: String| {
            CliError::new(CliErrorKind::Invalid, message).with_hint("give a file that kcl export has written")
        };
        let backup: Self =
            serde_json::from_str(text).map_err(|error| invalid(format!("the file is no export: {error}")))?;
        if backup.format != FORMAT {
            return Err(invalid(format!("the file has another format: {:?}, not {FORMAT:?}", backup.format)));
        }
        Ok(backup)
    }

    /// The rows, by key.
    ///
    /// # Errors
    /// If a row has no key, two have the same, or a value is none of DynamoDB's.
    pub fn rows(&self) -> Result<BTreeMap<String, Item>, CliError> {
        let invalid = |message: String| CliError::new(CliErrorKind::Invalid, message);
        let mut rows = BTreeMap::new();
        for (index, item) in self.items.iter().enumerate() {
            let item = item
                .iter()
                .map(|(name, value)| {
                    from_json(value)
                        .map(|value| (name.clone(), value))
                        .map_err(|error| format!("{name}: {error}"))
                })
                .collect::<Result<Item, _>>()
                .map_err(|error| invalid(format!("row {index} of the file: {error}")))?;
            let Some(AttributeValue::S(key)) = item.get("leaseKey") else {
                return Err(invalid(format!("row {index} of the file has no leaseKey")));
            };
            let key = key.clone();
            if rows.insert(key.clone(), item).is_some() {
                return Err(invalid(format!("the file has two rows of one key: {key}")));
            }
        }
        Ok(rows)
    }
}

/// What an import does.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ImportPlan {
    /// The writes.
    pub writes: Vec<PlannedWrite>,
    /// Rows that are in the table as they are in the file.
    pub unchanged: Vec<String>,
    /// Rows that are in the table and differ, and are not to be replaced.
    pub kept: Vec<String>,
    /// Fleet rows, which tell who was a member at the time of the export.
    pub left_out: Vec<String>,
}

/// Plans an import into `view`.
#[must_use]
pub fn plan_import(
    rows: BTreeMap<String, Item>,
    view: &TableView,
    overwrite: bool,
    with_fleet: bool,
) -> ImportPlan {
    let mut plan = ImportPlan::default();
    for (key, item) in rows {
        if !with_fleet && matches!(StoredRow::read(&item), StoredRow::Fleet(..)) {
            plan.left_out.push(key);
            continue;
        }
        match view.rows.get(&key) {
            Some(TableRow { item: shown, .. }) if is_same(shown, &item) => plan.unchanged.push(key),
            Some(_) if !overwrite => plan.kept.push(key),
            shown => {
                let shown = shown.map(|row| row.item.clone());
                plan.writes.push(PlannedWrite::Put { key, item, shown });
            }
        }
    }
    plan
}

/// Whether two rows hold the same. Sets have no order.
#[must_use]
pub fn is_same(one: &Item, other: &Item) -> bool {
    one.len() == other.len()
        && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| is_same_value(value, other)))
}

fn is_same_value(one: &AttributeValue, other: &AttributeValue) -> bool {
    fn sorted<T: AsRef<[u8]>>(values: &[T]) -> Vec<&[u8]> {
        let mut values: Vec<&[u8]> = values.iter().map(AsRef::as_ref).collect();
        values.sort_unstable();
        values
    }
    match (one, other) {
        (AttributeValue::Ss(one), AttributeValue::Ss(other))
        | (AttributeValue::Ns(one), AttributeValue::Ns(other)) => sorted(one) == sorted(other),
        (AttributeValue::Bs(one), AttributeValue::Bs(other)) => sorted(one) == sorted(other),
        (AttributeValue::M(one), AttributeValue::M(other)) => is_same(one, other),
        (AttributeValue::L(one), AttributeValue::L(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same_value(one, other))
        }
        _ => one == other,
    }
}

pub(crate) fn to_json(value: &AttributeValue) -> Result<Value, String> {
    Ok(match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(digits) => json!({ "N": digits }),
        AttributeValue::B(bytes) => json!({ "B": STANDARD.encode(bytes) }),
        AttributeValue::Bool(value) => json!({ "BOOL": value }),
        AttributeValue::Null(value) => json!({ "NULL": value }),
        AttributeValue::Ss(texts) => json!({ "SS": texts }),
        AttributeValue::Ns(numbers) => json!({ "NS": numbers }),
        AttributeValue::Bs(sets) => {
            json!({ "BS": sets.iter().map(|b| STANDARD.encode(b)).collect::<Vec<_>>() })
        }
        AttributeValue::L(list) => json!({ "L": list.iter().map(to_json).collect::<Result<Vec<_>, _>>()? }),
        AttributeValue::M(map) => {
            let mut names: Vec<_> = map.iter().collect();
            names.sort_by_key(|(name, _)| *name);
            let fields = names.into_iter().map(|(name, value)| Ok((name.clone(), to_json(value)?)));
            json!({ "M": fields.collect::<Result<Map<_, _>, String>>()? })
        }
        _ => return Err("an attribute is of a type that is not known".into()),
    })
}

fn from_json(value: &Value) -> Result<AttributeValue, String> {
    let object = value.as_object().filter(|object| object.len() == 1);
    let (kind, value) = object.and_then(|o| o.iter().next()).ok_or("not of the form {\"TYPE\": value}")?;
    let wrong = || format!("not a value of type {kind}");
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    let bytes = |value: &Value| STANDARD.decode(text(value)?).map(Blob::new).map_err(|_| wrong());
    let list = |value: &Value| value.as_array().cloned().ok_or_else(wrong);
    Ok(match kind.as_str() {
        "S" => AttributeValue::S(text(value)?),
        "N" => AttributeValue::N(text(value)?),
        "B" => AttributeValue::B(bytes(value)?),
        "BOOL" => AttributeValue::Bool(value.as_bool().ok_or_else(wrong)?),
        "NULL" => AttributeValue::Null(value.as_bool().ok_or_else(wrong)?),
        "SS" => AttributeValue::Ss(list(value)?.iter().map(text).collect::<Result<_, _>>()?),
        "NS" => AttributeValue::Ns(list(value)?.iter().map(text).collect::<Result<_, _>>()?),
        "BS" => AttributeValue::Bs(list(value)?.iter().map(bytes).collect::<Result<_, _>>()?),
        "L" => AttributeValue::L(list(value)?.iter().map(from_json).collect::<Result<_, _>>()?),
        "M" => {
            let fields = value.as_object().ok_or_else(wrong)?.iter();
            let fields = fields.map(|(name, value)| Ok((name.clone(), from_json(value)?)));
            AttributeValue::M(fields.collect::<Result<_, String>>()?)
        }
        _ => return Err(format!("not a type of DynamoDB: {kind:?}")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = AttributeValue> {
        let leaf = prop_oneof![
            any::<String>().prop_map(AttributeValue::S),
            "-?[0-9]{1,38}(\\.[0-9]{1,5})?(E-?[0-9]{1,2})?".prop_map(AttributeValue::N),
            any::<Vec<u8>>().prop_map(|bytes| AttributeValue::B(Blob::new(bytes))),
            any::<bool>().prop_map(AttributeValue::Bool),
            Just(AttributeValue::Null(true)),
            prop::collection::vec(any::<String>(), 1..3).prop_map(AttributeValue::Ss),
            prop::collection::vec("[0-9]{1,9}", 1..3).prop_map(AttributeValue::Ns),
            prop::collection::vec(any::<Vec<u8>>(), 1..3)
                .prop_map(|sets| AttributeValue::Bs(sets.into_iter().map(Blob::new).collect())),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(AttributeValue::L),
                prop::collection::hash_map(any::<String>(), inner, 0..4).prop_map(AttributeValue::M),
            ]
        })
    }

    fn item(key: &str, attributes: impl IntoIterator<Item = (String, AttributeValue)>) -> Item {
        let key = ("leaseKey".to_owned(), AttributeValue::S(key.to_owned()));
        attributes.into_iter().chain([key]).collect()
    }

    proptest! {
        #[test]
        fn every_attribute_comes_back_as_it_was(
            attributes in prop::collection::hash_map("[a-z]{1,8}", value(), 0..6),
        ) {
            let item = item("shardId-0", attributes);
            let view = TableView::new("t", [item.clone()]);
            let backup = Backup::of(&view, "now".into()).unwrap();
            let text = serde_json::to_string(&backup).unwrap();
            let rows = Backup::parse(&text).unwrap().rows().unwrap();
            prop_assert_eq!(rows.get("shardId-0"), Some(&item));
            prop_assert!(plan_import(rows, &view, true, true).writes.is_empty());
        }
    }

    #[test]
    fn rows_that_differ_are_kept_unless_told_otherwise() {
        let number = |n: &str| [("leaseCounter".to_owned(), AttributeValue::N(n.into()))];
        let view = TableView::new("t", [item("a", number("1")), item("b", number("1"))]);
        let rows: BTreeMap<_, _> = [("a", "1"), ("b", "2"), ("c", "3")]
            .map(|(key, n)| (key.to_owned(), item(key, number(n))))
            .into();
        let careful = plan_import(rows.clone(), &view, false, false);
        assert_eq!((careful.unchanged, careful.kept), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert_eq!(careful.writes.len(), 1);
        assert_eq!(plan_import(rows, &view, true, false).writes.len(), 2);
    }

    #[test]
    fn sets_have_no_order_and_lists_have() {
        let texts = |texts: [&str; 2]| AttributeValue::Ss(texts.map(str::to_owned).to_vec());
        let list = |values: [AttributeValue; 2]| AttributeValue::L(values.to_vec());
        let row = |value| item("a", [("x".to_owned(), value)]);
        assert!(is_same(&row(texts(["1", "2"])), &row(texts(["2", "1"]))));
        assert!(!is_same(&row(texts(["1", "2"])), &row(texts(["1", "3"]))));
        let [one, two] = ["1", "2"].map(|n| AttributeValue::N(n.into()));
        assert!(!is_same(&row(list([one.clone(), two.clone()])), &row(list([two, one]))));
        assert!(!is_same(&row(texts(["1", "2"])), &item("a", [])));
    }

    #[test]
    fn a_file_that_is_no_export_is_refused() {
        let file = |items: &str| {
            format!(r#"{{"format":"kcl-table/1","table":"t","exported_at":"","items":{items}}}"#)
        };
        assert!(Backup::parse("{}").is_err());
        assert!(Backup::parse(&file("[]").replace("/1", "/2")).unwrap_err().to_string().contains("format"));
        for (items, reason) in [
            (r#"[{}]"#, "no leaseKey"),
            (r#"[{"leaseKey":{"S":"a"}},{"leaseKey":{"S":"a"}}]"#, "two rows"),
            (r#"[{"leaseKey":{"S":"a"},"x":{"Q":"a"}}]"#, "Q"),
            (r#"[{"leaseKey":{"S":"a"},"x":{"N":5}}]"#, "type N"),
            (r#"[{"leaseKey":{"S":"a"},"x":{"B":"?"}}]"#, "type B"),
        ] {
            let error = Backup::parse(&file(items)).unwrap().rows().unwrap_err().to_string();
            assert!(error.contains(reason), "{items}: {error}");
        }
    }
}
