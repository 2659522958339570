//! `healthcheck`: what a container's engine asks, where there is no shell and no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use super::{Fatal, runtime};
use crate::config::Config;

/// Longest wait for the answer; readiness itself takes up to four seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the replica that listens on INTERNAL_ADDR of this machine.
pub(super) fn healthcheck(live: bool) -> Result<ExitCode, Fatal> {
    let address = reachable(Config::internal_from_env()?);
    let url = format!("http://{address}/{}", if live { "livez" } else { "readyz" });
    runtime()?.block_on(async {
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        let answer = client.get(&url).send().await.map_err(|error| {
            let why = if error.is_timeout() { "does not answer in time" } else { "does not answer" };
            format!("{url} {why}; INTERNAL_ADDR says where the replica is")
        })?;
        let status = answer.status();
        print!("{}", answer.text().await?);
        Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Who listens on every address is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
