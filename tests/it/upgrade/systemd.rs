//! Socket activation and notifications, with a test in the place of systemd.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Command, Stdio},
};

use rustix::process::Signal;

use super::support::{PROGRAM, Prepared, say, signal};
use crate::support::{WITHIN, soon};

#[tokio::test]
async fn sockets_of_the_system_are_served_over_upgrades_and_the_system_is_told() {
    let prepared = Prepared::new().await;
    // The system's: this test holds it throughout, and nobody binds it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listens = format!("[[gateway.listen]]\naddress = \"{address}\"\nprotocol = \"https\"\n");
    prepared.configure(&listens, "drain = \"1s\"");
    let notifications = prepared.folder().join("notify");
    let notified = UnixDatagram::bind(&notifications).unwrap();
    notified.set_read_timeout(Some(WITHIN)).unwrap();
    let next = || -> String {
        let mut text = [0; 256];
        let length = notified.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    // Whoever comes before the start waits.
    let early = tokio::net::TcpStream::connect(address).await.unwrap();

    // The descriptor has to be number 3.
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --log-format json run --config \"$1\"";
    let mut command = Command::new("/bin/sh");
    prepared.logged(&mut command);
    command
        .args(["-c", script, PROGRAM])
        .arg(prepared.folder().join("config.toml"))
        .env("NOTIFY_SOCKET", &notifications)
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    let child = command.spawn().unwrap();
    let first = child.id();
    let service = prepared.started(child).await;
    assert_eq!(service.https, address);
    assert_eq!(next(), "READY=1");
    let mut socket = service.socket().await;
    say(&mut socket, "served").await;
    drop(early);

    signal(first, Signal::HUP);
    assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next(), "READY=1");

    let second = service.upgrade().await;
    assert_eq!(next(), format!("MAINPID={second}"));
    assert_eq!(next(), "READY=1");
    say(&mut socket, "still served").await;
    say(&mut service.socket().await, "by the new one").await;

    // A stop of the new one leaves the socket with the system: who comes waits for the next start.
    drop(socket);
    service.gone(first).await;
    signal(second, Signal::TERM);
    assert_eq!(next(), "STOPPING=1");
    service.gone(second).await;
    let connected = soon("the queue", tokio::net::TcpStream::connect(address));
    connected.await.unwrap();
    drop(listener);
}
