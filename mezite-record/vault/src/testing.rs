//! A store that speaks S3 and is not ours, for tests here and of the hub: moto.
#![expect(clippy::expect_used, clippy::panic, reason = "for tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The server of this process: it ends with it, however that ends, because it lives as long as its standard input.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    address: &'static str,
}

impl Server {
    /// Starts it, unless it runs.
    ///
    /// # Panics
    /// When there is no moto.
    #[must_use]
    pub fn shared() -> Self {
        static SERVER: OnceLock<(String, Child)> = OnceLock::new();
        let (address, _) = SERVER.get_or_init(start);
        Self { address }
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &'static str {
        self.address
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) {
        drop(self.ask("PUT", &format!("/{name}"), b""));
    }

    /// The names of all objects below `prefix`.
    ///
    /// # Panics
    /// When the store fails.
    #[must_use]
    pub fn objects(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let listed = self.ask(
            "GET",
            &format!("/{bucket}?list-type=2&prefix={prefix}"),
            b"",
        );
        let listed = String::from_utf8(listed).expect("text");
        let keys = listed.split("<Key>").skip(1);
        keys.filter_map(|it| Some(it.split_once('<')?.0.to_owned()))
            .collect()
    }

    /// One request, over a connection of its own; the body of its answer.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).expect("the store");
        // Any signature will do for the server; it wants one that has the form of one.
        let key = "AWS4-HMAC-SHA256 Credential=K/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: s3\r\nAuthorization: {key}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut answer = Vec::new();
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .and_then(|()| stream.read_to_end(&mut answer))
            .expect("the store");
        let split = answer.windows(4).position(|it| it == b"\r\n\r\n");
        let body = answer.split_off(split.expect("a head") + 4);
        let head = String::from_utf8_lossy(&answer);
        assert!(
            head.contains(" 200 ") || head.contains(" 204 "),
            "{method} {path}: {head}"
        );
        body
    }
}

/// Its address, and the shell whose standard input stays open until this process is gone.
fn start() -> (String, Child) {
    let script = "exec 3<&0; \"$0\" -H 127.0.0.1 -p 0 </dev/null 2>&1 & read -r end <&3; kill $!";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut all = String::new();
    let address = loop {
        let mut told = String::new();
        let read = output.read_line(&mut told);
        assert!(
            read.is_ok_and(|it| it > 0),
            "moto_server does not start: {all}"
        );
        if let Some((_, address)) = told.split_once("Running on http://") {
            // It writes a line for each request.
            std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
            break address.trim().to_owned();
        }
        all.push_str(&told);
    };
    (address, child)
}

/// From `PATH`, or where `cargo xtask test` puts it: `tools` in the target directory, in which this program lies.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let exe = std::env::current_exe().unwrap_or_default();
    let own = exe.ancestors().map(|it| it.join("tools/moto/bin"));
    let found = std::env::split_paths(&path)
        .chain(own)
        .map(|directory| directory.join("moto_server"))
        .find(|it| it.is_file());
    found.unwrap_or_else(|| {
        panic!("moto_server is missing: run `cargo xtask test`, or `pip install 'moto[server]'`")
    })
}
