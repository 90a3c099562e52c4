//! Upstreams on raw sockets: one that answers in order, and ones that misbehave as a test tells them.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// All values of a field, spelled in lower case.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of a field.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} is there twice: {values:?}");
        values.first().copied()
    }
}

/// A listening upstream. It ends with this value.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port of this machine that is bound and does not listen: connections to it are refused, and nobody else gets it.
pub(crate) struct Refusing(socket2::Socket);

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        // Behind the choice of the port, so that nobody shares it: whoever listens there later may come after this one.
        socket.set_reuse_address(true).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// From now on it listens.
    pub(crate) fn listen(self) -> TcpListener {
        self.0.listen(64).unwrap();
        self.0.set_nonblocking(true).unwrap();
        TcpListener::from_std(self.0.into()).unwrap()
    }
}

impl Upstream {
    /// Gives a request's body back, and `hello` where there is none.
    pub(crate) async fn echo() -> Self {
        Self::answering(|seen| {
            let body = if seen.body.is_empty() {
                b"hello"
            } else {
                &seen.body[..]
            };
            let mut answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
            if seen.method != "HEAD" {
                answer.extend_from_slice(body);
            }
            answer
        })
        .await
    }

    /// Answers every request with these bytes.
    pub(crate) async fn always(answer: &'static str) -> Self {
        Self::answering(move |_| answer.into()).await
    }

    /// Answers every request with what `answer` makes of it.
    pub(crate) async fn answering(
        answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (note, answer) = (Arc::clone(&seen), Arc::new(answer));
        let mut upstream = Self::scripted(move |stream, connection| {
            let (note, answer) = (Arc::clone(&note), Arc::clone(&answer));
            async move {
                let mut stream = BufReader::new(stream);
                while let Ok(mut request) = read_request(&mut stream).await {
                    request.connection = connection;
                    let bytes = answer(&request);
                    note.lock().unwrap().push(request);
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        upstream.seen = seen;
        upstream
    }

    /// Gives every connection, with its number from 0, to `serve`.
    pub(crate) async fn scripted<F>(
        serve: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(stream, number));
            }
        });
        Self {
            address,
            seen: Arc::default(),
            connections,
            task,
        }
    }

    /// How many connections came so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The latest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }
}

/// Reads one request with its body.
pub(crate) async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Seen> {
    let first = line(stream).await?;
    let mut words = first.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let mut seen = Seen {
        connection: 0,
        method: word(),
        target: word(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let line = line(stream).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        seen.headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if let Some(length) = seen.header("content-length") {
        seen.body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut seen.body).await?;
    } else if seen.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(stream).await?, 16).unwrap();
            let start = seen.body.len();
            seen.body.resize(start + size, 0);
            stream.read_exact(&mut seen.body[start..]).await?;
            line(stream).await?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(seen)
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads a head as it is.
pub(crate) async fn head(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            break;
        }
    }
    head
}
