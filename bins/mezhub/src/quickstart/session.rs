//! The user's session with Mezite's own SSH client: through the gateway, as `ssh -J` goes.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mezite_ca::TrustBundle;
use mezite_ca::verify;
use mezite_core::{Clock, Login, UserName};
use mezite_net::clock::SystemClock;
use mezite_net::ssh::{
    Channel, ChannelReader, ChannelWriter, Client, HostVerifier, Message, Request, WindowSize,
};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use ssh_key::{Certificate, PrivateKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

/// Bytes read from standard input at once.
const READ: usize = 32 * 1024;

/// Where to, as whom, with what.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) gateway: String,
    pub(super) user: UserName,
    pub(super) login: Login,
    pub(super) node: String,
    pub(super) key: PrivateKey,
    pub(super) certificate: Certificate,
    pub(super) trust: TrustBundle,
    /// For stock ssh.
    pub(super) ssh_config: PathBuf,
}

impl Target {
    fn verifier(&self, name: &str) -> HostVerifier {
        let (trust, name) = (self.trust.clone(), name.to_owned());
        Box::new(move |blob| {
            let now = SystemClock.now();
            let context = verify::Context {
                trust: &trust,
                now,
                source: None,
                revoked: &|_| false,
            };
            verify::gateway_host(blob, &name, &context)
                .map(|_| ())
                .map_err(|error| error.to_string())
        })
    }
}

/// Runs `command`, or a shell if it is empty, with this process's standard streams; gives its exit code.
pub(super) async fn run(target: &Target, command: &str) -> Result<u8, String> {
    let failed = |error: mezite_net::ssh::SshError| error.to_string();
    let key = Arc::new(target.key.clone());
    let stream = TcpStream::connect(&target.gateway)
        .await
        .map_err(|error| error.to_string())?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let (user, login) = (target.user.as_str(), target.login.as_str());
    let outer = Client::connect(
        stream,
        target.verifier("127.0.0.1"),
        user,
        Arc::clone(&key),
        target.certificate.clone(),
    );
    let outer = outer.await.map_err(failed)?;
    let stream = outer
        .open_direct_tcpip(&target.node, 22)
        .await
        .map_err(failed)?;
    let inner = Client::connect(
        stream,
        target.verifier(&target.node),
        login,
        key,
        target.certificate.clone(),
    );
    let inner = inner.await.map_err(failed)?;
    let Channel { mut reader, writer } = inner.open_session().await.map_err(failed)?;

    let terminal =
        std::io::stdin().is_terminal() && (command.is_empty() || std::io::stdout().is_terminal());
    let raw = if terminal && command.is_empty() {
        Some(Raw::enter()?)
    } else {
        None
    };
    if raw.is_some() {
        let term = std::env::var("TERM").unwrap_or_else(|_| String::from("dumb"));
        let pty = Request::Pty {
            term,
            size: window(),
            modes: Vec::new(),
        };
        writer.send(Message::Request(pty)).await.map_err(failed)?;
    }
    let start = match command {
        "" => Request::Shell,
        line => Request::Exec(line.as_bytes().to_vec()),
    };
    writer.send(Message::Request(start)).await.map_err(failed)?;
    let code = tokio::select! {
        code = show(&mut reader) => code,
        error = feed(&writer) => error,
        error = resize(&writer, raw.is_some()) => error,
    };
    drop(raw);
    drop(writer);
    inner.disconnect("done").await;
    outer.disconnect("done").await;
    code
}

/// Output and exit, until the channel closes.
async fn show(reader: &mut ChannelReader) -> Result<u8, String> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut code = None;
    while let Some(message) = reader.next().await {
        match message {
            Message::Data(data) => write(&mut stdout, &data).await?,
            Message::ExtendedData(_, data) => write(&mut stderr, &data).await?,
            Message::Request(Request::ExitStatus(status)) => {
                code = Some(u8::try_from(status).unwrap_or(u8::MAX))
            }
            // As a shell tells it: 128 and more stands for a signal; which one is in the recording.
            Message::Request(Request::ExitSignal { .. }) => code = Some(128),
            Message::Failure => return Err(String::from("the node refused to start it")),
            Message::Eof | Message::Close | Message::Success | Message::Request(_) => {}
        }
    }
    code.ok_or_else(|| String::from("the session ended without an exit code"))
}

async fn write(out: &mut (impl AsyncWriteExt + Unpin), data: &[u8]) -> Result<(), String> {
    let written = async {
        out.write_all(data).await?;
        out.flush().await
    };
    written
        .await
        .map_err(|error: std::io::Error| format!("cannot write the output: {error}"))
}

/// Standard input until its end; then waits for the others.
async fn feed(writer: &ChannelWriter) -> Result<u8, String> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        let message = match stdin.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => Message::Eof,
            Ok(_) => Message::Data(Bytes::from(buffer.split())),
        };
        let over = message == Message::Eof;
        if writer.send(message).await.is_err() || over {
            std::future::pending::<()>().await;
        }
    }
}

async fn resize(writer: &ChannelWriter, terminal: bool) -> Result<u8, String> {
    let mut changes = signal(SignalKind::window_change()).map_err(|error| error.to_string())?;
    loop {
        let _ = changes.recv().await;
        if terminal
            && writer
                .send(Message::Request(Request::WindowChange(window())))
                .await
                .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

fn window() -> WindowSize {
    let size = rustix::termios::tcgetwinsize(std::io::stdin());
    size.map_or(
        WindowSize {
            cols: 80,
            rows: 24,
            width: 0,
            height: 0,
        },
        |size| WindowSize {
            cols: u32::from(size.ws_col),
            rows: u32::from(size.ws_row),
            width: u32::from(size.ws_xpixel),
            height: u32::from(size.ws_ypixel),
        },
    )
}

/// A terminal in raw mode, set back when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, String> {
        let before = tcgetattr(std::io::stdin()).map_err(|error| error.to_string())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &raw).map_err(|error| error.to_string())?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to set back.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}
