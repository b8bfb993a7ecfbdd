// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests come, go and become others.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use vhost_zcache::admin::wish::{Alteration, Wish};

use super::look::is_there;
use super::{Shared, have_done};
use crate::api::problem::Problem;
use crate::api::{Disconnect, Done, GuestPatch, GuestSettings, OnePool};
use crate::extract::{Body, GuestName, OnlyNew, Parameters};
use crate::openapi;

/// Makes a guest, with its socket; or gives one that is there these limits and rights.
///
/// It is not in the daemon's file: when that is read again and does not have it, the guest goes.
/// With `If-None-Match: *` one that is there stays as it is.
///
/// # Errors
///
/// Why not.
#[utoipa::path(put, path = "/v1/guests/{name}", tag = "guests", params(openapi::NewName, openapi::IfNoneMatch),
    request_body = GuestSettings, responses(
    (status = 200, description = "The guest has these settings now", body = Done),
    (status = 201, description = "The guest is there, and its socket", body = Done),
    openapi::Refused, openapi::WrongBody, openapi::Unreachable))]
pub async fn put(
    State(daemon): State<Shared>,
    GuestName(name): GuestName,
    OnlyNew(only_new): OnlyNew,
    Body(guest): Body<GuestSettings>,
) -> Result<Response, Problem> {
    if !is_name(&name) {
        let text = format_args!(
            "{name:?} is no name of a guest: that has 1 to 64 letters, digits, '-', '_' and '.', and begins with a \
             letter or a digit"
        );
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let status = match is_there(&daemon, &name).await? {
        true if only_new => {
            let text = format_args!("there is a guest {name:?} already: change it, or remove it first");
            return Err(Problem::new(StatusCode::CONFLICT, text));
        }
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    let text = guest.fragment(&name);
    let wanted = if only_new { Alteration::Add(text) } else { Alteration::Put(text) };
    have_done(&daemon, &Wish::Alter(wanted), status).await
}

/// Changes limits and rights of a guest.
///
/// # Errors
///
/// Why not.
#[utoipa::path(patch, path = "/v1/guests/{name}", tag = "guests", params(openapi::Name),
    request_body = GuestPatch, responses(
    (status = 200, description = "The guest has these settings now", body = Done),
    openapi::NoGuest, openapi::Refused, openapi::WrongBody, openapi::Unreachable))]
pub async fn patch(
    State(daemon): State<Shared>,
    GuestName(name): GuestName,
    Body(guest): Body<GuestPatch>,
) -> Result<Response, Problem> {
    has_to_be_there(&daemon, &name).await?;
    have_done(&daemon, &Wish::Alter(Alteration::Set(guest.fragment(&name))), StatusCode::OK).await
}

/// Removes a guest, with its socket and all it has stored.
///
/// # Errors
///
/// Why not.
#[utoipa::path(delete, path = "/v1/guests/{name}", tag = "guests", params(openapi::Name, Disconnect), responses(
    (status = 200, description = "The guest is gone", body = Done),
    openapi::NoGuest, openapi::Refused, openapi::Unreachable))]
pub async fn remove(
    State(daemon): State<Shared>,
    GuestName(name): GuestName,
    Parameters(Disconnect { disconnect }): Parameters<Disconnect>,
) -> Result<Response, Problem> {
    has_to_be_there(&daemon, &name).await?;
    have_done(&daemon, &Wish::Alter(Alteration::Remove { guest: name, disconnect }), StatusCode::OK).await
}

/// Has a guest's puts refused, until it is thawed. What it has stored stays.
///
/// # Errors
///
/// Why not.
#[utoipa::path(post, path = "/v1/guests/{name}/freeze", tag = "guests", params(openapi::Name), responses(
    (status = 200, description = "The guest is frozen", body = Done),
    openapi::NoGuest, openapi::Refused, openapi::Unreachable))]
pub async fn freeze(State(daemon): State<Shared>, GuestName(name): GuestName) -> Result<Response, Problem> {
    has_to_be_there(&daemon, &name).await?;
    have_done(&daemon, &Wish::Freeze { guest: name }, StatusCode::OK).await
}

/// Ends what freezing has begun.
///
/// # Errors
///
/// Why not.
#[utoipa::path(post, path = "/v1/guests/{name}/thaw", tag = "guests", params(openapi::Name), responses(
    (status = 200, description = "The guest is thawed", body = Done),
    openapi::NoGuest, openapi::Refused, openapi::Unreachable))]
pub async fn thaw(State(daemon): State<Shared>, GuestName(name): GuestName) -> Result<Response, Problem> {
    has_to_be_there(&daemon, &name).await?;
    have_done(&daemon, &Wish::Thaw { guest: name }, StatusCode::OK).await
}

/// Drops a guest's file pages: those of one pool, or of all. Swapped pages stay.
///
/// # Errors
///
/// Why not.
#[utoipa::path(post, path = "/v1/guests/{name}/flush", tag = "guests", params(openapi::Name, OnePool), responses(
    (status = 200, description = "They are gone", body = Done),
    openapi::NoGuest, openapi::Refused, openapi::Unreachable))]
pub async fn flush(
    State(daemon): State<Shared>,
    GuestName(name): GuestName,
    Parameters(OnePool { pool }): Parameters<OnePool>,
) -> Result<Response, Problem> {
    has_to_be_there(&daemon, &name).await?;
    have_done(&daemon, &Wish::Flush { guest: name, pool }, StatusCode::OK).await
}

async fn has_to_be_there(daemon: &Shared, name: &str) -> Result<(), Problem> {
    super::look::find(daemon.stats().await?, name).map(drop)
}

/// As a file may name a guest.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && name.len() <= 64 && name.chars().all(is_plain)
}
