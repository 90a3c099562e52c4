//! Options of a client's socket: answers without delay, and an end for who has vanished.
//!
//! A machine that is put to sleep or loses its network says nothing. The kernel asks it, and gives up what it never acknowledges;
//! then a stream ends like one whose client closed it.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Small answers go out at once, and a client that has vanished is found also where nothing is sent (RFC 1122 §4.2.3.6,
/// RFC 5482). Questions begin after a third of the time; the last one fits into it.
pub(super) fn keep_watch(stream: &TcpStream, dead_peer: Option<Duration>) {
    let socket = SockRef::from(stream);
    // A connection without them is served as well.
    let _ = socket.set_tcp_nodelay(true);
    let Some(whole) = dead_peer else { return };
    let (idle, interval) = (whole / 3, whole / 6);
    let second = Duration::from_secs(1);
    let keep_alive = TcpKeepalive::new()
        .with_time(idle.max(second))
        .with_interval(interval.max(second));
    let _ = socket.set_tcp_keepalive(&keep_alive);
    let _ = socket.set_tcp_user_timeout(Some(whole - interval));
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_is_asked_whether_it_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let socket = SockRef::from(&stream);
        keep_watch(&stream, None);
        assert!(socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
        let minute = Duration::from_secs(60);
        keep_watch(&stream, Some(minute));
        let times = (
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
            socket.tcp_user_timeout().unwrap(),
        );
        let seconds = Duration::from_secs;
        assert!(socket.keepalive().unwrap());
        assert_eq!(times, (seconds(20), seconds(10), Some(seconds(50))));
    }
}
