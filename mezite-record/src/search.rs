//! Finding text in recordings. Beside a recording lies a small index: the lines that a person read, commands and remarks,
//! compressed and sealed under the recording's own data key. So whoever cannot read the recording cannot read its index,
//! and nothing of it lies open anywhere. The format is in FORMAT.md.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use aes_gcm::{AeadInOut, Aes256Gcm};
use memchr::memmem;
use mezite_core::{Secret, Span};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::decode::{DecodeError, Decoded, Decoder, header};
use crate::format::{HEAD_FIXED, Head, Header, MAX_FACTS, TAG, nonce, to_usize};
use crate::frame::{ChannelEvent, Frame, Stream, Timed};
use crate::key::{DataKey, Identity, MAX_WRAPPED};
use crate::prompt::Prompts;
use crate::read::ReadError;
use crate::reading::{ReadLine, Readings, Source};
use crate::screen::one_line;
use crate::utf8::Utf8;
use crate::wire::{Malformed, Reader, put_varint};

/// The first bytes of every index.
const MAGIC: [u8; 8] = *b"\x89MZI\r\n\x1a\n";
const VERSION: u16 = 1;
/// Bytes from the magic to the length of the recording's head, inclusive.
const FIXED: usize = 8 + 2 + 32 + 4;
/// Bytes of a block before its ciphertext: flags, plain length, sealed length.
const META: usize = 9;
/// Text at which a block is closed.
const BLOCK_TARGET: usize = 1024 * 1024;
/// Most plaintext bytes of a block.
const MAX_PLAIN: usize = 8 * 1024 * 1024;
/// Output of a session that is read into its index. Nobody reads more with their eyes; what is left out is said.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;
/// Longest line that is kept.
const MAX_LINE: usize = 16 * 1024;
/// zstd level: text is written once and kept for long.
const LEVEL: i32 = 3;
/// Longest text that can be looked for.
const MAX_QUERY: usize = 1024;

const LAST: u8 = 1;
const CLIPPED: u8 = 2;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// On the screen, or on standard output.
    Output,
    /// On standard error without a terminal.
    Error,
    /// Typed or piped in, where the role has it recorded.
    Input,
    /// A command: executed without a shell, or accepted at a prompt (with the prompt).
    Command,
    /// A subsystem, an environment variable, a remark of the recorder.
    Event,
    /// Something done with a file, by SFTP or scp.
    File,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Output,
        Self::Error,
        Self::Input,
        Self::Command,
        Self::Event,
        Self::File,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Output => 0,
            Self::Error => 1,
            Self::Input => 2,
            Self::Command => 3,
            Self::Event => 4,
            Self::File => 5,
        }
    }

    /// The word for tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Error => "error",
            Self::Input => "input",
            Self::Command => "command",
            Self::Event => "event",
            Self::File => "file",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is looked for: a piece of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    text: String,
    ignore_case: bool,
}

/// Why nothing can be looked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Every line would be found.
    #[error("there is nothing to look for: the text is empty")]
    Empty,
    /// Longer than any use has.
    #[error("the text to look for has {0} bytes: at most {MAX_QUERY}")]
    TooLong(usize),
    /// No line holds it.
    #[error("the text to look for has a control character: lines hold none")]
    Control,
}

impl Query {
    /// Looks for exactly `text`, or for it in any case of letters.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn new(text: &str, ignore_case: bool) -> Result<Self, QueryError> {
        if text.is_empty() {
            return Err(QueryError::Empty);
        }
        if text.len() > MAX_QUERY {
            return Err(QueryError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(QueryError::Control);
        }
        let text = if ignore_case {
            text.to_lowercase()
        } else {
            text.to_owned()
        };
        Ok(Self { text, ignore_case })
    }
}

/// A line that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hit {
    /// When it had been read, since the start of the session.
    pub at: Span,
    /// On which channel.
    pub channel: u32,
    /// What it is.
    pub kind: Kind,
    /// All of it, without controls.
    pub line: String,
}

/// What one index gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// In the order of the session, as many as were asked for.
    pub hits: Vec<Hit>,
    /// There are more.
    pub more: bool,
    /// The session showed more output than its index holds.
    pub clipped: bool,
}

/// Builds the index of a finished recording. It can be built again at any time; no two builds share a key.
///
/// # Errors
/// [`ReadError`]: the file cannot be read, is not whole, or is not for us.
pub fn build(
    mut file: impl Read,
    identities: &[Identity],
    rng: &mut dyn CryptoRng,
) -> Result<Vec<u8>, ReadError> {
    let (head, mut piece) = first(&mut file)?;
    let raw = head.encode();
    let key = DataKey::unwrap(&head.wrapped, identities).map_err(DecodeError::from)?;
    let mut decoder = Decoder::for_key(DataKey::from_bytes(Secret::new(*key.expose().expose())));
    let mut sealing = Sealing::begin(&key, &raw, rng);
    let mut collector = Collector::default();
    loop {
        decoder.feed(&piece);
        while let Some(decoded) = decoder.next()? {
            if let Decoded::Frame(timed) = decoded {
                collector.take(&timed);
                if collector.text.len() >= BLOCK_TARGET {
                    sealing.block(&collector.plain(), 0)?;
                }
            }
        }
        piece.resize(256 * 1024, 0);
        let count = file.read(&mut piece)?;
        piece.truncate(count);
        if count == 0 {
            break;
        }
    }
    collector.finish();
    let flags = if collector.clipped {
        LAST | CLIPPED
    } else {
        LAST
    };
    sealing.block(&collector.plain(), flags)?;
    Ok(sealing.out)
}

/// The head of a recording and all bytes that were read for it.
fn first(file: &mut impl Read) -> Result<(Head, Vec<u8>), ReadError> {
    let malformed = |Malformed(what)| DecodeError::Malformed { offset: 0, what };
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        let count = file.by_ref().take(4096).read_to_end(&mut bytes)?;
        if let Some((head, _)) = Head::decode(&bytes).map_err(malformed)? {
            return Ok((head, bytes));
        }
        let longest = HEAD_FIXED + MAX_FACTS + 4 + MAX_WRAPPED;
        if count == 0 || before > longest {
            return Err(malformed(Malformed("the header is not whole")).into());
        }
    }
}

/// Lines on their way into a block.
#[derive(Default)]
struct Collector {
    readings: Readings,
    prompts: BTreeMap<u32, (Utf8, Prompts)>,
    subsystems: Vec<u32>,
    output: usize,
    clipped: bool,
    lines: u64,
    last: u64,
    about: Vec<u8>,
    text: Vec<u8>,
}

impl Collector {
    fn take(&mut self, timed: &Timed) {
        let mut lines = Vec::new();
        match &timed.frame {
            Frame::Output { channel, data, .. } | Frame::Input { channel, data } => {
                if self.subsystems.contains(channel) {
                    return;
                }
                self.output = self.output.saturating_add(data.len());
                if self.output > MAX_OUTPUT {
                    self.clipped = true;
                    return;
                }
                self.prompt(timed);
            }
            Frame::Channel { channel, what } => self.event(timed.at, *channel, what),
            Frame::Note { text } => self.line(timed.at, 0, Kind::Event, &one_line(text)),
            Frame::File { channel, operation } => {
                self.line(timed.at, *channel, Kind::File, &operation.to_string());
            }
            Frame::Content { .. } | Frame::Resize { .. } => {}
        }
        self.readings.push(timed, &mut lines);
        self.lines_of(lines);
    }

    /// Commands at the prompts of a terminal.
    fn prompt(&mut self, timed: &Timed) {
        let Frame::Output {
            channel,
            stream: Stream::Stdout,
            data,
        } = &timed.frame
        else {
            return;
        };
        let Some((utf8, prompts)) = self.prompts.get_mut(channel) else {
            return;
        };
        for command in prompts.push(&utf8.push(data)) {
            self.line(timed.at, *channel, Kind::Command, &command);
        }
    }

    fn event(&mut self, at: Span, channel: u32, what: &ChannelEvent) {
        match what {
            ChannelEvent::Pty { .. } => {
                self.prompts.entry(channel).or_default();
            }
            ChannelEvent::Exec { command } => {
                let command = one_line(&String::from_utf8_lossy(command));
                self.line(at, channel, Kind::Command, &command);
            }
            ChannelEvent::Subsystem { name } => {
                self.subsystems.push(channel);
                self.line(
                    at,
                    channel,
                    Kind::Event,
                    &format!("subsystem {}", one_line(name)),
                );
            }
            ChannelEvent::Env { name, value } => {
                let value = one_line(&String::from_utf8_lossy(value));
                self.line(
                    at,
                    channel,
                    Kind::Event,
                    &format!("{}={value}", one_line(name)),
                );
            }
            ChannelEvent::Opened { .. }
            | ChannelEvent::Shell
            | ChannelEvent::Exit { .. }
            | ChannelEvent::Signal { .. }
            | ChannelEvent::Eof
            | ChannelEvent::Closed => {}
        }
    }

    fn finish(&mut self) {
        let lines = self.readings.finish();
        self.lines_of(lines);
    }

    fn lines_of(&mut self, lines: Vec<ReadLine>) {
        for line in lines {
            let kind = match line.source {
                Source::Output => Kind::Output,
                Source::Error => Kind::Error,
                Source::Input => Kind::Input,
            };
            self.line(line.at, line.channel, kind, &line.text);
        }
    }

    fn line(&mut self, at: Span, channel: u32, kind: Kind, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let mut end = text.len().min(MAX_LINE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let at = at.as_millis().max(self.last);
        put_varint(at - self.last, &mut self.about);
        put_varint(channel.into(), &mut self.about);
        self.about.push(kind.code());
        self.last = at;
        self.lines += 1;
        let (kept, _) = text.split_at(end);
        self.text
            .extend(kept.bytes().map(|it| if it == b'\n' { b' ' } else { it }));
        self.text.push(b'\n');
    }

    /// The block's plaintext: number of lines, what each is, then all text. Begins the next block.
    fn plain(&mut self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(10 + self.about.len() + self.text.len());
        put_varint(std::mem::take(&mut self.lines), &mut plain);
        plain.append(&mut self.about);
        plain.append(&mut self.text);
        self.last = 0;
        plain
    }
}

/// Seals blocks one after the other.
struct Sealing {
    cipher: Aes256Gcm,
    digest: [u8; 32],
    number: u64,
    out: Vec<u8>,
}

impl Sealing {
    fn begin(key: &DataKey, head: &[u8], rng: &mut dyn CryptoRng) -> Self {
        let mut out = Vec::with_capacity(FIXED + head.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        out.extend_from_slice(&salt);
        out.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(head);
        let digest = Sha256::digest(&out).into();
        Self {
            cipher: key.index_cipher(&digest),
            digest,
            number: 0,
            out,
        }
    }

    fn block(&mut self, plain: &[u8], flags: u8) -> Result<(), ReadError> {
        let mut body = zstd::bulk::compress(plain, LEVEL)?;
        let long = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let mut meta = [0; META];
        let fields = [&[flags][..], &long(plain.len()), &long(body.len() + TAG)];
        for (to, from) in meta.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &nonce(self.number).into(),
                &associated(&meta, &self.digest),
                body.as_mut_slice().into(),
            )
            .map_err(|_| std::io::Error::other("a block of the index cannot be sealed"))?;
        self.number += 1;
        self.out.extend_from_slice(&meta);
        self.out.append(&mut body);
        self.out.extend_from_slice(&tag);
        Ok(())
    }
}

fn associated(meta: &[u8; META], digest: &[u8; 32]) -> Vec<u8> {
    [&meta[..], digest].concat()
}

/// The facts of the session whose index this is. Authentic only once it was searched.
///
/// # Errors
/// [`DecodeError::Malformed`].
pub fn facts(index: &[u8]) -> Result<Header, DecodeError> {
    header(&open(index)?.0)
}

/// The lines of the index that hold the query, the first `limit`.
///
/// # Errors
/// [`DecodeError`]: not an index, changed, or not for any of `identities`.
pub fn search(
    index: &[u8],
    identities: &[Identity],
    query: &Query,
    limit: usize,
) -> Result<Found, DecodeError> {
    let (head, digest, mut rest) = open(index)?;
    let key = DataKey::unwrap(&head.wrapped, identities)?;
    let cipher = key.index_cipher(&digest);
    let mut found = Found::default();
    let mut number = 0;
    loop {
        let (flags, plain) = block(&cipher, &digest, number, &mut rest)?;
        lines(&plain, query, limit, &mut found).map_err(|Malformed(what)| {
            DecodeError::Malformed {
                offset: number,
                what,
            }
        })?;
        number += 1;
        if flags & LAST != 0 {
            found.clipped = flags & CLIPPED != 0;
            // What follows the last block was not written by us.
            let whole = rest.is_empty();
            return whole.then_some(found).ok_or(DecodeError::Inconsistent);
        }
    }
}

/// The recording's head inside, the digest of all that stands before the first block, and the blocks.
fn open(index: &[u8]) -> Result<(Head, [u8; 32], &[u8]), DecodeError> {
    let malformed = |what| DecodeError::Malformed { offset: 0, what };
    let cut = || malformed("the index is cut off");
    let (fixed, rest) = index.split_first_chunk::<FIXED>().ok_or_else(cut)?;
    let (magic, fixed) = fixed.split_first_chunk::<8>().ok_or_else(cut)?;
    let (version, _salt) = fixed.split_first_chunk::<2>().ok_or_else(cut)?;
    if *magic != MAGIC || u16::from_be_bytes(*version) != VERSION {
        return Err(malformed("not a search index of this version"));
    }
    let length = fixed.last_chunk::<4>().copied().map(u32::from_be_bytes);
    let length = to_usize(length.ok_or_else(cut)?);
    let (head, blocks) = rest.split_at_checked(length).ok_or_else(cut)?;
    let digest = Sha256::digest(index.get(..FIXED + length).ok_or_else(cut)?);
    match Head::decode(head).map_err(|Malformed(what)| malformed(what))? {
        Some((head, used)) if used == length => Ok((head, digest.into(), blocks)),
        _ => Err(cut()),
    }
}

fn block(
    cipher: &Aes256Gcm,
    digest: &[u8; 32],
    number: u64,
    rest: &mut &[u8],
) -> Result<(u8, Vec<u8>), DecodeError> {
    let tampered = || DecodeError::Tampered { chunk: number };
    let (meta, behind) = rest.split_first_chunk::<META>().ok_or_else(tampered)?;
    let [flags, a, b, c, d, e, f, g, h] = *meta;
    let plain = to_usize(u32::from_be_bytes([a, b, c, d]));
    let sealed = to_usize(u32::from_be_bytes([e, f, g, h]));
    if plain > MAX_PLAIN {
        return Err(tampered());
    }
    let (body, behind) = behind.split_at_checked(sealed).ok_or_else(tampered)?;
    let (body, tag) = body.split_last_chunk::<TAG>().ok_or_else(tampered)?;
    *rest = behind;
    let mut body = body.to_vec();
    cipher
        .decrypt_inout_detached(
            &nonce(number).into(),
            &associated(meta, digest),
            body.as_mut_slice().into(),
            tag.into(),
        )
        .map_err(|_| tampered())?;
    let unpacked = zstd::bulk::decompress(&body, plain).map_err(|_| tampered())?;
    Ok((flags, unpacked))
}

/// The lines of one block that hold the query.
fn lines(plain: &[u8], query: &Query, limit: usize, found: &mut Found) -> Result<(), Malformed> {
    let shared = bytes::Bytes::copy_from_slice(plain);
    let mut reader = Reader::new(&shared);
    let count = reader.varint()?;
    let mut about = Vec::new();
    let mut at = 0_u64;
    for _ in 0..count {
        at = at.saturating_add(reader.varint()?);
        let channel = reader.varint_u32()?;
        let code = reader.u8()?;
        let kind = Kind::ALL.into_iter().find(|it| it.code() == code);
        let kind = kind.ok_or(Malformed("a line of a kind this version does not know"))?;
        about.push((at, channel, kind));
    }
    let text = shared.get(reader.taken()..).unwrap_or_default();
    for number in matching(text, query) {
        let (Some((at, channel, kind)), Some(line)) = (about.get(number), nth_line(text, number))
        else {
            return Err(Malformed(
                "a block of the index holds other lines than it says",
            ));
        };
        if found.hits.len() >= limit {
            found.more = true;
            return Ok(());
        }
        found.hits.push(Hit {
            at: Span::from_millis(*at),
            channel: *channel,
            kind: *kind,
            line: String::from_utf8_lossy(line).into_owned(),
        });
    }
    Ok(())
}

fn nth_line(text: &[u8], number: usize) -> Option<&[u8]> {
    text.split(|it| *it == b'\n').nth(number)
}

/// The numbers of the lines that hold the query.
fn matching(text: &[u8], query: &Query) -> Vec<usize> {
    let lowered;
    let text = if query.ignore_case {
        lowered = String::from_utf8_lossy(text).to_lowercase();
        lowered.as_bytes()
    } else {
        text
    };
    let mut numbers = Vec::new();
    let (mut counted, mut number) = (0, 0);
    for place in memmem::find_iter(text, query.text.as_bytes()) {
        let between = text.get(counted..place).unwrap_or_default();
        number += memchr::memchr_iter(b'\n', between).count();
        counted = place;
        if numbers.last() != Some(&number) {
            numbers.push(number);
        }
    }
    numbers
}
