// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is asked of the daemon as a whole.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use vhost_zcache::admin::wish::{Alteration, Wish};

use super::{Shared, have_done, json};
use crate::api::problem::Problem;
use crate::api::{Disconnect, Done, GiveBack, SettingsPatch};
use crate::extract::{Body, Parameters};
use crate::openapi;

/// Changes limits and settings of the daemon.
///
/// They are not in its file: when that is read again they are as it says.
///
/// # Errors
///
/// Why not.
#[utoipa::path(patch, path = "/v1/settings", tag = "daemon", request_body = SettingsPatch, responses(
    (status = 200, description = "The daemon goes by them, and its limits hold", body = Done),
    openapi::Refused, openapi::WrongBody, openapi::Unreachable))]
pub async fn settings(State(daemon): State<Shared>, Body(settings): Body<SettingsPatch>) -> Result<Response, Problem> {
    have_done(&daemon, &Wish::Alter(Alteration::Set(settings.fragment())), StatusCode::OK).await
}

/// Gives memory back to the host, as far as there are file pages to drop.
///
/// # Errors
///
/// Why not.
#[utoipa::path(post, path = "/v1/give-back", tag = "daemon", request_body = GiveBack, responses(
    (status = 200, description = "What was given back, and what it cost whom", body = openapi::AnyObject),
    openapi::Refused, openapi::WrongBody, openapi::Unreachable))]
pub async fn give_back(State(daemon): State<Shared>, Body(wanted): Body<GiveBack>) -> Result<Response, Problem> {
    let unknown = || Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "this is more than any host has");
    let bytes = wanted.bytes.bytes().ok_or_else(unknown)?;
    let message = daemon.ask(&Wish::GiveBack { bytes }).await?;
    match serde_json::from_str::<Value>(&message) {
        Ok(given) if given.is_object() => Ok(json(StatusCode::OK, &given)),
        _ => Ok(json(StatusCode::OK, &Done { message })),
    }
}

/// Has the daemon read its file again. Changes that were made here go.
///
/// # Errors
///
/// Why not.
#[utoipa::path(post, path = "/v1/reload", tag = "daemon", params(Disconnect), responses(
    (status = 200, description = "The daemon goes by the file", body = Done),
    openapi::Refused, openapi::Unreachable))]
pub async fn reload(
    State(daemon): State<Shared>,
    Parameters(Disconnect { disconnect }): Parameters<Disconnect>,
) -> Result<Response, Problem> {
    have_done(&daemon, &Wish::Reload { disconnect }, StatusCode::OK).await
}

/// Has the daemon take the program that is at its path now.
///
/// # Errors
///
/// Why not.
#[utoipa::path(post, path = "/v1/upgrade", tag = "daemon", responses(
    (status = 200, description = "Which release serves", body = Done),
    openapi::Refused, openapi::Unreachable))]
pub async fn upgrade(State(daemon): State<Shared>) -> Result<Response, Problem> {
    let release = daemon.ask(&Wish::Upgrade).await?;
    Ok(json(StatusCode::OK, &Done { message: format!("release {release} serves") }))
}
