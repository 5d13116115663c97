//! Pure decisions: which leases to create, to take or ask for, and to delete. Each carries its reason.
