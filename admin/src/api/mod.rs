// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is said in both directions. Keys are those of `docs/configuration.md` and `docs/stats.md`,
//! with `_` where a file has `-`.

pub mod fragment;
pub mod problem;
pub mod values;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zcache_report::{GuestReport, PoolReport};

use self::values::{AbsolutePath, Mode, PoolUuid, Size, TrustDomain, User, Weight, or_default};

/// Limits and settings of the daemon to be changed; those that are not named stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    /// What all guests together may use of the host's memory; `null` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "or_default")]
    #[schema(value_type = Option<Size>)]
    pub memory_limit: Option<Option<Size>>,
    /// What each guest without a limit of its own may use; `null` for no limit but `memory_limit`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "or_default")]
    #[schema(value_type = Option<Size>)]
    pub guest_memory_limit: Option<Option<Size>>,
    /// How much is logged.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = LogLevel, required = false)]
    pub log_level: Option<LogLevel>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Limits and rights of a guest to be changed; those that are not named stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestPatch {
    /// What it may use of the host's memory; `null` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "or_default")]
    #[schema(value_type = Option<Size>)]
    pub memory_limit: Option<Option<Size>>,
    /// Of that, what it can count on for its swap; `null` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "or_default")]
    #[schema(value_type = Option<Size>)]
    pub reservation: Option<Option<Size>>,
    /// Its part of the memory for file pages, beside other guests'; 100 if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = u16, required = false, minimum = 1, maximum = 10_000)]
    pub weight: Option<Weight>,
    /// Whether nothing new is stored for it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = bool, required = false)]
    pub frozen: Option<bool>,
    /// Users whose processes may be at the other end of its socket; none for all who can connect.
    /// For who connects next.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = Vec<User>, required = false)]
    pub peers: Option<Vec<User>>,
    /// Shared pools it may join. For who connects next.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = Vec<PoolUuid>, required = false)]
    pub allow_shared: Option<Vec<PoolUuid>>,
    /// The guests with which it shares these: those of the same domain. For who connects next.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = TrustDomain, required = false)]
    pub trust_domain: Option<TrustDomain>,
}

/// A guest as it is to be. What is not named has its default; the socket of a guest that is there
/// already need not be named, and cannot be another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestSettings {
    /// Where its VMM connects. Its folder has to be one that had a socket of the daemon at its
    /// start.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = AbsolutePath, required = false)]
    pub socket: Option<AbsolutePath>,
    /// Mode of the socket.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = Mode, required = false)]
    pub mode: Option<Mode>,
    /// User to whom the socket belongs.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = User, required = false)]
    pub owner: Option<User>,
    /// Group to which it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = User, required = false)]
    pub group: Option<User>,
    /// What it may use of the host's memory; `null` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "or_default")]
    #[schema(value_type = Option<Size>)]
    pub memory_limit: Option<Option<Size>>,
    /// Of that, what it can count on for its swap; `null` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "or_default")]
    #[schema(value_type = Option<Size>)]
    pub reservation: Option<Option<Size>>,
    /// Its part of the memory for file pages, beside other guests'; 100 if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = u16, required = false, minimum = 1, maximum = 10_000)]
    pub weight: Option<Weight>,
    /// Whether nothing new is stored for it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = bool, required = false)]
    pub frozen: Option<bool>,
    /// Users whose processes may be at the other end of the socket; none for all who can connect.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = Vec<User>, required = false)]
    pub peers: Option<Vec<User>>,
    /// Shared pools it may join.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = Vec<PoolUuid>, required = false)]
    pub allow_shared: Option<Vec<PoolUuid>>,
    /// The guests with which it shares these: those of the same domain; `default` if nothing is
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "values::given")]
    #[schema(value_type = TrustDomain, required = false)]
    pub trust_domain: Option<TrustDomain>,
}

/// Memory that the host needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveBack {
    /// How much is to be given back.
    #[serde(deserialize_with = "values::required")]
    pub bytes: Size,
}

/// Whether a guest's VMM may be sent away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Disconnect {
    /// End the connections of guests that go, whose pages go with them. Without, a guest whose VMM
    /// is connected stays, and the answer is 409.
    #[param(required = false)]
    pub disconnect: bool,
}

/// Which pool is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OnePool {
    /// Its number, as the guest's `pools` have it; all of the guest's if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = i64, required = false, minimum = 0, maximum = 4_294_967_295_u64)]
    pub pool: Option<u32>,
}

/// What has come of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// In a line, for people.
    pub message: String,
}

/// That the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Version of the daemon.
    pub daemon_version: String,
    /// Version of what answers here.
    pub admin_version: String,
    /// Since the daemon's start.
    pub uptime_seconds: u64,
    /// Workers that were started in place of one that died, or made room in an upgrade.
    pub worker_restarts: u64,
}

/// The guests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Guests {
    /// One entry for each, connected or not.
    pub guests: Vec<GuestReport>,
}

/// A guest's pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pools {
    /// One entry for each.
    pub pools: Vec<PoolReport>,
}
