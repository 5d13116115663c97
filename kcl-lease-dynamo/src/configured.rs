//! The store that a configuration describes.

use aws_sdk_dynamodb::Client;
use kcl_core::config::{BillingChoice, Configuration, LeaseTableConfiguration};

use crate::settings::{Billing, TableMode, TableSettings};
use crate::store::DynamoLeaseStore;

impl From<&LeaseTableConfiguration> for TableMode {
    /// Capacity that is missing is one unit; a configuration that was loaded has it.
    fn from(table: &LeaseTableConfiguration) -> Self {
        if !table.create {
            return Self::MustExist;
        }
        let billing = match table.billing {
            BillingChoice::Provisioned => Billing::Provisioned {
                read: table.read_capacity.unwrap_or(1),
                write: table.write_capacity.unwrap_or(1),
            },
            _ => Billing::OnDemand,
        };
        let mut settings = TableSettings::new()
            .billing(billing)
            .point_in_time_recovery(table.point_in_time_recovery)
            .deletion_protection(table.deletion_protection);
        for (name, tag) in &table.tags {
            settings = settings.tag(name, tag);
        }
        if let Some(key) = &table.kms_key {
            settings = settings.kms_key(key);
        }
        Self::CreateIfMissing(settings)
    }
}

impl DynamoLeaseStore {
    /// Creates the store that a configuration describes, by a client made for its region and endpoint. Java's
    /// coordinator table is looked for under the name of the application, as Java does.
    #[must_use]
    pub fn configured(client: Client, configuration: &Configuration) -> Self {
        let table = &configuration.lease_table;
        let store = Self::new(client, configuration.table_name())
            .with_table_mode(table.into())
            .with_request_timeout(table.request_timeout)
            .with_consistent_lists(table.consistent_lists);
        if !table.look_for_java_leader {
            return store.without_legacy_probe();
        }
        store.with_legacy_coordinator_table(match &table.coordinator_table {
            Some(name) => name.clone(),
            None => format!("{}-CoordinatorState", configuration.application),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kcl_core::config::ConfigurationLoader;

    use super::*;

    fn store(toml: &str) -> DynamoLeaseStore {
        let configuration = ConfigurationLoader::new()
            .set("application", "orders-app")
            .set("stream", "orders")
            .toml("a.toml", toml)
            .load()
            .unwrap();
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
            .build();
        DynamoLeaseStore::configured(Client::from_conf(config), &configuration)
    }

    #[test]
    fn the_defaults_are_those_of_a_store_made_in_code() {
        let store = store("");
        assert_eq!(store.table, "orders-app");
        assert_eq!(store.table_mode, TableMode::default());
        assert_eq!(store.request_timeout, Duration::from_secs(2));
        assert_eq!(store.legacy_table.as_deref(), Some("orders-app-CoordinatorState"));
    }

    #[test]
    fn everything_about_the_table_is_taken_over() {
        let made = store(
            "[leaseTable]\nname = 'leases'\nbilling = 'Provisioned'\nreadCapacity = 7\nwriteCapacity = 9\n\
             pointInTimeRecovery = true\ndeletionProtection = true\nkmsKey = 'alias/k'\ntags = { team = 'orders' }\n\
             requestTimeout = '1s'",
        );
        let settings = TableSettings::new()
            .billing(Billing::Provisioned { read: 7, write: 9 })
            .point_in_time_recovery(true)
            .deletion_protection(true)
            .kms_key("alias/k")
            .tag("team", "orders");
        assert_eq!(made.table, "leases");
        assert_eq!(made.table_mode, TableMode::CreateIfMissing(settings));
        assert_eq!(made.request_timeout, Duration::from_secs(1));
        assert_eq!(made.legacy_table.as_deref(), Some("orders-app-CoordinatorState"));
        let other = store("leaseTable = { create = false, coordinatorTable = 'c-1' }");
        assert_eq!((other.table_mode, other.legacy_table.as_deref()), (TableMode::MustExist, Some("c-1")));
        assert_eq!(store("leaseTable.lookForJavaLeader = false").legacy_table, None);
    }
}
