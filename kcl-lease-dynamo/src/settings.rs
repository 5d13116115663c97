use std::collections::BTreeMap;

/// What to do about the lease table at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableMode {
    /// Create the table with these settings if it does not exist.
    CreateIfMissing(TableSettings),
    /// The table must exist. Needs no right to create or describe it.
    MustExist,
}

impl Default for TableMode {
    fn default() -> Self {
        Self::CreateIfMissing(TableSettings::default())
    }
}

/// How a table is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Billing {
    /// By request (`PAY_PER_REQUEST`).
    #[default]
    OnDemand,
    /// By capacity that is reserved (`PROVISIONED`).
    Provisioned {
        /// Read capacity units.
        read: u32,
        /// Write capacity units. Every held lease takes about one each renewal interval.
        write: u32,
    },
}

/// How to create a lease table.
///
/// All but [`point_in_time_recovery`](Self::point_in_time_recovery) is sent when the table is created, and
/// never changed on a table that exists. Default: on demand, without tags, recovery or deletion protection,
/// encrypted with the key DynamoDB owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSettings {
    pub(crate) billing: Billing,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) point_in_time_recovery: bool,
    pub(crate) deletion_protection: bool,
    pub(crate) kms_key: Option<String>,
}

impl TableSettings {
    /// Creates the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how the table is paid for. Default [`Billing::OnDemand`].
    #[must_use]
    pub const fn billing(mut self, billing: Billing) -> Self {
        self.billing = billing;
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Whether the table's past can be restored. Default no.
    ///
    /// If so, recovery is switched on at every start, also on a table that exists; it is never switched off.
    #[must_use]
    pub const fn point_in_time_recovery(mut self, enabled: bool) -> Self {
        self.point_in_time_recovery = enabled;
        self
    }

    /// Whether the table refuses to be deleted. Default no.
    #[must_use]
    pub const fn deletion_protection(mut self, enabled: bool) -> Self {
        self.deletion_protection = enabled;
        self
    }

    /// Encrypts the table with this KMS key (id, ARN or alias) instead of the one DynamoDB owns.
    #[must_use]
    pub fn kms_key(mut self, key: impl Into<String>) -> Self {
        self.kms_key = Some(key.into());
        self
    }
}
