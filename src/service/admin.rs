//! Administration: reload and rollback, as orders to the one who follows the store.

use axum::response::Response;
use tokio::sync::{mpsc, oneshot};

use super::problem::{Kind, Problem};
use super::reload::Command;
use super::routes::{Entered, json};
use super::shape::ReleaseDocument;

/// Gives orders.
pub type Administration = mpsc::Sender<Command>;

/// Takes up the active release now.
#[utoipa::path(post, path = "/v1/admin/reload", tag = "administration",
    responses((status = 200, body = ReleaseDocument), (status = 409, description = "The release was refused")))]
pub async fn reload(orders: Administration, _entered: Entered) -> Result<Response, Problem> {
    order(&orders, Command::Reload).await
}

/// Serves the previous release until the store has yet another.
#[utoipa::path(post, path = "/v1/admin/rollback", tag = "administration",
    responses((status = 200, body = ReleaseDocument), (status = 409, description = "There is none")))]
pub async fn roll_back(orders: Administration, _entered: Entered) -> Result<Response, Problem> {
    order(&orders, Command::RollBack).await
}

async fn order(
    orders: &Administration,
    command: impl FnOnce(oneshot::Sender<Result<ReleaseDocument, String>>) -> Command,
) -> Result<Response, Problem> {
    let gone = || Problem::new(Kind::NotReady, "the service is stopping");
    let (tell, told) = oneshot::channel();
    orders.send(command(tell)).await.map_err(|_| gone())?;
    let release = told.await.map_err(|_| gone())?.map_err(|why| Problem::new(Kind::ReleaseRefused, why))?;
    Ok(json(serde_json::to_vec(&release).unwrap_or_default()))
}
