//! Ports of an instance where the IDE and apps listen.
//!
//! They are kept from start to start, so they are not of the range from which the kernel takes those of outgoing connections: it would give
//! them away while nobody listens. Not here: which ports are forwarded (`service`), and how the gateway reaches them.

use std::{collections::BTreeMap, io, ops::RangeInclusive};

use tokio::net::TcpListener;

/// Below are those of services that are known by their number.
const LOWEST: u16 = 10_000;
const TRIES: usize = 100;
/// `first last` (ip(7)).
const KERNELS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A port for each forwarded one: the one it had before, if that is free.
pub(super) async fn real_ports(
    forwarded: &[u16],
    before: &BTreeMap<u16, u16>,
) -> io::Result<BTreeMap<u16, u16>> {
    let mut held = Vec::new();
    let mut ports = BTreeMap::new();
    for port in forwarded {
        // Held until all are chosen, so that no two are the same.
        let listener = listener(before.get(port).copied()).await?;
        ports.insert(*port, listener.local_addr()?.port());
        held.push(listener);
    }
    Ok(ports)
}

/// Listens where it did before, if that is free.
pub(super) async fn listener(before: Option<u16>) -> io::Result<TcpListener> {
    if let Some(port) = before
        && let Ok(listener) = bind(port).await
    {
        return Ok(listener);
    }
    let kernels = kernels(&std::fs::read_to_string(KERNELS).unwrap_or_default());
    for _ in 0..TRIES {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let port = u16::from_ne_bytes(random);
        if port >= LOWEST
            && !kernels.contains(&port)
            && let Ok(listener) = bind(port).await
        {
            return Ok(listener);
        }
    }
    // Next to none is left to choose from.
    bind(0).await
}

async fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await
}

/// The kernel's range, by default as Linux has it.
fn kernels(text: &str) -> RangeInclusive<u16> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32_768..=60_999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_range_is_read() {
        assert_eq!(kernels("1024\t65000\n"), 1024..=65_000);
        for other in ["", "1", "a b", "1 70000"] {
            assert_eq!(kernels(other), 32_768..=60_999, "{other}");
        }
    }

    #[tokio::test]
    async fn a_new_one_is_none_that_the_kernel_gives_away() {
        let kernels = kernels(&std::fs::read_to_string(KERNELS).unwrap());
        let mut others = (LOWEST..=u16::MAX).filter(|port| !kernels.contains(port));
        if others.nth(10_000).is_none() {
            eprintln!("the kernel may give nearly all ports away: nothing to see here");
            return;
        }
        for _ in 0..20 {
            let port = listener(None).await.unwrap().local_addr().unwrap().port();
            assert!(port >= LOWEST && !kernels.contains(&port), "{port}");
        }
    }

    #[tokio::test]
    async fn a_port_is_kept_while_it_is_free() {
        let (first, taken) = kept_then_taken().await;
        assert_ne!(first[&3000], first[&4000]);
        let moved = real_ports(&[3000], &first).await.unwrap();
        assert_ne!(moved[&3000], taken.local_addr().unwrap().port());
    }

    /// Ports that were given twice, and what took the first of them then. What is free may meanwhile be taken by
    /// another test, or be held by a process that one has just forked, so there are more tries.
    async fn kept_then_taken() -> (BTreeMap<u16, u16>, TcpListener) {
        for _ in 0..100 {
            let first = real_ports(&[3000, 4000], &BTreeMap::new()).await.unwrap();
            if real_ports(&[3000, 4000], &first).await.unwrap() == first
                && let Ok(taken) = TcpListener::bind(("127.0.0.1", first[&3000])).await
            {
                return (first, taken);
            }
        }
        panic!("no ports were kept in a hundred tries");
    }
}
