use std::fmt;

use uuid::Uuid;

use crate::model::WorkerId;

/// Names a fleet row of the lease table: `kcl:fleet:0`, `kcl:fleet:1`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FleetRowKey(pub u32);

impl FleetRowKey {
    /// The first row; it also says how many there are.
    pub const FIRST: Self = Self(0);

    /// What the keys of all fleet rows begin with.
    pub const PREFIX: &'static str = "kcl:fleet:";

    /// The row of this key, if it is the key of one.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        parse_number(key.strip_prefix(Self::PREFIX)?).map(Self)
    }
}

impl fmt::Display for FleetRowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

/// Makes the id of one attempt to join: `<prefix>:<uuid>:f<row>`. Never used again (R3, R10).
#[must_use]
pub fn member_id(prefix: &str, attempt: Uuid, row: FleetRowKey) -> WorkerId {
    WorkerId::new(format!("{prefix}:{attempt}:f{}", row.0))
}

/// The row in which the entry of this worker is, if it is a member of a fleet (R3).
///
/// An owner whose id has another form is a worker of another kind; its absence from a fleet row proves nothing.
#[must_use]
pub fn row_of(worker: &WorkerId) -> Option<FleetRowKey> {
    let (rest, row) = worker.as_str().rsplit_once(":f")?;
    let (prefix, attempt) = rest.rsplit_once(':')?;
    if prefix.is_empty() || attempt.len() != 36 || Uuid::try_parse(attempt).is_err() {
        return None;
    }
    parse_number(row).map(FleetRowKey)
}

/// The worker that an id of a membership belongs to: what it was made with as prefix. Any other id is returned as it is.
#[must_use]
pub fn worker_of(member: &WorkerId) -> &str {
    let text = member.as_str();
    let prefix = || text.rsplit_once(":f")?.0.rsplit_once(':').map(|(prefix, _)| prefix);
    row_of(member).and_then(|_| prefix()).unwrap_or(text)
}

/// Parses a number written in the one way that we write it.
fn parse_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_row() {
        let id = member_id("i-0abc", Uuid::from_u128(7), FleetRowKey(12));
        assert_eq!(id.as_str(), "i-0abc:00000000-0000-0000-0000-000000000007:f12");
        assert_eq!(row_of(&id), Some(FleetRowKey(12)));
        let with_colons = member_id("ip:10.0.0.1:f3", Uuid::from_u128(u128::MAX), FleetRowKey(0));
        assert_eq!(row_of(&with_colons), Some(FleetRowKey(0)));
        assert_eq!(worker_of(&with_colons), "ip:10.0.0.1:f3");
        assert_eq!(worker_of(&"java".into()), "java");
    }

    #[test]
    fn other_ids_name_none() {
        let uuid = "00000000-0000-0000-0000-000000000007";
        for other in [
            "",
            "worker",
            uuid,
            &format!("w:{uuid}"),
            &format!(":{uuid}:f0"),
            &format!("w:{uuid}:f"),
            &format!("w:{uuid}:f01"),
            &format!("w:{uuid}:f+1"),
            &format!("w:{uuid}:f4294967296"),
            &format!("w:{}:f0", uuid.replace('-', "")),
            &format!("w:{uuid}x:f0"),
        ] {
            assert_eq!(row_of(&WorkerId::new(other.to_owned())), None, "{other}");
        }
    }

    #[test]
    fn keys_of_rows_are_written_in_one_way() {
        for row in [0, 1, 9, 10, u32::MAX] {
            let key = FleetRowKey(row);
            assert_eq!(FleetRowKey::parse(&key.to_string()), Some(key));
        }
        for other in ["kcl:fleet:", "kcl:fleet:01", "kcl:fleet:-1", "kcl:fleet", "shardId-0"] {
            assert_eq!(FleetRowKey::parse(other), None, "{other}");
        }
    }
}
