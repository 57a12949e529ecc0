//! The engine behind HTTP: what stands behind a product page.
//!
//! [`Service::run`] listens, follows the store's active release and answers until it is told to stop. A request is
//! waited for on a thread that does nothing else, computed by a few threads behind a short queue, and refused at once when
//! it would come too late. Whatever happens to the store or to the next release, what is served goes on being served.
//!
//! `docs/http-api.md` has the routes.

mod admin;
mod answer;
mod app;
mod body;
mod breaker;
mod change;
pub mod client;
pub mod config;
mod guarded;
mod keys;
mod metrics;
mod openapi;
mod pool;
mod probe;
mod problem;
mod reload;
mod routes;
mod run;
mod shape;
mod shelf;
mod state;
mod tls;
mod wire;

pub use config::{Config, ConfigError};
pub use run::{Service, ServiceError};
pub use tls::TlsError;
