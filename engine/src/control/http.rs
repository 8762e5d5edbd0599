//! `/metrics`, `/healthz`, `/readyz`, `/status`.
//!
//! A client gets one answer a connection. Slow and hostile clients are bounded three ways: a connection
//! that has not sent its head in five seconds, or is not done in ten, is closed; heads are at most
//! 16 KiB; and when all places are taken the oldest connection makes way, so that holding connections
//! open keeps nobody out.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::{Shared, metrics, status};
use crate::clock::boot_ns;

const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 << 10;

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(status_json))
        .with_state(shared)
}

async fn index() -> &'static str {
    "firebrick: /metrics /healthz /readyz /status\n"
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics::text(&shared)).into_response()
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.board.ready(boot_ns()) {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn status_json(State(shared): State<Arc<Shared>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, status::brick(&shared).await).into_response()
}

pub(super) async fn serve(listener: TcpListener, connections_max: usize, shared: Arc<Shared>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("firebrick: HTTP is off, its socket cannot be used: {error}");
            return;
        }
    };
    let router = router(shared);
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= connections_max
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let router = router.clone();
                open.push_back(tokio::spawn(connection(stream, router)).abort_handle());
            }
            // Out of descriptors, most likely: the connection waits in the kernel meanwhile.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whatever ends it, there is nobody to tell: the client sees its connection close.
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}
