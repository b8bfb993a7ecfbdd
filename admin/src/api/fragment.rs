// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is wanted, as the text of a configuration file that the daemon reads.

use toml::{Table, Value};

use super::values::{PoolUuid, Size, User};
use super::{GuestPatch, GuestSettings, SettingsPatch};

/// A limit of `null` is this to the daemon.
const DEFAULT: &str = "default";

impl SettingsPatch {
    /// Keys of the daemon.
    #[must_use]
    pub fn fragment(&self) -> String {
        let mut keys = Table::new();
        put_limit(&mut keys, "memory-limit", self.memory_limit.as_ref());
        put_limit(&mut keys, "guest-memory-limit", self.guest_memory_limit.as_ref());
        let level = self.log_level.and_then(|level| serde_json::to_value(level).ok());
        put(&mut keys, "log-level", level.as_ref().and_then(serde_json::Value::as_str));
        keys.to_string()
    }
}

impl GuestPatch {
    /// Keys of a guest.
    #[must_use]
    pub fn fragment(&self, guest: &str) -> String {
        of_guest(guest, self.keys())
    }

    fn keys(&self) -> Table {
        let mut keys = Table::new();
        put_limit(&mut keys, "memory-limit", self.memory_limit.as_ref());
        put_limit(&mut keys, "reservation", self.reservation.as_ref());
        keys.extend(self.weight.map(|weight| ("weight".to_owned(), Value::from(i64::from(weight.number())))));
        keys.extend(self.frozen.map(|frozen| ("frozen".to_owned(), Value::from(frozen))));
        put_rights(&mut keys, self.peers.as_deref(), self.allow_shared.as_deref());
        put(&mut keys, "trust-domain", self.trust_domain.as_ref().map(|domain| domain.as_str()));
        keys
    }
}

impl GuestSettings {
    /// Keys of a guest.
    #[must_use]
    pub fn fragment(&self, guest: &str) -> String {
        let mut keys = self.limits_and_rights().keys();
        put(&mut keys, "socket", self.socket.as_ref().map(|path| path.as_str()));
        put(&mut keys, "mode", self.mode.as_ref().map(|mode| mode.as_str()));
        put(&mut keys, "owner", self.owner.as_ref().map(|owner| owner.as_str()));
        put(&mut keys, "group", self.group.as_ref().map(|group| group.as_str()));
        of_guest(guest, keys)
    }

    /// What can be changed of it. (To have it as one field is not for a document that refuses keys
    /// that it does not know: serde cannot do both.)
    fn limits_and_rights(&self) -> GuestPatch {
        GuestPatch {
            memory_limit: self.memory_limit.clone(),
            reservation: self.reservation.clone(),
            weight: self.weight,
            frozen: self.frozen,
            peers: self.peers.clone(),
            allow_shared: self.allow_shared.clone(),
            trust_domain: self.trust_domain.clone(),
        }
    }
}

fn put(keys: &mut Table, key: &str, value: Option<&str>) {
    keys.extend(value.map(|value| (key.to_owned(), Value::from(value))));
}

fn put_limit(keys: &mut Table, key: &str, limit: Option<&Option<Size>>) {
    put(keys, key, limit.map(|limit| limit.as_ref().map_or(DEFAULT, |size| size.as_str())));
}

fn put_rights(keys: &mut Table, peers: Option<&[User]>, pools: Option<&[PoolUuid]>) {
    let peers = peers.map(|peers| peers.iter().map(|user| Value::from(user.as_str())).collect::<Vec<_>>());
    let pools = pools.map(|pools| pools.iter().map(|uuid| Value::from(uuid.as_str())).collect::<Vec<_>>());
    keys.extend(peers.map(|peers| ("peers".to_owned(), Value::from(peers))));
    keys.extend(pools.map(|pools| ("allow-shared".to_owned(), Value::from(pools))));
}

fn of_guest(guest: &str, keys: Table) -> String {
    let guests = Table::from_iter([(guest.to_owned(), keys.into())]);
    Table::from_iter([("guest".to_owned(), guests.into())]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vhost_zcache::config::alteration;

    #[test]
    fn all_keys_are_ones_of_a_file() {
        let json = r#"{"socket": "/run/a \"b\"\n", "mode": "0660", "owner": 0, "group": "root", "memory_limit": "1G",
                       "reservation": null, "weight": 7, "frozen": true, "peers": ["root", 0],
                       "allow_shared": ["6d1e7c3a-0000-4000-8000-000000000000"], "trust_domain": "red"}"#;
        let guest: GuestSettings = serde_json::from_str(json).unwrap();
        let (_, faults) = alteration::parse(&guest.fragment("/run/a guest"));
        assert_eq!(faults, []);
        let json = r#"{"memory_limit": 4096, "guest_memory_limit": null, "log_level": "debug"}"#;
        let settings: SettingsPatch = serde_json::from_str(json).unwrap();
        let (patch, faults) = alteration::parse(&settings.fragment());
        assert_eq!(faults, []);
        assert_eq!((patch.settings.memory_limit.map(|given| given.value.0), patch.cleared.len()), (Some(4096), 1));
        let json = r#"{"memory_limit": "1M", "reservation": "1M", "peers": [], "allow_shared": []}"#;
        let guest: GuestPatch = serde_json::from_str(json).unwrap();
        let (patch, faults) = alteration::parse(&guest.fragment("a"));
        assert_eq!((faults, patch.guests.len()), (vec![], 1));
    }
}
