//! HTTP/2: several streams at once on one connection, with hyper's client.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::drive::{Io, Plan};

pub(crate) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    request: Request<()>,
    streams: usize,
}

impl Connection {
    pub(crate) async fn open(io: Io, plan: &Plan, token: &str) -> anyhow::Result<Self> {
        let (sender, driver) = handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .context("the HTTP/2 handshake failed")?;
        tokio::spawn(driver);
        let request = Request::get(format!("https://{}/load", plan.host))
            .header("authorization", format!("Bearer {token}"))
            .header("user-agent", "load")
            .header("accept", "*/*")
            .body(())?;
        Ok(Self {
            sender,
            request,
            streams: plan.streams,
        })
    }

    pub(crate) async fn send(&mut self, count: usize) -> anyhow::Result<()> {
        let mut running = JoinSet::new();
        for stream in 0..self.streams {
            let share = count / self.streams + usize::from(stream < count % self.streams);
            let (mut sender, request) = (self.sender.clone(), self.request.clone());
            running.spawn(async move {
                for _ in 0..share {
                    let answer = sender
                        .send_request(request.clone().map(|()| Empty::new()))
                        .await?;
                    ensure!(
                        answer.status() == 200,
                        "not the expected answer: {answer:?}"
                    );
                    answer.into_body().collect().await?;
                }
                Ok(())
            });
        }
        while let Some(stream) = running.join_next().await {
            stream??;
        }
        Ok(())
    }
}
