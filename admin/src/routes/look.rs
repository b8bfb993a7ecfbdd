// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What there is. Documents are the daemon's own, which may have more fields than this release
//! knows.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use zcache_report::{GuestReport, Report, StoreReport};

use super::{Shared, json as answer};
use crate::api::problem::Problem;
use crate::api::{Guests, Health, Pools};
use crate::extract::GuestName;
use crate::openapi;

/// Whether the daemon answers.
///
/// # Errors
///
/// That it does not.
#[utoipa::path(get, path = "/v1/health", tag = "look", responses(
    (status = 200, description = "The daemon answers", body = Health), openapi::Unreachable))]
pub async fn health(State(daemon): State<Shared>) -> Result<Response, Problem> {
    let stats = daemon.stats().await?;
    let number = |key: &str| stats[key].as_u64().unwrap_or_default();
    let health = Health {
        daemon_version: stats["version"].as_str().unwrap_or_default().to_owned(),
        admin_version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: number("uptime_seconds"),
        worker_restarts: number("worker_restarts"),
    };
    Ok(answer(StatusCode::OK, &health))
}

/// All statistics, as `docs/stats.md` describes them.
///
/// # Errors
///
/// That the daemon does not answer.
#[utoipa::path(get, path = "/v1/stats", tag = "look", responses(
    (status = 200, description = "Statistics of everything", body = Report), openapi::Unreachable))]
pub async fn stats(State(daemon): State<Shared>) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, &daemon.stats().await?))
}

/// Totals of the store.
///
/// # Errors
///
/// That the daemon does not answer.
#[utoipa::path(get, path = "/v1/store", tag = "look", responses(
    (status = 200, description = "Totals of the store", body = StoreReport), openapi::Unreachable))]
pub async fn store(State(daemon): State<Shared>) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, &daemon.stats().await?["store"]))
}

/// All guests.
///
/// # Errors
///
/// That the daemon does not answer.
#[utoipa::path(get, path = "/v1/guests", tag = "look", responses(
    (status = 200, description = "The guests", body = Guests), openapi::Unreachable))]
pub async fn guests(State(daemon): State<Shared>) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, &json!({ "guests": daemon.stats().await?["guests"].take() })))
}

/// One guest.
///
/// # Errors
///
/// That the daemon does not answer, or that there is no such guest.
#[utoipa::path(get, path = "/v1/guests/{name}", tag = "look", params(openapi::Name), responses(
    (status = 200, description = "The guest", body = GuestReport), openapi::NoGuest, openapi::Unreachable))]
pub async fn guest(State(daemon): State<Shared>, GuestName(name): GuestName) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, &find(daemon.stats().await?, &name)?))
}

/// A guest's pools.
///
/// # Errors
///
/// That the daemon does not answer, or that there is no such guest.
#[utoipa::path(get, path = "/v1/guests/{name}/pools", tag = "look", params(openapi::Name), responses(
    (status = 200, description = "The guest's pools", body = Pools), openapi::NoGuest, openapi::Unreachable))]
pub async fn pools(State(daemon): State<Shared>, GuestName(name): GuestName) -> Result<Response, Problem> {
    let mut guest = find(daemon.stats().await?, &name)?;
    Ok(answer(StatusCode::OK, &json!({ "pools": guest["pools"].take() })))
}

/// What can be asked for here.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "look", responses(
    (status = 200, description = "The OpenAPI document", body = openapi::AnyObject)))]
pub async fn openapi() -> Response {
    answer(StatusCode::OK, &openapi::document())
}

/// Whether there is such a guest.
///
/// # Errors
///
/// That the daemon does not answer.
pub(super) async fn is_there(daemon: &Shared, name: &str) -> Result<bool, Problem> {
    Ok(find(daemon.stats().await?, name).is_ok())
}

/// The entry of a guest.
///
/// # Errors
///
/// That there is none.
pub(super) fn find(mut stats: Value, name: &str) -> Result<Value, Problem> {
    let guests = stats["guests"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let found = guests.into_iter().find(|guest| guest["name"] == name);
    let text = format_args!("there is no guest {name:?}: the list of guests has their names");
    found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, text))
}
